"""`reassemble`: a stack cut from an analytic brain becomes that brain again, unmirrored."""

from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from sbr_core import geometry
from sbr_core.artifacts.rows import Inferred, Prepared, Row, read_rows, write_rows
from sbr_core.config import InferOptions, ReassembleOptions
from sbr_core.errors import ConfigError, ImageError, ReceiptError, StorageError
from sbr_core.io.images import read_labels, read_section, write_png
from sbr_core.io.tables import read_tsv, write_tsv
from sbr_core.io.volumes import read_volume
from sbr_core.stages import infer, reassemble


def linear(brain):
    out_dir = brain.results / "linear"
    infer.run(
        InferOptions(),
        method="linear",
        prepared=brain.table("prepare"),
        planes=brain.table("resample"),
        affines=brain.table("align_sections"),
        out_dir=out_dir,
        receipt=out_dir / "sections.tsv",
    )
    return out_dir / "sections.tsv"


def volume(brain, table, *, prealigned=False, group=None, rejected=None, **options):
    out_dir = table.parent / "volume"
    where = {}
    if not prealigned:
        where = {
            "align_dir": brain.results / "align",
            "mri": brain.results / "prepare" / "mri.nii.gz",
        }
    reassemble.run(
        ReassembleOptions(**options),
        brain="b",
        method="linear",
        sections=table,
        prepared=brain.table("prepare"),
        out_dir=out_dir,
        stain_group=group,
        rejected=rejected,
        **where,
    )
    stem = f"b_space-{'stack' if prealigned else 'mri'}" + (f"_stain-{group}" if group else "")
    return [
        read_volume(out_dir / f"{stem}_{kind}.nii.gz")
        for kind in ("histology", "coverage", "labels")
    ]


def world_of(volume):
    voxels = np.stack(np.indices(volume.data.shape), axis=-1)
    return geometry.apply(volume.world_from_voxel, voxels)


def test_analytic_brain_comes_back_and_is_not_mirrored(fake_brain):
    assert np.linalg.det(fake_brain.stack_from_world[:3, :3]) < 0
    histology, coverage, labels = volume(fake_brain, linear(fake_brain))
    np.testing.assert_allclose(histology.world_from_voxel, fake_brain.mri.world_from_voxel)
    world = world_of(histology)
    truth = 0.8 * fake_brain.density(world)
    near = (coverage.data >= 0) & (coverage.data <= 1.0)
    assert near.mean() > 0.3
    error = np.abs(histology.data - truth)[near]
    assert error.mean() < 0.01 and error.max() < 0.08  # the blur of sections 2 mm apart

    mirrored = 0.8 * fake_brain.density(world * [-1, 1, 1])
    assert np.abs(histology.data - mirrored)[near].mean() > 3 * error.mean()

    expected = fake_brain.labels_of(fake_brain.density(world))
    assert set(np.unique(labels.data)) == {0, 2, 3} and labels.data.dtype == np.uint8
    assert np.mean(labels.data[near] == expected[near]) > 0.95


def test_ids_of_large_atlases_come_back(brain_maker, tmp_path):
    brain = brain_maker(tmp_path / "b", n_sections=8)
    table = linear(brain)
    labels = {p.labels for p in read_rows(brain.table("prepare"), Prepared) if p.labels}
    small = volume(brain, table)[2].data.astype(np.int64)
    for path in map(Path, labels):  # by what it holds a file is a TIFF
        wide = read_labels(path).astype(np.int64)
        wide[wide == 3] = 3_000_000_000
        tifffile.imwrite(path, wide)
    found = volume(brain, table, slab_voxels=10_000)[2].data
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, np.where(small == 3, 3_000_000_000, small))


def test_missing_section_leaves_a_gap_unless_it_is_bridged(fake_brain):
    table = linear(fake_brain)
    histology, coverage, _ = volume(fake_brain, table)
    z = geometry.apply(fake_brain.stack_from_world, world_of(histology))[..., 2]
    middle = np.linalg.norm(world_of(histology), axis=-1) < 6
    gap = middle & (np.abs(z - 10.0) < 0.99)  # section 5 stood at 10 mm
    assert gap.sum() > 50
    assert (coverage.data[gap] == -1).all() and (histology.data[gap] == 0).all()
    beside = middle & (np.abs(z - 10.0) > 1.01)
    assert (coverage.data[beside] >= 0).all() and (coverage.data[beside] <= 1.01).all()

    bridged, coverage, _ = volume(fake_brain, table, max_gap_mm=1.0)
    assert (coverage.data[gap] >= 0.99).all()
    error = np.abs(bridged.data - 0.8 * fake_brain.density(world_of(bridged)))
    assert error[gap].max() < 0.15


def in_groups(brain, group_of):
    """Write the stain group of each section, by its number, into the table of `prepare`."""
    table = brain.table("prepare")
    rows = read_rows(table, Prepared, verify=False)
    write_rows(table, [replace(row, stain_group=group_of(int(row.section))) for row in rows])


def test_each_stain_group_fills_its_own_volume_from_its_own_sections(brain_maker, tmp_path):
    """Sections of another stain, here half as dark, are as if they were of another brain."""
    brain = brain_maker(tmp_path / "b", n_sections=13)
    table = linear(brain)
    mixed = volume(brain, table)[0]
    in_groups(brain, lambda number: "CB" if number % 2 else "nissl")
    for path in (Path(p.image) for p in read_rows(brain.table("prepare"), Prepared)):
        if int(path.stem) % 2:
            write_png(path, np.round(32767 * (1 + read_section(path))).astype(np.uint16))
    nissl, coverage, _ = volume(brain, table, group="nissl")
    there = [path.name for path in (table.parent / "volume").glob("*_histology.nii.gz")]
    assert there == ["b_space-mri_stain-nissl_histology.nii.gz"], "the mixed one is gone"
    pale, other_coverage, _ = volume(brain, table, group="CB")
    np.testing.assert_array_equal(nissl.world_from_voxel, mixed.world_from_voxel)
    z = geometry.apply(brain.stack_from_world, world_of(nissl))[..., 2]
    truth = 0.8 * brain.density(world_of(nissl))
    middle = (np.linalg.norm(world_of(nissl), axis=-1) < 6) & (z > 2) & (z < 22)
    # sections of a group are 4 mm apart, and so fill 2 mm on either side
    for volume_, distance, first, factor in (
        (nissl, coverage, 0, 1),
        (pale, other_coverage, 2, 0.5),
    ):
        nearest = np.abs((z - first + 2) % 4 - 2)
        np.testing.assert_allclose(distance.data[middle], nearest[middle], atol=1e-3)
        error = np.abs(volume_.data / factor - truth)[middle & (nearest < 0.5)]
        assert error.mean() < 0.02
    facts = json.loads((table.parent / "volume/b_space-mri_stain-CB_histology.json").read_text())
    assert facts["stain_group"] == "CB" and facts["sections"] == [
        f"{n:03d}" for n in range(1, 13, 2)
    ]
    assert set(facts["gains"]) == {1.0}


def test_a_stain_group_whose_sections_failed_is_empty_and_one_of_no_section_is_refused(
    brain_maker, tmp_path, caplog
):
    brain = brain_maker(tmp_path / "b", n_sections=6)
    table = linear(brain)
    in_groups(brain, lambda number: "CB" if number == 2 else "")
    single = volume(brain, table, group="CB")[1].data
    assert 0.9 < single.max() < 1.01, "one section fills half a gap of the stack on either side"
    rows = read_rows(table, Inferred, verify=False)
    lost = [Row(section=r.section, status="failed") if r.section == "002" else r for r in rows]
    write_rows(table, lost)
    with pytest.raises(ImageError, match="_histology.nii.gz: is all zero"):
        volume(brain, table, group="CB")
    coverage = read_volume(table.parent / "volume/b_space-mri_stain-CB_coverage.nii.gz")
    assert (coverage.data == -1).all()
    assert "stain group 'CB' all failed: its volume is empty" in caplog.text
    with pytest.raises(ConfigError, match="no section is of stain group 'cb'; found CB, none"):
        volume(brain, table, group="cb")


def test_another_spacing_keeps_the_field_of_view(fake_brain):
    table = linear(fake_brain)
    histology, coverage, _ = volume(fake_brain, table, spacing_mm=1.0)
    mri = fake_brain.mri
    np.testing.assert_allclose(histology.spacing_mm, 1.0)
    outer = [geometry.apply(v.world_from_voxel, np.full(3, -0.5)) for v in (histology, mri)]
    np.testing.assert_allclose(outer[0], outer[1], atol=1e-4)
    far = [
        geometry.apply(np.linalg.inv(mri.world_from_voxel), geometry.apply(
            histology.world_from_voxel, np.array(histology.data.shape) - 0.5))
    ]  # fmt: skip
    beyond = far[0] - (np.array(mri.data.shape) - 0.5)
    assert (beyond > -1e-4).all() and (beyond < 1.0 / mri.spacing_mm).all()
    near = coverage.data >= 0
    error = np.abs(histology.data - 0.8 * fake_brain.density(world_of(histology)))[near]
    assert error.mean() < 0.01


def test_slab_size_does_not_change_the_volume(brain_maker, tmp_path):
    brain = brain_maker(tmp_path / "b", n_sections=8)
    table = linear(brain)
    whole = volume(brain, table, spacing_mm=0.8)
    slabbed = volume(brain, table, spacing_mm=0.8, slab_voxels=10_000, cache_mib=1)
    for one, other in zip(whole, slabbed, strict=True):
        assert np.array_equal(one.data, other.data)


def test_prealigned_stack_lies_in_stack_space(fake_brain):
    histology, coverage, _ = volume(fake_brain, linear(fake_brain), prealigned=True)
    assert histology.data.shape == (42, 36, 13)
    path = fake_brain.results / "linear" / "volume" / "b_space-stack_histology.nii.gz"
    image = sitk.ReadImage(str(path))
    for index in ((0, 0, 0), (40, 30, 12)):
        expected = np.array(index) * [1.0, 1.0, 2.0]
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), expected, atol=1e-5)
    # the slices at the sections are the registered sections, the missing one is empty
    for section, position_mm in fake_brain.positions_mm.items():
        layer = histology.data[:, :, round(position_mm / 2)].T
        registered = nib.load(
            fake_brain.results / "linear" / "sections" / f"{section}_registered.nii.gz"
        ).get_fdata()
        np.testing.assert_allclose(layer, registered.T, atol=1e-5)
    assert (coverage.data[:, :, 5] == -1).all() and (histology.data[:, :, 5] == 0).all()


def test_point_from_mri_voxel_to_file_pixel(fake_brain):
    """A voxel traced through the published files lands where the brain was cut."""
    table = linear(fake_brain)
    stack_from_lps = sitk.ReadTransform(
        str(fake_brain.results / "align" / "from-stack_to-mri_mode-image_xfm.txt")
    )
    mri = sitk.ReadImage(str(fake_brain.results / "prepare" / "mri.nii.gz"))
    voxel = (14.3, 12.1, 11.7)
    lps = mri.TransformContinuousIndexToPhysicalPoint(voxel)
    x, y, z = stack_from_lps.TransformPoint(lps)
    section = min(fake_brain.positions_mm, key=lambda s: abs(fake_brain.positions_mm[s] - z))
    name = f"{section}_from-section_to-stack_mode-image_xfm.h5"
    to_section = sitk.ReadTransform(str(table.parent / "transforms" / name))
    file_px = np.array(to_section.TransformPoint((x, y))) / fake_brain.pixel_size_mm

    ras = geometry.apply(fake_brain.mri.world_from_voxel, np.array(voxel))
    plane_mm = geometry.apply(fake_brain.stack_from_world, ras)[:2]
    truth = geometry.apply(fake_brain.section_mm_from_plane_mm[section], plane_mm)
    np.testing.assert_allclose(file_px, truth / fake_brain.pixel_size_mm, atol=0.01)


def test_jumps_of_staining_are_evened_along_the_stack(fake_brain):
    """Every section stained at random, one of them hardly half as strongly."""
    brain = fake_brain
    rng = np.random.default_rng(0)
    names = list(brain.positions_mm)
    factors = dict(zip(names, np.exp(rng.uniform(-0.3, 0.1, len(names))), strict=True))
    factors[names[6]] = 0.55
    for row in read_rows(brain.table("prepare"), Prepared, verify=False):
        signal = 1 - read_section(row.image)
        write_png(
            row.image, np.round((1 - factors[row.section] * signal) * 65535).astype(np.uint16)
        )
    table = linear(brain)

    def layers(**options):
        histology, _, _ = volume(brain, table, prealigned=True, **options)
        truth = []
        for position_mm in brain.positions_mm.values():
            px = np.stack(np.indices(brain.grid.shape)[::-1], axis=-1)
            true = 0.8 * brain.plane_density(px * brain.grid.spacing_mm, position_mm)
            layer = histology.data[:, :, round(position_mm / 2)].T
            tissue = true > 0.4 * true.max()
            truth.append(np.median(np.log(layer[tissue] / true[tissue])))
        facts = table.parent / "volume" / "b_space-stack_histology.json"
        return np.array(truth), json.loads(facts.read_text(encoding="utf-8"))["gains"]

    raw, gains = layers(even_sections="never")
    np.testing.assert_allclose(raw, np.log(list(factors.values())), atol=0.02)
    assert set(gains) == {1.0}
    evened, gains = layers()
    # the sections' own anatomy changes fast, but not up and down
    assert np.abs(np.diff(evened, 2)).mean() < 0.35 * np.abs(np.diff(raw, 2)).mean()
    np.testing.assert_allclose(evened, raw + np.log(gains), atol=0.01)  # one factor each
    assert min(gains) > 0


def test_provenance_and_bad_input(fake_brain):
    table = linear(fake_brain)
    volume(fake_brain, table)
    facts = json.loads(
        (table.parent / "volume" / "b_space-mri_histology.json").read_text(encoding="utf-8")
    )
    assert facts["sections"] == list(fake_brain.positions_mm) and facts["covered_percent"] > 10
    assert not list((table.parent / "volume").glob(".tmp-*"))

    with pytest.raises(ConfigError, match="together"):
        reassemble.run(
            ReassembleOptions(),
            brain="b",
            method="linear",
            sections=table,
            prepared=fake_brain.table("prepare"),
            out_dir=table.parent / "volume",
            mri=fake_brain.results / "prepare" / "mri.nii.gz",
        )
    header, rows = read_tsv(fake_brain.table("prepare"))
    write_tsv(fake_brain.table("prepare"), rows[1:], header)
    with pytest.raises(ReceiptError, match="'000' is not in it"):
        volume(fake_brain, table)
    write_tsv(fake_brain.table("prepare"), rows, header)
    write_png(rows[0]["image"], np.zeros((20, 20), np.uint8))
    with pytest.raises(reassemble.ImageError, match="prepare saw"):
        volume(fake_brain, table)


def test_room_for_the_volume_is_taken_at_once_and_leaves_no_file(tmp_path):
    """Without room, an error that can be told, instead of a signal when a page is written."""
    arrays = reassemble.scratch_arrays(tmp_path, (30, 20, 10), with_labels=True)
    assert {a.dtype.name for a in arrays.values()} == {"float32", "uint16"}
    assert all(a.shape == (30, 20, 10) and not a.any() for a in arrays.values())
    arrays["histology"][3] = 1
    assert list(tmp_path.iterdir()) == []
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(StorageError, match="room for 0 MiB of scratch cannot be had: file too"):
            reassemble.scratch_arrays(tmp_path, (30, 20, 10), with_labels=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_rejected_section_leaves_a_gap_and_the_grid_as_it_is(brain_maker, tmp_path):
    """As one that is missing; filled only where that is asked for, and then marked."""
    brain = brain_maker(tmp_path / "b", n_sections=9)
    table = linear(brain)
    whole, covered, _ = volume(brain, table)
    position_mm = {row.section: row.position_mm for row in read_rows(table, Inferred)}
    section = sorted(position_mm, key=position_mm.get)[2]
    left, coverage, labels = volume(brain, table, rejected=[section])
    facts = json.loads((table.parent / "volume" / "b_space-mri_histology.json").read_text())
    assert facts["rejected"] == [section] and section not in facts["sections"]
    np.testing.assert_array_equal(left.world_from_voxel, whole.world_from_voxel)
    z = geometry.apply(brain.stack_from_world, world_of(whole))[..., 2]
    away_mm = np.abs(z - position_mm[section])
    gap = (away_mm < 0.99) & (covered.data >= 0)
    assert gap.sum() > 500
    assert (coverage.data[gap] == -1).all() and not left.data[gap].any()
    assert not labels.data[gap].any()
    far = away_mm > 2.01
    np.testing.assert_array_equal(coverage.data[far], covered.data[far])

    bridged, coverage, labels = volume(brain, table, rejected=[section], fill="interpolate")
    filled = gap & (coverage.data == -2)  # but where the files on both sides end before
    assert filled.sum() > 0.99 * gap.sum() and not labels.data[gap].any()
    assert (coverage.data[gap & ~filled] == -1).all()
    truth = 0.8 * brain.density(world_of(bridged))
    assert np.abs(bridged.data - truth)[filled].mean() < 0.05 < truth[filled].mean()
    facts = json.loads((table.parent / "volume" / "b_space-mri_histology.json").read_text())
    assert facts["bridged_coverage"] == -2
    with pytest.raises(ReceiptError, match="rejected"):
        volume(brain, table, rejected=list(position_mm))
