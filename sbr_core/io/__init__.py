"""The only room that knows file formats: images, volumes, transforms, weights, tables."""
