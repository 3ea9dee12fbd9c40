"""From a picture of a section, grey or in colour, to one signal: tissue above a background of 0.

A grey picture is taken as it is. Of a picture in colour the stain decides:

=============  ======================================================================
stain          signal
=============  ======================================================================
nissl, myelin  mean optical density of the three colours: one dye, whatever its colour
h&e            haematoxylin, told apart from eosin
hematoxylin    haematoxylin, told apart from DAB, if there is any
dab            DAB, told apart from haematoxylin
fluorescence   mean of the three colours
grey           luminance
=============  ======================================================================

Optical density is -log10 of the light that passes, relative to the glass; by Beer and Lambert's law
it is proportional to the amount of dye, and densities of several dyes add up. So the amounts
follow from three densities by a linear map [1]_, the inverse of a matrix with the density of each
dye as a row. The vectors are those of [1]_, as scikit-image has them; a third, at right angles to
both dyes, takes what is neither.

.. [1] Ruifrok and Johnston, Quantification of histochemical staining by color deconvolution,
   Analytical and Quantitative Cytology and Histology 23 (2001) 291-299.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from skimage.color import rgb2gray, rgb_from_hed

from sbr_core.algorithms.background import find_background, padding_mask
from sbr_core.algorithms.sections import tissue_signal

STAINS = ("nissl", "hematoxylin", "h&e", "dab", "myelin", "fluorescence", "grey")
"""The stains that have a signal of their own."""

_SYNONYMS = {"haematoxylin": "hematoxylin", "gray": "grey", "he": "h&e"}
"""Other spellings of `STAINS` in a manifest's free text."""
_DENSEST = 2.5
"""Optical densities are clipped here: less light than that is the camera's noise."""
_FAINTEST = 0.02
"""Colours that differ by less of the picture's range are none: lossy compression and colour balance
leave as much of a grey picture."""
_HAEMATOXYLIN, _EOSIN, _DAB = rgb_from_hed
"""Densities of red, green and blue of each dye (Ruifrok and Johnston 2001)."""
_SINGLE_DYE_DEG = 16.0
"""Directions of density that spread by less come from one dye. Any two of haematoxylin, eosin and
DAB are 37 to 48° apart, and mixtures lie between; one dye spreads by its noise."""


def named_stain(text: str) -> str | None:
    """The stain that a manifest's free text names, or None where it names none, or several.

    ``Simulated Nissl`` names ``nissl``; ``H&E`` is also written ``HE``.
    """
    words = [_SYNONYMS.get(w, w) for w in re.findall(r"h&e|[a-z]+", text.lower())]
    named = {word for word in words if word in STAINS}
    return named.pop() if len(named) == 1 else None


def is_coloured(picture: np.ndarray) -> bool:
    """Whether a picture has colours, not only three equal planes.

    Parameters
    ----------
    picture : (rows, columns) or (rows, columns, 3).
    """
    if picture.ndim == 2:
        return False
    apart = np.ptp(picture, axis=-1)
    return bool(np.quantile(apart, 0.99) > _FAINTEST * np.quantile(np.abs(picture), 0.999))


def optical_density(picture: np.ndarray, white: np.ndarray) -> np.ndarray:
    """-log10 of the light that passes, colour by colour; 0 on glass.

    Parameters
    ----------
    picture : (rows, columns, 3), intensity proportional to light.
    white : (3,), its intensity where there is only glass.

    Returns
    -------
    (rows, columns, 3) float32, at most 2.5; below 0 where it is brighter than the glass.
    """
    white = np.asarray(white, np.float32)
    light = np.maximum(np.asarray(picture, np.float32) / white, np.float32(10**-_DENSEST))
    return -np.log10(light)


def amounts(density: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How much of two dyes makes these densities, and of what is neither.

    Parameters
    ----------
    density : (..., 3) optical density of red, green, blue.
    first, second : (3,) densities of each dye, of any length.

    Returns
    -------
    (..., 3) in units of unit vectors of density: first, second, residual.
    """
    rows = np.stack([first, second, np.cross(first, second)]).astype(float)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(density @ np.linalg.inv(rows), np.float32)


@dataclass(frozen=True)
class Channel:
    """How one section's picture becomes its signal; what `prepare` decided and others repeat.

    Attributes
    ----------
    stain : one of `STAINS`.
    polarity : of the channel, ``bright_background`` or ``dark_background``; densities are dark.
    background : of the channel, subtracted.
    white : red, green and blue of the glass; of densities only.
    padding : luminance of what surrounds the slide, see `background.padding_value`; or None.
    """

    stain: str
    polarity: str
    background: float
    white: tuple[float, float, float] | None = None
    padding: float | None = None

    def signal(self, picture: np.ndarray) -> np.ndarray:
        """The signal of a picture of the same section, at any resolution.

        Parameters
        ----------
        picture : (rows, columns) or (rows, columns, 3).

        Returns
        -------
        (rows, columns) float32, about 0 on the background, tissue above; exactly 0 in padding.
        Linear in the intensity or, of optical densities, in the amount of dye.
        """
        plane = _plane(picture, self.stain, self.white)
        return self._without_padding(tissue_signal(plane, self.polarity, self.background), picture)

    def tissue(self, picture: np.ndarray) -> np.ndarray:
        """As `signal`, of all dyes together: what a mask is made of."""
        if self.white is None:
            return self.signal(picture)
        return self._without_padding(_plane(picture, "nissl", self.white), picture)

    def _without_padding(self, signal: np.ndarray, picture: np.ndarray) -> np.ndarray:
        if self.padding is not None:
            signal[padding_mask(luminance(picture), self.padding)] = 0
        return signal


def find_channel(
    picture: np.ndarray, stain: str = "auto", polarity: str = "auto"
) -> tuple[Channel, float]:
    """The channel of a picture, and the noise of its background in `Channel.tissue`.

    Parameters
    ----------
    picture : (rows, columns) or (rows, columns, 3), intensity proportional to light.
    stain : one of `STAINS`, or ``auto``: colours on black are fluorescence; on glass the directions
        of the tissue's optical density decide. All in one direction are one dye, ``nissl``;
        otherwise the two farthest apart are compared with those of haematoxylin, eosin and DAB, and
        give ``h&e`` or ``hematoxylin``. Without colours there is only ``grey``.
    polarity : as of `find_background`.
    """
    if stain not in ("auto", *STAINS):
        raise ValueError(f"stain {stain!r}: expected auto or one of {', '.join(STAINS)}")
    if polarity == "auto" and stain == "fluorescence":
        polarity = "dark_background"
    grey = luminance(picture)
    around = find_background(grey, polarity)
    dark = around.polarity == "dark_background"
    if not is_coloured(picture):
        return Channel("grey", around.polarity, around.level, padding=around.padding), around.noise
    if stain == "auto" and dark:
        stain = "fluorescence"
    if stain in ("grey", "fluorescence"):
        plane = find_background(_plane(picture, stain, None), around.polarity)
        channel = Channel(stain, plane.polarity, plane.level, padding=around.padding)
        return channel, plane.noise
    white = _white(picture, around.level, around.noise, dark)
    if stain == "auto":
        seen = picture if around.padding is None else picture[~padding_mask(grey, around.padding)]
        stain = _stain_by_colour(optical_density(seen, np.array(white)))
    unpadded = Channel(stain, "dark_background", 0.0, white, around.padding)
    level = find_background(unpadded.signal(picture), "dark_background").level
    channel = Channel(stain, "dark_background", level, white, around.padding)
    return channel, find_background(channel.tissue(picture), "dark_background").noise


def luminance(picture: np.ndarray) -> np.ndarray:
    """(rows, columns) float32: a picture without its colours."""
    return np.asarray(picture if picture.ndim == 2 else rgb2gray(picture), np.float32)


def _plane(picture: np.ndarray, stain: str, white: tuple[float, float, float] | None) -> np.ndarray:
    """The channel before its background is taken off, (rows, columns) float32, a copy."""
    if picture.ndim == 2:
        return np.array(picture, np.float32)
    if stain == "grey":
        return luminance(picture)
    if stain == "fluorescence":
        return picture.mean(axis=-1, dtype=np.float32)
    density = optical_density(picture, np.array(white))
    if stain in ("nissl", "myelin"):
        return density.mean(axis=-1, dtype=np.float32)
    other = _EOSIN if stain == "h&e" else _DAB
    return amounts(density, _HAEMATOXYLIN, other)[..., 1 if stain == "dab" else 0].copy()


def _white(
    picture: np.ndarray, level: float, noise: float, dark: bool
) -> tuple[float, float, float]:
    """Red, green and blue of the glass; where the background is dark, of the brightest light."""
    grey = luminance(picture)
    glass = np.abs(grey - (np.quantile(grey, 0.999) if dark else level)) <= 2.5 * noise
    colour = np.median(picture[glass], axis=0) if glass.any() else picture.max(axis=(0, 1))
    floor = 1e-3 * float(np.max(colour)) or 1.0
    return tuple(float(max(v, floor)) for v in colour)


def _stain_by_colour(density: np.ndarray) -> str:
    """The stain that the colours of a section on glass speak for.

    Parameters
    ----------
    density : (..., 3) optical density.
    """
    total = density.sum(axis=-1)
    typical = np.quantile(total, 0.98)
    stained = density[(total > 0.3 * typical) & (density < 0.8 * _DENSEST).all(axis=-1)]
    if len(stained) < 50:
        return "nissl"
    unit = stained / np.linalg.norm(stained, axis=1, keepdims=True)
    # the plane of the two strongest directions, as Macenko et al. (2009) look for two dyes
    _, vectors = np.linalg.eigh(unit.T @ unit)
    main, across = vectors[:, -1], vectors[:, -2]
    main = main * np.sign(main.sum())
    angle = np.rad2deg(np.arctan2(unit @ across, unit @ main))
    low, high = np.quantile(angle, [0.02, 0.98])
    if high - low < _SINGLE_DYE_DEG:
        return "nissl"
    ends = [np.cos(a) * main + np.sin(a) * across for a in np.deg2rad([low, high])]

    def likeness(first: np.ndarray, second: np.ndarray) -> float:
        pairs = ((first, second), (second, first))
        return max(
            min(float(end @ dye / np.linalg.norm(dye)) for end, dye in zip(ends, pair, strict=True))
            for pair in pairs
        )

    eosin = likeness(_HAEMATOXYLIN, _EOSIN)
    return "h&e" if eosin >= likeness(_HAEMATOXYLIN, _DAB) else "hematoxylin"
