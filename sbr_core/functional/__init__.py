"""Tensors in, tensors out: warping, losses, intensity."""
