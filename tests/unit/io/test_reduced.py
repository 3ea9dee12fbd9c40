"""Pictures read as coarsely as they are needed: the same as the mean over blocks of the whole."""

from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image

from sbr_core import geometry
from sbr_core.errors import ImageError
from sbr_core.io import tiff as tiff_module
from sbr_core.io.blocks import Picture, grid_step
from sbr_core.io.images import image_shape, read_labels, read_picture, read_reduced
from sbr_core.io.pixel_size import (
    PixelSize,
    disagreement,
    is_another_unit,
    stated_pixel_size,
)

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

    def seen(path, page, skipped):
        read_shapes.append(page.keyframe.imagewidth)
        return pieces(path, page, skipped)

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


LAYOUTS = {
    "interleaved": {"planarconfig": "contig"},
    "in tiles": {"planarconfig": "contig", "tile": (64, 48), "compression": "zlib"},
    "in planes": {"planarconfig": "separate"},
    "OME-TIFF, in planes": {"planarconfig": "separate", "metadata": {"axes": "SYX"}, "ome": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [2, 3, 5])
def test_channels_beside_one_another_are_counted_and_none_is_taken(tmp_path, layout, channels):
    """Samples that are grey levels, and no opacity, are channels: there is no first among them."""
    array = RNG.integers(0, 256, (60, 70, channels)).astype(np.uint8)
    if "planes" in layout:
        array = np.moveaxis(array, -1, 0)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, photometric="minisblack", **LAYOUTS[layout])
    for read in (read_picture, lambda p: read_reduced(p, 4), image_shape, read_labels):
        with pytest.raises(ImageError, match=f"a.tif: .*found {channels} channels: export the one"):
            read(path)


def test_of_channels_the_same_is_said_wherever_the_file_keeps_them(tmp_path):
    stack = RNG.integers(0, 256, (5, 60, 70)).astype(np.uint8)
    how = {"photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "pages.ome.tif", stack, metadata={"axes": "CYX"}, **how)
    tifffile.imwrite(tmp_path / "imagej.tif", stack, imagej=True, metadata={"axes": "CYX"}, **how)
    tifffile.imwrite(tmp_path / "samples.tif", stack, planarconfig="separate", **how)
    for name in ("pages.ome.tif", "imagej.tif", "samples.tif"):
        with pytest.raises(ImageError, match="found 5 channels.*: export the one to be registered"):
            read_picture(tmp_path / name)


CHANNELS = RNG.integers(0, 65536, (3, 120, 140)).astype(np.uint16)
NAMES = ["DAPI", "GFP", "Cy5"]


def _channel_pyramid(path):
    with tifffile.TiffWriter(path) as tiff:
        how = {"tile": (64, 64), "photometric": "minisblack"}
        names = {"axes": "CYX", "Channel": {"Name": NAMES}}
        tiff.write(CHANNELS, subifds=1, metadata=names, **how)
        coarse = CHANNELS.reshape(3, 60, 2, 70, 2).mean(axis=(2, 4))
        tiff.write(coarse.astype(np.uint16), subfiletype=1, **how)


def _channels(path, array=CHANNELS, **how):
    tifffile.imwrite(path, array, photometric="minisblack", **how)


def _imagej(path, labels=NAMES, **how):
    _channels(path, imagej=True, metadata={"axes": "CYX", "Labels": labels}, **how)


def _ome_xml(tiff_data):
    """Channels of one sample each, as Bio-Formats describes them."""
    channels = "".join(
        f'<Channel ID="Channel:0:{i}" SamplesPerPixel="1" Name="{name}"/>'
        for i, name in enumerate(NAMES)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="140" SizeY="120"'
        f' SizeC="3" SizeZ="1" SizeT="1">{channels}{tiff_data}</Pixels></Image></OME>'
    )


def _planar_ome(path, photometric="minisblack"):
    """In the planes of one page."""
    xml = _ome_xml('<TiffData IFD="0" PlaneCount="3"/>')
    how = {"planarconfig": "separate", "description": xml, "metadata": None}
    tifffile.imwrite(path, CHANNELS, photometric=photometric, **how)


HOLDERS = {
    "a.ome.tif": _channel_pyramid,
    "imagej.tif": _imagej,
    # as ImageJ does it above 4 GB
    "imagej, one page for all.tif": lambda p: _imagej(p, truncate=True),
    "planes.tif": lambda p: _channels(p, planarconfig="separate"),
    "pixels.tif": lambda p: _channels(p, np.moveaxis(CHANNELS, 0, -1), planarconfig="contig"),
    "planes.ome.tif": _planar_ome,
    "colours in planes.ome.tif": lambda p: _planar_ome(p, "rgb"),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_the_chosen_channel_is_read_wherever_the_file_keeps_it(tmp_path, name):
    path = tmp_path / name
    HOLDERS[name](path)
    named = ["gFp"] if "ome" in name or "imagej" in name else []
    for choice in ["2", "2.0", *named]:
        whole = read_reduced(path, 1, choice).pixels
        np.testing.assert_allclose(whole, CHANNELS[1] / 65535, atol=1e-6)
        coarse = read_reduced(path, 2, choice).pixels
        np.testing.assert_allclose(coarse, _blocks(CHANNELS[1], 2) / 65535, atol=2e-5)
        assert image_shape(path, choice) == (120, 140)
    last = read_reduced(path, 1, "3").pixels
    np.testing.assert_allclose(last, CHANNELS[2] / 65535, atol=1e-6)
    listed = "1 DAPI, 2 GFP, 3 Cy5" if named else "1 to 3"
    refusals = dict.fromkeys(("4", "0", "1.5", "violet"), f"image_channel: .*{listed}, found ")
    refusals[""] = rf"found 3 channels: image_channel chooses one \({listed}\)"
    for choice, words in refusals.items():
        for read in (lambda c: read_reduced(path, 2, c), lambda c: image_shape(path, c)):
            with pytest.raises(ImageError, match=f"{name}: .*{words}"):
                read(choice)


@pytest.mark.parametrize(
    ("names", "choice", "found"),
    [
        (["3", "2", "1"], "1", 0),  # a number is a number
        (["405", "488", "561"], "488", 1),
        (["0405", "1.50", "true"], "1.50", 1),  # as they are written
        (["DAPI", "", "Cy5"], "cy5", 2),
        (["DAPI", "DAPI", "Cy5"], "dapi", "2 channels are called 'dapi', .* of one: 1, 2"),
    ],
)
def test_names_of_channels_as_files_have_them(tmp_path, names, choice, found):
    path = tmp_path / "a.ome.tif"
    _channels(path, metadata={"axes": "CYX", "Channel": {"Name": names}})
    if isinstance(found, str):
        with pytest.raises(ImageError, match=found):
            read_reduced(path, 1, choice)
        return
    np.testing.assert_allclose(read_reduced(path, 1, choice).pixels, CHANNELS[found] / 65535)


def test_names_do_not_count_where_there_is_not_one_for_each_channel(tmp_path):
    _imagej(tmp_path / "a.tif", ["DAPI", "GFP"])
    with pytest.raises(ImageError, match="expected one of 1 to 3, found 'GFP'"):
        read_reduced(tmp_path / "a.tif", 1, "GFP")


def test_one_file_of_a_set_does_not_answer_to_the_names_of_the_others(tmp_path):
    """Each of the files tells the channels of all of them, and holds one."""
    path = tmp_path / "second.ome.tif"
    files = "".join(
        f'<TiffData FirstC="{i}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{name}.ome.tif">urn:uuid:{name}</UUID></TiffData>'
        for i, name in enumerate(("first", "second", "third"))
    )
    tifffile.imwrite(path, CHANNELS[1], description=_ome_xml(files), metadata=None)
    np.testing.assert_allclose(read_reduced(path, 1, "").pixels, CHANNELS[1] / 65535)
    for name in NAMES:
        with pytest.raises(ImageError, match="image_channel: expected one of 1, found"):
            read_reduced(path, 1, name)


def test_a_chosen_colour_has_the_same_surround_in_every_kind_of_file(tmp_path):
    """What is transparent is decided by the chosen colour, not by those it was chosen from."""
    opaque = np.zeros((60, 60), np.uint8)
    opaque[10:50, 10:50] = 255
    picture = np.dstack([np.full_like(opaque, v) for v in (10, 10, 240)] + [opaque])
    Image.fromarray(picture).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", picture, photometric="rgb", extrasamples=["unassalpha"])
    for colour in ("red", "blue"):
        png, tif = (read_reduced(tmp_path / f"a.{e}", 1, colour).pixels for e in ("png", "tif"))
        np.testing.assert_allclose(png, tif, atol=1e-6)
        assert png[0, 0] == (0 if colour == "red" else 1)


def test_without_its_codec_a_channel_is_read_only_where_the_file_has_no_other(
    tmp_path, monkeypatch
):
    pages = []
    for name, array in {"rgb.tif": COLOURS, "grey.tif": COLOURS[..., 0]}.items():
        Image.fromarray(array).save(tmp_path / name, compression="tiff_lzw")
    tifffile.imwrite(tmp_path / "many.ome.tif", CHANNELS, metadata={"axes": "CYX"})

    def lacking(path, *_):
        pages.append(path.name)
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tiff_module, "_pieces", lacking)
    np.testing.assert_allclose(
        read_reduced(tmp_path / "rgb.tif", 1, "green").pixels, COLOURS[..., 1] / 255, atol=1e-6
    )
    np.testing.assert_allclose(
        read_reduced(tmp_path / "grey.tif", 1, "1").pixels, COLOURS[..., 0] / 255, atol=1e-6
    )
    with pytest.raises(ImageError, match="many.ome.tif: .*imagecodecs"):
        read_reduced(tmp_path / "many.ome.tif", 1, "1")
    assert pages == ["rgb.tif", "grey.tif", "many.ome.tif"]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "palette.tif"])
def test_a_colour_may_be_chosen_of_rgb_and_nothing_of_grey_but_the_first(tmp_path, name):
    path = tmp_path / name
    if name == "a.tif":
        tifffile.imwrite(path, COLOURS, photometric="rgb", tile=(64, 64))
    else:
        image = Image.fromarray(COLOURS)
        (image.quantize(16) if name == "palette.tif" else image).save(path)
    all_three = read_picture(path)
    for index, colour in enumerate(("red", "green", "blue")):
        for choice in (colour, str(index + 1)):
            chosen = read_reduced(path, 1, choice).pixels
            np.testing.assert_array_equal(chosen, all_three[..., index])
    with pytest.raises(ImageError, match="expected one of 1 red, 2 green, 3 blue, found 'DAPI'"):
        read_reduced(path, 1, "DAPI")
    with pytest.raises(ImageError, match="found 'DAPI'"):
        image_shape(path, "DAPI")
    for grey in ("grey.png", "grey.tif"):
        Image.fromarray(COLOURS[..., 0]).save(tmp_path / grey)
        np.testing.assert_array_equal(
            read_reduced(tmp_path / grey, 1, "1").pixels, read_picture(tmp_path / grey)
        )
        with pytest.raises(ImageError, match="image_channel: expected one of 1, found '2'"):
            read_reduced(tmp_path / grey, 1, "2")
        with pytest.raises(ImageError, match="found '2'"):
            image_shape(tmp_path / grey, "2")


def test_the_chosen_channel_of_samples_beside_opacity(tmp_path):
    grey, full = COLOURS[..., 0], np.full_like(COLOURS[..., 0], 255)
    tifffile.imwrite(
        tmp_path / "b.tif",
        np.dstack([full // 2, full, grey]),
        photometric="minisblack",
        planarconfig="contig",
        extrasamples=["unassalpha", "unspecified"],
    )
    np.testing.assert_allclose(
        read_reduced(tmp_path / "b.tif", 1, "2").pixels, grey / 255, atol=1e-6
    )


def test_grey_with_opacity_is_one_channel_and_with_another_sample_two(tmp_path):
    grey, full = COLOURS[..., 0], np.full_like(COLOURS[..., 0], 255)
    how = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(
        tmp_path / "a.tif", np.dstack([grey, full]), extrasamples=["unassalpha"], **how
    )
    np.testing.assert_allclose(read_picture(tmp_path / "a.tif"), grey / 255, atol=1e-6)
    tifffile.imwrite(
        tmp_path / "b.tif",
        np.dstack([grey, full, grey]),
        extrasamples=["unassalpha", "unspecified"],
        **how,
    )
    with pytest.raises(ImageError, match="found 2 channels"):
        read_picture(tmp_path / "b.tif")


def test_colour_with_more_than_a_fourth_sample_is_refused(tmp_path):
    more = np.dstack([COLOURS, COLOURS[..., :2]])
    tifffile.imwrite(tmp_path / "x.tif", more, photometric="rgb")
    with pytest.raises(ImageError, match="colour and 2 more channels"):
        read_picture(tmp_path / "x.tif")


def _leave_out(path, tile):
    """Empty one entry of the tables of offsets and byte counts of a little-endian TIFF."""
    with tifffile.TiffFile(path) as tiff:
        places = [tiff.pages[0].tags[code].valueoffset for code in (324, 325)]
        kinds = [tiff.pages[0].tags[code].dtype for code in (324, 325)]
    assert set(kinds) <= {3, 4}, kinds
    data = bytearray(path.read_bytes())
    for place, kind in zip(places, kinds, strict=True):
        size = {3: 2, 4: 4}[kind]
        data[place + size * tile : place + size * (tile + 1)] = bytes(size)
    path.write_bytes(data)


@pytest.mark.parametrize("coarsest", [1, 4])
@pytest.mark.parametrize("black", [False, True])
def test_tiles_that_were_not_scanned_show_the_background_that_is_there(tmp_path, black, coarsest):
    path, level = tmp_path / "s.tif", 2 if black else 250
    array = np.full((128, 128, 3), level, np.uint8)
    array[70:90, 70:100] = 120
    tifffile.imwrite(path, array, photometric="rgb", tile=(64, 64), compression="zlib")
    _leave_out(path, 1)
    read = read_reduced(path, coarsest).pixels
    half = 64 // coarsest
    np.testing.assert_allclose(read[:half, half:], 0 if black else 1, atol=1e-6)
    np.testing.assert_allclose(read[:half, :half], level / 255, atol=1e-5)
    np.testing.assert_allclose(read[75 // coarsest, 80 // coarsest], 120 / 255, atol=1e-5)


def _svs(path, array, compression):
    """A file laid out as Aperio's scanners do: slide, thumbnail, a level, label, overview."""
    about = (
        "Aperio Image Library v12.0.15\r\n406x300 [0,0 203x150] (64x64) |MPP = 0.4990|AppMag = 20"
    )
    how = {"photometric": "rgb", "metadata": None, "software": None, "description": about}
    small = _blocks(array, 4).astype(np.uint8)
    with tifffile.TiffWriter(path) as writer:
        writer.write(array, tile=(64, 64), compression=compression, **how)
        writer.write(_blocks(array, 6).astype(np.uint8), rowsperstrip=16, **how)
        writer.write(small, tile=(64, 64), compression=compression, **how)
        writer.write(array[:40, :40], subfiletype=1, **how)
        writer.write(array[:30, :60], subfiletype=9, **how)


@pytest.mark.parametrize("compression", [None, "jpeg"])
def test_a_slide_of_aperio(tmp_path, compression):
    if compression == "jpeg":
        pytest.importorskip("imagecodecs", reason="the extra wsi is not installed")
    rows, columns = np.mgrid[:600, :812]
    smooth = 127 + 100 * np.sin(rows / 90)[..., None] * np.cos(columns / 80)[..., None]
    smooth = np.repeat(smooth, 3, axis=-1).astype(np.uint8)
    _svs(tmp_path / "a.svs", smooth, compression)
    for coarsest, step in ((1, 1), (3, 3), (4, 4), (9, 8)):
        read = read_reduced(tmp_path / "a.svs", coarsest)
        assert (read.file_shape, read.step) == ((600, 812), (step, step))
        np.testing.assert_allclose(read.pixels, _blocks(smooth, step) / 255, atol=0.03)
    stated = stated_pixel_size(tmp_path / "a.svs")
    assert (stated.x_mm, stated.source) == (pytest.approx(0.000499), "Aperio MPP")


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


GREY = COLOURS[..., 0]
SIZES = {
    "OME, default unit": (
        "a.ome.tif",
        {"metadata": {"PhysicalSizeX": 4, "PhysicalSizeY": 4}},
        0.004,
    ),
    "OME, nm": (
        "a.ome.tif",
        {
            "metadata": {
                "PhysicalSizeX": 500.0,
                "PhysicalSizeXUnit": "nm",
                "PhysicalSizeY": 500.0,
                "PhysicalSizeYUnit": "nm",
            }
        },
        0.0005,
    ),
    "centimetres": ("a.tif", {"resolution": (5000, 5000), "resolutionunit": 3}, 0.002),
    "scanner": ("a.tif", {"resolution": (2400, 2400), "resolutionunit": 2}, 25.4 / 2400),
    "ImageJ": (
        "a.tif",
        {"imagej": True, "resolution": (0.5, 0.5), "metadata": {"unit": "um"}},
        0.002,
    ),
    "ImageJ, one pixel is 1 mm": (
        "a.tif",
        {"imagej": True, "resolution": (1, 1), "metadata": {"unit": "mm"}},
        1.0,
    ),
    "ImageJ, 72 dpi that it read and passed on": (
        "tif",
        {"imagej": True, "resolution": (72, 72), "metadata": {"unit": "inch"}},
        None,
    ),
    "ImageJ without a length": (
        "a.tif",
        {"imagej": True, "resolution": (1, 1), "metadata": {"unit": "pixel"}},
        None,
    ),
    "screen": ("a.tif", {"resolution": (72, 72), "resolutionunit": 2}, None),
    "print, in centimetres": ("a.tif", {"resolution": (118.11, 118.11), "resolutionunit": 3}, None),
    "no unit": ("a.tif", {"resolution": (5000, 5000), "resolutionunit": 1}, None),
    "nothing": ("a.tif", {}, None),
}


@pytest.mark.parametrize("name", SIZES)
def test_the_pixel_size_a_tiff_states(tmp_path, name):
    file, how, mm = SIZES[name]
    tifffile.imwrite(tmp_path / file, GREY, **how)
    stated = stated_pixel_size(tmp_path / file)
    if mm is None:
        assert stated is None
        return
    assert stated.x_mm == pytest.approx(mm, rel=1e-4) and stated.is_square


def test_the_pixel_size_other_files_state(tmp_path):
    import nibabel as nib

    Image.fromarray(GREY).save(tmp_path / "a.png", dpi=(2540, 2540))
    assert stated_pixel_size(tmp_path / "a.png").x_mm == pytest.approx(0.01, rel=1e-3)
    Image.fromarray(GREY).save(tmp_path / "a.jpg", dpi=(300, 300))
    assert stated_pixel_size(tmp_path / "a.jpg") is None
    image = nib.Nifti1Image(GREY.T[:, None], np.diag([20.0, 50, 30, 1]))
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "a.nii.gz")
    stated = stated_pixel_size(tmp_path / "a.nii.gz")
    assert (stated.x_mm, stated.y_mm) == (pytest.approx(0.02), pytest.approx(0.03))
    assert not stated.is_square
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(ImageError, match="b.png: not readable"):
        stated_pixel_size(tmp_path / "b.png")


def test_a_disagreement_names_both_and_the_factor():
    stated = PixelSize(0.0005, 0.0005, "OME-XML")
    assert disagreement(None, 0.5) == disagreement(stated, 0.00051) == ""
    assert "0.0005 mm (OME-XML): 1000 times as much: micro" in disagreement(stated, 0.5)
    assert "1/2 of it" in disagreement(stated, 0.00025)


@pytest.mark.parametrize(("factor", "another"), [(1, 0), (400, 0), (500, 1), (2000, 1), (2500, 0)])
def test_a_factor_of_about_1000_is_another_unit(factor, another):
    stated = PixelSize(0.001, 0.001, "OME-XML")
    assert is_another_unit(stated, 0.001 * factor) == another
    assert is_another_unit(stated, 0.001 / factor) == another
    assert not is_another_unit(None, factor)


@pytest.mark.parametrize(
    ("side", "unit", "is_certain"), [(0.5, "mm", 1), (0.5, "unknown", 0), (1, "mm", 0)]
)
def test_a_nifti_header_that_nobody_filled_in_is_not_certain(tmp_path, side, unit, is_certain):
    """Programs write 1 mm, or a number without a unit, when they were not told any."""
    import nibabel as nib

    image = nib.Nifti1Image(GREY.T[..., None], np.diag([side, side, 1, 1]))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii")
    stated = stated_pixel_size(tmp_path / "a.nii")
    assert (stated.x_mm, stated.is_certain) == (side, is_certain)
    assert is_another_unit(stated, side / 1000) == is_certain


def test_a_nifti_that_would_not_fit_is_refused_before_it_is_read(tmp_path, monkeypatch):
    import nibabel as nib
    import psutil

    nib.save(nib.Nifti1Image(GREY.T[..., None], np.eye(4)), tmp_path / "a.nii.gz")

    def free(n_bytes):
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=n_bytes))

    free(9 * GREY.size)
    read_picture(tmp_path / "a.nii.gz")
    free(9 * GREY.size - 1)
    monkeypatch.setattr(nib.arrayproxy.ArrayProxy, "__array__", None)  # not to be called
    with pytest.raises(ImageError, match=r"a.nii.gz: reading it takes .* of memory"):
        read_picture(tmp_path / "a.nii.gz")
    assert image_shape(tmp_path / "a.nii.gz") == GREY.shape
