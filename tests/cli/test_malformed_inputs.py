"""What labs hand in: each file or table is read as it is meant, or refused in one clear line.

`FILES` are images of one section, all showing the same tissue where they show anything; `TABLES`
are manifests. For each it is written down what must happen: ``reads`` (the mask is that of the good
section), or words that the one line must have.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image

from sbr_core.artifacts.rows import Prepared, read_rows
from sbr_core.cli import main
from sbr_core.io.volumes import read_plane

PIXEL_MM = 0.5
SHAPE = (60, 80)
COLUMNS = "section\timage\tposition_mm\tpixel_size_mm"


def _grey():
    """Glass-white with one piece of tissue, darker to the right."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    tissue = ((rows - 30) / 20) ** 2 + ((columns - 35) / 28) ** 2 < 1
    return np.where(tissue, 160 - columns, 250).astype(np.uint8)


GREY = _grey()
RGB = np.stack([GREY] * 3, -1)


def _png(path, array=GREY, **how):
    Image.fromarray(array).save(path, **how)


def _tif(path, array=GREY, **how):
    tifffile.imwrite(path, array, **how)


def _cut(path, share=0.5):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])


def _then_cut(write, share=0.5, **how):
    def make(path):
        write(path, **how)
        _cut(path, share)

    return make


def _palette_png(path):
    image = Image.fromarray(255 - GREY).convert("P")
    image.putpalette([value for i in range(256) for value in (255 - i,) * 3])
    image.save(path)


def _palette_tif(path):
    table = np.stack([np.arange(255, -1, -1, dtype=np.uint16) * 257] * 3)
    _tif(path, 255 - GREY, photometric="palette", colormap=table)


def _alpha(value=None):
    opacity = np.full(SHAPE, 255, np.uint8)
    opacity[:4] = 0
    colours = np.where(opacity[..., None] > 0, RGB, 0).astype(np.uint8)
    return np.dstack([colours, opacity if value is None else np.full(SHAPE, value, np.uint8)])


def _cmyk_jpeg(path):
    Image.fromarray(RGB).convert("CMYK").save(path, quality=95)


def _cmyk_tif(path):
    ink = np.zeros((*SHAPE, 4), np.uint8)
    ink[..., 3] = 255 - GREY
    _tif(path, ink, photometric="separated")


def _png_bomb(path, side=200_000):
    """A PNG of a few bytes whose header claims `side` squared pixels."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = (
        chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 999)) + chunk(b"IEND", b"")
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def _jpeg_bomb(path):
    _png(path, quality=90)
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc0")  # start of frame: length, precision, rows, columns
    data[at + 5 : at + 9] = struct.pack(">HH", 65000, 65000)
    path.write_bytes(data)


def _tag(path, code, value):
    """Overwrite the value of a tag in the first directory of a little-endian TIFF."""
    data = bytearray(path.read_bytes())
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    for i in range(count):
        entry = at + 2 + 12 * i
        tag, kind = struct.unpack_from("<HH", data, entry)
        if tag == code:
            struct.pack_into("<I" if kind == 4 else "<H", data, entry + 8, value)
            path.write_bytes(data)
            return
    raise KeyError(code)


def _tif_bomb(path, **how):
    _tif(path, **how)
    _tag(path, 256, 60_000)
    _tag(path, 257, 60_000)
    if "tile" not in how:
        _tag(path, 278, 60_000)


def _nan(path):
    array = GREY.astype(np.float32)
    array[30, 30] = np.nan
    _tif(path, array)


def _nifti(path, data):
    nib.save(nib.Nifti1Image(data, np.diag([PIXEL_MM, PIXEL_MM, 1, 1])), path)


def _pyramid(path):
    with tifffile.TiffWriter(path, ome=True) as writer:
        size = {"PhysicalSizeX": 500, "PhysicalSizeY": 500}
        writer.write(GREY, subifds=1, tile=(16, 16), metadata=size)
        writer.write(GREY[::2, ::2], subfiletype=1, tile=(16, 16))


def _animated(path):
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def _in_place_of(make, suffix):
    """What `make` writes for `suffix`, under the name asked for."""

    def write(path):
        other = path.with_name(f"other{suffix}")
        make(other)
        other.rename(path)

    return write


def _loop(path):
    path.symlink_to(path.name)


READS = ()
UNREADABLE = ("not readable as an image",)
FILES = {
    # name: (file name, how it is made, READS or words of the line)
    "PNG": ("a.png", _png, READS),
    "16-bit PNG": ("a.png", lambda p: _png(p, GREY.astype(np.uint16) * 257), READS),
    "JPEG": ("a.jpg", lambda p: _png(p, quality=95), READS),
    "TIFF, 16 bits, big-endian": (
        "a.tif",
        lambda p: _tif(p, GREY.astype(np.uint16) * 257, byteorder=">"),
        READS,
    ),
    "12 bits in 16": ("a.tif", lambda p: _tif(p, GREY.astype(np.uint16) * 16), READS),
    "one bit": ("a.tif", lambda p: _png(p, GREY > 200), READS),
    "one bit, fax": ("a.tif", lambda p: _png(p, GREY > 200, compression="group4"), READS),
    "float TIFF": ("a.tif", lambda p: _tif(p, GREY.astype(np.float32) / 7), READS),
    "32-bit integers": ("a.tif", lambda p: _tif(p, GREY.astype(np.uint32) * 2**24), READS),
    "signed integers": ("a.tif", lambda p: _tif(p, GREY.astype(np.int16)), READS),
    "RGB in tiles, BigTIFF": (
        "a.btf",
        lambda p: _tif(p, RGB, photometric="rgb", tile=(16, 16), bigtiff=True),
        READS,
    ),
    "RGB in separate planes": (
        "a.tif",
        lambda p: _tif(p, np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate"),
        READS,
    ),
    "LZW": ("a.tif", lambda p: _png(p, compression="tiff_lzw"), READS),
    "OME-TIFF pyramid": ("a.ome.tif", _pyramid, READS),
    "palette PNG": ("a.png", _palette_png, READS),
    "palette TIFF": ("a.tif", _palette_tif, READS),
    "white is zero": ("a.tif", lambda p: _tif(p, 255 - GREY, photometric="miniswhite"), READS),
    "alpha, PNG": ("a.png", lambda p: _png(p, _alpha()), READS),
    "alpha, TIFF": (
        "a.tif",
        lambda p: _tif(p, _alpha(), photometric="rgb", extrasamples=["unassalpha"]),
        READS,
    ),
    "grey with alpha": ("a.png", lambda p: _png(p, _alpha()[..., [0, 3]]), READS),
    "a fourth sample that says nothing": (
        "a.tif",
        lambda p: _tif(p, _alpha(0), photometric="rgb", extrasamples=["unspecified"]),
        READS,
    ),
    "CMYK JPEG": ("a.jpg", _cmyk_jpeg, READS),
    "CMYK TIFF": ("a.tif", _cmyk_tif, READS),
    "one slice of NIfTI": ("a.nii.gz", lambda p: _nifti(p, GREY.T[:, :, None]), READS),
    "2D NIfTI": ("a.nii", lambda p: _nifti(p, GREY.T.astype(np.float32)), READS),
    "PNG called .tif": ("a.tif", _in_place_of(_png, ".png"), READS),
    "TIFF called .jpg": ("a.jpg", _in_place_of(_tif, ".tif"), READS),
    "no ending": ("scan", _in_place_of(_png, ".png"), READS),
    "spaces": ("my section (2) .png", _png, READS),
    "not ASCII": ("Schnitt ä µ 脑.png", _png, READS),
    "quotes and a dollar": ('it\'s $HOME "x".png', _png, READS),
    "begins with a dash": ("-rf.png", _png, READS),
    "zero bytes": ("a.png", lambda p: p.write_bytes(b""), UNREADABLE),
    "zero bytes, TIFF": ("a.tif", lambda p: p.write_bytes(b""), UNREADABLE),
    "text": ("a.png", lambda p: p.write_text("no image"), UNREADABLE),
    "truncated PNG": ("a.png", _then_cut(_png), UNREADABLE),
    "truncated JPEG": ("a.jpg", _then_cut(_png, quality=95), UNREADABLE),
    "truncated TIFF": ("a.tif", _then_cut(_tif), UNREADABLE),
    "truncated TIFF in tiles": ("a.tif", _then_cut(_tif, tile=(16, 16)), UNREADABLE),
    "truncated deflate": ("a.tif", _then_cut(_tif, 0.8, compression="zlib"), UNREADABLE),
    "TIFF header alone": ("a.tif", lambda p: p.write_bytes(b"II*\0\x08\0\0\0"), UNREADABLE),
    "truncated NIfTI": (
        "a.nii.gz",
        _then_cut(lambda p: _nifti(p, np.random.default_rng(0).random((60, 80)))),
        UNREADABLE,
    ),
    "giant PNG of a few bytes": ("a.png", _png_bomb, ("200000 x 200000", "cannot hold")),
    "giant JPEG of a few bytes": ("a.jpg", _jpeg_bomb, ("65000 x 65000", "cannot hold")),
    "giant TIFF of a few bytes": ("a.tif", _tif_bomb, UNREADABLE),
    "giant TIFF in tiles of a few bytes": (
        "a.tif",
        lambda p: _tif_bomb(p, tile=(16, 16)),
        UNREADABLE,
    ),
    "giant deflated TIFF": ("a.tif", lambda p: _tif_bomb(p, compression="zlib"), ("cannot hold",)),
    "NaN in the image": ("a.tif", _nan, ("not finite",)),
    "complex numbers": ("a.tif", lambda p: _tif(p, GREY.astype(np.complex64)), ("complex64",)),
    "constant": ("a.png", lambda p: _png(p, np.full(SHAPE, 200, np.uint8)), ("no tissue found",)),
    "black": ("a.png", lambda p: _png(p, 0 * GREY), ("no tissue found",)),
    "one pixel": ("a.png", lambda p: _png(p, GREY[:1, :1]), ("expected a 2D image", "(1, 1)")),
    "one line": ("a.tif", lambda p: _tif(p, GREY[:1]), ("expected a 2D image", "(1, 80)")),
    "several pages": (
        "a.tif",
        lambda p: _tif(p, np.stack([GREY] * 3), photometric="minisblack"),
        ("3 pages",),
    ),
    "pages of several sizes": (
        "a.tif",
        lambda p: (_tif(p, GREY), _tif(p, GREY[:58, :79], append=True)),
        ("2 pictures",),
    ),
    "channels": (
        "a.ome.tif",
        lambda p: _tif(p, np.stack([GREY] * 4), metadata={"axes": "CYX"}, photometric="minisblack"),
        ("4 channels", "image_channel chooses one (1 to 4)"),
    ),
    "two channels as samples": (
        "a.tif",
        lambda p: _tif(p, np.dstack([GREY] * 2), photometric="minisblack", planarconfig="contig"),
        ("2 channels", "image_channel chooses one (1 to 2)"),
    ),
    "five channels as samples, in planes": (
        "a.ome.tif",
        lambda p: _tif(
            p,
            np.stack([GREY] * 5),
            photometric="minisblack",
            planarconfig="separate",
            metadata={"axes": "SYX"},
        ),
        ("5 channels", "image_channel chooses one (1 to 5)"),
    ),
    "colour and two channels": (
        "a.tif",
        lambda p: _tif(p, np.dstack([RGB, GREY, GREY]), photometric="rgb"),
        ("colour and 2 more channels",),
    ),
    "animated GIF": ("a.gif", _animated, ("2 frames",)),
    "animated PNG": ("a.png", _animated, ("2 frames",)),
    "3D NIfTI as one section": (
        "a.nii.gz",
        lambda p: _nifti(p, np.stack([GREY] * 3, -1)),
        ("expected one slice", "sbr manifest"),
    ),
    "folder": ("a.png", lambda p: p.mkdir(), ("is a folder, expected a file",)),
    "symbolic link to itself": ("a.png", _loop, ("no such file", "circle")),
    "symbolic link to nothing": ("a.png", lambda p: p.symlink_to("gone"), ("link to nothing",)),
    "name too long": ("a" * 300 + ".png", lambda p: None, ("no such file", "too long")),
}
ROW_FAULTS = ("folder", "symbolic link to itself", "symbolic link to nothing", "name too long")
"""What is refused while the manifest is read, without `--strict`."""


def _prepare(manifest, out, *switches):
    receipt = out / "chunks" / "1of1.tsv"
    words = ["prepare", "--rows", manifest, "--out-dir", out, "--receipt", receipt]
    return main([*map(str, words), "--options", '{"working_pixel_mm": 1.0}', *switches])


def _line(capsys, out):
    """The one line that an exit with code 2 left; nothing else was written."""
    lines = capsys.readouterr().err.rstrip("\n").splitlines()
    assert not any("Traceback" in line for line in lines)
    told = [line for line in lines if line.startswith("sbr prepare: ")]
    assert len(told) == 1 and lines[-1] == told[0], lines
    assert [p for p in out.rglob("*") if p.is_file()] == []
    return told[0]


@pytest.fixture(scope="module")
def good_mask(tmp_path_factory):
    """Mask of the good section."""
    folder = tmp_path_factory.mktemp("good")
    _png(folder / "g.png")
    (folder / "sections.tsv").write_text(f"{COLUMNS}\ng\tg.png\t1\t{PIXEL_MM}\n")
    assert _prepare(folder / "sections.tsv", folder / "out") == 0
    return read_plane(folder / "out" / "sections" / "g_mask.nii.gz")[0] > 0


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_or_refused_in_one_line(tmp_path, capsys, good_mask, name):
    file, make, words = FILES[name]
    make(tmp_path / file)
    manifest, out = tmp_path / "sections.tsv", tmp_path / "out"
    cell = '"' + file.replace('"', '""') + '"' if '"' in file else file
    pixel_mm = 0.001 if name.startswith("giant") else PIXEL_MM
    manifest.write_text(f"{COLUMNS}\nx\t{cell}\t1\t{pixel_mm}\n", encoding="utf-8")
    if words is READS:
        assert _prepare(manifest, out) == 0
        (row,) = read_rows(out / "chunks" / "1of1.tsv", Prepared, only_ok=False)
        assert row.status == "ok", row.message
        mask = read_plane(out / "sections" / "x_mask.nii.gz")[0] > 0
        dice = 2 * np.sum(mask & good_mask) / (mask.sum() + good_mask.sum())
        assert dice > 0.97
        return
    assert _prepare(manifest, out, "--strict") == 2
    line = _line(capsys, out)
    assert all(word in line for word in words) and file in line, line
    if name not in ROW_FAULTS:  # otherwise the brain goes on without the section
        assert _prepare(manifest, tmp_path / "lenient") == 0
        (row,) = read_rows(tmp_path / "lenient" / "chunks" / "1of1.tsv", Prepared, only_ok=False)
        assert row.status == "failed" and row.message in line


GOOD_ROW = f"g\tg.png\t1\t{PIXEL_MM}"


def _rows(*rows, header=COLUMNS, newline="\n", encoding="utf-8"):
    return newline.join([header, *rows, ""]).encode(encoding)


TABLES = {
    # name: (bytes of the manifest, READS or words of the line)
    "BOM": (_rows(GOOD_ROW, encoding="utf-8-sig"), READS),
    "CRLF": (_rows(GOOD_ROW, newline="\r\n"), READS),
    "old Macintosh line ends": (_rows(GOOD_ROW, newline="\r"), READS),
    "empty lines and spaces": (_rows("", GOOD_ROW.replace("\t", " \t "), "", "\t\t\t"), READS),
    "comments": (_rows("# mine", GOOD_ROW), READS),
    "quoted cells": (_rows('"g"\t"g.png"\t"1"\t"0.5"'), READS),
    "columns of one's own": (_rows(GOOD_ROW + "\tx", header=COLUMNS + "\tmine"), READS),
    "an exponent": (_rows("g\tg.png\t1\t5e-1"), READS),
    "semicolons": (
        _rows(GOOD_ROW.replace("\t", ";"), header=COLUMNS.replace("\t", ";")),
        ("expected columns separated by tabs",),
    ),
    "commas": (
        _rows(GOOD_ROW.replace("\t", ","), header=COLUMNS.replace("\t", ",")),
        ("expected columns separated by tabs",),
    ),
    "blanks": (
        _rows(GOOD_ROW.replace("\t", "  "), header=COLUMNS.replace("\t", "  ")),
        ("expected columns separated by tabs", "separated by blanks"),
    ),
    "UTF-16": (_rows(GOOD_ROW, encoding="utf-16"), ("not readable as UTF-8 text",)),
    "zero bytes": (b"", ("is empty",)),
    "header alone": (_rows(), ("has no section",)),
    "binary": (bytes(range(256)), ("sections.tsv",)),
    "an image in its place": (b"\x89PNG\r\n\x1a\n\xff\xfe\x00", ("not readable as UTF-8 text",)),
    "a quotation mark not closed": (
        _rows('"g\tg.png\t1\t0.5', "h\tg.png\t2\t0.5"),
        ("line", "quotation mark"),
    ),
    "a missing column": (
        _rows("g\tg.png\t1", header="section\timage\tposition_mm"),
        ("column 'pixel_size_mm' is missing",),
    ),
    "a column twice": (
        _rows(GOOD_ROW + "\t2", header=COLUMNS + "\timage"),
        ("the same column twice",),
    ),
    "cells too many": (_rows(GOOD_ROW + "\tx"), ("line 2", "5 cells for 4 columns")),
    "cells too few": (_rows("g\tg.png\t1"), ("section 'g'", "pixel_size_mm")),
    "the same id twice": (_rows(GOOD_ROW, "g\tg.png\t2\t0.5"), ("section 'g'", "twice")),
    "the same place twice": (_rows(GOOD_ROW, "h\tg.png\t1.0\t0.5"), ("same position_mm 1",)),
    "an id with a blank": (_rows("g 1\tg.png\t1\t0.5"), ("'g 1'", "expected letters")),
    "an id that leaves the folder": (_rows("../g\tg.png\t1\t0.5"), ("'../g'",)),
    "no id": (_rows("\tg.png\t1\t0.5"), ("section ''", "expected letters")),
    "no image": (_rows("g\t\t1\t0.5"), ("section 'g'", "image: expected a file name")),
    "NaN pixel size": (_rows("g\tg.png\t1\tNaN"), ("pixel_size_mm", "above 0", "'NaN'")),
    "infinite pixel size": (_rows("g\tg.png\t1\tinf"), ("pixel_size_mm", "'inf'")),
    "negative pixel size": (_rows("g\tg.png\t1\t-0.5"), ("pixel_size_mm", "'-0.5'")),
    "zero pixel size": (_rows("g\tg.png\t1\t0"), ("pixel_size_mm", "above 0", "'0'")),
    "empty pixel size": (_rows("g\tg.png\t1\t"), ("pixel_size_mm", "''")),
    "a decimal comma": (_rows("g\tg.png\t1\t0,5"), ("with a decimal point", "'0,5'")),
    "a unit": (_rows("g\tg.png\t1\t0.5 mm"), ("pixel_size_mm", "'0.5 mm'")),
    "micrometres as millimetres": (
        _rows("g\tg.png\t1\t500"),
        ("section 'g'", "40 m", "micrometres", "0.5"),
    ),
    "a pixel far too small": (
        _rows("g\tg.png\t1\t0.0005"),
        ("section 'g'", "pixel_size_mm 0.0005", "whole image"),
    ),
    "an infinite position": (_rows("g\tg.png\tinf\t0.5"), ("position_mm", "'inf'")),
    "a flip that is none": (
        _rows(GOOD_ROW + "\tupside", header=COLUMNS + "\tflip"),
        ("flip", "'upside'"),
    ),
    "a turn that is none": (
        _rows(GOOD_ROW + "\tleft", header=COLUMNS + "\trotate_deg"),
        ("rotate_deg", "'left'"),
    ),
    "exclude that is none": (
        _rows(GOOD_ROW + "\tperhaps", header=COLUMNS + "\texclude"),
        ("exclude", "'perhaps'"),
    ),
    "all left out": (
        _rows(GOOD_ROW + "\ttrue", header=COLUMNS + "\texclude"),
        ("no section that is not excluded",),
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read_or_refused_in_one_line(tmp_path, capsys, name):
    content, words = TABLES[name]
    _png(tmp_path / "g.png")
    manifest, out = tmp_path / "sections.tsv", tmp_path / "out"
    manifest.write_bytes(content)
    code = _prepare(manifest, out, "--strict")
    if words is READS:
        assert code == 0, capsys.readouterr().err
        (row,) = read_rows(out / "chunks" / "1of1.tsv", Prepared)
        assert (row.section, row.pixel_size_mm) == ("g", 0.5)
        return
    assert code == 2
    line = _line(capsys, out)
    assert all(word in line for word in words), line


def test_there_are_enough_of_them():
    assert len(FILES) + len(TABLES) >= 40


def test_a_folder_or_a_volume_as_a_manifest_is_sent_to_sbr_manifest(tmp_path, capsys):
    (tmp_path / "slides").mkdir()
    assert _prepare(tmp_path / "slides", tmp_path / "out") == 2
    line = _line(capsys, tmp_path / "out")
    assert f"`sbr manifest {tmp_path / 'slides'}`" in line and "slides/sections.tsv" in line
    _nifti(tmp_path / "v.nii.gz", np.stack([GREY] * 3, -1))
    assert _prepare(tmp_path / "v.nii.gz", tmp_path / "out") == 2
    assert "sbr manifest" in _line(capsys, tmp_path / "out")


def test_sections_of_several_sizes_and_kinds_are_one_brain(tmp_path):
    _png(tmp_path / "a.png")
    _tif(tmp_path / "b.tif", np.pad(RGB, ((3, 9), (20, 1), (0, 0)), constant_values=250))
    rows = f"a\ta.png\t1\t{PIXEL_MM}\nb\tb.tif\t2\t{PIXEL_MM}\n"
    (tmp_path / "sections.tsv").write_text(f"{COLUMNS}\n{rows}")
    assert _prepare(tmp_path / "sections.tsv", tmp_path / "out") == 0
    found = read_rows(tmp_path / "out" / "chunks" / "1of1.tsv", Prepared)
    assert [row.status for row in found] == ["ok", "ok"]
    assert found[1].tissue_mm2 == pytest.approx(found[0].tissue_mm2, rel=0.03)


def _of_stated_size(folder, stated_um, pixel_mm=PIXEL_MM):
    """A manifest of `pixel_mm` for an OME-TIFF that says something."""
    size = {"PhysicalSizeX": stated_um, "PhysicalSizeY": stated_um, "PhysicalSizeXUnit": "µm"}
    _tif(folder / "a.ome.tif", GREY, metadata=size)
    (folder / "sections.tsv").write_text(f"{COLUMNS}\na\ta.ome.tif\t1\t{pixel_mm}\n")
    return folder / "sections.tsv"


@pytest.mark.parametrize(
    ("stated_um", "words"),
    [
        (500, None),
        (600, ["1/1.2"]),
        (50, ["10 times"]),
        (200_000, ["1/400"]),
        (0.2, ["2500 times"]),
    ],
)
def test_a_pixel_size_that_the_file_contradicts_is_warned_of(tmp_path, capsys, stated_um, words):
    assert _prepare(_of_stated_size(tmp_path, stated_um), tmp_path / "out") == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "WARNING" in line]
    (row,) = read_rows(tmp_path / "out" / "chunks" / "1of1.tsv", Prepared)
    if words is None:
        assert not told and not row.message
        return
    assert len(told) == 1 and "a.ome.tif" in told[0] and "section 'a'" in told[0]
    assert all(word in told[0] and word in row.message for word in words)


@pytest.mark.parametrize(
    ("stated_um", "words"),
    [
        (0.5, ("1000 times", "micrometres given as millimetres?")),
        (0.31, ("1613 times", "micrometres given as millimetres?")),
        (500_000, ("1/1000", "divided by 1000 twice?")),
    ],
)
def test_a_pixel_size_in_another_unit_is_refused_as_the_file_says(
    tmp_path, capsys, stated_um, words
):
    manifest = _of_stated_size(tmp_path, stated_um)
    assert _prepare(manifest, tmp_path / "out", "--strict") == 2
    line = _line(capsys, tmp_path / "out")
    said = ("a.ome.tif", "section 'a'", "row of the manifest", "pixel_size_mm is 0.5", *words)
    assert all(word in line for word in said), line
    # the way out that the line names, for a file that is wrong
    assert "prepare.contradicted_pixel_size: warn" in line
    out, options = tmp_path / "trusted", '{"contradicted_pixel_size": "warn"}'
    assert _prepare(manifest, out, "--strict", "--options", options) == 0
    (row,) = read_rows(out / "chunks" / "1of1.tsv", Prepared)
    assert row.pixel_size_mm == PIXEL_MM and all(word in row.message for word in words)


def test_a_file_that_may_not_be_read(tmp_path, capsys):
    _png(tmp_path / "g.png")
    (tmp_path / "g.png").chmod(0)
    if os.access(tmp_path / "g.png", os.R_OK):
        pytest.skip("this user may read everything")
    (tmp_path / "sections.tsv").write_bytes(_rows(GOOD_ROW))
    assert _prepare(tmp_path / "sections.tsv", tmp_path / "out", "--strict") == 2
    assert "g.png: may not be read" in _line(capsys, tmp_path / "out")


LIMITED = """
import resource, signal, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from sbr_core.cli import main
sys.exit(main(sys.argv[1:]))
"""


def _sbr_limited(limit_bytes, *arguments):
    """`sbr` in a process that may not write files longer than some bytes, as on a full disk."""
    done = subprocess.run(
        # -B: Python would leave its own half-written bytecode in the package
        [sys.executable, "-B", "-c", LIMITED.format(limit_bytes), *map(str, arguments)],
        capture_output=True,
        text=True,
    )
    return done


@pytest.mark.parametrize("limit_bytes", [0, 400])
def test_a_disk_that_is_full_is_one_line(tmp_path, limit_bytes):
    """Whether nothing can be written any more, or the first file stops half-way."""
    _png(tmp_path / "g.png")
    (tmp_path / "sections.tsv").write_bytes(_rows(GOOD_ROW))
    out = tmp_path / "out"
    done = _sbr_limited(
        limit_bytes,
        *("prepare", "--rows", tmp_path / "sections.tsv", "--out-dir", out),
        *("--receipt", out / "chunks" / "1of1.tsv", "--options", '{"working_pixel_mm": 1.0}'),
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "cannot be written" in done.stderr.splitlines()[-1]
    assert [p for p in out.rglob("*") if p.is_file()] == []


def test_a_disk_that_is_full_is_one_line_wherever_it_is_noticed(tmp_path, monkeypatch):
    """Libraries that write by themselves only say that they could not, or say it otherwise."""
    import SimpleITK as sitk

    from sbr_core.errors import StorageError, storage_fault
    from sbr_core.io.files import atomic_path

    # ITK tells only that it could not write
    usage = type("usage", (), {"free": 0})
    monkeypatch.setattr("sbr_core.errors.shutil.disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match="a.tfm: cannot be written: no space left"):  # noqa: SIM117
        with atomic_path(tmp_path / "a.tfm") as temporary:
            sitk.WriteTransform(sitk.AffineTransform(2), str(temporary.parent / "no" / "a.tfm"))
    assert list(tmp_path.iterdir()) == []
    said = ValueError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert storage_fault(said) == "no space left on device"
    assert storage_fault(ValueError("no"), tmp_path) and not storage_fault(ValueError("no"))


def test_a_full_disk_stops_the_stage_and_not_only_the_section(tmp_path):
    from sbr_core.artifacts.receipts import run_sections
    from sbr_core.errors import StorageError

    def process(item):
        raise StorageError("full")

    with pytest.raises(StorageError):
        run_sections(
            {"a": 1, "b": 2},
            stage="s",
            out_dir=tmp_path,
            receipt=tmp_path / "chunks" / "1.tsv",
            fingerprint=str,
            process=process,
        )
    assert not Path(tmp_path / "chunks").exists()
