"""In which ways a section's affine moves from its prior, and what landmarks ask of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sbr_core.algorithms.alignment.stretch import stretch_of, with_stretch
from sbr_core.geometry import apply

GENERATORS = np.array(
    [[[0, -1], [1, 0]], [[1, 0], [0, 1]], [[1, 0], [0, -1]], [[0, 1], [1, 0]]], float
)
"""Of a small motion: rotation, scale, stretch, shear."""
_PULL = 0.015
"""Cost of a landmark 1 mm off, as a share of the whole misfit: a few come to within 1 mm. With
three times as much they come nearer and the rest of the section farther, since the affine then
follows what deforms around each (benchmarks/2026-12-01_corrections.md)."""


@dataclass(frozen=True)
class AffineLimits:
    """How far a section's affine may leave its prior.

    Attributes
    ----------
    max_scale_change : largest relative change of size; 0.3 allows factors 1/1.3 to 1.3.
    max_shear : largest logarithmic stretch of one direction against the one across it.
    prior_weight : cost of reaching one of these limits, in units of the whole misfit; 0 leaves
        only the limits.
    """

    max_scale_change: float = 0.3
    max_shear: float = 0.3
    prior_weight: float = 1.0


@dataclass(frozen=True)
class Motion:
    """p -> c + linear (p - c) + shift, plane mm."""

    linear: np.ndarray
    shift: np.ndarray

    def matrix(self, centre: np.ndarray) -> np.ndarray:
        """(3, 3) of it about a centre (2,)."""
        out = np.eye(3)
        out[:2, :2] = self.linear
        out[:2, 2] = centre + self.shift - self.linear @ centre
        return out

    def stretch(self) -> np.ndarray:
        """(scale, stretch of x against y, shear), logarithmic."""
        log = stretch_of(self.linear)[1]
        return np.array([(log[0, 0] + log[1, 1]) / 2, (log[0, 0] - log[1, 1]) / 2, log[0, 1]])

    def step(self, delta: np.ndarray, limits: AffineLimits) -> Motion:
        """Followed by a small motion (rotation, three stretches, two shifts), within limits."""
        r, s, a, b = delta[:4]
        small = with_stretch(
            np.array([[np.cos(r), -np.sin(r)], [np.sin(r), np.cos(r)]]),
            np.array([[s + a, b], [b, s - a]]),
        )
        linear = self.linear @ small
        rotation, log = stretch_of(linear)
        s, a, b = Motion(linear, self.shift).stretch()
        largest = np.log1p(limits.max_scale_change)
        s = float(np.clip(s, -largest, largest))
        shear = np.hypot(a, b)
        if shear > limits.max_shear:
            a, b = np.array([a, b]) * (limits.max_shear / shear)
        log = np.array([[s + a, b], [b, s - a]])
        return Motion(with_stretch(rotation, log), self.shift + self.linear @ delta[4:])


STILL = Motion(np.eye(2), np.zeros(2))


@dataclass(frozen=True)
class LandmarkPull:
    """What it costs that landmarks of a section do not come to lie where they belong.

    The square of each one's distance; those that contradict the others were left out before.

    Attributes
    ----------
    plane_mm, section_mm : (n, 2) points of the plane, and of the section.
    """

    plane_mm: np.ndarray
    section_mm: np.ndarray

    def cost(self, section_from_plane_mm: np.ndarray) -> float:
        """Of an affine (3, 3)."""
        apart_mm = apply(section_from_plane_mm, self.plane_mm) - self.section_mm
        return _PULL * float((apart_mm**2).sum())

    def equations(
        self, section_from_plane_mm: np.ndarray, centre: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Half the gradient (6,) and half the Hessian (6, 6) of the cost in a small motion.

        Parameters
        ----------
        centre : (2,), plane mm, of the motion.
        """
        linear = section_from_plane_mm[:2, :2]
        apart_mm = apply(section_from_plane_mm, self.plane_mm) - self.section_mm
        moved = np.einsum("ij,kjl,nl->nik", linear, GENERATORS, self.plane_mm - centre)
        shifted = np.broadcast_to(linear, (len(moved), 2, 2))
        jacobian = np.concatenate([moved, shifted], axis=2).reshape(-1, 6)
        return _PULL * jacobian.T @ apart_mm.ravel(), _PULL * jacobian.T @ jacobian
