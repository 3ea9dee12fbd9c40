"""Where a point, a shape or an image of one space lies in another, by the published transforms."""
