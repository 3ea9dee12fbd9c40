"""Whether a mask is one, and whether labels are whole numbers that somebody drew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from sbr_core.algorithms.plausibility.finding import Verdict

_LEVELS = 16
"""Distinct values from which on a mask may be a map of probabilities; fewer may be regions."""
_FLAT = 0.6
"""Share of a region's pixels that equal the one beside them; of a slope fewer do."""
_WORTH = 1.03
"""Times as large as above half its greatest value a mask may be above 0: smoothed edges are."""
_WRONG = 1.5
"""Times as large, from which on it cannot serve."""
_ABRUPT = 0.1
"""Share of its brightest values that the outermost ones above 0 of a stripped image have, if not
more: of bigbrain's MRI 0.2. A map of probabilities falls to next to nothing first."""
_SAME = 0.25
"""Share of the tissue that an inverted mask holds at most."""
_CLEARLY = 0.2
"""By how much Dice's overlap with the picture's tissue must grow when a mask is mirrored."""
_STRAY = 3
"""Ids without any pixel that is surrounded by its like, from which on a JPEG smeared them."""
_FROM_JPEG = 20
"""So many, and most of all ids, in a file that is no JPEG: it was one, or was interpolated."""
_MIRRORS = {
    "left and right": np.s_[..., ::-1],
    "top and bottom": np.s_[::-1],
    "half a turn": np.s_[::-1, ::-1],
}


@dataclass(frozen=True)
class Doubt:
    """What speaks against a mask, a label image or the like; empty words where nothing does."""

    verdict: Verdict
    words: str = ""


FINE = Doubt("fine")


def doubt_of_values(values: np.ndarray, *, is_jpeg: bool = False) -> Doubt:
    """Whether the values of a mask, of which all above 0 count as tissue, are those of a mask.

    Parameters
    ----------
    values : 2D or 3D, of any type, as stored.
    is_jpeg : the file is a JPEG, whose edges are smeared.
    """
    above = np.count_nonzero(values > 0)
    if above == 0:
        return Doubt("refused", "is empty: no value above 0")
    top = float(values.max())
    levels = np.unique(values[values > 0])
    between = (values > 0) & (values < top)
    if levels.size < _LEVELS or np.count_nonzero(between) < 0.001 * above:
        return FINE
    flat = between[..., 1:] & (values[..., 1:] == values[..., :-1])
    if np.count_nonzero(flat) > _FLAT * np.count_nonzero(between):
        return FINE  # regions with ids of their own
    times = above / max(np.count_nonzero(values > top / 2), 1)
    if times < _WORTH:
        return FINE
    is_image = not is_jpeg and _ends_abruptly(values)
    what = "is a JPEG, which smears edges" if is_jpeg else "looks like a map of probabilities"
    what = "is an image with edges, not of 0 and 1" if is_image else what
    words = (
        f"{what}: {levels.size} different values up to {top:g}; all above 0 is taken for tissue,"
        f" {times:.3g} times as much as above {top / 2:g}: save {'it as PNG, ' * is_jpeg}1 above"
        f" {top / 2:g} and 0 elsewhere"
    )
    return Doubt("refused" if times > _WRONG and not is_image else "doubtful", words)


def _ends_abruptly(values: np.ndarray) -> bool:
    """Whether values are well above 0 where they begin, as in an image without its surroundings."""
    inside = values > 0
    outermost = inside & ~ndimage.binary_erosion(inside, border_value=1)
    if not outermost.any():
        return False
    brightest = np.quantile(values[inside], 0.99)
    return bool(np.median(values[outermost]) >= _ABRUPT * brightest)


def doubt_of_place(mask: np.ndarray, tissue: np.ndarray) -> Doubt:
    """Whether a mask lies on the tissue that is found without it.

    Parameters
    ----------
    mask, tissue : 2D or 3D bool, on one grid; the second as found in the picture.
    """
    found = np.count_nonzero(tissue)
    if found == 0 or not mask.any():
        return FINE
    within = np.count_nonzero(mask & tissue) / found
    if mask.all():
        return (
            FINE
            if within == found / mask.size
            else Doubt("doubtful", "is set everywhere, also where nothing is found")
        )
    if within < _SAME and share_of_border(mask) > 0.5:
        return Doubt(
            "refused",
            f"is inverted: it holds the background and {within:.0%} of the tissue; save its"
            " inverse",
        )
    overlap = dice(mask, tissue)
    if mask.ndim == 2 and overlap < 1 - _CLEARLY:
        for name, how in _MIRRORS.items():
            if (other := dice(mask[how], tissue)) > overlap + _CLEARLY:
                return Doubt(
                    "doubtful",
                    f"overlaps with the tissue by {overlap:.2f} (Dice), and by {other:.2f} mirrored"
                    f" ({name})",
                )
    if within < _SAME:
        return Doubt("doubtful", f"holds {within:.0%} of the tissue that is found: of another one?")
    return FINE


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Twice what two masks share over the sum of both, 0 to 1."""
    return 2 * np.count_nonzero(a & b) / max(np.count_nonzero(a) + np.count_nonzero(b), 1)


def share_of_border(mask: np.ndarray) -> float:
    """How much of the outermost layer of the grid is set, 0 to 1."""
    outer = np.ones(mask.shape, bool)
    outer[(slice(1, -1),) * mask.ndim] = False
    return float(np.mean(mask[outer]))


def stray_ids(labels: np.ndarray) -> np.ndarray:
    """Ids of which no pixel is surrounded by its like: what a lossy format leaves along edges.

    Parameters
    ----------
    labels : (rows, columns), whole numbers.
    """
    inner = labels[1:-1, 1:-1]
    alike = (inner == labels[:-2, 1:-1]) & (inner == labels[2:, 1:-1])
    alike &= (inner == labels[1:-1, :-2]) & (inner == labels[1:-1, 2:])
    return np.setdiff1d(np.unique(labels), np.unique(inner[alike]))


def doubt_of_labels(labels: np.ndarray, *, is_jpeg: bool = False) -> Doubt:
    """Whether an image of labels has those that somebody drew.

    ``refused``, where it was smeared by JPEG for certain.
    """
    ids, stray = np.unique(labels), stray_ids(labels)
    words = (
        f"has {ids.size} ids, of which {stray.size} are only specks along edges:"
        f" {'a JPEG smears them' if is_jpeg else 'was it a JPEG once, or interpolated?'};"
        " export it as PNG or TIFF"
    )
    if is_jpeg and stray.size >= _STRAY:
        return Doubt("refused", words)
    if stray.size >= _FROM_JPEG and stray.size > 0.8 * ids.size:
        return Doubt("doubtful", words)
    return FINE
