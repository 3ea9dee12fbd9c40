"""Reading section images: depth, colour, palettes, damage."""

import subprocess
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image, TiffImagePlugin

from sbr_core.errors import ImageError
from sbr_core.io.images import (
    image_shape,
    read_colours,
    read_labels,
    read_picture,
    read_reduced,
    read_section,
    write_png,
)

GREY = np.random.default_rng(0).integers(0, 256, (11, 17)).astype(np.uint8)


def _save(path, array, **kwargs):
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, **kwargs)
    else:
        Image.fromarray(array).save(path, **kwargs)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_integer_files_are_read_as_a_share_of_their_range(tmp_path, suffix):
    eight = read_section(_save(tmp_path / f"8{suffix}", GREY))
    sixteen = read_section(_save(tmp_path / f"16{suffix}", GREY.astype(np.uint16) * 257))
    np.testing.assert_allclose(eight, GREY / 255, atol=1e-7)
    np.testing.assert_allclose(sixteen, eight, atol=1e-7)
    assert eight.dtype == np.float32


def test_float_files_keep_their_values(tmp_path):
    values = GREY.astype(np.float32) * 3.5
    np.testing.assert_array_equal(read_section(_save(tmp_path / "f.tif", values)), values)


def test_a_compressed_tiff_is_read(tmp_path):
    for name, compression in (("lzw", "tiff_lzw"), ("deflate", "tiff_adobe_deflate")):
        path = tmp_path / f"{name}.tif"
        Image.fromarray(GREY).save(path, compression=compression)
        np.testing.assert_allclose(read_section(path), GREY / 255, atol=1e-7)


def test_colour_is_luminance_and_alpha_lies_over_white(tmp_path):
    grey = read_section(_save(tmp_path / "rgb.png", np.stack([GREY] * 3, -1)))
    np.testing.assert_allclose(grey, GREY / 255, atol=1e-5)
    green = np.zeros((11, 17, 3), np.uint8)
    green[..., 1] = 255
    assert read_section(_save(tmp_path / "g.png", green))[0, 0] == pytest.approx(0.7154)
    clear = np.dstack([GREY, GREY, GREY, np.zeros_like(GREY)])
    np.testing.assert_allclose(read_section(_save(tmp_path / "a.png", clear)), 1.0, atol=1e-6)


def test_a_palette_is_colour_in_a_section_and_index_in_labels(tmp_path):
    indexed = Image.fromarray((GREY % 3).astype(np.uint8), mode="P")
    indexed.putpalette([0, 0, 0, 255, 255, 255, 255, 0, 0] + [0] * 759)
    indexed.save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "p.png"), GREY % 3)
    section = read_section(tmp_path / "p.png")
    np.testing.assert_allclose(section, np.array([0, 1, 0.2125])[GREY % 3], atol=1e-5)


def test_labels_keep_16_bits_and_bilevel_files_are_zero_and_one(tmp_path):
    wide = GREY.astype(np.uint16) * 200
    np.testing.assert_array_equal(read_labels(_save(tmp_path / "w.png", wide)), wide)
    _save(tmp_path / "one.png", GREY > 99)
    mask = read_labels(tmp_path / "one.png", GREY.shape)
    np.testing.assert_array_equal(mask > 0, GREY > 99)


def test_write_png_is_read_back(tmp_path):
    for array in (GREY, GREY.astype(np.uint16) * 257):
        write_png(tmp_path / "sub" / "x.png", array)
        np.testing.assert_array_equal(read_labels(tmp_path / "sub" / "x.png"), array)


def _damaged(tmp_path, name):
    path = tmp_path / name
    kind, suffix = name.split(".")
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("no image")
    elif kind == "cut":
        whole = _save(tmp_path / f"whole.{suffix}", np.tile(GREY, (9, 9))).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "nan":
        _save(path, np.full((9, 9), np.nan, np.float32))
    elif kind == "complex":
        _save(path, GREY.astype(np.complex64))
    elif kind == "pages":
        _save(path, np.stack([GREY] * 5))
    elif kind == "line":
        _save(path, GREY[:1])
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.png", "no such file"),
        ("empty.png", "not readable as an image"),
        ("empty.tif", "not readable as an image"),
        ("text.jpg", "not readable as an image"),
        ("cut.png", "not readable as an image"),
        ("cut.tif", "not readable as an image"),
        ("nan.tif", "not finite"),
        ("complex.tif", "expected grey levels or colour"),
        ("pages.tif", "expected one 2D plane"),
        ("line.png", "expected a 2D image"),
    ],
)
def test_damaged_files_are_named_in_one_line(tmp_path, name, message):
    with pytest.raises(ImageError, match=message) as caught:
        read_section(_damaged(tmp_path, name))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_of_another_shape_or_kind_are_refused(tmp_path):
    path = _save(tmp_path / "l.png", GREY)
    with pytest.raises(ImageError, match=r"shape \(11, 17\) differs from its image's \(3, 4\)"):
        read_labels(path, (3, 4))
    with pytest.raises(ImageError, match=r"from 0 to 2\^63 - 1, found -1 to 0"):
        read_labels(_save(tmp_path / "low.tif", np.diag([0, 0, -1]).astype(np.int32)))
    with pytest.raises(ImageError, match="integer labels"):
        read_labels(_save(tmp_path / "f.tif", GREY.astype(np.float32)))
    with pytest.raises(ImageError, match="integer labels"):
        read_labels(_save(tmp_path / "rgb.png", np.stack([GREY] * 3, -1)))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_the_shape_is_known_without_the_pixels(tmp_path, name):
    path, array = tmp_path / name, np.zeros((30, 40, 3), np.uint8)
    if name.endswith("png"):
        write_png(path, array)
    else:
        tifffile.imwrite(path, array, photometric="rgb")
    assert image_shape(path) == (30, 40)
    np.testing.assert_array_equal(read_colours(path), array)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ImageError, match=f"{name}: not readable as an image"):
        image_shape(path)
    with pytest.raises(ImageError, match="none.png: no such file"):
        image_shape(tmp_path / "none.png")


def test_grey_levels_are_no_colours(tmp_path):
    write_png(tmp_path / "a.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(ImageError, match="a.png: expected 8-bit colours"):
        read_colours(tmp_path / "a.png")


@pytest.mark.parametrize("read", [read_section, read_labels, image_shape])
def test_a_program_under_a_picture_s_name_is_not_run(tmp_path, read, monkeypatch):
    """PostScript, which Pillow knows by its content and gives to an interpreter."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("was run"))
    head = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    (tmp_path / "s.png").write_text(head + "{} loop\n%%EOF\n")
    with pytest.raises(ImageError, match="not readable as an image"):
        read(tmp_path / "s.png")


def _with_orientation(path, image, orientation, compression):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[274] = orientation
    image.save(path, compression=compression, tiffinfo=tags)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extra", [True, False])
def test_the_turn_stated_in_a_tiff_does_not_count_for_either_decoder(
    tmp_path, monkeypatch, orientation, extra
):
    if not extra:  # then Pillow decodes LZW in its stead
        monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
        monkeypatch.setattr(tifffile.tifffile, "imagecodecs", __import__("tifffile._imagecodecs"))
    else:
        pytest.importorskip("imagecodecs", reason="the extra wsi is not installed")
    colours = np.stack([GREY, GREY.T.reshape(GREY.shape), 255 - GREY], -1)
    palette = Image.fromarray(GREY).convert("P")
    for name, image, compression in (
        ("raw", Image.fromarray(GREY), None),
        ("lzw", Image.fromarray(GREY), "tiff_lzw"),
        ("deflated", Image.fromarray(GREY.astype(np.uint16)), "tiff_adobe_deflate"),
        ("palette", palette, "tiff_lzw"),
    ):
        path = _with_orientation(tmp_path / f"{name}.tif", image, orientation, compression)
        assert image_shape(path) == GREY.shape
        np.testing.assert_array_equal(read_labels(path, GREY.shape), GREY)
    path = _with_orientation(
        tmp_path / "rgb.tif", Image.fromarray(colours), orientation, "tiff_lzw"
    )
    np.testing.assert_allclose(read_picture(path), colours / 255, atol=1e-6)
    np.testing.assert_array_equal(read_colours(path), colours)
    coarse = read_reduced(path, 2.0)
    assert coarse.file_shape == GREY.shape
    np.testing.assert_allclose(coarse.pixels[0, 0], colours[:2, :2].mean((0, 1)) / 255, atol=1e-6)


def test_every_format_is_known_to_a_process_that_has_read_none_yet(tmp_path):
    """Pillow loads the decoders of rarer formats late, and knows some under another's name."""
    names = ["a.bmp", "a.webp", "a.jp2", "a.gif", "a.pgm", "a.tga", "a.mpo", "a.jpg", "a.png"]
    for name in names:
        Image.fromarray(GREY).save(tmp_path / name)
    code = "import sys; from sbr_core.io.images import image_shape\n"
    code += f"assert all(image_shape(p) == {GREY.shape} for p in sys.argv[1:])"
    for first in (0, 1, 6):  # the first one read loads the decoders
        paths = [str(tmp_path / name) for name in names[first:]]
        subprocess.run([sys.executable, "-c", code, *paths], check=True)


@pytest.mark.parametrize(
    ("id_", "dtype"),
    [(70_000, "i4"), (614_454_277, "u4"), (3_000_000_000, "u4"), (2**62 + 1, "i8"), (2**54, "u8")],
)
def test_ids_of_large_atlases_are_kept(tmp_path, id_, dtype):
    import nibabel as nib
    import tifffile

    labels = np.zeros((6, 8), dtype)
    labels[2:4, 3:5] = id_
    tifffile.imwrite(tmp_path / "l.tif", labels)
    nib.save(nib.Nifti1Image(labels.T[..., None], np.eye(4), dtype=dtype), tmp_path / "l.nii.gz")
    for name in ("l.tif", "l.nii.gz"):
        found = read_labels(tmp_path / name, (6, 8))
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, labels.astype(np.int64))


def test_an_id_beyond_64_bits_is_refused_and_does_not_wrap(tmp_path):
    import tifffile

    tifffile.imwrite(tmp_path / "l.tif", np.diag(np.array([0, 0, 2**64 - 1], np.uint64)))
    with pytest.raises(ImageError, match="18446744073709551615"):
        read_labels(tmp_path / "l.tif")


def test_a_flipped_bit_in_the_picture_of_a_png_is_noticed(tmp_path):
    """Pillow passes the checksums of the picture over; a text beside it may be as it is."""
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    texts.add_text("Comment", "a comment")
    path = tmp_path / "s.png"
    Image.fromarray(GREY).save(path, pnginfo=texts, compress_level=0)
    right, whole = read_section(path), path.read_bytes()
    first, last = whole.index(b"IDAT"), whole.index(b"IEND")
    for position in range(first + 5, last, 11):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ImageError, match="s.png: not readable as an image"):
            read_section(path)
    path.write_bytes(whole[: last + 4])  # without its last checksum it was always read
    np.testing.assert_array_equal(read_section(path), right)
