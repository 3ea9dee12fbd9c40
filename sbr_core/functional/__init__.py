"""Tensors in, tensors out: warping, similarity, regularity, contrast, intensity."""
