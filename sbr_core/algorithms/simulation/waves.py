"""Smooth random fields."""

from __future__ import annotations

import math

import numpy as np


class Waves:
    """A smooth random field: a sum of plane waves, about unit variance, at points of any number.

    Parameters
    ----------
    rng : source of the directions and phases.
    dimensions : of the points.
    wavelength_mm : (shortest, longest).
    """

    def __init__(
        self,
        rng: np.random.Generator,
        dimensions: int,
        wavelength_mm: tuple[float, float],
        n_waves: int = 8,
    ) -> None:
        direction = rng.normal(size=(n_waves, dimensions))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        length = rng.uniform(*wavelength_mm, size=(n_waves, 1))
        self.wave_vectors = 2 * math.pi * direction / length
        self.phases = rng.uniform(0, 2 * math.pi, n_waves)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Values (...) float32 at points (..., dimensions) in mm."""
        total = np.zeros(points.shape[:-1], np.float32)
        for vector, phase in zip(self.wave_vectors, self.phases, strict=True):
            total += np.cos((points @ vector + phase).astype(np.float32))
        return total * math.sqrt(2 / len(self.phases))
