"""How far tissue moves at which scale, as measured on real sections, and swirls that do the same.

The measure is the root mean square of the displacement's length over tissue, in bands of scale:
what a Gaussian of `EDGES_MM[0]` takes away, what lies between one Gaussian and the next, and what
the last one leaves. Gaussians are normalised by the tissue they see, so glass has no part in it.

What is drawn are discs of four sizes, each size the strength that its band asks for: a few as large
as the section, and lattices of small ones, coarse to fine.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from sbr_core.algorithms.simulation.damage import extent_of
from sbr_core.algorithms.simulation.swirls import CELL_RADII, affine_residual_mm, undo_swirls

EDGES_MM = (0.75, 1.5, 3.0, 6.0, 12.0)
"""Standard deviations of the Gaussians that bound the bands, in a brain of `REAL_EXTENT_MM`."""
REAL_MM = (0.06, 0.11, 0.23, 0.36, 0.40, 0.71)
"""Displacement in each band, from below the first edge to above the last: what brings the labels of
the Allen data set's sections, which are aligned linearly, and of their MRI planes together."""
REAL_EXTENT_MM = 79.0
"""Size of the brain, a human hemisphere, they are of: the 0.9 quantile of `damage.extent_of` its
sections. Scales and displacements of a brain of another size are in proportion."""
REAL_MEAN_MM = 1.22
"""Mean displacement of tissue by deformations with these bands."""
STRONGEST = 4.0
"""Largest strength: the strongest swirls turn by 1.4 radian and stretch by 0.4. Stronger ones fold
no more, but squeeze tissue more than a section is."""

_LATTICES = (*3 * [(12.0, 0.36)], *2 * [(6.0, 0.17)], *2 * [(2.2, 0.155)])
"""Radius in mm, in a brain of `REAL_EXTENT_MM`, and largest twist of the discs of each lattice. The
radii differ by up to a tenth, drawn anew, so that two lattices of one size are never one."""
_N_LARGE, _LARGE_EXTENTS, _LARGE_TWIST = 6, (1.0, 1.4), 0.138
"""Large swirls, whose radii are these shares of the brain's extent: what an affine leaves of
anything smaller is not smooth enough for the last band."""
_LARGE_MEAN, _LARGE_FACTORS = 0.012, (0.5, 2.5)
"""What the best affine leaves of them, in the mean, as a share of the section's extent. They are
mostly affine, and what is not differs much by chance, so they are made so many times as strong."""
_LARGE_SPREAD, _MARGIN = 0.6, 0.03
"""How far outside tissue the centres of large swirls lie (standard deviation), and those of small
ones at most, if not by their radius; shares of the brain's extent."""
_TWISTS, _STRETCHES = (0.5, 1.0), (0.1, 0.3)
"""Shares of the largest twist. Stretches are less: they change areas, and twists do not."""


def draw_swirls(
    tissue_mm: np.ndarray, brain_extent_mm: float, rng: np.random.Generator
) -> np.ndarray:
    """Swirls (n, 5) that move the tissue of one section as reality does, at strength 1.

    Parameters
    ----------
    tissue_mm : (n, 2) plane mm of points all over the tissue.
    brain_extent_mm : size of the brain, as `REAL_EXTENT_MM` is that of Allen's.
    """

    def swirls(centres: np.ndarray, radii: np.ndarray, twist: float) -> np.ndarray:
        signs = rng.choice([-1, 1], (2, len(centres)))
        shares = [rng.uniform(*limits, len(centres)) for limits in (_TWISTS, _STRETCHES)]
        return np.column_stack([centres, radii, *(twist * signs * shares)])

    chosen = tissue_mm[rng.integers(0, len(tissue_mm), _N_LARGE)]
    centres = chosen + rng.normal(0, _LARGE_SPREAD * brain_extent_mm, chosen.shape)
    radii = rng.uniform(*_LARGE_EXTENTS, _N_LARGE) * brain_extent_mm
    large = swirls(centres, radii, _LARGE_TWIST)
    left_mm = affine_residual_mm(tissue_mm, undo_swirls(tissue_mm, large)).mean()
    wanted_mm = _LARGE_MEAN * min(extent_of(tissue_mm), brain_extent_mm)
    drawn = [strengthened(large, np.clip(wanted_mm / max(left_mm, 1e-9), *_LARGE_FACTORS))]
    tree = cKDTree(tissue_mm)
    for typical, twist in _LATTICES:
        radius = typical * brain_extent_mm / REAL_EXTENT_MM * rng.uniform(0.9, 1.1)
        centres = _lattice(tissue_mm, radius, rng)
        near = tree.query(centres)[0] < max(radius, _MARGIN * brain_extent_mm)
        near[0] = True  # the lattice is around it
        drawn.append(swirls(centres[near], np.full(near.sum(), radius), twist))
    return np.concatenate(drawn)


def strengthened(swirls: np.ndarray, strength: float) -> np.ndarray:
    """Swirls (n, 5) whose twists and stretches are `strength` times as large."""
    return swirls * [1.0, 1.0, 1.0, strength, strength]


def _lattice(tissue_mm: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Centres (n, 2) of discs, each alone in its cell of a lattice over the tissue around the
    first."""
    side = CELL_RADII * radius
    low, high = tissue_mm.min(axis=0), tissue_mm.max(axis=0)
    first = (low + high) / 2 + rng.uniform(-0.5, 0.5, 2) * side
    reach = np.ceil((high - low) / 2 / side).astype(int) + 1
    axes = [np.arange(-n, n + 1) for n in reach]
    cells = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    cells = cells[np.argsort(np.abs(cells).sum(axis=1), kind="stable")]
    off = rng.uniform(-1, 1, cells.shape) * 0.99 * (CELL_RADII / 2 - 1) * radius
    off[0] = 0
    return first + cells * side + off


def power_by_scale(
    displacement_mm: np.ndarray, tissue: np.ndarray, spacing_mm: float, brain_extent_mm: float
) -> np.ndarray:
    """Mean square of a displacement over tissue in each band, mm² (6,), as `REAL_MM` squared is.

    Parameters
    ----------
    displacement_mm : (rows, columns, 2); values outside tissue do not count.
    tissue : (rows, columns) bool.
    brain_extent_mm : size of the brain; the bands' edges are in proportion.
    """
    weight = tissue.astype(float)
    smooth = [displacement_mm]
    for edge in EDGES_MM:
        sigma = edge * brain_extent_mm / REAL_EXTENT_MM / spacing_mm
        seen = gaussian_filter(weight, sigma, mode="constant")
        parts = gaussian_filter(
            displacement_mm * weight[..., None], (sigma, sigma, 0), mode="constant"
        )
        smooth.append(parts / np.maximum(seen, 1e-12)[..., None])
    smooth.append(np.zeros_like(displacement_mm))
    return np.array(
        [
            ((finer - coarser)[tissue] ** 2).sum(axis=-1).mean()
            for finer, coarser in pairwise(smooth)
        ]
    )


def expected_by_scale_mm(mean_mm: float) -> np.ndarray:
    """Displacement in each band (6,), mm, of a real deformation of this mean displacement."""
    return np.array(REAL_MM) * mean_mm / REAL_MEAN_MM
