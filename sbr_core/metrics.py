"""How good an alignment is: landmark error, overlap of labels, folding.

Arrays in, numbers out; nothing here reads a file or knows of a brain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np


def landmark_summary(
    errors_mm: Mapping[str, np.ndarray], percentiles: Sequence[float]
) -> dict[str, tuple[float, int]]:
    """Statistics of landmark errors.

    Parameters
    ----------
    errors_mm : section -> (n,) distances, mm; sections without landmarks do not count.
    percentiles : in [0, 100].

    Returns
    -------
    Statistic -> (value in mm, how many values it is of): ``mean``, the mean over sections of each
    section's mean, so that a section with many landmarks weighs no more than another; ``rmse`` and
    ``p50`` and so on over all landmarks. Empty without landmarks.
    """
    present = [np.asarray(e, float).ravel() for e in errors_mm.values() if np.size(e)]
    if not present:
        return {}
    every = np.concatenate(present)
    out = {
        "mean": (float(np.mean([e.mean() for e in present])), len(present)),
        "rmse": (math.sqrt(float(np.mean(every**2))), every.size),
    }
    for p in percentiles:
        out[f"p{p:g}"] = (float(np.percentile(every, p)), every.size)
    return out


def dice(labels_a: np.ndarray, labels_b: np.ndarray) -> dict[int, float]:
    """Overlap 2 |A and B| / (|A| + |B|) of each class.

    Parameters
    ----------
    labels_a, labels_b : integers of one shape; 0 is no class.

    Returns
    -------
    Class -> Dice in [0, 1] for the classes present in both. A class that one of the maps lacks
    has no overlap to speak of, and is left out.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if labels_a.shape != labels_b.shape:
        raise ValueError(f"labels of shapes {labels_a.shape} and {labels_b.shape}")
    both = np.intersect1d(np.unique(labels_a), np.unique(labels_b))
    out = {}
    for value in both[both != 0]:
        a, b = labels_a == value, labels_b == value
        out[int(value)] = (
            2.0 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))
        )
    return out


def least_determinant(disp: np.ndarray, spacing: float = 1.0) -> np.ndarray:
    """The smallest Jacobian determinant that one-sided differences find at each pixel.

    Central differences skip a pixel that has jumped over its neighbour. Here each pixel is
    compared with its left or right and its upper or lower neighbour, all four ways, so a grid
    without a determinant <= 0 has no folded cell.

    Parameters
    ----------
    disp : (rows, columns, 2) displacement (x, y): p goes to p + disp(p).
    spacing : side of a pixel, in the unit of `disp`.

    Returns
    -------
    (rows, columns), 1 where nothing is deformed.
    """
    disp = np.asarray(disp, float) / spacing
    rows, columns = disp.shape[:2]
    if rows < 2 or columns < 2:
        raise ValueError(f"a field of shape {disp.shape[:2]} has no neighbours to compare")
    by_x = np.diff(disp, axis=1) + np.array([1.0, 0.0])
    by_y = np.diff(disp, axis=0) + np.array([0.0, 1.0])
    right = np.concatenate([by_x, by_x[:, -1:]], axis=1)
    left = np.concatenate([by_x[:, :1], by_x], axis=1)
    below = np.concatenate([by_y, by_y[-1:]], axis=0)
    above = np.concatenate([by_y[:1], by_y], axis=0)
    return np.min(
        [
            dx[..., 0] * dy[..., 1] - dx[..., 1] * dy[..., 0]
            for dx in (left, right)
            for dy in (above, below)
        ],
        axis=0,
    )


def folding(disp: np.ndarray, mask: np.ndarray, spacing: float = 1.0) -> float:
    """Share of the pixels in `mask` where the deformation folds (determinant <= 0), in [0, 1].

    Parameters
    ----------
    disp : (rows, columns, 2) displacement (x, y).
    mask : (rows, columns); where it is not 0 counts. NaN if that is nowhere.
    spacing : side of a pixel, in the unit of `disp`.
    """
    inside = np.asarray(mask) != 0
    if not inside.any():
        return math.nan
    return float(np.mean(least_determinant(disp, spacing)[inside] <= 0))
