"""Images of any size as OME-Zarr 0.5, written as they come, with all levels of their pyramid.

A level consists of shards, files with a few chunks each. Whenever the shards that lie below one of
the next level are written, that one is made of them; so memory holds one shard of every level, and
nothing is read back. Specification: https://ngff.openmicroscopy.org/0.5/
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from sbr_core.io.blocks import halved
from sbr_core.io.files import atomic_folder
from sbr_core.io.windows import is_colour

ENDING = ".ome.zarr"
ROOT = "zarr.json"
"""The file in its folder that says what it is."""
_CHUNK = {2: 512, 3: 64}
"""Side of a chunk of an image and of a volume; also the longest side of the coarsest level."""
_CHUNKS_OF_SHARD = (4, 2, 1)
"""Along each side: as many as make no more than `_SHARD_BYTES`."""
_SHARD_BYTES = 1 << 26
"""64 MiB."""
_CHANNELS_OF_CHUNK = 4
"""At most: what is looked at together is read together."""
_LEVEL_OF_ZSTD = 3
_COLOURS = ("0000FF", "00FF00", "FF0000", "FF00FF", "00FFFF", "FFFF00")
"""In which channels of fluorescence are shown, in turn."""
_RGB = {"red": "FF0000", "green": "00FF00", "blue": "0000FF", "opacity": "FFFFFF"}

Region = tuple[slice, ...]
"""Of (channels, [layers,] rows, columns)."""


@dataclass(frozen=True)
class Streamed:
    """An image or a volume that comes block by block.

    Attributes
    ----------
    shape : (channels, rows, columns) or (channels, layers, rows, columns).
    spacing_mm : along the axes behind the channels.
    photometric : of its samples, in the words of TIFF.
    names : of the channels, or none.
    labels : of a coarser level every second sample is taken, not the mean.
    facts : what else is to be said of it, JSON-able.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    spacing_mm: tuple[float, ...]
    photometric: str
    names: Sequence[str] = ()
    labels: bool = False
    facts: dict[str, Any] = field(default_factory=dict)


def is_ome_zarr(path: Path) -> bool:
    """Whether a path is named like an OME-Zarr."""
    return path.name.lower().endswith(ENDING)


def write_ome_zarr(
    path: Path,
    image: Streamed,
    read: Callable[[Region], np.ndarray],
    *,
    finish: Callable[[], None] | None = None,
    threads: int = 2,
) -> None:
    """Write an OME-Zarr, whole or not at all.

    Parameters
    ----------
    read : the samples of a region; it is asked for each once, in an order of its own, and by one
        thread at a time.
    finish : called when all is written, before it appears; what it raises, undoes all.
    threads : 1 or more; with several, blocks are made while others are written.

    Raises
    ------
    StorageError
        The disk is full, or may not be written to.
    """
    import zarr

    with atomic_folder(path) as temporary, zarr.config.set({"threading.max_workers": threads}):
        root = zarr.create_group(temporary, zarr_format=3)
        pyramid = _Pyramid(root, image)
        regions = list(pyramid.leaves())
        blocks = (np.asarray(read(region), image.dtype) for region in regions)
        limits = pyramid.write(_ahead(blocks) if threads > 1 else blocks)
        if finish is not None:
            finish()
        root.attrs.update(_attributes(path, image, pyramid.levels, limits))


@dataclass(frozen=True)
class _Level:
    """One resolution.

    Attributes
    ----------
    factor : samples of the finest level per sample, along each axis.
    halves : axes along which the next level has half as many.
    """

    shape: tuple[int, ...]
    factor: tuple[int, ...]
    halves: tuple[int, ...]


class _Pyramid:
    """The levels of an image, and how they are written."""

    def __init__(self, root: Any, image: Streamed) -> None:
        from zarr.codecs import ZstdCodec

        n_axes = len(image.shape) - 1
        self.levels = tuple(_levels(image, _CHUNK[n_axes]))
        chunk = (min(image.shape[0], _CHANNELS_OF_CHUNK), *[_CHUNK[n_axes]] * n_axes)
        channels = -(-image.shape[0] // chunk[0]) * chunk[0]
        bytes_of_chunks = channels * _CHUNK[n_axes] ** n_axes * np.dtype(image.dtype).itemsize
        fits = (k for k in _CHUNKS_OF_SHARD if k**n_axes * bytes_of_chunks <= _SHARD_BYTES)
        self._shard = (channels, *[next(fits, 1) * _CHUNK[n_axes]] * n_axes)
        self._labels = image.labels
        self._arrays = [
            root.create_array(
                str(number),
                shape=level.shape,
                dtype=np.dtype(image.dtype).newbyteorder("="),
                chunks=chunk,
                shards=self._shard,
                compressors=ZstdCodec(level=_LEVEL_OF_ZSTD, checksum=True),
                fill_value=0,
                dimension_names=_axes(n_axes),
            )
            for number, level in enumerate(self.levels)
        ]

    def leaves(self) -> Iterator[Region]:
        """Regions of the finest level, in the order in which they are needed."""
        for shard in self._shards(len(self.levels) - 1):
            yield from self._leaves(len(self.levels) - 1, shard)

    def write(self, blocks: Iterator[np.ndarray]) -> tuple[float, float]:
        """Write all levels from the blocks of `leaves`; the least and the greatest of samples."""
        self._limits = [math.inf, -math.inf]
        for shard in self._shards(len(self.levels) - 1):
            self._write(len(self.levels) - 1, shard, blocks)
        return self._limits[0], self._limits[1]

    def _shards(self, number: int) -> Iterator[tuple[int, ...]]:
        shape = self.levels[number].shape
        counts = (math.ceil(n / side) for n, side in zip(shape, self._shard, strict=True))
        yield from product(*map(range, counts))

    def _region(self, number: int, shard: tuple[int, ...]) -> Region:
        ends = zip(shard, self._shard, self.levels[number].shape, strict=True)
        return tuple(slice(i * side, min((i + 1) * side, n)) for i, side, n in ends)

    def _below(self, number: int, shard: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """The shards of the next finer level that one consists of."""
        finer = self.levels[number - 1]
        ranges = []
        for axis, (i, side, n) in enumerate(zip(shard, self._shard, finer.shape, strict=True)):
            both = (2 * i, 2 * i + 1) if axis in finer.halves else (i,)
            ranges.append([j for j in both if j * side < n])
        yield from product(*ranges)

    def _leaves(self, number: int, shard: tuple[int, ...]) -> Iterator[Region]:
        if number == 0:
            yield self._region(0, shard)
            return
        for below in self._below(number, shard):
            yield from self._leaves(number - 1, below)

    def _write(
        self, number: int, shard: tuple[int, ...], blocks: Iterator[np.ndarray]
    ) -> np.ndarray:
        """Write a shard and all below it; as it is in the next coarser level."""
        region = self._region(number, shard)
        if number == 0:
            block = next(blocks)
            self._limits[0] = min(self._limits[0], float(block.min()))
            self._limits[1] = max(self._limits[1], float(block.max()))
        else:
            block = np.empty([s.stop - s.start for s in region], self._arrays[0].dtype)
            finer = self.levels[number - 1]
            for below in self._below(number, shard):
                half = self._write(number - 1, below, blocks)
                first = [
                    s.start // (2 if axis in finer.halves else 1) - r.start
                    for axis, (s, r) in enumerate(
                        zip(self._region(number - 1, below), region, strict=True)
                    )
                ]
                block[tuple(slice(f, f + n) for f, n in zip(first, half.shape, strict=True))] = half
        self._arrays[number][region] = block
        return halved(block, self.levels[number].halves, labels=self._labels)


def _levels(image: Streamed, smallest: int) -> Iterator[_Level]:
    """From the finest to one no side of which is longer than `smallest`.

    Along axes whose samples are twice as far apart as others' or more, no fewer are taken yet.
    """
    shape, factor = image.shape, (1,) * len(image.shape)
    while True:
        spacing = [math.inf] + [f * s for f, s in zip(factor[1:], image.spacing_mm, strict=True)]
        is_last = max(shape[1:]) <= smallest
        halves = tuple(
            axis
            for axis in range(1, len(shape))
            if not is_last and shape[axis] > 1 and spacing[axis] < 2 * min(spacing)
        )
        if not halves and not is_last:  # long only where samples are far apart
            halves = tuple(axis for axis in range(1, len(shape)) if shape[axis] > smallest)
        yield _Level(shape, factor, halves)
        if is_last:
            return
        shape = tuple(-(-n // 2) if axis in halves else n for axis, n in enumerate(shape))
        factor = tuple(2 * f if axis in halves else f for axis, f in enumerate(factor))


def _ahead(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The same blocks, each made while the one before it is used."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, blocks, None)
        while (block := waiting.result()) is not None:
            waiting = pool.submit(next, blocks, None)
            yield block


def _axes(n_axes: int) -> tuple[str, ...]:
    return ("c", *"zyx"[3 - n_axes :])


def _attributes(
    path: Path, image: Streamed, levels: Sequence[_Level], limits: tuple[float, float]
) -> dict[str, Any]:
    """What an OME-Zarr says of itself."""
    n_axes = len(image.shape) - 1
    axes: list[dict[str, str]] = [{"name": "c", "type": "channel"}]
    axes += [{"name": a, "type": "space", "unit": "millimeter"} for a in _axes(n_axes)[1:]]
    datasets = []
    for number, level in enumerate(levels):
        spacing = [s * f for s, f in zip(image.spacing_mm, level.factor[1:], strict=True)]
        # outer edges are the same: the first centre of a coarser level lies further inside
        shift = [s * (f - 1) / 2 for s, f in zip(image.spacing_mm, level.factor[1:], strict=True)]
        if image.labels:
            shift = [0.0] * n_axes
        scale = {"type": "scale", "scale": [1.0, *spacing]}
        translation = {"type": "translation", "translation": [0.0, *shift]}
        datasets.append({"path": str(number), "coordinateTransformations": [scale, translation]})
    name = path.name[: -len(ENDING)] if is_ome_zarr(path) else path.name
    multiscale = {"name": name, "axes": axes, "datasets": datasets}
    multiscale["type"] = "nearest" if image.labels else "mean"
    ome = {"version": "0.5", "multiscales": [multiscale], "omero": _shown(image, limits)}
    return {"ome": ome} | ({"sbr": image.facts} if image.facts else {})


def _shown(image: Streamed, limits: tuple[float, float]) -> dict[str, Any]:
    """Names of channels, the colours they are shown in, and from which to which value."""
    channels = image.shape[0]
    is_rgb = is_colour(image.photometric, channels) and image.photometric == "rgb"
    low, high = (0.0, 0.0) if math.inf in np.abs(limits) else limits
    top = {"u1": 255.0, "u2": 65535.0}.get(np.dtype(image.dtype).str[1:], high)
    if is_rgb:
        names, colours = list(_RGB), list(_RGB.values())
        shown = [0.0, top]
    else:
        names = list(image.names) or [f"channel {c}" for c in range(channels)]
        colours = ["FFFFFF"] if channels == 1 else [_COLOURS[c % 6] for c in range(channels)]
        shown = [low, high if high > low else low + 1]
    return {
        "channels": [
            {
                "label": names[c],
                "color": colours[c],
                "active": not (is_rgb and c == 3),
                "window": {
                    "min": min(low, 0.0),
                    "max": max(top, low + 1),
                    "start": shown[0],
                    "end": shown[1],
                },
            }
            for c in range(channels)
        ],
        "rdefs": {"model": "greyscale" if channels == 1 else "color"},
    }
