"""`sbr evaluate` on a demo brain whose transforms are known: the truth, and the truth undone."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from sbr_core import geometry
from sbr_core.algorithms.planes import resample_plane
from sbr_core.algorithms.simulation.swirls import apply_swirls, undo_swirls
from sbr_core.artifacts.accuracy import folding
from sbr_core.artifacts.cells import matrix_columns
from sbr_core.artifacts.names import SECTION_TO_STACK, STACK_TO_SECTION, section_file
from sbr_core.config import EvaluateOptions
from sbr_core.errors import ImageError, ManifestError
from sbr_core.geometry import PlaneGrid
from sbr_core.io.corrections import Correction, write_corrections
from sbr_core.io.files import sha256_file
from sbr_core.io.images import image_shape, read_labels, write_png
from sbr_core.io.manifests import Landmark, SectionRow, read_manifest
from sbr_core.io.tables import write_tsv
from sbr_core.io.transforms import (
    PlaneField,
    SectionTransform,
    write_section_transform,
    write_stack_from_world,
)
from sbr_core.io.volumes import Volume, read_volume, write_plane, write_volume
from sbr_core.stages import evaluate

GRID = PlaneGrid((120, 125), 1.25)
XFM = "from-stack_to-mri_mode-image_xfm.txt"


_UNUSED = {
    "position_mm": 0.0,
    "pixel_size_mm": 1.0,
    "working_pixel_mm": 1.0,
    "polarity": "dark_background",
    "background": 0.0,
    "tissue_mm2": 1.0,
    "image": "image.png",
    **matrix_columns(np.eye(3), "g"),
}
"""What the stages before leave in their tables too."""


def _rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(), delimiter="\t"))


def _table(path: Path, rows: list[dict], files: dict[str, list[Path]]) -> None:
    """A collected table of a stage, listing files by their sha256."""
    out = []
    for row in rows:
        listed = {str(f.relative_to(path.parent)): sha256_file(f) for f in files[row["section"]]}
        out.append({"status": "ok", "message": "", **_UNUSED, **row, "files": listed})
    write_tsv(path, out, ("section", "status", "message"))


def _write_method(folder: Path, transforms: dict[str, tuple]) -> None:
    files = {}
    for section, (forward, backward) in transforms.items():
        paths = [
            section_file(folder, section, ending) for ending in (SECTION_TO_STACK, STACK_TO_SECTION)
        ]
        for path, transform in zip(paths, (forward, backward), strict=True):
            write_section_transform(path, SectionTransform(transform))
        files[section] = paths
    _table(folder / "sections.tsv", [{"section": s} for s in transforms], files)


def _transforms(truth: dict, section: str, method: str) -> tuple:
    entry = truth["sections"][section]
    affine, swirls = np.array(entry["section_mm_from_flat_mm"]), np.array(entry["swirls"])
    if method == "linear":
        return (affine,), (np.linalg.inv(affine),)
    margin = 12
    rows, columns = np.indices((GRID.shape[0] + 2 * margin, GRID.shape[1] + 2 * margin)) - margin
    points = np.stack([columns, rows], axis=-1) * GRID.spacing_mm
    origin = (-margin * GRID.spacing_mm,) * 2
    phi = PlaneField(undo_swirls(points, swirls) - points, GRID.spacing_mm, origin)
    inverse = PlaneField(apply_swirls(points, swirls) - points, GRID.spacing_mm, origin)
    return (phi, affine), (np.linalg.inv(affine), inverse)


@pytest.fixture(scope="module")
def brain(small_demo, tmp_path_factory):
    """Results of the small demo as the stages before would leave them, and evaluate's flags."""
    root = tmp_path_factory.mktemp("results")
    truth = json.loads((small_demo / "truth.json").read_text())
    rows = read_manifest(small_demo / "sections.tsv")
    stack_from_world = np.linalg.inv(truth["world_from_stack"])
    (root / "align").mkdir()
    write_stack_from_world(root / "align" / XFM, stack_from_world)

    mri = read_volume(small_demo / "mri_mask.nii.gz")
    files, planes = {}, []
    for row in rows:
        path = root / "resample" / "sections" / f"{row.section}_mrimask.nii.gz"
        mask = resample_plane(
            mri.data, mri.world_from_voxel, stack_from_world, GRID, row.position_mm, order=0
        )
        write_plane(path, mask, GRID.spacing_mm)
        files[row.section] = [path]
        planes.append(
            {
                "section": row.section,
                "rows": GRID.shape[0],
                "columns": GRID.shape[1],
                "spacing_mm": GRID.spacing_mm,
            }
        )
    _table(root / "resample" / "sections.tsv", planes, files)
    prepared = [
        {
            "section": r.section,
            "position_mm": r.position_mm,
            "pixel_size_mm": r.pixel_size_mm,
            "labels": r.labels,
            **dict(zip(("file_rows", "file_columns"), image_shape(Path(r.image)), strict=True)),
        }
        for r in rows
    ]
    _table(root / "prepare" / "sections.tsv", prepared, {r.section: [] for r in rows})
    for method in ("linear", "truth"):
        _write_method(
            root / method, {r.section: _transforms(truth, r.section, method) for r in rows}
        )
    flags = {
        "brain": "demo",
        "methods": {"linear": root / "linear", "truth": root / "truth"},
        "prepared": root / "prepare" / "sections.tsv",
        "planes": root / "resample" / "sections.tsv",
        "align_dir": root / "align",
        "landmarks": small_demo / "landmarks.tsv",
        "mri_labels": small_demo / "mri_labels.nii.gz",
    }
    return root, truth, flags


@pytest.fixture(scope="module")
def tables(brain, tmp_path_factory):
    """(summary, sections) of that brain."""
    out_dir = tmp_path_factory.mktemp("evaluation")
    evaluate.run(EvaluateOptions(), out_dir=out_dir, **brain[2])
    return _rows_of(out_dir / "summary.tsv"), _rows_of(out_dir / "sections.tsv")


def _value(rows: list[dict], **where: str) -> float:
    found = [r for r in rows if all(r[k] == v for k, v in where.items())]
    assert len(found) == 1, where
    return float(found[0]["value"])


def test_landmark_error_of_the_true_affine_is_what_the_demo_recorded(brain, tables):
    _, truth, _ = brain
    summary, sections = tables
    found = _value(summary, method="linear", metric="in_plane_mm", statistic="mean")
    assert found == pytest.approx(truth["in_plane_mm_of_true_affine"], abs=1e-6)
    for section, entry in truth["sections"].items():
        one = _value(sections, method="linear", section=section, metric="in_plane_mm")
        assert one == pytest.approx(entry["in_plane_mm_of_true_affine"], abs=1e-6)
    assert {r["statistic"] for r in summary if r["metric"] == "in_plane_mm"} == {
        "mean",
        "rmse",
        "p50",
        "p90",
        "p95",
    }


def test_the_true_deformation_leaves_nothing(tables):
    summary, _ = tables
    assert _value(summary, method="truth", metric="in_plane_mm", statistic="mean") < 0.05
    for method in ("linear", "truth"):
        through = _value(summary, method=method, metric="through_plane_mm", statistic="mean")
        assert through < 1e-6
        assert _value(summary, method=method, metric="folding", statistic="max") == 0
        back = _value(summary, method=method, metric="there_and_back_mm", statistic="mean")
        assert back < 0.05


def test_dice_rises_from_the_affine_to_the_truth(tables):
    summary, sections = tables
    for class_ in ("2", "3"):
        dice = {
            method: _value(
                summary, method=method, metric="dice", statistic="mean", **{"class": class_}
            )
            for method in ("linear", "truth")
        }
        assert dice["truth"] > 0.85
        assert dice["truth"] > dice["linear"] + 0.08
    assert list(sections[0]) == list(evaluate.SECTION_COLUMNS)
    assert list(summary[0]) == list(evaluate.SUMMARY_COLUMNS)


def test_landmarks_beside_the_plane_count_through_plane_only(brain, tmp_path):
    """MRI points moved 2 mm of stack along the stack's axis: in plane nothing changes."""
    _, truth, flags = brain
    rows = _rows_of(flags["landmarks"])
    axis = np.array(truth["world_from_stack"])[:3, 2] * 2.0
    for row in rows:
        for name, step in zip(("mri_x_mm", "mri_y_mm", "mri_z_mm"), axis, strict=True):
            row[name] = float(row[name]) + step
    write_tsv(tmp_path / "moved.tsv", rows)
    evaluate.run(
        EvaluateOptions(), out_dir=tmp_path, **{**flags, "landmarks": tmp_path / "moved.tsv"}
    )
    summary = _rows_of(tmp_path / "summary.tsv")
    through = _value(summary, method="linear", metric="through_plane_mm", statistic="rmse")
    assert through == pytest.approx(2.0)
    in_plane = _value(summary, method="linear", metric="in_plane_mm", statistic="mean")
    assert in_plane == pytest.approx(truth["in_plane_mm_of_true_affine"], abs=1e-6)


def test_a_landmark_of_an_unknown_section_is_refused_unless_it_is_excluded(brain, tmp_path):
    flags = brain[2]
    rows = _rows_of(flags["landmarks"])
    write_tsv(tmp_path / "marks.tsv", [*rows, {**rows[0], "section": "s999"}])
    flags = {**flags, "landmarks": tmp_path / "marks.tsv"}
    with pytest.raises(ManifestError, match=rf"marks.tsv: landmark {len(rows) + 1}: .*'s999'"):
        evaluate.run(EvaluateOptions(), out_dir=tmp_path / "out", **flags)
    assert not (tmp_path / "out").exists()
    evaluate.run(EvaluateOptions(), out_dir=tmp_path / "out", excluded=["s999", "s998"], **flags)


def test_volume_dice_counts_only_what_sections_cover(brain, small_demo, tmp_path):
    root, _, flags = brain
    shutil.copytree(root / "linear", tmp_path / "linear")
    labels = read_volume(small_demo / "mri_labels.nii.gz")
    reassembled = labels.data.copy()
    covered = np.zeros(labels.data.shape, np.float32) - 1
    half = labels.data.shape[0] // 2
    covered[:half] = 0.5
    reassembled[half:] = 0  # beyond what sections cover
    folder = tmp_path / "linear" / "volume"
    for name, data in (("labels", reassembled), ("coverage", covered)):
        write_volume(
            folder / f"demo_space-mri_{name}.nii.gz", Volume(data, labels.world_from_voxel)
        )
    flags = {**flags, "methods": {"linear": tmp_path / "linear"}}
    evaluate.run(EvaluateOptions(), out_dir=tmp_path, **flags)
    rows = [r for r in _rows_of(tmp_path / "summary.tsv") if r["metric"] == "dice_volume"]
    assert [(r["class"], float(r["value"])) for r in rows] == [("2", 1.0), ("3", 1.0)]
    assert {int(r["n"]) for r in rows} == {int((covered >= 0).sum())}

    # the same of two stains, each wrong where the other has the nearer section
    even = np.arange(labels.data.shape[1])[:, None] % 2 == 0
    for group, is_near in (("a", even), ("b", ~even)):
        nearer = np.where(covered >= 0, np.where(is_near, 0.1, 0.5), -1)
        for name, data in (("labels", np.where(is_near, reassembled, 1)), ("coverage", nearer)):
            (folder / f"demo_space-mri_{name}.nii.gz").unlink(missing_ok=True)
            write_volume(
                folder / f"demo_space-mri_stain-{group}_{name}.nii.gz",
                Volume(data.astype(np.float32), labels.world_from_voxel),
            )
    evaluate.run(EvaluateOptions(), out_dir=tmp_path, **flags)
    again = [r for r in _rows_of(tmp_path / "summary.tsv") if r["metric"] == "dice_volume"]
    assert again == rows


def test_a_fold_is_found_where_the_field_lies(tmp_path):
    """A field on a grid with a margin: its fold counts where the mask says tissue is."""
    disp = np.zeros((30, 30, 2))
    disp[15, 12, 0] = 3.0
    field = PlaneField(disp, 2.0, (-10.0, -10.0))  # pixel (15, 12) sits at plane mm (14, 20)
    mask = np.zeros((20, 20))
    mask[10, 7] = 1
    assert folding(SectionTransform((field, np.eye(3))), mask, 2.0) == 1.0
    mask = np.roll(mask, 5, axis=0)
    assert folding(SectionTransform((field, np.eye(3))), mask, 2.0) == 0.0


def test_prealigned_dice_is_on_the_labels_own_grid(tmp_path):
    """Whatever the working resolution: half a working pixel of shift is seen at the file's."""
    labels = np.zeros((40, 50), np.uint8)
    labels[10:30, 10:30] = 3
    write_png(tmp_path / "labels.png", labels)
    write_png(tmp_path / "mri_labels.png", np.roll(labels, 1, axis=1))
    row = {
        "section": "a",
        "position_mm": 0.0,
        "pixel_size_mm": 0.25,
        "file_rows": 40,
        "file_columns": 50,
        "labels": str(tmp_path / "labels.png"),
    }
    _table(tmp_path / "prepare" / "sections.tsv", [row], {"a": []})
    mask = tmp_path / "resample" / "sections" / "a_mrimask.nii.gz"
    write_plane(mask, np.ones((20, 25), np.uint8), 0.5)
    plane = {"section": "a", "rows": 20, "columns": 25, "spacing_mm": 0.5}
    _table(tmp_path / "resample" / "sections.tsv", [plane], {"a": [mask]})
    _write_method(tmp_path / "linear", {"a": ((np.eye(3),), (np.eye(3),))})
    shift = geometry.translation(-0.25, 0)
    _write_method(tmp_path / "shifted", {"a": ((shift,), (np.linalg.inv(shift),))})
    write_tsv(
        tmp_path / "marks.tsv",
        [{"section": "a", "x_section_mm": 3, "y_section_mm": 4, "x_plane_mm": 0, "y_plane_mm": 0}],
    )
    evaluate.run(
        EvaluateOptions(),
        brain="b",
        methods={m: tmp_path / m for m in ("linear", "shifted")},
        prepared=tmp_path / "prepare" / "sections.tsv",
        planes=tmp_path / "resample" / "sections.tsv",
        rows=[
            SectionRow("a", "", 0.0, 0.25, mri_labels=str(tmp_path / "mri_labels.png")),
        ],
        landmarks=tmp_path / "marks.tsv",
        out_dir=tmp_path,
    )
    summary = _rows_of(tmp_path / "summary.tsv")
    assert read_labels(tmp_path / "labels.png").max() == 3
    dice = {"metric": "dice", "class": "3", "statistic": "mean"}
    assert _value(summary, method="linear", **dice) == pytest.approx(19 / 20)
    assert _value(summary, method="shifted", **dice) == 1.0
    in_plane = {"metric": "in_plane_mm", "statistic": "mean"}
    assert _value(summary, method="linear", **in_plane) == pytest.approx(5.0)
    assert not [r for r in summary if r["metric"] == "through_plane_mm"]


def _two_sections(tmp_path, ids=(1, 1)):
    """Flags of `evaluate` for two sections with labels on their planes.

    Parameters
    ----------
    ids : of the sections' labels, and of their planes'.
    """
    rows, prepared, planes, masks = [], [], [], {}
    for section in "ab":
        for name, id_ in zip(("labels", "mri_labels"), ids, strict=True):
            labels = np.zeros((20, 24), np.uint32)
            labels[5:15, 5:15] = id_
            tifffile.imwrite(tmp_path / f"{section}_{name}.tif", labels)
        prepared.append(
            {
                "section": section,
                "position_mm": float(len(rows)),
                "pixel_size_mm": 1.0,
                "file_rows": 20,
                "file_columns": 24,
                "labels": str(tmp_path / f"{section}_labels.tif"),
            }
        )
        planes.append({"section": section, "rows": 20, "columns": 24, "spacing_mm": 1.0})
        masks[section] = [tmp_path / "resample" / "sections" / f"{section}_mrimask.nii.gz"]
        write_plane(masks[section][0], np.ones((20, 24), np.uint8), 1.0)
        of_plane = str(tmp_path / f"{section}_mri_labels.tif")
        rows.append(SectionRow(section, "", float(len(rows)), 1.0, mri_labels=of_plane))
    _table(tmp_path / "prepare" / "sections.tsv", prepared, {"a": [], "b": []})
    _table(tmp_path / "resample" / "sections.tsv", planes, masks)
    same = {section: ((np.eye(3),), (np.eye(3),)) for section in "ab"}
    for method in ("linear", "other"):
        _write_method(tmp_path / method, same)
    return {
        "brain": "b",
        "methods": {m: tmp_path / m for m in ("linear", "other")},
        "prepared": tmp_path / "prepare" / "sections.tsv",
        "planes": tmp_path / "resample" / "sections.tsv",
        "rows": rows,
        "out_dir": tmp_path / "evaluation",
    }


@pytest.mark.parametrize("id_", [1, 614_454_277, 3_000_000_000])
def test_dice_of_ids_of_any_size(tmp_path, id_):
    evaluate.run(EvaluateOptions(), **_two_sections(tmp_path, (id_, id_)))
    summary = _rows_of(tmp_path / "evaluation" / "summary.tsv")
    dice = {"metric": "dice", "class": str(id_), "statistic": "mean"}
    assert _value(summary, method="linear", **dice) == 1.0
    facts = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert facts["labels_apart"] == ""


@pytest.mark.parametrize("ids", [(1, 614_454_277), (3, 1003)])
def test_labels_without_an_id_in_common_are_said(tmp_path, caplog, ids):
    evaluate.run(EvaluateOptions(), **_two_sections(tmp_path, ids))
    facts = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    said = f"have the ids {ids[0]}, those of the MRI {ids[1]}: none in common"
    assert said in facts["labels_apart"] and said in caplog.text


@pytest.mark.parametrize("fault", ["rounded", "not readable"])
def test_labels_of_the_mri_that_cannot_be_used_cost_the_labels_only(tmp_path, caplog, fault):
    labels = tmp_path / "labels.nii.gz"
    if fault == "rounded":
        ids = np.full((4, 4, 4), 614_454_277, np.float32)
        write_volume(labels, Volume(ids, np.eye(4)))
    else:
        labels.write_bytes(b"no volume")
    write_stack_from_world(tmp_path / "align" / XFM, np.eye(4))
    flags = _two_sections(tmp_path) | {"align_dir": tmp_path / "align", "mri_labels": labels}
    evaluate.run(EvaluateOptions(), **flags | {"rows": None})
    assert "labels of the MRI left out" in caplog.text
    facts = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert "labels.nii.gz" in facts["labels_left_out"][""]
    measured = {row["metric"] for row in _rows_of(tmp_path / "evaluation" / "sections.tsv")}
    assert measured == {"folding", "there_and_back_mm"}
    with pytest.raises(ImageError, match=r"labels\.nii\.gz"):
        evaluate.run(EvaluateOptions(), **flags | {"rows": None}, strict=True)


def test_labels_that_cannot_be_read_are_reported_and_the_rest_is_measured(tmp_path, caplog):
    """One damaged label image of a plane costs its section's Dice, not the tables."""
    flags = _two_sections(tmp_path)
    (tmp_path / "a_mri_labels.tif").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"a_mri_labels\.tif: not readable"):
        evaluate.run(EvaluateOptions(), strict=True, **flags)
    assert not flags["out_dir"].exists()
    evaluate.run(EvaluateOptions(), **flags)
    lines = [line for line in caplog.messages if "left out" in line]
    assert len(lines) == 1, "once, whatever the number of methods"
    assert lines[0].startswith("evaluate: section a: labels left out: ")
    measured = _rows_of(flags["out_dir"] / "sections.tsv")
    with_dice = [(r["section"], r["method"]) for r in measured if r["metric"] == "dice"]
    assert sorted(with_dice) == [("b", "linear"), ("b", "other")]
    assert {r["section"] for r in measured if r["metric"] == "folding"} == {"a", "b"}
    facts = json.loads((flags["out_dir"] / "evaluation.json").read_text())
    assert list(facts["labels_left_out"]) == ["a"]


def test_a_landmark_that_the_registration_obeys_is_not_scored(brain, tmp_path):
    """Also where it was set a fraction of a pixel beside; verdicts and notes go to the report."""
    _, _, flags = brain
    mark = _rows_of(flags["landmarks"])[-1]
    section, xy = mark["section"], (float(mark["x_section_mm"]), float(mark["y_section_mm"]))
    table = tmp_path / "corrections.tsv"

    def written(apart_mm: float) -> dict:
        pair = Landmark(section, (xy[0] + apart_mm, xy[1]), mri_mm=(0.0, 0.0, 0.0), name="fornix")
        said = [Correction(section, "reject", (pair,), "torn"), Correction("s001", "accept")]
        write_corrections(table, said, prealigned=False)
        return {**flags, "corrections": table, "out_dir": tmp_path}

    for apart_mm in (0.0, 0.45):  # the working pixel of these tables is 1 mm
        with pytest.raises(ManifestError, match=rf"{section}.*'fornix'.*remove it"):
            evaluate.run(EvaluateOptions(), **written(apart_mm))
    others = min(
        abs(float(r["x_section_mm"]) - xy[0] - 0.6) + abs(float(r["y_section_mm"]) - xy[1])
        for r in _rows_of(flags["landmarks"])
        if r["section"] == section
    )
    assert others > 0.5
    evaluate.run(EvaluateOptions(), **written(0.6))
    facts = json.loads((tmp_path / "evaluation.json").read_text())
    assert facts["verdicts"] == {section: "reject", "s001": "accept"}
    assert facts["correction_notes"] == {section: "torn"}
