"""Images written as OME-Zarr while they are looked up, so that no part of them waits on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sbr_core.io.ome_zarr import Region, Streamed, write_ome_zarr
from sbr_core.mapping.grids import PixelGrid, Samples, fill_block


def stream_image(
    path: Path,
    grid: PixelGrid,
    source: Samples,
    image: Streamed,
    *,
    watch: Callable[[float, int], None] | None = None,
    finish: Callable[[], None] | None = None,
) -> None:
    """Write an image as OME-Zarr, whole or not at all.

    Parameters
    ----------
    image : what it is; of the source's channels the first ones.
    watch : told, as of each block that `fill_image` yields, the share that is done, and how many
        pixels of the block the source has something of.
    finish : as of `write_ome_zarr`.
    """
    n_done, side = 0, grid.side

    def read(region: Region) -> np.ndarray:
        nonlocal n_done
        _, rows, columns = region
        shape = rows.stop - rows.start, columns.stop - columns.start
        block = np.empty((*shape, source.channels), source.dtype)
        n_held = fill_block(grid, source, (rows.start, columns.start), block, side)
        n_done += shape[0] * shape[1]
        if watch is not None:
            watch(n_done / (grid.shape[0] * grid.shape[1]), n_held)
        return np.moveaxis(block, -1, 0)[: image.shape[0]]

    write_ome_zarr(path, image, read, finish=finish)
