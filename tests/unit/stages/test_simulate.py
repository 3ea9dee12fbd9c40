"""`sbr simulate` on a tiny prealigned brain, and what the stages after it make of its result."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

from sbr_core.algorithms import simulation
from sbr_core.config import (
    AlignSectionsOptions,
    EvaluateOptions,
    InferOptions,
    PrepareOptions,
    ResampleOptions,
    SimulateOptions,
)
from sbr_core.errors import ConfigError, ImageError
from sbr_core.io.images import read_labels, read_section, write_png
from sbr_core.io.manifests import read_landmarks, read_manifest, simulated_rows, write_tsv
from sbr_core.stages import align_sections, collect, evaluate, infer, prepare, resample, simulate

PIXEL_MM = 0.5
SHAPE = (90, 100)
OPTIONS = SimulateOptions(deformation_mm=1.0, n_landmarks=60)


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
        rows.append(
            {
                "section": f"s{number}",
                "image": f"image/s{number}.png",
                "position_mm": 2.0 * number + 0.5 * (number == 3),
                "pixel_size_mm": PIXEL_MM,
                "mri_image": f"mri/s{number}.png",
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
        found = simulation.true_plane_mm_from_section_mm(truth, section, at)
        assert np.abs(found - target).max() < 0.001 * PIXEL_MM
        back = simulation.true_section_mm_from_plane_mm(truth, section, target)
        assert np.abs(back - at).max() < 0.01 * PIXEL_MM
        assert entry["least_determinant"] > 0
        # a pixel of tissue, not of glass
        image = read_section(made / f"images/{section}.png")
        column, row = np.rint(at / PIXEL_MM).astype(int).T
        assert (image[row, column] < 0.9).mean() > 0.95


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
        out_dir=tmp_path / "evaluation",
    )
    with open(tmp_path / "evaluation" / "summary.tsv") as stream:
        (mean,) = [
            row
            for row in csv.DictReader(stream, delimiter="\t")
            if (row["metric"], row["statistic"]) == ("in_plane_mm", "mean")
        ]
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
