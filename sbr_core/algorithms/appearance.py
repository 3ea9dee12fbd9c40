"""The look of a brain's sections, learnt without a network and given to its MRI planes.

What a stain shows at a point is guessed from the MRI around that point: its intensity at several
scales, slopes and ridges, the depth below the surface, the place in the brain. Boosted trees learn
this from all sections laid on their planes by their affines, so the look is no function of the
MRI's intensity, and differs from place to place. What they cannot guess, the grain and mottle of
the stain, is taken from the sections themselves in small tiles, each from a place that looks alike.

The look of a section is learnt from *other* sections. So where the affine leaves a section off its
plane, the look lies on the plane all the same; misalignment only blurs it. To blur it less it is
learnt twice, the second time from sections that optical flow has pulled towards the first guess;
what is left of misalignment blurs the second. No network and no random field of the training has a
part in this, so no method is at an advantage.

Intensities are a section's signal (0 on glass, tissue above) divided by its own median in tissue.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

N_FOLDS = 2
"""Of the sections; each is guessed from those of the other folds. More take longer to learn."""
REACH_PX = 4
"""How far beyond the mask of the MRI plane tissue may show."""

_SCALES_PX = (1.0, 2.0, 4.0, 8.0)
"""Sigmas of the intensity around a pixel, from an edge to a gyrus, each twice the one before."""
_SLOPE_SCALES_PX = (1.0, 3.0)
"""Sigmas of slopes and ridges: of an edge, and of the cortex across."""
_DEEPEST_PX = 30.0
"""Depth counts down to here, beyond the cortex; deeper, only the place does."""
_TREES = {"max_leaf_nodes": 31, "min_samples_leaf": 100, "learning_rate": 0.12, "max_iter": 120}
"""Of scikit-learn's histogram gradient boosting. A leaf of 100 pixels averages out grain and
mottle, which are not to be learnt; few trees at a quick rate keep the learning short."""
_ALIKE, _DRAWN = 36, 12
"""Tiles that look most alike, and how many of them, the calmest, are drawn from. More alike ones
are calmer but from places less alike; fewer drawn ones repeat visibly."""
_ROUGH_PLACE = 0.1
"""Standard deviation of the jitter of places, in half extents of the brain: trees would draw
straight lines where the exact place decides."""
_FLOW_PX = 6
"""Radius of the window that optical flow moves as one. A smaller one follows noise, a larger one
what bends within it not."""


@dataclass(frozen=True)
class Pair:
    """A section laid on its MRI plane.

    Attributes
    ----------
    mri, section : (rows, columns) intensities, any scale, tissue of the section above 0.
    mri_mask, section_mask : (rows, columns) bool.
    height : place along the stack, 0 at its beginning to 1 at its end.
    """

    mri: np.ndarray
    mri_mask: np.ndarray
    section: np.ndarray
    section_mask: np.ndarray
    height: float

    @property
    def level(self) -> float:
        """Median signal of the section in tissue, at least a trace."""
        both = self.mri_mask & self.section_mask
        inside = both if both.any() else self.section_mask
        return max(float(np.median(self.section[inside])), 1e-6) if inside.any() else 1.0

    @property
    def near(self) -> np.ndarray:
        """(rows, columns) bool: where tissue can be, the MRI's mask and a little around it."""
        return ndimage.binary_dilation(self.mri_mask, iterations=REACH_PX)


def blurred_within(image: np.ndarray, mask: np.ndarray, sigma_px: float) -> np.ndarray:
    """Gaussian average over the mask alone; 0 where none of it is near."""
    weight = ndimage.gaussian_filter(mask.astype(np.float32), sigma_px)
    total = ndimage.gaussian_filter(np.where(mask, image, 0).astype(np.float32), sigma_px)
    return np.where(weight > 1e-3, total / np.maximum(weight, 1e-3), 0).astype(np.float32)


def features(pair: Pair) -> np.ndarray:
    """What the look may depend on, at every pixel of an MRI plane.

    Returns
    -------
    (rows, columns, n) float32: intensity, blurred at four scales; slope and Laplacian at two;
    local contrast; depth below the surface; place in the plane and along the stack. Only
    `pair.mri`, `pair.mri_mask` and `pair.height` are used.
    """
    mask = pair.mri_mask
    top = float(np.quantile(pair.mri[mask], 0.99)) if mask.any() else 1.0
    mri = (np.where(pair.near, pair.mri, 0) / max(top, 1e-6)).astype(np.float32)
    maps = [mri, *(ndimage.gaussian_filter(mri, s) for s in _SCALES_PX)]
    maps += [ndimage.gaussian_gradient_magnitude(mri, s) for s in _SLOPE_SCALES_PX]
    maps += [ndimage.gaussian_laplace(mri, s) for s in _SLOPE_SCALES_PX]
    mean = ndimage.uniform_filter(mri, 5)
    maps.append(np.sqrt(np.maximum(ndimage.uniform_filter(mri * mri, 5) - mean**2, 0)))
    inside = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    maps.append(np.clip(inside, -REACH_PX, _DEEPEST_PX))
    rows, columns = np.nonzero(mask) if mask.any() else np.nonzero(np.ones_like(mask))
    half = max(np.ptp(rows), np.ptp(columns), 1) / 2
    y, x = np.indices(mask.shape, dtype=np.float32)
    maps += [(x - columns.mean()) / half, (y - rows.mean()) / half]
    maps.append(np.full(mask.shape, pair.height))
    return np.stack(maps, axis=-1).astype(np.float32)


class Samples:
    """Pixels of many pairs, drawn a pair at a time, for `Look.fit`."""

    def __init__(self) -> None:
        self.drawn: list[tuple[np.ndarray, ...]] = []  # features, tissue, signal, fold

    def add(self, pair: Pair, fold: int, count: int, rng: np.random.Generator) -> None:
        """Draw `count` pixels of the plane's tissue and its surroundings."""
        at = np.flatnonzero(pair.near)
        at = rng.choice(at, min(count, at.size), replace=False)
        drawn = features(pair)[np.unravel_index(at, pair.mri.shape)]
        drawn[:, -3:] += rng.normal(0, _ROUGH_PLACE, (len(drawn), 3))
        tissue = pair.section_mask.ravel()[at]
        signal = (pair.section.ravel()[at] / pair.level).astype(np.float32)
        self.drawn.append((drawn, tissue, signal, np.full(at.size, fold)))

    def show_tissue(self, without_fold: int | None = None) -> bool:
        """Whether a sample of another fold (None: of any) lies in tissue, as `Look.fit` needs."""
        return any(
            tissue.any() and (without_fold is None or fold[0] != without_fold)
            for _, tissue, _, fold in self.drawn
        )


class Look:
    """What a stain shows, given the MRI around: whether there is tissue, and its signal."""

    def __init__(self, signal: Callable, tissue: Callable, threshold: float) -> None:
        self._signal, self._tissue, self._threshold = signal, tissue, threshold

    @classmethod
    def fit(cls, samples: Samples, without_fold: int | None, seed: int) -> Look:
        """Learn from the samples of all folds but one (None: of all).

        Raises
        ------
        ValueError
            No sample lies in tissue (`Samples.show_tissue`).
        """
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        if not samples.show_tissue(without_fold):
            raise ValueError("no sample lies in tissue")
        x, tissue, signal, fold = map(np.concatenate, zip(*samples.drawn, strict=True))
        used = np.full(len(x), True) if without_fold is None else fold != without_fold
        settings = {**_TREES, "random_state": seed, "early_stopping": False}
        regressor = HistGradientBoostingRegressor(**settings)
        regressor.fit(x[used & tissue], signal[used & tissue])
        if tissue[used].all():
            return cls(regressor.predict, lambda points: np.ones(len(points)), 0.5)
        classifier = HistGradientBoostingClassifier(**settings).fit(x[used], tissue[used])

        def share(points: np.ndarray) -> np.ndarray:
            return classifier.predict_proba(points)[:, 1]

        # as much tissue as there is: half would close every sulcus that is seldom met exactly
        threshold = float(np.quantile(share(x[used]), 1 - tissue[used].mean()))
        return cls(regressor.predict, share, float(np.clip(threshold, 0.3, 0.8)))

    def of(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        """The look of a plane, of which only the MRI is used.

        Returns
        -------
        signal : (rows, columns) float32, meant where there is tissue, 0 far from it.
        cover : (rows, columns) float32, 1 in tissue, 0 on glass, about a pixel between.
        """
        near = pair.near
        points = features(pair)[near]
        signal, share = (np.zeros(near.shape, np.float32) for _ in range(2))
        if len(points):
            shifts = _ROUGH_PLACE * np.array([[0, 0], [1, 0.5], [-1, -0.5], [0.5, -1], [-0.5, 1]])
            for shift in shifts:
                moved = points.copy()
                moved[:, -3:-1] += shift
                signal[near] += (self._signal(moved) / len(shifts)).astype(np.float32)
                share[near] += (self._tissue(moved) / len(shifts)).astype(np.float32)
        share = ndimage.gaussian_filter(share, 0.7)
        steep = np.maximum(ndimage.gaussian_gradient_magnitude(share, 0.7), 0.05)
        cover = np.clip(0.5 + (share - self._threshold) / steep, 0, 1)
        return np.maximum(signal, 0), cover.astype(np.float32)


def with_contrast_of(signal: np.ndarray, tissue: np.ndarray, pair: Pair) -> np.ndarray:
    """A look whose grey levels are as far apart as those of the section itself.

    A guess lies nearer the middle than what it guesses. Its values are mapped, in their order, to
    those of the section seen a little blurred, so dark stays darker than bright.

    Parameters
    ----------
    signal : (rows, columns) of `Look.of`.
    tissue : (rows, columns) bool, where it is meant.

    Returns
    -------
    (rows, columns) float32.
    """
    both = pair.section_mask & pair.near
    if not (both.any() and tissue.any()):
        return signal
    real = blurred_within(pair.section / pair.level, both, 1.5)[both]
    ranks = np.linspace(0.01, 0.99, 50)
    ours = np.quantile(signal[tissue], ranks) + 1e-6 * np.arange(50)
    slope = np.polyfit(ours, np.quantile(real, ranks), 1)[0]
    theirs = np.quantile(real, ranks)
    beyond = signal - np.clip(signal, ours[0], ours[-1])
    matched = np.interp(signal, ours, theirs) + np.clip(slope, 0, 2) * beyond
    return np.maximum(matched, 0).astype(np.float32)


def pulled(pair: Pair, signal: np.ndarray, cover: np.ndarray) -> Pair:
    """A pair whose section is pulled towards a first guess of its look by optical flow.

    It serves to learn from, and nothing else: iterative Lucas-Kanade (Le Besnerais and Champagnat
    2005, ICIP), smoothed.

    Parameters
    ----------
    signal, cover : (rows, columns) of `Look.of`.
    """
    from skimage.registration import optical_flow_ilk

    guess = with_contrast_of(signal, cover > 0.5, pair) * cover
    real = np.where(pair.section_mask, np.clip(pair.section / pair.level, 0, 3), 0)
    target, moving = (ndimage.gaussian_filter(i / 2, 1.0).astype(np.float32) for i in (guess, real))
    flow = optical_flow_ilk(target, moving, radius=_FLOW_PX, num_warp=8, gaussian=True)
    at = np.indices(target.shape) + [ndimage.gaussian_filter(part, 1.5) for part in flow]
    section = ndimage.map_coordinates(pair.section.astype(np.float32), at, order=1, mode="nearest")
    share = ndimage.map_coordinates(pair.section_mask.astype(np.float32), at, order=1)
    return replace(pair, section=section, section_mask=share > 0.5)


def unevenness(pair: Pair, signal: np.ndarray) -> float:
    """How unevenly a section is stained: the spread of the logarithm of stain over look, coarsely.

    Parameters
    ----------
    pair : as `pulled` leaves it.
    signal : (rows, columns) of `Look.of`.
    """
    both = pair.section_mask & pair.near
    if not both.any():
        return 0.0
    coarse_px = 0.08 * math.sqrt(both.sum())
    real, look = (blurred_within(i, both, coarse_px)[both] for i in (pair.section, signal))
    return float(np.std(np.log(np.maximum(real, 1e-6) / np.maximum(look, 1e-6))))


# --------------------------------------------------------------------------------------------
# Texture
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Band:
    """One range of sizes of texture: what is finer than `coarsest_px` and coarser than `finest_px`.

    Attributes
    ----------
    tile_px : side of the tiles it is moved in, even.
    guessed : take the look off first, so that only what it cannot explain counts as texture.
    """

    finest_px: float
    coarsest_px: float
    tile_px: int
    guessed: bool


BANDS = (Band(0.0, 1.5, 12, False), Band(1.5, 6.0, 36, True))
"""Grain, and mottle with what the look cannot guess, in tiles of several times their coarsest size;
what is coarser is anatomy."""


def _grid_of_tiles(shape: tuple[int, int], tile_px: int) -> tuple[np.ndarray, np.ndarray]:
    """First rows and first columns of tiles that overlap by half and cover an image."""
    hop = tile_px // 2
    return tuple(np.arange(-hop, n, hop) for n in shape)


def _cut(image: np.ndarray, tile_px: int) -> np.ndarray:
    """(n, tile, tile): the tiles of `_grid_of_tiles`, row by row, 0 beyond the image."""
    padded = np.pad(image, tile_px)
    rows, columns = _grid_of_tiles(image.shape, tile_px)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (tile_px, tile_px))
    tiles = windows[np.ix_(rows + tile_px, columns + tile_px)]
    return tiles.reshape(-1, tile_px, tile_px)


def _describe(
    pair: Pair, signal: np.ndarray, tissue: np.ndarray, tile_px: int
) -> tuple[np.ndarray, np.ndarray]:
    """What makes tiles alike, (n, 6), and the share of tissue in each, (n,).

    Alike are tiles of the same look (mean and spread), depth below the surface and part of the
    brain; the scales are how much of each counts as a difference of one.
    """
    inside = _cut(tissue.astype(np.float32), tile_px)
    share = inside.mean((1, 2))
    weight = np.maximum(inside.sum((1, 2)), 1)
    tiles = _cut(signal, tile_px) * inside
    mean = tiles.sum((1, 2)) / weight
    spread = np.sqrt(np.maximum((tiles**2).sum((1, 2)) / weight - mean**2, 0))
    depth = _cut(np.minimum(ndimage.distance_transform_edt(tissue), 20), tile_px).mean((1, 2))
    place = features(pair)[..., -3:]
    rows, columns = _grid_of_tiles(signal.shape, tile_px)
    centre = [
        np.clip(at + tile_px // 2, 0, n - 1)
        for at, n in zip((rows, columns), signal.shape, strict=True)
    ]
    place = place[np.ix_(*centre)].reshape(-1, 3)
    look = np.column_stack([mean / 0.15, spread / 0.1, depth / 8.0])
    return np.concatenate([look, place / (0.25, 0.25, 0.12)], axis=1), share


class TextureBank:
    """Tiles of texture of real sections, to be laid where the look is alike."""

    def __init__(self) -> None:
        # of each section its descriptions, tiles and origins
        self._kept: dict[Band, list[tuple[np.ndarray, ...]]] = {band: [] for band in BANDS}
        self._trees: dict[Band, tuple] = {}

    def add(
        self, origin: int, pair: Pair, signal: np.ndarray, rng: np.random.Generator, count: int
    ) -> None:
        """Keep at most `count` tiles of each band of a section.

        Parameters
        ----------
        origin : number of the section.
        signal : the look of its plane, by `Look.of`.
        """
        real = pair.section / pair.level
        both = pair.section_mask & pair.near
        for band in BANDS:
            left = real - signal if band.guessed else real
            fine = blurred_within(left, both, band.finest_px) if band.finest_px else left
            texture = np.where(both, fine - blurred_within(left, both, band.coarsest_px), 0)
            described, share = _describe(pair, signal, both, band.tile_px)
            whole = np.flatnonzero(share > 0.98)
            if whole.size == 0:
                continue
            kept = rng.choice(whole, min(count, whole.size), replace=False)
            tiles = _cut(texture.astype(np.float32), band.tile_px)[kept]
            self._kept[band].append((described[kept], tiles, np.full(kept.size, origin)))

    def texture(
        self,
        origin: int,
        pair: Pair,
        signal: np.ndarray,
        tissue: np.ndarray,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Texture for a look: tiles from places that look alike, blended so that its power stays.

        Of the tiles most alike the calmest are drawn from: the others show edges of their own
        anatomy. Those of the section itself come last: they would lay its own anatomy beside
        that of its plane.

        Parameters
        ----------
        origin : number of the section.
        signal : (rows, columns), the look.
        tissue : (rows, columns) bool.

        Returns
        -------
        (rows, columns) float32, to be added to the look.
        """
        out = np.zeros(signal.shape, np.float32)
        for band in BANDS:
            tile = band.tile_px
            if not self._kept[band]:
                continue
            tree, tiles, origins = self._searchable(band)
            described, share = _describe(pair, signal, tissue, tile)
            wanted = np.flatnonzero(share > 0)
            neighbours = min(_ALIKE, len(tiles))
            alike = tree.query(described[wanted], k=neighbours)[1].reshape(len(wanted), neighbours)
            rank = (tiles**2).mean((1, 2)) + np.where(origins == origin, 1e9, 0)
            calm = np.take_along_axis(alike, np.argsort(rank[alike], axis=1), axis=1)
            drawn = rng.integers(0, min(_DRAWN, neighbours), len(wanted))
            chosen = calm[np.arange(len(wanted)), drawn]
            # sin² + cos² = 1: squares of the windows sum to one, as powers do
            ramp = np.sin(np.pi * (np.arange(tile) + 0.5) / tile)
            window = np.outer(ramp, ramp).astype(np.float32)
            sheet = np.zeros(tuple(n + 3 * tile for n in signal.shape), np.float32)
            rows, columns = _grid_of_tiles(signal.shape, tile)
            for place, source in zip(wanted, chosen, strict=True):
                r, c = rows[place // len(columns)] + tile, columns[place % len(columns)] + tile
                sheet[r : r + tile, c : c + tile] += window * tiles[source]
            out += sheet[tile : tile + signal.shape[0], tile : tile + signal.shape[1]]
        return out

    def _searchable(self, band: Band) -> tuple:
        """(KD-tree of the descriptions, tiles, their origins) of a band."""
        from scipy.spatial import cKDTree

        if band not in self._trees:
            kept = zip(*self._kept[band], strict=True)
            described, tiles, origins = map(np.concatenate, kept)
            self._trees[band] = cKDTree(described), tiles, origins
        return self._trees[band]
