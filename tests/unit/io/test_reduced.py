"""Pictures read as coarsely as they are needed: the same as the mean over blocks of the whole."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from sbr_core import geometry
from sbr_core.errors import ImageError
from sbr_core.io import tiff as tiff_module
from sbr_core.io.blocks import Picture, grid_step
from sbr_core.io.images import image_shape, read_labels, read_picture, read_reduced

RNG = np.random.default_rng(1)
COLOURS = RNG.integers(0, 256, (150, 203, 3)).astype(np.uint8)


def _blocks(array, k):
    """Mean over k x k blocks, what is left at the far edges included."""
    rows, columns = (-(-n // k) for n in array.shape[:2])
    return np.array(
        [
            [
                array[k * r : k * r + k, k * c : k * c + k].mean(axis=(0, 1), dtype=float)
                for c in range(columns)
            ]
            for r in range(rows)
        ]
    )


WAYS = {
    "strips": {"rowsperstrip": 7},
    "one strip": {},
    "tiles": {"tile": (64, 48)},
    "compressed tiles": {"tile": (32, 32), "compression": "zlib", "predictor": True},
    "BigTIFF": {"bigtiff": True, "tile": (64, 64)},
    "big-endian": {"byteorder": ">"},
    "planes": {"planarconfig": "separate"},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_however_a_tiff_is_laid_out_blocks_are_averaged(tmp_path, way, dtype):
    array = COLOURS.astype(dtype) * (257 if dtype == np.uint16 else 1)
    top = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[dtype]
    stored = np.moveaxis(array, -1, 0) if way == "planes" else array
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stored, photometric="rgb", **WAYS[way])
    whole = read_picture(path)
    np.testing.assert_allclose(whole, array / top, rtol=1e-6, atol=1e-6)
    read = read_reduced(path, 4.7)
    assert read.file_shape == image_shape(path) == (150, 203)
    assert read.step == (4, 4)
    np.testing.assert_allclose(read.pixels, _blocks(array, 4) / top, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("suffix", ["png", "nii.gz"])
def test_other_files_are_averaged_too(tmp_path, suffix):
    grey = COLOURS[..., 0].astype(np.float32)
    path = tmp_path / f"a.{suffix}"
    if suffix == "png":
        Image.fromarray(COLOURS[..., 0]).save(path)
        grey /= 255
    else:
        import nibabel as nib

        nib.save(nib.Nifti1Image(grey.T[:, None, :], np.eye(4)), path)
    np.testing.assert_allclose(read_picture(path), grey, atol=1e-6)
    read = read_reduced(path, 3)
    np.testing.assert_allclose(read.pixels, _blocks(grey, 3), rtol=1e-5, atol=1e-5)


def test_a_jpeg_is_made_smaller_as_it_is_decoded(tmp_path):
    rows, columns = np.mgrid[:400, :611]
    smooth = (127 + 100 * np.sin(rows / 40) * np.cos(columns / 50)).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    read = read_reduced(tmp_path / "a.jpg", 8.5)
    assert (read.file_shape, read.step) == ((400, 611), (8, 8))
    np.testing.assert_allclose(read.pixels, _blocks(smooth, 8) / 255, atol=0.02)


def _pyramid(path, array, factors, **how):
    """An OME-TIFF whose level for each factor is made of blocks; every level lighter by its rank,
    so that what was read tells which it was."""
    with tifffile.TiffWriter(path, ome=True) as writer:
        options = {"photometric": "rgb", "tile": (32, 32), **how}
        writer.write(array, subifds=len(factors), **options)
        for rank, factor in enumerate(factors, 1):
            level = _blocks(array, factor) * 0 + 10 * rank
            writer.write(level.astype(np.uint8), subfiletype=1, **options)


@pytest.mark.parametrize(
    ("coarsest", "rank", "step"),
    [(1, 0, 1), (1.9, 0, 1), (2, 1, 2), (3.9, 1, 2), (8, 2, 8), (7.9, 1, 6), (40, 2, 40)],
)
def test_the_level_of_a_pyramid_that_serves_is_read_and_no_other(
    tmp_path, monkeypatch, coarsest, rank, step
):
    path = tmp_path / "a.ome.tif"
    _pyramid(path, COLOURS, (2, 8))
    read_shapes = []
    pieces = tiff_module._pieces

    def seen(path, page):
        read_shapes.append(page.keyframe.imagewidth)
        return pieces(path, page)

    monkeypatch.setattr(tiff_module, "_pieces", seen)
    read = read_reduced(path, coarsest)
    assert read_shapes == [(203, 102, 26)[rank]]
    assert (read.file_shape, read.step) == ((150, 203), (step, step))
    if rank:
        np.testing.assert_allclose(read.pixels, 10 * rank / 255, atol=1e-6)


def test_steps_of_levels_are_the_blocks_they_were_made_of():
    assert grid_step(203, 102) == grid_step(203, 101) == 2
    assert grid_step(1000, 300) == pytest.approx(1000 / 300)


def test_a_point_of_the_file_is_found_in_what_was_read():
    """Outer edges of the first pixels are the same: file px 0..3 become pixel 0 of step 4."""
    picture = Picture(np.zeros((5, 5), np.float32), (20, 20), (4.0, 4.0))
    found = geometry.apply(picture.px_from_file_px, np.array([[-0.5, -0.5], [1.5, 1.5], [19.5, 0]]))
    np.testing.assert_allclose(found, [[-0.5, -0.5], [0, 0], [4.5, -0.375]])


def test_a_palette_of_a_tiff_is_colour_in_a_section_and_index_in_labels(tmp_path):
    indices = (COLOURS[..., 0] % 3).astype(np.uint8)
    table = np.zeros((3, 256), np.uint16)
    table[:, :3] = np.array([[0, 0, 0], [65535, 65535, 65535], [65535, 65535, 0]]).T
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, indices, photometric="palette", colormap=table)
    np.testing.assert_array_equal(read_labels(path), indices)
    expected = np.array([[0, 0, 0], [1, 1, 1], [1, 1, 0.0]])[indices]
    np.testing.assert_allclose(read_picture(path), expected, atol=1e-6)
    np.testing.assert_allclose(read_reduced(path, 2).pixels, _blocks(expected, 2), atol=1e-5)


def test_inks_become_light(tmp_path):
    ink = RNG.integers(0, 256, (40, 30, 4)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "c.tif", ink, photometric="separated")
    share = ink / 255
    expected = (1 - share[..., :3]) * (1 - share[..., 3:])
    np.testing.assert_allclose(read_picture(tmp_path / "c.tif"), expected, atol=1e-6)


def test_white_may_be_zero(tmp_path):
    tifffile.imwrite(tmp_path / "w.tif", COLOURS[..., 0], photometric="miniswhite")
    np.testing.assert_allclose(
        read_picture(tmp_path / "w.tif"), 1 - COLOURS[..., 0] / 255, atol=1e-6
    )


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_what_is_transparent_shows_the_background_that_is_there(tmp_path, suffix, dark):
    level = 5 if dark else 250
    picture = np.full((60, 70, 4), level, np.uint8)
    picture[20:40, 20:40, :3] = 128
    picture[..., 3] = 0
    picture[5:55, 5:65, 3] = 255
    picture[:5, :, :3] = 77  # whatever stands where nothing is seen
    path = tmp_path / f"a.{suffix}"
    if suffix == "png":
        Image.fromarray(picture).save(path)
    else:
        tifffile.imwrite(path, picture, photometric="rgb", extrasamples=["unassalpha"])
    for read in (read_picture(path), read_reduced(path, 3).pixels):
        np.testing.assert_allclose(read[0, 0], 0 if dark else 1, atol=1e-6)
        middle = read[len(read) // 2, read.shape[1] * 3 // 7]
        np.testing.assert_allclose(middle, 128 / 255, atol=1e-5)


def test_an_extra_sample_that_is_no_opacity_is_dropped(tmp_path):
    four = np.dstack([COLOURS, np.zeros_like(COLOURS[..., 0])])
    tifffile.imwrite(tmp_path / "x.tif", four, photometric="rgb", extrasamples=["unspecified"])
    np.testing.assert_allclose(read_picture(tmp_path / "x.tif"), COLOURS / 255, atol=1e-6)


def test_tiles_that_were_not_scanned_are_background(tmp_path):
    def tiles():
        yield COLOURS[:64, :64]
        yield None
        yield None
        yield COLOURS[64:128, 64:128]

    path = tmp_path / "s.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(tiles(), shape=(128, 128, 3), dtype=np.uint8, tile=(64, 64), photometric="rgb")
    with tifffile.TiffFile(path, mode="r") as tiff:
        assert len(tiff.pages[0].databytecounts) == 4
    read = read_picture(path)
    np.testing.assert_allclose(read[:64, :64], COLOURS[:64, :64] / 255, atol=1e-6)


@pytest.mark.parametrize("coarsest", [1, 4])
def test_compressions_of_slides_are_read_or_the_extra_is_named(tmp_path, monkeypatch, coarsest):
    pytest.importorskip("imagecodecs", reason="the extra wsi is not installed")
    path = tmp_path / "j.tif"
    smooth = np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None, None], (200, 150, 3)).copy()
    how = {"photometric": "rgb", "tile": (64, 64)}
    tifffile.imwrite(path, smooth, compression="jpeg", **how)
    read = read_reduced(path, coarsest)
    np.testing.assert_allclose(read.pixels, _blocks(smooth, coarsest) / 255, atol=0.02)


def test_without_the_extra_the_line_names_it(tmp_path, monkeypatch):
    path = tmp_path / "j.tif"
    tifffile.imwrite(path, COLOURS.astype(np.uint16), photometric="rgb", tile=(64, 64))
    raw = bytearray(path.read_bytes())
    # compression 34712 (JPEG 2000) in place of 1 (none), tag 259
    at = raw.index((259).to_bytes(2, "little") + (3).to_bytes(2, "little"))
    raw[at + 8 : at + 10] = (34712).to_bytes(2, "little")
    path.write_bytes(raw)
    monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
    monkeypatch.setattr(tifffile.tifffile, "imagecodecs", __import__("tifffile._imagecodecs"))
    with pytest.raises(ImageError, match=r"j.tif: .*pip install 'sbr_core\[wsi\]'"):
        read_picture(path)
