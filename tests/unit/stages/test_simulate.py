"""`sbr simulate` on a tiny prealigned brain, and what the stages after it make of its result."""

import csv
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

from sbr_core.algorithms.simulation.truth import (
    true_plane_mm_from_section_mm,
    true_section_mm_from_plane_mm,
)
from sbr_core.artifacts.label_pairs import LabelPairs
from sbr_core.artifacts.rows import Plane, read_rows, write_rows
from sbr_core.config import (
    AlignSectionsOptions,
    EvaluateOptions,
    InferOptions,
    PrepareOptions,
    ResampleOptions,
    SimulateOptions,
)
from sbr_core.errors import ConfigError, ImageError
from sbr_core.io.files import sha256_file
from sbr_core.io.images import read_labels, read_section, write_png
from sbr_core.io.manifests import SectionRow, read_landmarks, read_manifest
from sbr_core.io.tables import read_tsv, write_tsv
from sbr_core.io.volumes import Volume, write_plane, write_volume
from sbr_core.planning.sheet import simulated_rows
from sbr_core.stages import align_sections, collect, evaluate, infer, prepare, resample, simulate

PIXEL_MM = 0.5
SHAPE = (90, 100)
OPTIONS = SimulateOptions(deformation_mm=1.0, n_landmarks=60, anatomy_mm=0, gyral_tears=0)
"""Sections are functions of their planes, so that they can be compared with them."""


def _write_source(folder: Path) -> Path:
    """Six sections on white glass whose stain inverts the MRI on one side; one is empty."""
    y, x = np.indices(SHAPE)
    mask = ((y - 44) / 36) ** 2 + ((x - 52) / 42) ** 2 < 1
    rows = []
    for number in range(6):
        rng = np.random.default_rng(number)
        mri = np.clip(0.5 + 6 * gaussian_filter(rng.normal(size=SHAPE), 4), 0.1, 1)
        stain = np.where(x < 52, 0.3 + 0.4 * mri, 0.7 - 0.4 * mri)
        image = 0.95 - np.where(mask & (number != 4), stain, 0) + 0.01 * rng.normal(size=SHAPE)
        for name, picture in (("image", image), ("mri", np.where(mask, mri, 0))):
            path = folder / name / f"s{number}.png"
            write_png(path, np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8))
        quarters = np.where(mask, 1 + (x >= 52) + 2 * (y >= 44), 0).astype(np.uint16)
        write_png(folder / "mri_labels" / f"s{number}.png", quarters)
        rows.append(
            {
                "section": f"s{number}",
                "image": f"image/s{number}.png",
                "position_mm": 2.0 * number + 0.5 * (number == 3),
                "pixel_size_mm": PIXEL_MM,
                "mri_image": f"mri/s{number}.png",
                "mri_labels": f"mri_labels/s{number}.png" if number != 2 else "",
            }
        )
    write_tsv(folder / "sections.tsv", rows)
    return folder / "sections.tsv"


def _through_linear(manifest: Path, results: Path) -> dict[str, Path]:
    """The stages of a prealigned brain up to `linear`; its collected tables."""
    rows = read_manifest(manifest, prealigned=True)
    chunks = {name: results / name / "chunks" / "c.tsv" for name in ("p", "r", "a", "linear")}
    to = {name: {"out_dir": results / name, "receipt": chunks[name]} for name in chunks}
    prepare.run(PrepareOptions(working_pixel_mm=PIXEL_MM), rows=rows, **to["p"])
    resample.run(ResampleOptions(), rows=rows, working_pixel_mm=PIXEL_MM, **to["r"])
    before = {"prepared": chunks["p"], "planes": chunks["r"]}
    align_sections.run(AlignSectionsOptions(), prealigned=True, **before, **to["a"])
    infer.run(InferOptions(), method="linear", affines=chunks["a"], **before, **to["linear"])
    for name, receipt in chunks.items():
        collect.run(None, receipts=[receipt], table=results / name / "sections.tsv")
    return {name: results / name / "sections.tsv" for name in chunks}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> dict:
    """What `simulate.run` takes, of a brain whose section s4 has no tissue."""
    folder = tmp_path_factory.mktemp("source")
    manifest = _write_source(folder)
    tables = _through_linear(manifest, folder / "results")
    return {
        "rows": read_manifest(manifest, prealigned=True),
        "prepared": tables["p"],
        "planes": tables["r"],
        "sections": tables["a"],
    }


@pytest.fixture(scope="module")
def made(source, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "data"
    simulate.run(OPTIONS, out_dir=folder, **source)
    return folder


@pytest.fixture(scope="module")
def truth(made) -> dict:
    return json.loads((made / "truth.json").read_text())


def test_the_manifest_is_what_was_planned(source, made):
    planned = simulated_rows(source["rows"], None, PIXEL_MM, made)
    assert read_manifest(made / "sections.tsv", prealigned=True) == planned
    assert [row.section for row in planned] == [f"s{i}" for i in range(6)]


def test_a_plane_whose_labels_cannot_be_read_has_pairs_without_labels(
    source, made, tmp_path, caplog
):
    """And everything else is as it was."""
    rows = [replace(row, mri_labels=f"{tmp_path}/{row.section}.png") for row in source["rows"]]
    for ours, theirs in zip(rows, source["rows"], strict=True):
        if theirs.mri_labels:
            shutil.copy(theirs.mri_labels, ours.mri_labels)
        else:
            write_png(Path(ours.mri_labels), np.zeros(SHAPE, np.uint8))
    Path(rows[1].mri_labels).write_bytes(b"no image")
    given = source | {"rows": rows}
    with pytest.raises(ImageError, match=r"s1\.png: not readable"):
        simulate.run(OPTIONS, out_dir=tmp_path / "strict", strict=True, **given)
    simulate.run(OPTIONS, out_dir=tmp_path / "data", **given)
    assert "simulate: section s1: labels left out: " in caplog.text
    for row in read_manifest(tmp_path / "data" / "sections.tsv", prealigned=True):
        before = made / Path(row.image).relative_to(tmp_path / "data")
        assert Path(row.image).read_bytes() == before.read_bytes()
        labelled = row.section not in ("s1", "s2", "s4")
        assert read_labels(row.labels).any() == read_labels(row.mri_labels).any() == labelled


def test_sections_that_show_no_tissue_on_their_planes_are_named(source, tmp_path):
    """Every other one without: then there is nothing to learn the look of the others from."""
    header, rows = read_tsv(source["sections"])
    folder = tmp_path / "brain" / "align_sections"
    shutil.copytree(source["sections"].parent / "sections", folder / "sections")
    usable = [row for row in rows if row["status"] == "ok"]
    for row in usable[1::2]:
        name = f"sections/{row['section']}_linearmask.nii.gz"
        write_plane(folder / name, np.zeros(SHAPE, np.uint8), PIXEL_MM)
        row["files"] = json.dumps(json.loads(row["files"]) | {name: sha256_file(folder / name)})
    write_tsv(folder / "sections.tsv", rows, header)
    given = source | {"sections": folder / "sections.tsv"}
    with pytest.raises(ImageError, match="brain/align_sections/.*: sections s1, s3 show no tissue"):
        simulate.run(OPTIONS, out_dir=tmp_path / "data", **given)
    assert not (tmp_path / "data").exists()


def test_a_plane_of_a_few_pixels_has_its_points(source, tmp_path):
    """Between those of the lattice too."""
    folder = tmp_path / "resample"
    shutil.copytree(source["planes"].parent / "sections", folder / "sections")
    mask = np.zeros(SHAPE, np.uint8)
    mask[40:42, 52:53] = 1
    name = "sections/s1_mrimask.nii.gz"
    write_plane(folder / name, mask, PIXEL_MM)
    rows = [
        replace(row, files={**row.files, name: sha256_file(folder / name)})
        if row.section == "s1"
        else row
        for row in read_rows(source["planes"], Plane, verify=False)
    ]
    write_rows(folder / "sections.tsv", rows)
    labels = LabelPairs(None, align_dir=None, mri_labels=None, stage="simulate")
    brain = simulate._Brain(source["prepared"], folder / "sections.tsv", source["sections"], labels)
    expected = [[52 * PIXEL_MM, 40 * PIXEL_MM], [52 * PIXEL_MM, 41 * PIXEL_MM]]
    np.testing.assert_allclose(brain.tissue_mm("s1"), expected)


def test_fewer_sections_are_spread_evenly(source, tmp_path):
    rows = source["rows"]
    assert [r.section for r in simulated_rows(rows, 4, 1.0, tmp_path)] == ["s0", "s2", "s3", "s5"]
    assert len(simulated_rows(rows, 99, 1.0, tmp_path)) == 6


def test_landmarks_agree_with_the_truth(made, truth):
    marks = read_landmarks(made / "landmarks.tsv", truth["sections"], prealigned=True)
    assert len(marks) == 5 * 60
    for section, entry in truth["sections"].items():
        ours = [m for m in marks if m.section == section]
        at, target = (np.array([getattr(m, k) for m in ours]) for k in ("section_mm", "plane_mm"))
        found = true_plane_mm_from_section_mm(truth, section, at)
        assert np.abs(found - target).max() < 0.001 * PIXEL_MM
        back = true_section_mm_from_plane_mm(truth, section, target)
        assert np.abs(back - at).max() < 0.01 * PIXEL_MM
        assert entry["least_determinant"] > 0
        # a pixel of tissue, not of glass
        image = read_section(made / f"images/{section}.png")
        column, row = np.rint(at / PIXEL_MM).astype(int).T
        assert (image[row, column] < 0.9).mean() > 0.95


def test_anatomy_changes_sections_and_labels_but_neither_truth_nor_planes(
    source, made, truth, tmp_path
):
    varied = OPTIONS.model_copy(update={"anatomy_mm": 0.4, "gyral_tears": 3.0})
    simulate.run(varied, out_dir=tmp_path, **source)
    theirs = json.loads((tmp_path / "truth.json").read_text())
    for section, entry in truth["sections"].items():
        for key in ("swirls", "section_mm_from_flat_mm", "least_determinant", "tissue_moved_mm"):
            assert theirs["sections"][section][key] == entry[key]
    plain, other = (
        {tuple(row.values()) for row in read_tsv(folder / "landmarks.tsv")[1]}
        for folder in (made, tmp_path)
    )
    assert other < plain and len(other) > 0.85 * len(plain)  # but those that are torn away
    for row in read_manifest(tmp_path / "sections.tsv", prealigned=True):
        before = made / Path(row.image).relative_to(tmp_path)
        same_plane = made / Path(row.mri_image).relative_to(tmp_path)
        assert Path(row.mri_image).read_bytes() == same_plane.read_bytes()
        if row.section == "s4":
            continue
        assert np.abs(read_section(row.image) - read_section(before)).max() > 0.1
        if row.section != "s2":
            ours = read_labels(row.labels)
            labels = read_labels(made / Path(row.labels).relative_to(tmp_path))
            both = (ours > 0) & (labels > 0)
            assert 0.001 < (ours != labels)[both].mean() < 0.1


def test_labels_are_the_planes_at_the_true_places(source, made, truth):
    for row in read_manifest(made / "sections.tsv", prealigned=True):
        if row.section == "s2":  # its plane has none
            assert not row.labels and not row.mri_labels
        if row.section in ("s2", "s4"):
            continue
        of_plane = read_labels(row.mri_labels)
        (theirs,) = [r.mri_labels for r in source["rows"] if r.section == row.section]
        np.testing.assert_array_equal(of_plane, read_labels(theirs))
        section_mm = np.stack(np.indices(SHAPE)[::-1], axis=-1) * PIXEL_MM
        plane_mm = true_plane_mm_from_section_mm(truth, row.section, section_mm)
        column, line = np.moveaxis(np.rint(plane_mm / PIXEL_MM).astype(int), -1, 0)
        inside = (column >= 0) & (column < SHAPE[1]) & (line >= 0) & (line < SHAPE[0])
        expected = np.zeros(SHAPE, int)
        expected[inside] = of_plane[line[inside], column[inside]]
        found = read_labels(row.labels)
        there = found > 0
        np.testing.assert_array_equal(found[there], expected[there])
        # lost tissue has no labels, nor has a pixel at the rim that the look gives no tissue
        if not truth["sections"][row.section]["damage"]:
            assert there[expected > 0].mean() > 0.93
        # they are the section's own, not the plane's
        assert (found != of_plane)[there].mean() > 0.02


def test_labels_of_a_3d_mri_are_cut_along_the_planes(fake_brain, tmp_path):
    """Classes of the plane are those of the analytic brain there, on the pixels of the pair."""
    brain = fake_brain
    ids = brain.labels_of(brain.mri.data).astype(np.int64)
    ids[ids == 3] = 614_454_277  # as in a large atlas; a PNG holds a number for it
    labels = Volume(ids, brain.mri.world_from_voxel)
    write_volume(tmp_path / "labels.nii.gz", labels)
    rows = [
        SectionRow(section, "x.png", position_mm, brain.pixel_size_mm)
        for section, position_mm in brain.positions_mm.items()
    ]
    made = {}
    for name, given in (
        ("without", {}),
        ("with", {"align_dir": brain.results / "align", "mri_labels": tmp_path / "labels.nii.gz"}),
    ):
        simulate.run(
            SimulateOptions(deformation_mm=0.5, n_landmarks=20),
            rows=rows,
            prepared=brain.table("prepare"),
            planes=brain.table("resample"),
            sections=brain.table("align_sections"),
            out_dir=tmp_path / name,
            **given,
        )
        made[name] = read_manifest(tmp_path / name / "sections.tsv", prealigned=True)
    assert not any(row.labels or row.mri_labels for row in made["without"])
    plane_mm = np.stack(np.indices(brain.grid.shape)[::-1], axis=-1) * brain.grid.spacing_mm
    agreeing = []
    for row in made["with"]:
        found = read_labels(row.mri_labels)
        expected = brain.labels_of(brain.plane_density(plane_mm, row.position_mm)).astype(int)
        expected[expected == 3] = 65535
        agreeing.append((found == expected)[expected > 0])
        assert row.labels and read_labels(row.labels).shape == found.shape
    assert np.concatenate(agreeing).mean() > 0.85
    # labels change nothing else
    for bare, row in zip(made["without"], made["with"], strict=True):
        np.testing.assert_array_equal(read_section(bare.image), read_section(row.image))


def test_linears_error_is_the_true_displacement(made, truth, tmp_path):
    """End to end: the stages that any brain goes through find what the truth says."""
    tables = _through_linear(made / "sections.tsv", tmp_path)
    evaluate.run(
        EvaluateOptions(),
        brain="tiny-simulated",
        methods={"linear": tmp_path / "linear"},
        prepared=tables["p"],
        planes=tables["r"],
        landmarks=made / "landmarks.tsv",
        rows=read_manifest(made / "sections.tsv", prealigned=True),
        out_dir=tmp_path / "evaluation",
    )
    with open(tmp_path / "evaluation" / "summary.tsv") as stream:
        means = [r for r in csv.DictReader(stream, delimiter="\t") if r["statistic"] == "mean"]
    (mean,) = [row for row in means if row["metric"] == "in_plane_mm"]
    dice = {row["class"]: float(row["value"]) for row in means if row["metric"] == "dice"}
    assert set(dice) == {"1", "2", "3", "4"} and all(0.7 < v < 0.97 for v in dice.values())
    assert mean["brain"] == "tiny-simulated"
    assert float(mean["value"]) == pytest.approx(truth["in_plane_mm_of_linear"], abs=1e-9)
    # about what was asked for: landmarks are points of tissue like any others
    assert float(mean["value"]) == pytest.approx(1.0, rel=0.15)


def test_the_plane_is_untouched_and_a_true_warp_back_shows_it_again(source, made, truth):
    """No flip, no shift: the stain follows the MRI as the source's does, at the true places."""
    for row in source["rows"]:
        if row.section == "s4":
            continue
        ours = read_section(made / f"mri/{row.section}.png")
        theirs = read_section(row.mri_image)
        np.testing.assert_allclose(ours / ours.max(), theirs / theirs.max(), atol=1e-4)
    section = "s1"
    image, mri = read_section(made / f"images/{section}.png"), read_section(made / "mri/s1.png")
    marks = read_landmarks(made / "landmarks.tsv", truth["sections"], prealigned=True)
    ours = [m for m in marks if m.section == section]
    at, target = (np.array([getattr(m, k) for m in ours]) for k in ("section_mm", "plane_mm"))

    def looked_up(picture: np.ndarray, points_mm: np.ndarray) -> np.ndarray:
        column, row = np.rint(points_mm / PIXEL_MM).astype(int).T
        return gaussian_filter(picture, 0.7)[row, column]

    # the file is bright where the stain is pale
    left, right = target[:, 0] < 22, target[:, 0] > 30
    stain, shown = -looked_up(image, at), looked_up(mri, target)
    assert spearmanr(stain[left], shown[left])[0] > 0.5
    assert spearmanr(stain[right], shown[right])[0] < -0.5


def test_a_section_without_tissue_is_left_blank_and_left_out(made, tmp_path):
    with open(made / "sections.tsv") as stream:
        notes = {row["section"]: row["notes"] for row in csv.DictReader(stream, delimiter="\t")}
    assert notes["s4"].startswith("left blank")
    assert not read_labels(made / "mri_masks/s4.png").any()
    tables = _through_linear(made / "sections.tsv", tmp_path)
    with open(tables["linear"]) as stream:
        status = {row["section"]: row["status"] for row in csv.DictReader(stream, delimiter="\t")}
    assert status == {f"s{i}": "failed" if i == 4 else "ok" for i in range(6)}


def _digests(folder: Path) -> dict[Path, str]:
    files = [*folder.rglob("*.png"), *folder.rglob("*.tsv"), folder / "truth.json"]
    return {f.relative_to(folder): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_equal_options_give_equal_files_and_another_seed_another_brain(source, made, tmp_path):
    simulate.run(OPTIONS, out_dir=tmp_path / "again", **source)
    assert _digests(tmp_path / "again") == _digests(made)
    other = OPTIONS.model_copy(update={"seed": 2, "n_sections": 4})
    simulate.run(other, out_dir=tmp_path / "other", **source)
    first, second = _digests(made), _digests(tmp_path / "other")
    shared = {str(name) for name in set(first) & set(second) if first[name] == second[name]}
    assert {f"mri/s{i}.png" for i in (0, 2, 3, 5)} <= shared
    assert not [name for name in shared if name.startswith("images")]


def test_what_cannot_be_simulated_is_refused_in_one_line(source, tmp_path):
    with pytest.raises(ConfigError, match=r"simulate.deformation_mm: .* is too much for a section"):
        simulate.run(
            OPTIONS.model_copy(update={"deformation_mm": 20.0}), out_dir=tmp_path, **source
        )
    one = {**source, "rows": [r for r in source["rows"] if r.section in ("s0", "s4")]}
    with pytest.raises(ImageError, match="1 sections lie on their MRI planes, expected at least 2"):
        simulate.run(OPTIONS, out_dir=tmp_path, **one)
    assert not (tmp_path / "sections.tsv").exists()
