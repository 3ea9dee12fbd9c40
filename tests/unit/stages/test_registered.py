"""`registered`: what `sbr apply` makes of a section's own file, for every section of a chunk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from mapped_brain import make_mapped_brain

from sbr_core.artifacts.rows import Full, Inferred, Prepared, read_rows, write_rows
from sbr_core.config import RegisteredOptions
from sbr_core.errors import ConfigError
from sbr_core.stages import registered
from sbr_core.tools import apply

SECTIONS = ("both", "boxed")


@pytest.fixture(scope="module")
def brain(tmp_path_factory):
    """Receipts of two sections, one of them in a box of its file, and their files, in colour."""
    results = make_mapped_brain(tmp_path_factory.mktemp("full") / "results" / "b").results
    rng = np.random.default_rng(0)
    for stage, kind in (("prepare", Prepared), ("sbr", Inferred)):
        rows = read_rows(results / stage / "sections.tsv", kind, verify=False)
        kept = [row for row in rows if row.section in SECTIONS]
        if kind is Prepared:
            for number, row in enumerate(kept):
                image = results / "raw" / f"{row.section}.tif"
                image.parent.mkdir(exist_ok=True)
                colours = rng.integers(0, 255, (*row.file_shape, 3), np.uint8)
                tifffile.imwrite(image, colours, tile=(64, 64))
                kept[number] = replace(row, image=str(image), fingerprint=row.section)
        write_rows(results / stage / "chunks" / "1of1.tsv", kept)
    return results


def run(brain, out_dir, strict=True, **options):
    receipt = out_dir / "chunks" / "1of1.tsv"
    registered.run(
        RegisteredOptions(**options),
        prepared=brain / "prepare" / "chunks" / "1of1.tsv",
        sections=brain / "sbr" / "chunks" / "1of1.tsv",
        out_dir=out_dir,
        receipt=receipt,
        strict=strict,
    )
    return {row.section: row for row in read_rows(receipt, Full, only_ok=False)}


def test_full_sections_are_what_apply_makes(brain, tmp_path):
    rows = run(brain, tmp_path, pixel_mm=0.1)
    assert set(rows) == set(SECTIONS)
    for section, row in rows.items():
        source = brain / "raw" / f"{section}.tif"
        way = {"results": brain, "from_": f"section:{section}", "to": f"plane:{section}"}
        expected = tmp_path / f"{section}.ome.tif"
        apply.run(None, [source], out=expected, pixel_mm=0.1, **way)
        with tifffile.TiffFile(row.intact("_registered.ome.tif")) as tiff:
            assert np.array_equal(tiff.asarray(), tifffile.imread(expected))
            assert tiff.series[0].shape == (row.image_rows, row.image_columns, row.channels)
            assert tiff.series[0].shape == (496, 596, 3) and tiff.asarray().min() < 200
    first = rows["both"].seconds
    assert run(brain, tmp_path, pixel_mm=0.1)["both"].seconds == first  # kept


def test_another_format_has_the_same_pixels_and_replaces_the_first(brain, tmp_path):
    rows = run(brain, tmp_path, pixel_mm="file")
    assert rows["both"].pixel_mm == pytest.approx(1 / 6) and rows["boxed"].pixel_mm == 0.4
    expected = tifffile.imread(rows["both"].file("_registered.ome.tif"))
    rows = run(brain, tmp_path, pixel_mm="file", format="ome-zarr")
    root = rows["both"].intact("zarr.json")
    group = zarr.open_group(root.parent, mode="r")
    assert np.array_equal(np.moveaxis(group["0"][:], 0, -1), expected)
    assert group.attrs["sbr"]["section"] == "both"
    assert sorted(p.name for p in root.parents[1].iterdir()) == [
        "both.json",
        "both_registered.ome.zarr",
        "boxed.json",
        "boxed_registered.ome.zarr",
    ]


def test_a_section_that_fails_is_told_and_its_image_goes(brain, tmp_path):
    run(brain, tmp_path, pixel_mm=0.5, format="ome-zarr")
    image = brain / "raw" / "boxed.tif"
    kept = image.read_bytes()
    try:
        tifffile.imwrite(image, np.zeros((9, 9, 3), np.uint8))
        rows = run(brain, tmp_path, strict=False, pixel_mm=0.25, format="ome-zarr")
        assert "shape (9, 9), but prepare saw" in rows["boxed"].message and rows["both"].ok
        left = sorted(p.name for p in (tmp_path / "sections").iterdir())
        assert left == ["both.json", "both_registered.ome.zarr"]
    finally:
        image.write_bytes(kept)
    with pytest.raises(ConfigError, match="registered: pixel_mm: expected a number"):
        run(brain, tmp_path)


def test_what_was_not_registered_has_no_image(brain, tmp_path):
    folder = tmp_path / "sbr"
    rows = read_rows(brain / "sbr" / "chunks" / "1of1.tsv", Inferred, verify=False)
    failed = [replace(row, status="failed", message="torn", files={}) for row in rows]
    write_rows(folder / "chunks" / "1of1.tsv", failed)
    receipt = tmp_path / "out" / "chunks" / "1of1.tsv"
    registered.run(
        RegisteredOptions(pixel_mm=0.5),
        prepared=brain / "prepare" / "chunks" / "1of1.tsv",
        sections=Path(folder / "chunks" / "1of1.tsv"),
        out_dir=tmp_path / "out",
        receipt=receipt,
    )
    assert [r.message for r in read_rows(receipt, Full, only_ok=False)] == ["torn", "torn"]
