"""How good an alignment is: landmark error, overlap and distance of labels, folding, statistics.

Arrays in, numbers out; nothing here reads a file or depends on a brain.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

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


def _in_both(
    labels_a: np.ndarray, labels_b: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Each class that both maps have, but 0, and where it is in either."""
    if labels_a.shape != labels_b.shape:
        raise ValueError(f"labels of shapes {labels_a.shape} and {labels_b.shape}")
    both = np.intersect1d(np.unique(labels_a), np.unique(labels_b))
    for value in both[both != 0]:
        yield int(value), labels_a == value, labels_b == value


def dice(labels_a: np.ndarray, labels_b: np.ndarray) -> dict[int, float]:
    """Overlap `2 |A and B| / (|A| + |B|)` of each class.

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
    out = {}
    for value, a, b in _in_both(labels_a, labels_b):
        out[value] = 2.0 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))
    return out


def surface_distances(
    labels_a: np.ndarray, labels_b: np.ndarray, spacing: float | Sequence[float] = 1.0
) -> dict[int, tuple[float, float]]:
    """How far apart the boundaries of each class lie in two label maps.

    A pixel of a class is on its boundary when one of its 4 neighbours (6 in 3D) is not of the
    class; the edge of the image is no boundary, since anatomy does not end there.

    Parameters
    ----------
    labels_a, labels_b : integers of one shape; 0 is no class.
    spacing : size of a pixel along each axis (row, column), or of a square one.

    Returns
    -------
    Class -> (mean, p95) in the unit of `spacing`, for the classes that have a boundary in both.
    ``mean`` is the average symmetric surface distance: over the boundary pixels of both maps, how
    far each is from the other map's boundary. ``p95`` is the 95 % Hausdorff distance: the larger
    of the two directed 95th percentiles (Maier-Hein et al. 2024, Metrics Reloaded).

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    from scipy import ndimage

    out = {}
    for value, a, b in _in_both(labels_a, labels_b):
        # nothing beyond the two shapes is asked for; a pixel more keeps their outer boundaries
        box = tuple(
            slice(max(s.start - 1, 0), s.stop + 1) for s in ndimage.find_objects((a | b) * 1)[0]
        )
        a, b = a[box], b[box]
        surface_a, surface_b = (m & ~ndimage.binary_erosion(m, border_value=1) for m in (a, b))
        if not (surface_a.any() and surface_b.any()):
            continue
        from_a = ndimage.distance_transform_edt(~surface_b, spacing)[surface_a]
        from_b = ndimage.distance_transform_edt(~surface_a, spacing)[surface_b]
        out[value] = (
            float(np.concatenate([from_a, from_b]).mean()),
            max(float(np.percentile(way, 95)) for way in (from_a, from_b)),
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


@dataclass(frozen=True)
class PairedTest:
    """The result of a paired comparison of two methods.

    Attributes
    ----------
    n : pairs.
    median_difference : of value minus reference, in the unit of the values.
    rank_biserial : (W+ - W-) / (W+ + W-), W the sums of the ranks of the positive and of the
        negative differences: 1 if every value is above its reference, -1 if every one is below.
    p : two-sided, in [0, 1].
    """

    n: int
    median_difference: float
    rank_biserial: float
    p: float


def paired_wilcoxon(
    values: Mapping[str, float], reference: Mapping[str, float]
) -> PairedTest | None:
    """Wilcoxon's signed-rank test, two-sided, of the pairs that both sides have.

    Pairs without a difference are ranked with the rest and their ranks dropped (Pratt 1959), so
    that sections which a method leaves as they are count against it having an effect. Equal
    differences share the mean of their ranks. The p value is exact up to 50 pairs without ties or
    zeros, and up to 13 pairs with any; otherwise by the normal approximation, its variance less
    what ties and zeros take, without a correction for continuity.

    Parameters
    ----------
    values, reference : section -> value; a section that one of them lacks, or where it is not
        finite, is left out.

    Returns
    -------
    None without a pair.
    """
    from scipy import stats

    pairs = [(values[key], reference[key]) for key in values if key in reference]
    differences = np.array([a - b for a, b in pairs if math.isfinite(a) and math.isfinite(b)])
    if not differences.size:
        return None
    ranks = np.where(differences == 0, 0.0, stats.rankdata(np.abs(differences)))
    p, effect = 1.0, 0.0
    if ranks.any():
        p = float(stats.wilcoxon(differences, zero_method="pratt").pvalue)
        effect = float((np.sign(differences) * ranks).sum() / ranks.sum())
    return PairedTest(differences.size, float(np.median(differences)), effect, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values of one family of tests, adjusted by Holm's step-down procedure (1979)."""
    from statsmodels.stats.multitest import multipletests

    if not p_values:
        return []
    return [float(p) for p in multipletests(p_values, method="holm")[1]]
