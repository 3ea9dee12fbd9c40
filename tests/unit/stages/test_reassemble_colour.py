"""`reassemble-colour`: the colours of the sections at their place in the MRI, in every format."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import zarr

from sbr_core import geometry
from sbr_core.artifacts.rows import Prepared, read_rows, write_rows
from sbr_core.config import InferOptions, ReassembleOptions
from sbr_core.errors import ConfigError, ImageError, StorageError
from sbr_core.io import colour_volumes
from sbr_core.io.images import read_section, write_png
from sbr_core.stages import infer, reassemble_colour


@pytest.fixture(scope="module")
def colourful(tmp_path_factory, brain_maker):
    """A brain whose sections are red where it is dense, green elsewhere, and always some blue."""
    brain = brain_maker(tmp_path_factory.mktemp("colour") / "b", n_sections=8, missing=(5,))
    for row in read_rows(brain.table("prepare"), Prepared):
        red = np.rint(255 * read_section(Path(row.image)))
        colours = np.stack([red, 255 - red, np.full_like(red, 100)], axis=-1)
        write_png(Path(row.image), colours.astype(np.uint8))
    infer.run(
        InferOptions(),
        method="linear",
        prepared=brain.table("prepare"),
        planes=brain.table("resample"),
        affines=brain.table("align_sections"),
        out_dir=brain.results / "linear",
        receipt=brain.table("linear"),
    )
    return brain


def volume(brain, out_dir, *, prealigned=False, group=None, **options):
    where = {"align_dir": brain.results / "align", "mri": brain.results / "prepare" / "mri.nii.gz"}
    reassemble_colour.run(
        ReassembleOptions(**options),
        brain="b",
        method="linear",
        sections=brain.table("linear"),
        prepared=brain.table("prepare"),
        out_dir=out_dir,
        stain_group=group,
        **({} if prealigned else where),
    )
    return out_dir / f"b_space-{'stack' if prealigned else 'mri'}_colour.nii.gz"


def colours_of(path):
    """(i, j, k, 3)."""
    data = np.asarray(nib.load(path).dataobj)
    return np.stack([data[colour] for colour in "RGB"], axis=-1)


def test_colours_are_where_they_belong_for_nibabel_and_for_itk(colourful, tmp_path):
    path = volume(colourful, tmp_path)
    image, mri = nib.load(path), nib.load(colourful.results / "prepare" / "mri.nii.gz")
    assert np.allclose(image.affine, mri.affine) and image.shape == mri.shape
    found = colours_of(path)
    world = geometry.apply(image.affine, np.stack(np.indices(image.shape), axis=-1))
    z_mm = geometry.apply(colourful.stack_from_world, world)[..., 2]
    from_section_mm = np.min([np.abs(z_mm - p) for p in colourful.positions_mm.values()], axis=0)
    filled = found[..., 2] > 0  # beyond their files, sections are glass
    filled &= np.linalg.norm(world, axis=-1) < 12
    near = filled & (from_section_mm < 0.4)
    assert near.sum() > 500 and (found[near][:, 2] == 100).all()
    red = 255 * (1 - 0.8 * colourful.density(world))
    assert np.abs(found[near][:, 0] - red[near]).mean() < 3
    mirrored = 255 * (1 - 0.8 * colourful.density(world * [-1, 1, 1]))
    assert np.abs(found[near][:, 0] - mirrored[near]).mean() > 9
    assert np.abs(found[filled].astype(int)[:, :2].sum(axis=1) - 255).max() <= 1
    # section 5 is missing at 10 mm
    assert not filled[np.abs(z_mm - 10) < 0.99].any() and not found[np.abs(z_mm - 10) < 0.99].any()

    itk, itk_mri = (sitk.ReadImage(str(p)) for p in (path, mri.get_filename()))
    assert itk.GetSize() == itk_mri.GetSize()
    for index in np.argwhere(near)[::500].tolist():
        assert itk.GetPixel(*index) == tuple(found[tuple(index)])
        there = np.array(itk.TransformIndexToPhysicalPoint(index))
        assert np.allclose(there, itk_mri.TransformIndexToPhysicalPoint(index), atol=1e-4)
        assert np.allclose(there * [-1, -1, 1], world[tuple(index)], atol=1e-4)


def test_every_format_has_the_same_voxels_and_replaces_the_others(colourful, tmp_path, monkeypatch):
    monkeypatch.setattr(colour_volumes, "_SMALLEST", 16)
    monkeypatch.setattr(colour_volumes, "_TILE", 16)
    expected = np.moveaxis(colours_of(volume(colourful, tmp_path)), (0, 1, 2), (2, 1, 0))
    volume(colourful, tmp_path, format="ome-zarr", slab_voxels=10_000)
    group = zarr.open_group(tmp_path / "b_space-mri_colour.ome.zarr", mode="r")
    assert np.array_equal(np.moveaxis(group["0"][:], 0, -1), expected)
    affine = np.array(group.attrs["sbr"]["ras_mm_from_ijk"])
    assert np.allclose(affine, colourful.mri.world_from_voxel)
    assert not (tmp_path / "b_space-mri_colour.nii.gz").exists()
    volume(colourful, tmp_path, format="ome-tiff")
    with tifffile.TiffFile(tmp_path / "b_space-mri_colour.ome.tif") as tiff:
        (series,) = tiff.series
        assert series.axes == "ZYXS" and np.array_equal(series.asarray(), expected)
        assert series.levels[1].shape == (24, 13, 14, 3)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"b_space-mri_colour.ome.tif", "b_space-mri_colour.json", ".sums"}
    facts = json.loads((tmp_path / "b_space-mri_colour.json").read_text())
    assert facts["channels"] == 3 and "005" not in facts["sections"]
    stack = volume(colourful, tmp_path, prealigned=True, interpolation="nearest")
    assert colours_of(stack).shape[2] == 8


def test_a_stain_group_has_a_volume_of_its_own_sections(colourful, tmp_path):
    volume(colourful, tmp_path)
    table = colourful.table("prepare")
    rows = read_rows(table, Prepared, verify=False)
    groups = ["CB" if int(row.section) % 2 else "nissl" for row in rows]
    try:
        write_rows(table, [replace(r, stain_group=g) for r, g in zip(rows, groups, strict=True)])
        volume(colourful, tmp_path, group="CB")
    finally:
        write_rows(table, rows)
    names = {path.name for path in tmp_path.iterdir()} - {".sums"}
    assert names == {f"b_space-mri_stain-CB_colour{end}" for end in (".nii.gz", ".json")}
    facts = json.loads((tmp_path / "b_space-mri_stain-CB_colour.json").read_text())
    assert facts["sections"] == ["001", "003", "007"]


def test_sections_of_other_channels_are_named(colourful, tmp_path):
    rows = read_rows(colourful.table("prepare"), Prepared, verify=False)
    image = Path(rows[3].image)
    kept = image.read_bytes()
    shape = rows[3].file_shape
    try:
        write_png(image, np.zeros(shape, np.uint8))  # grey among colours is grey
        grey = colours_of(volume(colourful, tmp_path, interpolation="nearest"))
        assert (grey[grey[..., 2] == 0] == 0).all()
        write_png(image, np.zeros(shape, np.uint16))
        with pytest.raises(ImageError, match=rf"{image.name}: 1 channels of uint16, but sections"):
            volume(colourful, tmp_path)
        write_png(image, np.zeros((9, 9, 3), np.uint8))
        with pytest.raises(ImageError, match=r"shape \(9, 9\), but prepare saw"):
            volume(colourful, tmp_path)
    finally:
        image.write_bytes(kept)


def test_nothing_is_left_where_the_disk_is_full(colourful, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zarr.Array, "__setitem__", full)
    with pytest.raises(StorageError, match=r"_colour\.ome\.zarr: cannot be written: no space left"):
        volume(colourful, tmp_path, format="ome-zarr")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="--align-dir and --mri are given together"):
        reassemble_colour.run(
            ReassembleOptions(),
            brain="b",
            method="linear",
            sections=colourful.table("linear"),
            prepared=colourful.table("prepare"),
            out_dir=tmp_path,
            mri=tmp_path / "mri.nii.gz",
        )
