"""Uneven light and uneven staining: across one section, and from section to section.

Across a section the glass shows how the light falls off, where there is glass; how unevenly the
dye was taken up only the tissue shows, and there it is easily taken for anatomy. So both fields
are of low order, and are used only when they are larger than those of ordinary sections.

From section to section, neighbours that lie on each other are compared pixel by pixel, which gives
how much darker one is than the next, whatever their anatomy, holes and tears.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.optimize import linprog

from sbr_core.algorithms.robust import MAD_TO_SIGMA, median_and_spread

LIGHT_ORDER, STAINING_ORDER = 2, 3
"""Of the polynomials. Light falls off from one place, as a parabola does. Dye may lack at a side
and in the middle at once; a higher order would follow lobes and ventricles."""
CLEAR_LIGHT = 1.06
"""Brightest light over faintest, across a section, from which on it counts as uneven. No
light is evened in BigBrain's 160 raw sections, and one made to fall off by 1.3 is always found."""
_NEAR_GLASS, _GLASS_NOISE = 0.06, 0.015
"""Logarithms: how far from the surface of the light a pixel may be glass (about that of
`CLEAR_LIGHT`), and how much glass may scatter about it; a surface through tissue scatters more."""
CLEAR_STAINING = 1.6
"""The same of staining. N4 finds up to 1.45 in BigBrain's sections."""
CLEAR_JUMP = 0.03
"""How far sections are from the mean of their neighbours, as a share, to count as uneven. Evening
leaves jumps of 2 % in BigBrain, of the 13 % there were."""


# --------------------------------------------------------------------------------------------
# Across one section
# --------------------------------------------------------------------------------------------


def least_squares(design: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(k,) coefficients that leave the least squares of (n, k) @ coefficients - (n,)."""
    return np.linalg.lstsq(design, values, rcond=None)[0]


def upper_surface(design: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(k,) coefficients below which four fifths of the values lie: quantile regression, exactly.

    A point above the surface costs four times what one below costs; least costs by linear
    programming.
    """
    n, k = design.shape
    costs = np.concatenate([np.zeros(k), np.full(n, 0.8), np.full(n, 0.2)])
    identity = np.eye(n)
    solution = linprog(
        costs,
        A_eq=np.hstack([design, identity, -identity]),
        b_eq=values,
        bounds=[(None, None)] * k + [(0, None)] * (2 * n),
    )
    return solution.x[:k] if solution.success else least_squares(design, values)


@dataclass(frozen=True)
class SmoothField:
    """A smooth positive factor over an image: the exponential of a polynomial.

    It is a function of x and y, which run from -1 to 1 between the outer edges of the image, so it
    holds at every resolution.

    Attributes
    ----------
    coefficients : (order + 1, order + 1) nested; entry [i][j] belongs to x^i y^j.
    lowest, highest : limits of the polynomial.
    """

    coefficients: tuple[tuple[float, ...], ...]
    lowest: float
    highest: float

    @classmethod
    def fit(
        cls,
        xy: np.ndarray,
        log_values: np.ndarray,
        order: int,
        within: np.ndarray | None = None,
        solve: Callable[[np.ndarray, np.ndarray], np.ndarray] = least_squares,
    ) -> SmoothField:
        """Fit the polynomial.

        Parameters
        ----------
        xy : (n, 2).
        log_values : (n,), natural logarithm of the factor.
        order : largest i + j.
        within : (m, 2) points over which the factor may vary as it likes; elsewhere it stays within
            what it is there. The points of the fit, if not given.
        solve : makes coefficients (k,) of a design (n, k) and values (n,).
        """
        powers = [(i, j) for i in range(order + 1) for j in range(order + 1 - i)]

        def basis_at(points: np.ndarray) -> np.ndarray:
            return np.stack([points[:, 0] ** i * points[:, 1] ** j for i, j in powers], axis=-1)

        basis = basis_at(xy)
        solution = solve(basis, log_values)
        table = np.zeros((order + 1, order + 1))
        for (i, j), value in zip(powers, solution, strict=True):
            table[i, j] = value
        used = (basis if within is None else basis_at(within)) @ solution
        return cls(tuple(map(tuple, table.tolist())), float(used.min()), float(used.max()))

    def log_at(self, xy: np.ndarray) -> np.ndarray:
        """(...) logarithm of the factor at points (..., 2)."""
        value = np.polynomial.polynomial.polyval2d(xy[..., 0], xy[..., 1], self.coefficients)
        return np.clip(value, self.lowest, self.highest)

    def over(self, shape: tuple[int, int]) -> np.ndarray:
        """(rows, columns) float32 factor at every pixel of an image."""
        y, x = (2 * (np.arange(n) + 0.5) / n - 1 for n in shape)
        value = np.polynomial.polynomial.polygrid2d(x, y, self.coefficients).T
        return np.exp(np.clip(value, self.lowest, self.highest)).astype(np.float32)

    def shifted(self, log_value: float) -> SmoothField:
        """The field times a constant."""
        table = [list(row) for row in self.coefficients]
        table[0][0] += log_value
        low, high = self.lowest + log_value, self.highest + log_value
        return SmoothField(tuple(map(tuple, table)), low, high)

    def cell(self) -> str:
        """Itself in one cell of a table."""
        return json.dumps([self.coefficients, self.lowest, self.highest], separators=(",", ":"))

    @classmethod
    def of_cell(cls, cell: str) -> SmoothField | None:
        """What `cell` wrote; None of an empty cell."""
        if not cell:
            return None
        table, lowest, highest = json.loads(cell)
        coefficients = tuple(tuple(float(value) for value in row) for row in table)
        return cls(coefficients, float(lowest), float(highest))


def unit_square(px: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pixels (..., 2) of an image, (column, row), in the coordinates of its `SmoothField`."""
    return 2 * (np.asarray(px, float) + 0.5) / np.array(shape[::-1]) - 1


def light_field(image: np.ndarray, *, always: bool = False) -> SmoothField | None:
    """How the light falls off over a section on glass, 1 at the median of the glass.

    Around the border, the brightest of each tile is glass, if there is any. A surface on which most
    of them lie is refined by all the pixels near it.

    Parameters
    ----------
    image : (rows, columns), intensity proportional to light, bright background.
    always : give the field even if the light is even; None still where there is hardly any glass.
    """
    step = max(1, round(max(image.shape) / 256))
    coarse = _block_means(image, step)
    if min(coarse.shape) < 16 or coarse.max() <= 0:
        return None
    log = np.log(np.maximum(coarse, 1e-3 * float(coarse.max())))
    rows, columns = np.indices(coarse.shape)
    xy = unit_square(np.stack([columns, rows], axis=-1), coarse.shape)

    corners = xy.reshape(-1, 2)  # glass is all around, so nothing is extrapolated far
    tile = max(4, min(coarse.shape) // 12)
    brightest, places = [], []
    for row in range(0, coarse.shape[0] - tile + 1, tile):
        for column in range(0, coarse.shape[1] - tile + 1, tile):
            part = slice(row, row + tile), slice(column, column + tile)
            if np.abs(xy[part]).max(axis=-1).min() < 0.6:
                continue
            brightest.append(np.quantile(log[part], 0.9))
            places.append(xy[part].mean(axis=(0, 1)))
    heights, places = np.array(brightest), np.array(places)
    surface = SmoothField.fit(places, heights, LIGHT_ORDER, corners, upper_surface)
    for _ in range(5):
        off = log - surface.log_at(xy)
        near = np.abs(off) < _NEAR_GLASS
        if near.mean() < 0.05:
            return None
        width = max(0.004, 2.5 * MAD_TO_SIGMA * float(np.median(np.abs(off[near]))))
        glass = np.abs(off - np.median(off[near])) < width
        surface = SmoothField.fit(xy[glass], log[glass], LIGHT_ORDER, corners)
    light = surface.log_at(xy[glass])
    noise = float(np.std(log[glass] - light))
    low, high = np.quantile(surface.log_at(xy), [0.02, 0.98])
    clear = np.exp(high - low) >= CLEAR_LIGHT and high - low > 4 * noise
    # glass is even but for the light; a surface through tissue is not
    if noise > _GLASS_NOISE or not (clear or always) or not _all_around(xy[glass]):
        return None
    return surface.shifted(-float(np.median(light)))


def _all_around(xy: np.ndarray) -> bool:
    """Whether points lie in at least three quadrants, so that a surface is held all around."""
    quadrant = (xy[:, 0] > 0).astype(int) + 2 * (xy[:, 1] > 0)
    return int((np.bincount(quadrant, minlength=4) > 0.02 * len(xy)).sum()) >= 3


def _block_means(image: np.ndarray, step: int) -> np.ndarray:
    rows, columns = (n // step * step for n in image.shape)
    blocks = image[:rows, :columns].reshape(rows // step, step, columns // step, step)
    return blocks.mean(axis=(1, 3), dtype=np.float64)


def staining_field(
    signal: np.ndarray, mask: np.ndarray, xy: np.ndarray, *, always: bool = False
) -> SmoothField | None:
    """How much more dye the tissue took here than there, 1 at its median, by N4.

    N4 looks for the smooth factor without which the histogram of the tissue is sharpest, so white
    and grey matter may be distributed in any way [1]_.

    Parameters
    ----------
    signal : (rows, columns), tissue above a background of 0; a working image.
    mask : (rows, columns), its tissue.
    xy : (rows, columns, 2), its pixels in the coordinates of the field.
    always : give the field even if the staining is even; None still where there is little tissue.

    References
    ----------
    .. [1] Tustison et al., N4ITK: improved N3 bias correction, IEEE TMI 29 (2010) 1310-1320.
    """
    import SimpleITK as sitk

    # the field is smooth and N4 slow
    step = max(1, math.ceil(max(signal.shape) / 80))
    share = _block_means(np.asarray(mask) > 0, step)
    signal = _block_means(np.where(mask, signal, 0), step) / np.maximum(share, 1e-6)
    xy = np.stack([_block_means(xy[..., axis], step) for axis in (0, 1)], axis=-1)
    mask = share > 0.5
    if np.count_nonzero(mask) < 100:
        return None
    floor = 0.05 * float(np.median(signal[mask]))
    if floor <= 0:
        return None
    image = sitk.GetImageFromArray(np.maximum(signal, floor).astype(np.float32))
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations([50, 50])
    n4.SetNumberOfControlPoints([4, 4])
    n4.SetConvergenceThreshold(1e-4)
    n4.SetNumberOfThreads(1)  # several would sum up in any order
    n4.Execute(image, sitk.GetImageFromArray(mask.astype(np.uint8)))
    log = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image))[mask].astype(float)
    field = SmoothField.fit(xy[mask], log, STAINING_ORDER)
    fitted = field.log_at(xy[mask])
    low, high = np.quantile(fitted, [0.05, 0.95])
    if np.exp(high - low) < CLEAR_STAINING and not always:
        return None
    return field.shifted(-float(np.median(fitted)))


# --------------------------------------------------------------------------------------------
# From section to section
# --------------------------------------------------------------------------------------------


def log_ratio(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """How much more the second of two neighbouring sections is stained, where both have tissue.

    Parameters
    ----------
    first, second : (rows, columns) of one grid, lying on each other, background 0.

    Returns
    -------
    median : of the logarithm of second over first.
    error : of that median, as if one pixel in 25 were independent; infinite where fewer than 100
        pixels have tissue in both.
    """
    smooth = [ndimage.gaussian_filter(np.asarray(s, np.float32), 1.5) for s in (first, second)]
    tissue = np.ones(smooth[0].shape, bool)
    for image in smooth:
        positive = image[image > 0]
        if positive.size == 0:
            return 0.0, np.inf
        # the median of what is above the mean is tissue, however large the background
        level = float(np.median(positive[positive >= positive.mean()]))
        tissue &= image > 0.3 * level
    n = np.count_nonzero(tissue)
    if n < 100:
        return 0.0, np.inf
    logs = np.log(smooth[1][tissue]) - np.log(smooth[0][tissue])
    median, spread = median_and_spread(logs, 0.01)
    return median, spread / np.sqrt(n / 25)


def section_levels(
    n_sections: int, links: Sequence[tuple[int, int, float, float]], *, iterations: int = 20
) -> np.ndarray:
    """How strongly each section is stained, from ratios between pairs of sections.

    Parameters
    ----------
    links : (first, second, log ratio, its error) of pairs; those of infinite error are left out.

    Returns
    -------
    (n_sections,) logarithm of the level, mean 0 over what hangs together. Pairs that contradict the
    others, as those of a torn section may, count less (Huber).
    """
    links = [link for link in links if np.isfinite(link[3])]
    if not links:
        return np.zeros(n_sections)
    design = np.zeros((len(links) + n_sections, n_sections))
    target = np.zeros(len(design))
    for row, (first, second, ratio, _) in enumerate(links):
        design[row, first], design[row, second], target[row] = -1, 1, ratio
    # a section that no link holds stays at 0; elsewhere this is too weak to matter
    design[len(links) :] = 1e-3 * np.eye(n_sections)
    # two sections differ in anatomy too: no link is better than a percent
    error = np.hypot([link[3] for link in links], 0.01)
    weight = 1 / error
    for _ in range(iterations):
        scale = np.concatenate([weight, np.ones(n_sections)])
        levels = np.linalg.lstsq(design * scale[:, None], target * scale, rcond=None)[0]
        off = np.abs(design[: len(links)] @ levels - target[: len(links)]) / error
        weight = np.sqrt(1 / np.maximum(off / 1.5, 1)) / error
    return levels - levels.mean()


def has_jumps(levels: np.ndarray) -> bool:
    """Whether the staining goes up and down from section to section, and clearly so.

    Anatomy changes levels too, but smoothly: then second differences are small beside first ones.
    Of levels that have nothing to do with each other they are three times as large, as squares.

    Parameters
    ----------
    levels : (n,), logarithms.
    """
    if len(levels) < 5:
        return False
    first, second = np.diff(levels), np.diff(levels, 2)
    rough = np.sum(second**2) > np.sum(first**2)
    return bool(rough and np.abs(second).mean() / 2 > CLEAR_JUMP)


def evening_gains(
    levels: np.ndarray, positions_mm: np.ndarray, *, neighbours: int = 10, most: float = 3.0
) -> np.ndarray:
    """Factors that bring each section to the staining of its neighbours.

    The level that a section should have is a parabola through those around it, fitted robustly; so
    a slow change along the stack stays, be it of the staining or of the anatomy.

    Parameters
    ----------
    levels : (n,), logarithms.
    positions_mm : (n,), increasing.
    neighbours : sections on either side that count.
    most : largest factor, and one over the smallest.

    Returns
    -------
    (n,) factors, all positive: what is darker in a section stays darker.
    """
    levels, positions = np.asarray(levels, float), np.asarray(positions_mm, float)
    n = len(levels)
    wanted = levels.copy()
    for i in range(n if n >= 3 else 0):
        first = min(max(i - neighbours, 0), max(n - 2 * neighbours - 1, 0))
        some = np.arange(first, min(first + 2 * neighbours + 1, n))
        x = positions[some] - positions[i]
        near = (1 - (np.abs(x) / (1.001 * np.abs(x).max() + 1e-9)) ** 3) ** 3
        basis = np.vander(x / max(np.abs(x).max(), 1e-9), 3, increasing=True)
        trust = np.ones(len(x))
        for _ in range(6):
            root = np.sqrt(near * trust)
            curve = np.linalg.lstsq(basis * root[:, None], levels[some] * root, rcond=None)[0]
            off = np.abs(levels[some] - basis @ curve)
            sigma = max(MAD_TO_SIGMA * float(np.median(off)), 0.01)
            trust = np.clip(1 - (off / (6 * sigma)) ** 2, 0, None) ** 2
        wanted[i] = curve[0]
    limit = np.log(most)
    return np.exp(np.clip(wanted - levels, -limit, limit))
