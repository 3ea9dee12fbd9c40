"""`align`, `resample` and `align_sections` on a phantom whose place is known.

The phantom is a smooth brain-like body with labels, rendered with one contrast as an oblique MRI
and with another as the sections of a left-handed stack (LIA) that is turned by 12 degrees and
scaled by 1.07 against the MRI; every section is cropped, shifted and turned on its own.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sbr_core import cli
from sbr_core.algorithms.alignment import start
from sbr_core.algorithms.alignment.brain_size import resized
from sbr_core.algorithms.alignment.poses import nearest_orientation
from sbr_core.algorithms.alignment.stack import centred_affines, tissue_centre_mm
from sbr_core.algorithms.alignment.stretch import stretch_of
from sbr_core.algorithms.deformation import integrate
from sbr_core.algorithms.simulation.truth import true_world_from_section_mm
from sbr_core.artifacts import names
from sbr_core.artifacts.global_fit import (
    InitialAffine,
    read_initial,
    read_plane_grid,
    write_initial,
)
from sbr_core.artifacts.joined import join
from sbr_core.artifacts.predictors import Prediction
from sbr_core.artifacts.rows import Affine, Plane, Prepared, read_rows, write_rows
from sbr_core.config import AlignOptions, AlignSectionsOptions, PrepareOptions, ResampleOptions
from sbr_core.errors import AlignmentError, ConfigError, ImageError
from sbr_core.geometry import (
    PlaneGrid,
    apply,
    orientation_letters,
    orientation_matrix,
    scaling,
    similarity_scale,
)
from sbr_core.io.images import read_section, write_png
from sbr_core.io.manifests import Landmark, SectionRow, read_manifest
from sbr_core.io.tables import read_tsv, write_tsv
from sbr_core.io.transforms import read_section_transform, read_stack_from_world
from sbr_core.io.volumes import Volume, read_plane, read_volume, write_volume
from sbr_core.stages import (
    align,
    align_sections,
    collect,
    infer,
    prepare,
    prepare_mri,
    resample,
)

MRI_CONTRAST = np.array([0.0, 0.55, 1.0, 0.75, 0.12])
SECTION_CONTRAST = np.array([0.0, 0.85, 0.45, 0.95, 0.05])
WORKING_MM = 2.0
PIXEL_MM = 1.0
N_SECTIONS = 22
TORN = "s08"


def _labels(world: np.ndarray) -> np.ndarray:
    """0 none, 1 grey, 2 white, 3 nucleus, 4 ventricle, at world points (..., 3), mm."""
    x, y, z = np.moveaxis(world, -1, 0)
    theta = np.arctan2(z / 28, x / 34)
    phi = np.arctan2(y / 40, np.hypot(x / 34, z / 28))
    radius = np.sqrt((x / 34) ** 2 + (y / 40) ** 2 + (z / 28) ** 2)
    body = radius < 1 + 0.07 * np.sin(3 * theta + 1) * np.cos(3 * phi) + 0.05 * np.sin(4 * phi)
    white = radius < 0.7 + 0.1 * np.sin(6 * theta + 4 * phi) + 0.06 * np.cos(5 * phi - theta)
    nucleus = ((x - 10) / 7) ** 2 + ((y - 6) / 13) ** 2 + ((z + 3) / 6) ** 2 < 1
    ventricle = ((x + 6) / 4) ** 2 + ((y + 2) / 18) ** 2 + ((z - 6) / 7) ** 2 < 1
    return np.where(ventricle, 4, np.where(nucleus, 3, np.where(white, 2, np.where(body, 1, 0))))


def _turn() -> np.ndarray:
    """12 degrees about an oblique axis (Rodrigues)."""
    axis = np.array([0.5, 0.7, -0.5])
    axis /= np.linalg.norm(axis)
    cross = np.cross(np.eye(3), -axis)
    angle = np.deg2rad(12)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@dataclass(frozen=True)
class Phantom:
    results: Path
    rows: list[SectionRow]
    stack_from_world: np.ndarray
    section_from_plane_mm: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Phantom:
    """Its files, prepared and taken through the three stages."""
    folder = tmp_path_factory.mktemp("phantom")
    rng = np.random.default_rng(3)

    world_from_voxel = np.eye(4)
    c, s = np.cos(0.15), np.sin(0.15)
    world_from_voxel[:3, :3] = (
        np.array([[0, -1.0, 0], [0, 0, 1.0], [-1.0, 0, 0]])
        @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
        * [1.6, 1.8, 2.0]
    )
    shape = np.array([44, 48, 50])
    world_from_voxel[:3, 3] = -world_from_voxel[:3, :3] @ ((shape - 1) / 2)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    mri = np.mean(
        [
            MRI_CONTRAST[_labels(apply(world_from_voxel, index + (np.array(d) - 0.5) / 2))]
            for d in np.ndindex(2, 2, 2)
        ],
        axis=0,
    )
    write_volume(folder / "mri.nii.gz", Volume((900 * mri).astype(np.float32), world_from_voxel))

    world_from_stack = np.eye(4)
    world_from_stack[:3, :3] = 1.07 * _turn() @ orientation_matrix("LIA")
    world_from_stack[:3, 3] = -world_from_stack[:3, :3] @ [50.0, 40.0, 130.0]
    rows, truth = [], {}
    for number in range(N_SECTIONS):
        position = 130.0 + 2.8 * (number - (N_SECTIONS - 1) / 2)
        angle = np.deg2rad(rng.uniform(-5, 5))
        c, s = np.cos(angle), np.sin(angle)
        section_from_plane = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
        canvas = np.array([86, 76]) + rng.integers(0, 10, 2)  # columns, rows
        centre = (canvas - 1) / 2 + rng.uniform(-5, 5, 2)
        section_from_plane[:2, 2] = centre - section_from_plane[:2, :2] @ [50.0, 40.0]
        columns, rows_ = np.meshgrid(np.arange(canvas[0]), np.arange(canvas[1]))
        file_px = np.stack([columns, rows_], axis=-1)
        image = np.zeros(file_px.shape[:2])
        for d in np.ndindex(2, 2):
            mm = (file_px + (np.array(d) - 0.5) / 2) * PIXEL_MM
            plane = apply(np.linalg.inv(section_from_plane), mm)
            stack = np.concatenate([plane, np.full((*plane.shape[:2], 1), position)], axis=-1)
            image += SECTION_CONTRAST[_labels(apply(world_from_stack, stack))] / 4
        image += 0.01 * rng.standard_normal(image.shape)
        name = f"s{number:02d}"
        if name == TORN:  # a third of it is missing
            right = apply(np.linalg.inv(section_from_plane), file_px * PIXEL_MM)[..., 0] > 58
            image[right] = 0
        path = folder / f"{name}.png"
        write_png(path, (235 - 200 * np.clip(image, 0, 1)).astype(np.uint8))  # bright background
        rows.append(SectionRow(name, str(path), position, PIXEL_MM))
        truth[name] = section_from_plane

    results = folder / "results"
    chunk = "chunks/000.tsv"
    # the last but three is prepared and cut, but unknown to align
    prepare.run(
        PrepareOptions(working_pixel_mm=WORKING_MM),
        rows=rows, out_dir=results / "prepare", receipt=results / "prepare" / chunk,
    )  # fmt: skip
    prepare_mri.run(PrepareOptions(), mri=folder / "mri.nii.gz", out_dir=results / "prepare")
    collect.run(
        None,
        receipts=[results / "prepare" / chunk],
        table=results / "prepare" / "sections.tsv",
    )
    known = [r for r in read_tsv(results / "prepare" / "sections.tsv")[1] if r["section"] != "s18"]
    write_tsv(results / "prepare" / "known.tsv", known)
    _align(results, WORKING_MM, 2.5)
    _resample(results, rows)
    _align_sections(results)
    return Phantom(results, rows, np.linalg.inv(world_from_stack), truth)


def _align(results: Path, working_pixel_mm: float, spacing_mm: float) -> None:
    align.run(
        AlignOptions(spacing_mm=spacing_mm),
        sections=results / "prepare" / "known.tsv",
        mri=results / "prepare" / "mri.nii.gz",
        mri_mask=results / "prepare" / "mri_mask.nii.gz",
        orientation="LIA",
        working_pixel_mm=working_pixel_mm,
        out_dir=results / "align",
    )


def _resample(results: Path, rows: list[SectionRow]) -> None:
    resample.run(
        ResampleOptions(),
        rows=rows,
        align_dir=results / "align",
        mri=results / "prepare" / "mri.nii.gz",
        mri_mask=results / "prepare" / "mri_mask.nii.gz",
        out_dir=results / "resample",
        receipt=results / "resample" / "chunks" / "000.tsv",
    )


def _align_sections(results: Path) -> None:
    align_sections.run(
        AlignSectionsOptions(),
        prepared=results / "prepare" / "chunks" / "000.tsv",
        planes=results / "resample" / "chunks" / "000.tsv",
        align_dir=results / "align",
        out_dir=results / "align_sections",
        receipt=results / "align_sections" / "chunks" / "000.tsv",
    )


def _found(phantom: Phantom) -> np.ndarray:
    return read_stack_from_world(phantom.results / "align" / names.STACK_TRANSFORM)


def _world_errors(phantom: Phantom) -> dict[str, np.ndarray]:
    """Per section (n, 3): found minus true world position of its tissue, mm."""
    affines = {
        r.section: r.working_mm_from_plane_mm
        for r in read_rows(phantom.results / "align_sections" / "chunks" / "000.tsv", Affine)
    }
    errors = {}
    for row in read_rows(phantom.results / "prepare" / "chunks" / "000.tsv", Prepared):
        name = row.section
        mask = read_plane(phantom.results / "prepare" / "sections" / f"{name}_mask.nii.gz")[0]
        working = np.argwhere(mask > 0)[:, ::-1] * WORKING_MM
        section = apply(row.section_mm_from_working_mm, working)
        z = np.full((len(working), 1), row.position_mm)
        found = apply(np.linalg.inv(affines[name]), working)
        true = apply(np.linalg.inv(phantom.section_from_plane_mm[name]), section)
        errors[name] = apply(np.linalg.inv(_found(phantom)), np.hstack([found, z])) - apply(
            np.linalg.inv(phantom.stack_from_world), np.hstack([true, z])
        )
    return errors


def test_the_known_similarity_is_recovered(phantom):
    found, true = _found(phantom), phantom.stack_from_world
    assert 1 / similarity_scale(found) == pytest.approx(1.07, rel=0.015)
    # the normal of the planes; turning within them is shared with the section affines
    normals = [m[2, :3] / np.linalg.norm(m[2, :3]) for m in (found, true)]
    assert np.rad2deg(np.arccos(np.dot(*normals))) < 1.0
    distances = np.linalg.norm(np.concatenate(list(_world_errors(phantom).values())), axis=1)
    assert distances.mean() < 0.8  # under half a working pixel
    assert np.quantile(distances, 0.95) < 1.6


def test_a_torn_section_does_not_run_away(phantom):
    errors = _world_errors(phantom)
    assert np.linalg.norm(errors[TORN], axis=1).mean() < 1.6
    stretches = {
        r.section: stretch_of(r.working_mm_from_plane_mm[:2, :2])[1]
        for r in read_initial(phantom.results / "align" / "sections_initial.tsv")
    }
    others = np.mean([stretches[name] for name in ("s06", "s07", "s09", "s10")], axis=0)
    assert np.abs(stretches[TORN] - others).max() < 0.02


def test_a_mouses_brain_is_aligned_like_a_large_one(phantom, tmp_path):
    """All lengths made smaller by a power of two: so is all that is found, and nothing else."""
    times_smaller = 16
    small = tmp_path / "small"
    shutil.copytree(phantom.results / "prepare", small / "prepare")
    for table in ("known.tsv", "chunks/000.tsv"):
        _, rows = read_tsv(small / "prepare" / table)
        for row in rows:
            for length in ("position_mm", "working_pixel_mm", "pixel_size_mm", "g02", "g12"):
                row[length] = repr(float(row[length]) / times_smaller)
        write_tsv(small / "prepare" / table, rows)
    for name in ("mri.nii.gz", "mri_mask.nii.gz"):
        volume = read_volume(phantom.results / "prepare" / name)
        smaller = volume.world_from_voxel.copy()
        smaller[:3] /= times_smaller
        write_volume(small / "prepare" / name, Volume(volume.data, smaller))
    _align(small, WORKING_MM / times_smaller, 2.5 / times_smaller)
    rows = [dataclasses.replace(r, position_mm=r.position_mm / times_smaller) for r in phantom.rows]
    _resample(small, rows)
    _align_sections(small)

    def of_both(name: str) -> tuple[dict, dict]:
        return tuple(json.loads((r / "align" / name).read_text()) for r in (small, phantom.results))

    grid, large = of_both("plane_grid.json")
    assert (grid["enlargement"], large["enlargement"]) == (16, 1)
    assert grid["spacing_mm"] * times_smaller == large["spacing_mm"]
    for one, other in zip(*(q["rounds"] for q in of_both("quality.json")), strict=True):
        assert one["moved_mm"] * times_smaller == pytest.approx(other["moved_mm"])
        assert one["section_cost"] == pytest.approx(other["section_cost"])
    found = read_stack_from_world(small / "align" / names.STACK_TRANSFORM)
    np.testing.assert_allclose(found, resized(_found(phantom), 1 / times_smaller), rtol=1e-9)
    tables = [r / "align_sections" / "chunks" / "000.tsv" for r in (small, phantom.results)]
    for row, large in zip(*(read_rows(table, Affine) for table in tables), strict=True):
        wanted = resized(large.working_mm_from_plane_mm, 1 / times_smaller)
        np.testing.assert_allclose(row.working_mm_from_plane_mm, wanted, rtol=1e-6, atol=1e-9)
        assert row.moved_mm * times_smaller == pytest.approx(large.moved_mm, rel=1e-4)


def test_what_was_found_and_how_surely_is_told(phantom):
    quality = json.loads((phantom.results / "align" / "quality.json").read_text())
    assert (quality["orientation"], quality["orientation_found"]) == ("LIA", "LIA")
    assert quality["start_explained"] > 0.7
    assert quality["handedness_margin"] is None  # the letters say it, and no other was tried
    assert not (phantom.results / "align" / names.CANDIDATES).exists()


def test_a_left_handed_stack_is_not_mirrored(phantom):
    found = _found(phantom)
    assert np.linalg.det(found[:3, :3]) < 0  # LIA
    # the nucleus lies at x > 0 in the world; so do the pixels of it in the sections
    inside = apply(found, [10.0, 6.0, -3.0])
    assert np.allclose(inside[2], apply(phantom.stack_from_world, [10.0, 6.0, -3.0])[2], atol=1)
    initial = read_initial(phantom.results / "align" / "sections_initial.tsv")
    for row in initial:
        assert np.linalg.det(row.working_mm_from_plane_mm[:2, :2]) > 0


def test_the_stored_affine_has_equal_singular_values(phantom):
    import SimpleITK as sitk

    transform = sitk.ReadTransform(str(phantom.results / "align" / names.STACK_TRANSFORM))
    matrix = np.array(sitk.AffineTransform(transform).GetMatrix()).reshape(3, 3)
    singular = np.linalg.svd(matrix, compute_uv=False)
    assert singular.max() - singular.min() < 1e-9


def test_the_grid_holds_every_section_and_the_quality_is_told(phantom):
    grid, _ = read_plane_grid(phantom.results / "align" / "plane_grid.json")
    assert grid.spacing_mm == WORKING_MM
    for row in read_initial(phantom.results / "align" / "sections_initial.tsv"):
        mask = phantom.results / "prepare" / "sections" / f"{row.section}_mask.nii.gz"
        working = np.argwhere(read_plane(mask)[0] > 0)[:, ::-1] * WORKING_MM
        px = apply(scaling(1 / WORKING_MM) @ np.linalg.inv(row.working_mm_from_plane_mm), working)
        assert (px > 0).all()
        assert (px < np.array(grid.shape[::-1]) - 1).all()
    quality = json.loads((phantom.results / "align" / "quality.json").read_text())
    assert quality["mask_dice"] > 0.9
    assert quality["rounds"][-1]["moved_mm"] < quality["rounds"][0]["moved_mm"]
    assert (phantom.results / "align" / "overview.png").stat().st_size > 10_000


def test_a_section_that_align_never_saw_starts_from_its_neighbours(phantom):
    names = {r.section for r in read_initial(phantom.results / "align" / "sections_initial.tsv")}
    assert "s18" not in names
    assert np.linalg.norm(_world_errors(phantom)["s18"], axis=1).mean() < 1.6


def test_a_section_may_be_placed_by_its_neighbours_alone(phantom, tmp_path):
    prepared = phantom.results / "prepare" / "chunks"
    (row,) = (r for r in read_rows(prepared / "000.tsv", Prepared) if r.section == "s10")
    initial = read_initial(phantom.results / "align" / "sections_initial.tsv")
    write_rows(prepared / "placed.tsv", [replace(row, affine_from="neighbours")])
    align_sections.run(
        AlignSectionsOptions(),
        prepared=prepared / "placed.tsv",
        planes=phantom.results / "resample" / "chunks" / "000.tsv",
        align_dir=phantom.results / "align",
        out_dir=tmp_path,
        receipt=tmp_path / "chunks" / "placed.tsv",
    )
    (found,) = read_rows(tmp_path / "chunks" / "placed.tsv", Affine)
    assert found.section == "s10" and found.trust is None and found.moved_mm == 0
    # s09 and s11 are equally far: half of the turn of each, and tissue on tissue
    angles = {
        r.section: np.arctan2(*r.working_mm_from_plane_mm[[1, 0], 0]) for r in initial
    }  # fmt: skip
    angle = np.arctan2(*found.working_mm_from_plane_mm[[1, 0], 0])
    assert angle == pytest.approx((angles["s09"] + angles["s11"]) / 2, abs=0.01)
    assert abs(angle - angles["s10"]) > 0.02
    mask = read_plane(row.file(names.MASK))[0] > 0
    planes = read_rows(phantom.results / "resample" / "chunks" / "000.tsv", Plane)
    (plane,) = (p for p in planes if p.section == "s10")
    plane_mask, plane_mm = read_plane(plane.file(names.MRI_MASK))[0] > 0, plane.grid.spacing_mm
    np.testing.assert_allclose(
        apply(found.working_mm_from_plane_mm, tissue_centre_mm(plane_mask, plane_mm)),
        tissue_centre_mm(mask, row.working_pixel_mm),
        atol=1e-3,
    )


def test_misfit_is_compared_within_the_stain_group():
    """Another stain fits the MRI less well everywhere, which makes no section of it doubtful."""
    seen = [
        InitialAffine(f"s{i}", float(i), "", np.eye(3), 0.2 + 0.2 * (i % 2), "ba"[i % 2])
        for i in range(12)
    ]

    def usual(group, seen=seen):
        return align_sections._usual_cost(
            SimpleNamespace(section="s5", position_mm=5.0, stain_group=group), seen
        )

    assert usual("a") == pytest.approx(0.4) and usual("b") == pytest.approx(0.2)
    # a fit of before there were groups, and a group that it never saw
    assert usual("c") == usual("a", [replace(s, stain_group="") for s in seen])


def test_planes_and_linear_sections_lie_on_each_other(phantom):
    rows = read_rows(phantom.results / "resample" / "chunks" / "000.tsv", Plane)
    assert len(rows) == N_SECTIONS
    for name in ("s05", "s11", "s18"):
        mri = read_plane(phantom.results / "resample" / "sections" / f"{name}_mri.nii.gz")[0]
        folder = phantom.results / "align_sections" / "sections"
        linear = read_plane(folder / f"{name}_linear.nii.gz")[0]
        tissue = read_plane(folder / f"{name}_linearmask.nii.gz")[0] > 0
        brain = read_plane(
            phantom.results / "resample" / "sections" / f"{name}_mrimask.nii.gz"
        )[0] > 0  # fmt: skip
        assert mri.shape == linear.shape == tissue.shape
        assert 2 * (tissue & brain).sum() / (tissue.sum() + brain.sum()) > 0.9
        assert np.median(linear[~tissue & ~brain]) == pytest.approx(0, abs=0.02)
        assert 0.5 < np.median(mri[brain]) <= 1.0


def test_only_a_changed_section_is_fitted_again(phantom, caplog):
    caplog.set_level("INFO", "sbr_core")
    folder = phantom.results / "align_sections" / "sections"
    (folder / "s03_linear.nii.gz").unlink()
    _align_sections(phantom.results)
    assert [line.split()[-2] for line in caplog.messages if line.endswith("done")] == ["s03"]
    assert (folder / "s03_linear.nii.gz").is_file()


def test_a_position_outside_the_mri_fails_alone(phantom, tmp_path):
    far = dataclasses.replace(phantom.rows[0], section="far", position_mm=900.0)
    resample.run(
        ResampleOptions(),
        rows=[far, phantom.rows[10]],
        align_dir=phantom.results / "align",
        mri=phantom.results / "prepare" / "mri.nii.gz",
        mri_mask=phantom.results / "prepare" / "mri_mask.nii.gz",
        out_dir=tmp_path,
        receipt=tmp_path / "chunks" / "000.tsv",
    )
    status = {
        r.section: (r.status, r.message)
        for r in read_rows(tmp_path / "chunks" / "000.tsv", Plane, only_ok=False)
    }
    assert status["s10"][0] == "ok"
    assert status["far"][0] == "failed"
    assert "no brain at position 900 mm" in status["far"][1]


def test_wrong_letters_and_too_few_sections_are_named(phantom, tmp_path):
    table = phantom.results / "prepare" / "known.tsv"
    given = {
        "mri": phantom.results / "prepare" / "mri.nii.gz",
        "mri_mask": phantom.results / "prepare" / "mri_mask.nii.gz",
        "working_pixel_mm": WORKING_MM,
        "out_dir": tmp_path,
    }
    with pytest.raises(ConfigError, match="LIR"):
        align.run(AlignOptions(), sections=table, orientation="LIR", **given)
    with pytest.raises(ConfigError, match="working-pixel-mm 1"):
        align.run(
            AlignOptions(), sections=table, orientation="LIA", **{**given, "working_pixel_mm": 1.0}
        )
    few = phantom.results / "prepare" / "few.tsv"
    write_tsv(few, read_tsv(table)[1][:2])
    with pytest.raises(ImageError, match="2 usable sections"):
        align.run(AlignOptions(), sections=few, orientation="LIA", **given)
    assert not list(tmp_path.iterdir())


def test_another_brain_is_refused_and_nothing_is_written_but_the_picture(phantom, tmp_path):
    """Noise in a box explains nothing of the sections, and no letters help."""
    rng = np.random.default_rng(0)
    shape = (40, 40, 40)
    mask = np.ones(shape, np.uint8)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    write_volume(tmp_path / "mri.nii.gz", Volume(rng.random(shape).astype(np.float32), affine))
    write_volume(tmp_path / "mask.nii.gz", Volume(mask, affine))
    with pytest.raises(AlignmentError, match="come together.*candidates.png"):
        align.run(
            AlignOptions(min_explained=0.9),
            sections=phantom.results / "prepare" / "known.tsv",
            mri=tmp_path / "mri.nii.gz",
            mri_mask=tmp_path / "mask.nii.gz",
            orientation="LIA",
            working_pixel_mm=WORKING_MM,
            out_dir=tmp_path / "align",
        )
    assert [f.name for f in (tmp_path / "align").iterdir()] == [names.CANDIDATES]


def test_positions_that_are_an_order_get_a_proposal(phantom, tmp_path):
    table = phantom.results / "prepare" / "known.tsv"
    rows = read_tsv(table)[1]
    positions = [float(r["position_mm"]) for r in rows]
    step = 2.8
    for row, position in zip(rows, positions, strict=True):
        row["position_mm"] = str(round((position - positions[0]) / step))
    order = table.with_name("order.tsv")
    write_tsv(order, rows)
    with pytest.raises(AlignmentError, match="positions: order: one step is about"):
        align.run(
            AlignOptions(positions="order"),
            sections=order,
            mri=phantom.results / "prepare" / "mri.nii.gz",
            mri_mask=phantom.results / "prepare" / "mri_mask.nii.gz",
            orientation="LIA",
            working_pixel_mm=WORKING_MM,
            out_dir=tmp_path / "align",
        )
    assert [f.name for f in (tmp_path / "align").iterdir()] == [names.POSITIONS]
    proposed = [float(r["position_mm"]) for r in read_tsv(tmp_path / "align" / names.POSITIONS)[1]]
    true = 1.07 * (np.array(positions) - positions[0])  # of the MRI
    assert np.allclose(proposed, true, rtol=0.05, atol=0.01)


def _prepare_demo(folder: Path, out: Path, change: np.ndarray) -> None:
    """The demo brain prepared, the world of its MRI changed afterwards."""
    rows = read_manifest(folder / "sections.tsv")
    options = PrepareOptions(working_pixel_mm=WORKING_MM)
    prepare.run(options, rows=rows, out_dir=out, receipt=out / "chunks" / "0.tsv")
    mri = {"mri": folder / "mri.nii.gz", "mri_mask": folder / "mri_mask.nii.gz"}
    prepare_mri.run(PrepareOptions(), out_dir=out, **mri)
    collect.run(None, receipts=[out / "chunks" / "0.tsv"], table=out / "sections.tsv")
    for name in ("mri.nii.gz", "mri_mask.nii.gz"):
        volume = read_volume(out / name)
        write_volume(out / name, Volume(volume.data, change @ volume.world_from_voxel))


def _true_points(prepared: Path, truth: dict) -> tuple[np.ndarray, np.ndarray]:
    """Tissue pixels of all sections: in the stack as it is centred, and in the demo's world."""
    rows, stack = align.read_stack(prepared / "sections.tsv", WORKING_MM)
    centred, world = [], []
    for row, section, affine in zip(rows, stack.sections, centred_affines(stack), strict=True):
        working = section.tissue_mm(WORKING_MM, 5)
        z = np.full((len(working), 1), section.position_mm)
        centred.append(np.hstack([apply(np.linalg.inv(affine), working), z]))
        in_section = apply(row.section_mm_from_working_mm, working)
        world.append(true_world_from_section_mm(truth, row.section, in_section))
    return np.concatenate(centred), np.concatenate(world)


def test_the_demo_is_found_in_a_turned_and_mirrored_world_and_its_handedness_is_asked_for(
    small_demo, tmp_path, capsys, monkeypatch
):
    """The small version of benchmarks/any_start.py; the demo's brain is symmetric."""
    change = np.eye(4)
    turn = Rotation.random(random_state=1).as_matrix()
    change[:3, :3] = 1.13 * turn @ np.diag([-1.0, 1, 1])
    change[:3, 3] = 20.0, -30.0, 10.0
    prepared = tmp_path / "prepare"
    _prepare_demo(small_demo, prepared, change)
    verdicts = []
    judge = start.judge

    def keep(poses):
        verdicts.append(judge(poses))
        return verdicts[-1]

    monkeypatch.setattr(start, "judge", keep)
    command = ["align", "--sections", prepared / "sections.tsv"]
    command += ["--mri", prepared / "mri.nii.gz", "--mri-mask", prepared / "mri_mask.nii.gz"]
    command += ["--orientation", "auto", "--working-pixel-mm", WORKING_MM]
    command += ["--out-dir", tmp_path / "align"]
    assert cli.main([str(part) for part in command]) == 2
    message = capsys.readouterr().err

    truth = json.loads((small_demo / "truth.json").read_text())
    centred, world = _true_points(prepared, truth)
    true = change @ np.array(truth["world_from_stack"])
    (verdict,) = verdicts
    poses = verdict.best, verdict.mirror
    (pose,) = (p for p in poses if p.mirrored == (np.linalg.det(true[:3, :3]) < 0))
    errors = apply(pose.world_from_stack, centred) - apply(change, world)
    assert np.linalg.norm(errors, axis=1).mean() < 10
    rotation = pose.world_from_stack[:3, :3] @ np.linalg.inv(true[:3, :3])
    u, _, vt = np.linalg.svd(rotation)
    assert np.trace(u @ vt) > 1 + 2 * np.cos(np.deg2rad(10))
    assert verdict.place_margin > AlignOptions().min_margin
    assert verdict.handedness_margin < AlignOptions().min_margin
    assert "handedness undetermined" in message
    assert orientation_letters(nearest_orientation(true)) in message
    assert all(
        orientation_letters(nearest_orientation(p.world_from_stack)) in message for p in poses
    )
    assert [f.name for f in (tmp_path / "align").iterdir()] == [names.CANDIDATES]


def test_prealigned_planes_and_affines_keep_the_files_place(phantom, tmp_path):
    """At twice the file's pixel, a dot in the plane and one in the section stay together."""
    rows = []
    for name, where in (("a", (20, 31)), ("b", (33, 12))):
        image = np.full((48, 60), 240, np.uint8)
        image[8:40, 6:54] = 120
        mri = np.where(image < 200, 90, 0).astype(np.uint8)
        image[where[0] - 1 : where[0] + 2, where[1] - 1 : where[1] + 2] = 20
        mri[where[0] - 1 : where[0] + 2, where[1] - 1 : where[1] + 2] = 250
        write_png(tmp_path / f"{name}.png", image)
        write_png(tmp_path / f"{name}_mri.png", mri)
        rows.append(
            SectionRow(
                name,
                str(tmp_path / f"{name}.png"),
                float(len(rows)),
                1.0,
                mri_image=str(tmp_path / f"{name}_mri.png"),
            )
        )
    chunk = Path("chunks/000.tsv")
    out = {n: tmp_path / n for n in ("prepare", "resample", "align_sections")}
    prepare.run(
        PrepareOptions(working_pixel_mm=2.0, min_tissue_mm2=0.0),
        rows=rows, out_dir=out["prepare"], receipt=out["prepare"] / chunk,
    )  # fmt: skip
    resample.run(
        ResampleOptions(),
        rows=rows, working_pixel_mm=2.0,
        out_dir=out["resample"], receipt=out["resample"] / chunk,
    )  # fmt: skip
    align_sections.run(
        AlignSectionsOptions(),
        prepared=out["prepare"] / chunk, planes=out["resample"] / chunk, prealigned=True,
        out_dir=out["align_sections"], receipt=out["align_sections"] / chunk,
    )  # fmt: skip
    for name, (row, column) in (("a", (20, 31)), ("b", (33, 12))):
        mri, spacing = read_plane(out["resample"] / "sections" / f"{name}_mri.nii.gz")
        linear, _ = read_plane(out["align_sections"] / "sections" / f"{name}_linear.nii.gz")
        assert spacing == 2.0
        for plane in (mri, linear):
            base = np.median(plane[plane > 0.1])
            spot = np.clip(plane - base - 0.02, 0, None)
            spot[: row // 2 - 3] = spot[row // 2 + 4 :] = 0
            rows_, columns = np.nonzero(spot)
            weights = spot[spot > 0]
            found = np.average(np.stack([rows_, columns]), axis=1, weights=weights) * spacing
            assert np.allclose(found, (row, column), atol=0.5)
    assert read_section(tmp_path / "a.png").shape == (48, 60)


def test_a_prealigned_plane_of_another_shape_is_refused(tmp_path):
    rows = []
    for name, columns in (("a", 40), ("b", 41)):
        brain = np.pad(np.full((20, columns - 10), 100, np.uint8), 5)
        write_png(tmp_path / f"{name}.png", brain)
        path = str(tmp_path / f"{name}.png")
        rows.append(SectionRow(name, path, float(columns), 1.0, mri_image=path))
    wide = Prepared(
        section="b", position_mm=41.0, pixel_size_mm=1.0, working_pixel_mm=1.0, file_rows=30,
        file_columns=41, polarity="dark_background", background=0.0, tissue_mm2=1.0, image="b.png",
        section_mm_from_working_mm=np.eye(3),
    )  # fmt: skip
    with pytest.raises(ImageError, match=r"'b': shape \(30, 41\), but its mri_image"):
        align_sections._check_same_grid(wide, PlaneGrid((30, 40), 1.0))
    with pytest.raises(ImageError, match=r"\(30, 41\).*expected \(30, 40\).*'a'"):
        resample.run(
            ResampleOptions(), rows=rows, working_pixel_mm=1.0, out_dir=tmp_path / "out",
            receipt=tmp_path / "out" / "chunks" / "000.tsv", strict=True,
        )  # fmt: skip


def _by_landmarks(phantom, folder, marks):
    """The row of s10 whose affine `align` found turned by 86° and 10 mm off, with landmarks."""
    prepared = phantom.results / "prepare" / "chunks"
    (row,) = (r for r in read_rows(prepared / "000.tsv", Prepared) if r.section == "s10")
    write_rows(prepared / "alone.tsv", [row])
    shutil.copytree(phantom.results / "align", folder / "align", dirs_exist_ok=True)
    c, s, middle = np.cos(1.5), np.sin(1.5), np.array([44.0, 40.0])
    harm = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    harm[:2, 2] = middle - harm[:2, :2] @ middle + [8.0, -6.0]
    initial = [
        replace(each, working_mm_from_plane_mm=harm @ each.working_mm_from_plane_mm)
        if each.section == "s10"
        else each
        for each in read_initial(phantom.results / "align" / "sections_initial.tsv")
    ]
    write_initial(folder / "align" / "sections_initial.tsv", initial)
    align_sections.run(
        AlignSectionsOptions(),
        prepared=prepared / "alone.tsv",
        planes=phantom.results / "resample" / "chunks" / "000.tsv",
        align_dir=folder / "align",
        landmarks=marks,
        out_dir=folder,
        receipt=folder / "chunks" / "alone.tsv",
    )
    (found,) = read_rows(folder / "chunks" / "alone.tsv", Affine)
    mask = read_plane(row.file(names.MASK))[0] > 0
    working = np.argwhere(mask)[:, ::-1] * WORKING_MM
    section = apply(row.section_mm_from_working_mm, working)
    true = apply(np.linalg.inv(phantom.section_from_plane_mm["s10"]), section)
    error = apply(np.linalg.inv(found.working_mm_from_plane_mm), working) - true
    # the fitted stack may lie a little beside the true one
    return found, float(np.linalg.norm(error - _stack_off(phantom, row.position_mm), axis=1).mean())


def _stack_off(phantom, position_mm):
    """(2,) how far the stack was fitted beside its place, in a plane."""
    stack_mm = np.array([50.0, 40.0, position_mm])
    world = apply(np.linalg.inv(phantom.stack_from_world), stack_mm)
    return apply(_found(phantom), world)[:2] - stack_mm[:2]


def _landmarks(phantom, points, off_mm=((0.0, 0.0),), beside_mm=0.0):
    """True ones of s10 at points (x, y) of the plane, set `off_mm` beside on the section."""
    (z_mm,) = (row.position_mm for row in phantom.rows if row.section == "s10")
    section_from_plane = phantom.section_from_plane_mm["s10"]
    marks = []
    for i, ((x, y), off) in enumerate(zip(points, [*off_mm, *[(0, 0)] * 9], strict=False)):
        world = apply(np.linalg.inv(phantom.stack_from_world), np.array([x, y, z_mm + beside_mm]))
        section = apply(section_from_plane, np.array([x, y], float)) + off
        marks.append(Landmark("s10", tuple(section), mri_mm=tuple(world), name=str(i)))
    return marks


def test_two_landmarks_lay_a_section_that_lies_10_mm_off(phantom, tmp_path):
    _, lost_mm = _by_landmarks(phantom, tmp_path / "lost", None)
    assert lost_mm > 8, "it does not find back by itself"
    marks = _landmarks(phantom, [(32, 45), (66, 34)], [(0.4, -0.3), (-0.3, 0.5)])
    found, error_mm = _by_landmarks(phantom, tmp_path / "found", marks)
    assert error_mm < 1.5 and set(found.constraints) == {"0", "1"} and not found.message
    assert found.landmark_tolerance_mm == pytest.approx(0.4 * WORKING_MM)


def test_a_wrong_landmark_and_one_beside_the_plane_are_told(phantom, tmp_path, caplog):
    marks = _landmarks(phantom, [(32, 45), (66, 34), (50, 55)], [(16.0, 12.0)], beside_mm=4.0)
    found, error_mm = _by_landmarks(phantom, tmp_path, marks)
    assert error_mm < 1.5 and set(found.constraints) == {"1", "2"}
    assert "landmark '0' is not obeyed" in found.message
    assert "landmark '1' lies 4." in found.message and "from its plane" in found.message
    assert "WARNING: section 's10': landmark '0'" in caplog.text


def _beside(pair):
    """A pair 1 mm beside another on the plane, and 9 mm on the section."""
    return tuple(np.add(pair, [1.0, 0.0, -7.0, 6.0]).tolist())


def test_a_deformation_holds_the_landmarks_of_its_affine(phantom, tmp_path):
    """What the affine cannot do; one that would tear the tissue is told."""
    points = [(32, 45), (66, 34), (50, 55), (48, 25)]
    marks = _landmarks(phantom, points, [(1.5, -1.0), (-1.0, 1.5)])
    found, _ = _by_landmarks(phantom, tmp_path, marks)
    torn = dict(found.constraints) | {"torn": _beside(found.constraints["0"])}
    write_rows(tmp_path / "chunks" / "torn.tsv", [replace(found, constraints=torn)])
    tables = [
        phantom.results / "prepare" / "chunks" / "alone.tsv",
        phantom.results / "resample" / "chunks" / "000.tsv",
    ]
    for name, told in (("alone", ""), ("torn", "landmark 'torn' is not obeyed")):
        pair = join(*tables, tmp_path / "chunks" / f"{name}.tsv")["s10"]
        mask = pair.read(pair.plane, names.MRI_MASK)
        still = integrate(np.zeros((*pair.grid.shape, 2)), pair.grid)
        result = infer.finish_section(pair, Prediction(lambda d=still: d, mask, mask), tmp_path, 0)
        row, tolerance_mm = result.row, pair.affine.landmark_tolerance_mm
        assert row.folding_percent == 0 and told in row.message and bool(row.message) == bool(told)
        apart_mm = row.landmarks_mm
        assert apart_mm > tolerance_mm if told else apart_mm <= tolerance_mm
        plane_from_section = read_section_transform(result.files[1])
        for key, (x, y, *section_mm) in pair.affine.constraints.items():
            if key != "torn":
                laid = plane_from_section.map(np.array(section_mm))
                assert np.hypot(*(laid - [x, y])) < 1.6 * tolerance_mm
