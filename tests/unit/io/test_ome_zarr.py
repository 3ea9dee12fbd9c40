"""OME-Zarr that is written as it comes: every level, its place, and nothing by halves."""

import errno
import os

import numpy as np
import pytest
import zarr

from sbr_core.errors import StorageError
from sbr_core.io import ome_zarr
from sbr_core.io.blocks import halved
from sbr_core.io.ome_zarr import Streamed, write_ome_zarr


@pytest.fixture
def small_chunks(monkeypatch):
    """So that small images have many shards."""
    monkeypatch.setattr(ome_zarr, "_CHUNK", {2: 16, 3: 8})


def written(path, array, image, **how):
    asked = []

    def read(region):
        asked.append(region)
        return array[region]

    write_ome_zarr(path, image, read, **how)
    return zarr.open_group(path, mode="r"), asked


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((3, 150, 205), "u1"), ((1, 129, 64), "f4"), ((2, 30, 41, 70), ">u2"), ((3, 9, 9, 9), "u1")],
)
def test_every_level_is_half_of_the_one_before(tmp_path, small_chunks, shape, dtype, threads):
    array = (np.random.default_rng(0).random(shape) * 200).astype(dtype)
    spacing_mm = (0.5,) * (len(shape) - 1)
    image = Streamed(shape, array.dtype, spacing_mm, "rgb" if shape[0] == 3 else "minisblack")
    group, asked = written(tmp_path / "a.ome.zarr", array, image, threads=threads)
    seen = np.zeros(shape, int)
    for region in asked:
        seen[region] += 1
    assert (seen == 1).all()
    (multiscale,) = group.attrs["ome"]["multiscales"]
    level = array
    for number, dataset in enumerate(multiscale["datasets"]):
        found = group[dataset["path"]]
        assert np.array_equal(found[:], level) and found.shards is not None
        scale, shift = (t[t["type"]] for t in dataset["coordinateTransformations"])
        assert scale == [1.0, *[0.5 * 2**number] * len(spacing_mm)]
        # the outer edge of the first sample is the same
        assert np.allclose(np.array(shift[1:]) - np.array(scale[1:]) / 2, -0.25)
        level = halved(level, range(1, len(shape)))
    assert max(found.shape[1:]) <= (16 if len(shape) == 3 else 8)
    axes = [axis["name"] for axis in multiscale["axes"]]
    assert tuple(axes) == found.metadata.dimension_names == ("c", *"zyx"[4 - len(shape) :])
    colours = [channel["color"] for channel in group.attrs["ome"]["omero"]["channels"]]
    assert len(colours) == shape[0] and (shape[0] != 3 or colours[0] == "FF0000")


def test_layers_far_apart_are_kept_until_pixels_are_as_far(tmp_path, small_chunks):
    ids = np.random.default_rng(0).integers(0, 9, (1, 6, 64, 80), np.uint16)
    image = Streamed(ids.shape, ids.dtype, (2.0, 0.25, 0.25), "minisblack", labels=True)
    group, _ = written(tmp_path / "a.ome.zarr", ids, image)
    shapes = [group[str(number)].shape[1:] for number in range(len(list(group.arrays())))]
    assert shapes == [(6, 64, 80), (6, 32, 40), (6, 16, 20), (6, 8, 10), (3, 4, 5)]
    assert np.array_equal(group["2"][0], ids[0, :, ::4, ::4])


def test_nothing_is_left_of_what_was_not_finished(tmp_path, small_chunks):
    array = np.ones((1, 200, 200), np.uint8)
    image = Streamed(array.shape, array.dtype, (1.0, 1.0), "minisblack")
    left = []

    def until_full(region):
        left.append(region)
        if len(left) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return array[region]

    path = tmp_path / "a.ome.zarr"
    with pytest.raises(StorageError, match=r"a\.ome\.zarr: cannot be written: no space left"):
        write_ome_zarr(path, image, until_full)
    with pytest.raises(ZeroDivisionError):
        write_ome_zarr(path, image, array.__getitem__, finish=lambda: 1 / 0)
    assert not list(tmp_path.iterdir())
    write_ome_zarr(path, image, array.__getitem__)
    with pytest.raises(ZeroDivisionError):  # what was there stays
        write_ome_zarr(path, image, array.__getitem__, finish=lambda: 1 / 0)
    assert [p.name for p in tmp_path.iterdir()] == ["a.ome.zarr"]
    assert np.array_equal(zarr.open_group(path)["0"][:], array)


def test_a_chunk_that_rotted_is_noticed_where_it_is_read(tmp_path, small_chunks):
    array = np.random.default_rng(0).integers(0, 99, (1, 40, 40), np.uint8)
    image = Streamed(array.shape, array.dtype, (1.0, 1.0), "minisblack")
    write_ome_zarr(tmp_path / "a.ome.zarr", image, array.__getitem__)
    shard = tmp_path / "a.ome.zarr/0/c/0/0/0"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(RuntimeError, match="Zstd decompression error"):
        zarr.open_group(tmp_path / "a.ome.zarr", mode="r")["0"][:]
