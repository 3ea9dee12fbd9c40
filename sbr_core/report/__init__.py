"""Pages, figures and the measures they show."""
