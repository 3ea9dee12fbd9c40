"""Rectangles of images of every kind, and pyramids as they are written."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from sbr_core.errors import ConfigError, ImageError
from sbr_core.io.pyramids import write_picture
from sbr_core.io.windows import open_windows

SHAPE = (150, 210)


def samples(channels, dtype, shape=SHAPE):
    rng = np.random.default_rng(1)
    array = rng.integers(0, 250, (*shape, channels)).astype(dtype)
    return array if np.dtype(dtype).kind in "ui" else array / 250


KINDS = {
    "strips": (samples(1, "u1")[..., 0], {"rowsperstrip": 7}),
    "tiles": (samples(1, "u2")[..., 0], {"tile": (32, 48)}),
    "deflated": (samples(3, "u1"), {"tile": (64, 64), "compression": "zlib", "predictor": True}),
    "planes": (
        np.moveaxis(samples(3, "u1"), -1, 0),
        {"tile": (64, 64), "planarconfig": "separate", "photometric": "rgb"},
    ),
    "big-endian": (samples(1, "u2")[..., 0], {"byteorder": ">", "tile": (64, 64)}),
    "float": (samples(1, "f4")[..., 0], {"tile": (64, 64)}),
    "opacity": (samples(4, "u1"), {"extrasamples": ["unassalpha"], "photometric": "rgb"}),
    "inks": (samples(4, "u1"), {"photometric": "separated"}),
    "channels": (np.moveaxis(samples(5, "u2"), -1, 0), {"photometric": "minisblack", "ome": True}),
    "imagej": (np.moveaxis(samples(3, "u2"), -1, 0), {"imagej": True, "metadata": {"axes": "CYX"}}),
    "bilevel": (samples(1, "u1")[..., 0] > 99, {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_rectangles_are_those_of_the_whole(kind, tmp_path):
    array, how = KINDS[kind]
    path = tmp_path / "a.tif"
    metadata = {"axes": "CYX", "Channel": {"Name": list("abcde")}} if how.get("ome") else None
    tifffile.imwrite(path, array, **({"metadata": metadata} | how))
    whole = array
    if array.ndim == 2:
        whole = array[..., None]
    elif array.shape[0] < 10:
        whole = np.moveaxis(array, 0, -1)
    with open_windows(path) as windows:
        assert windows.shape == SHAPE and windows.channels == whole.shape[2]
        assert windows.dtype == whole.dtype
        assert windows.is_colour == (kind in ("deflated", "planes", "opacity", "inks"))
        assert windows.names == (tuple("abcde") if kind == "channels" else ())
        for top, left, bottom, right in ((0, 0, *SHAPE), (31, 40, 97, 41), (149, 209, *SHAPE)):
            read = windows.levels[0].read(top, left, bottom, right)
            assert np.array_equal(read, whole[top:bottom, left:right])


def test_tiles_of_jpeg_are_read_as_colours(tmp_path):
    pytest.importorskip("imagecodecs")
    array = np.repeat(np.repeat(samples(3, "u1", (10, 14)), 16, 0), 16, 1)
    how = {"tile": (64, 64), "photometric": "rgb", "compression": "jpeg"}
    tifffile.imwrite(tmp_path / "a.tif", array, compressionargs={"level": 95}, **how)
    whole = tifffile.imread(tmp_path / "a.tif")
    with open_windows(tmp_path / "a.tif") as windows:
        assert windows.is_colour
        assert np.array_equal(windows.levels[0].read(50, 30, 150, 200), whole[50:150, 30:200])


def test_a_palette_is_colours_or_labels(tmp_path):
    index = samples(1, "u1")[..., 0] % 4
    table = np.zeros((3, 256), np.uint16)
    table[:, :4] = np.array([[0, 65535, 0, 257], [0, 0, 65535, 514], [0, 0, 0, 771]])
    tifffile.imwrite(tmp_path / "a.tif", index, photometric="palette", colormap=table)
    image = Image.fromarray(index, "P")
    image.putpalette((table >> 8).T.astype("u1").tobytes())
    image.save(tmp_path / "a.png")
    for name in ("a.tif", "a.png"):
        with open_windows(tmp_path / name) as windows:
            assert windows.is_colour
            read = windows.levels[0].read(10, 20, 60, 90)
            assert np.array_equal(read, (table >> 8).T[index[10:60, 20:90]])
        with open_windows(tmp_path / name, palette_is_labels=True) as windows:
            read = windows.levels[0].read(10, 20, 60, 90)
            assert np.array_equal(read[..., 0], index[10:60, 20:90])
            # written again, they have no palette
            write_picture(tmp_path / "b.tif", windows.levels[0].read(0, 0, *SHAPE), labels=True,
                          photometric=windows.photometric, pixel_mm=0.01, names=())  # fmt: skip
        assert np.array_equal(np.asarray(Image.open(tmp_path / "b.tif")), index)


@pytest.mark.parametrize(
    ("channels", "dtype", "photometric"),
    [(1, "u1", "minisblack"), (3, "u1", "rgb"), (4, "u2", "rgb"), (5, "u2", "minisblack"),
     (1, "f4", "minisblack"), (1, "i4", "minisblack"), (4, "u1", "separated")],
)  # fmt: skip
@pytest.mark.parametrize("ending", [".tif", ".ome.tif"])
def test_a_pyramid_is_read_as_it_was_written(tmp_path, channels, dtype, photometric, ending):
    array = samples(channels, dtype, (1101, 2203))
    path = tmp_path / f"a{ending}"
    names = [f"c{i}" for i in range(channels)]
    write_picture(path, array, photometric=photometric, pixel_mm=0.002, names=names)
    with open_windows(path) as windows:
        assert [level.shape for level in windows.levels] == [(1101, 2203), (551, 1102), (276, 551)]
        assert np.array_equal(windows.levels[0].read(0, 0, 1101, 2203), array)
        assert windows.is_colour == (photometric != "minisblack")
        if ending == ".ome.tif" and channels == 5:
            assert windows.names == tuple(names)
        half = windows.levels[1].read(0, 0, 550, 1101).astype(float)
    mean = array[:1100, :2202].astype(float).reshape(550, 2, 1101, 2, channels).mean(axis=(1, 3))
    assert np.abs(half - mean).max() <= (0.5 if dtype != "f4" else 1e-6)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome == (ending == ".ome.tif")
        across = tiff.pages[0].tags["XResolution"].value
        assert across[0] / across[1] == pytest.approx(5000)
        if tiff.is_ome:
            assert 'PhysicalSizeX="2.0"' in tiff.ome_metadata


def test_coarser_levels_of_labels_have_no_others(tmp_path):
    array = np.where(samples(1, "u2", (1101, 1300)) > 100, 900, 7).astype(np.uint16)
    write_picture(tmp_path / "a.tif", array, photometric="minisblack", pixel_mm=1, labels=True)
    with open_windows(tmp_path / "a.tif") as windows:
        assert set(np.unique(windows.levels[1].read(0, 0, 551, 650))) == {7, 900}


def test_what_a_file_cannot_hold_or_is_not_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"a PNG holds 8 or 16 bits .* not 5 channels of uint16"):
        write_picture(tmp_path / "a.png", samples(5, "u2"), photometric="minisblack", pixel_mm=1)
    assert not [*tmp_path.iterdir()]
    (tmp_path / "a.tif").write_bytes(b"II*\0" + bytes(20))
    with (
        pytest.raises(ImageError, match="not readable as an image"),
        open_windows(tmp_path / "a.tif"),
    ):
        pass
    with pytest.raises(ImageError, match="no such file"), open_windows(tmp_path / "b.tif"):
        pass
    tifffile.imwrite(tmp_path / "lab.tif", samples(3, "u1"), photometric="cielab")
    with pytest.raises(ImageError, match="colours as CIELAB"), open_windows(tmp_path / "lab.tif"):
        pass
    tifffile.imwrite(tmp_path / "z.tif", np.zeros((5, 50, 50), "u1"), metadata={"axes": "ZYX"})
    with pytest.raises(ImageError, match="expected one 2D plane"), open_windows(tmp_path / "z.tif"):
        pass
