"""`sbr demo`: its files and the truth beside them."""

import hashlib
import json

import nibabel as nib
import numpy as np
import pytest

from sbr_core import geometry
from sbr_core.algorithms.simulation.anatomy import labels_at, load_anatomy
from sbr_core.algorithms.simulation.demo_rows import demo_rows
from sbr_core.algorithms.simulation.frames import frames
from sbr_core.algorithms.simulation.swirls import affine_residual_mm
from sbr_core.algorithms.simulation.truth import (
    true_section_mm_from_world,
    true_world_from_section_mm,
)
from sbr_core.io.images import read_labels
from sbr_core.io.manifests import read_landmarks, read_manifest
from sbr_core.io.tables import read_tsv
from sbr_core.io.volumes import read_volume
from sbr_core.stages import demo


@pytest.fixture(scope="module")
def truth(small_demo):
    return json.loads((small_demo / "truth.json").read_text())


def _digests(folder):
    files = [*folder.rglob("*.png"), *folder.rglob("*.tsv"), *folder.rglob("*.json")]
    found = {f.relative_to(folder): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
    assert len(found) == 2 * 8 + 3
    return found


def test_equal_options_give_equal_files(small_demo, small_demo_options, tmp_path):
    demo.run(small_demo_options, out_dir=tmp_path)
    assert _digests(tmp_path) == _digests(small_demo)
    for name in ("mri", "mri_mask", "mri_labels"):
        ours, again = (read_volume(d / f"{name}.nii.gz").data for d in (tmp_path, small_demo))
        np.testing.assert_array_equal(ours, again)


def test_the_manifest_is_what_was_planned_and_can_be_read(small_demo, small_demo_options):
    rows = read_manifest(small_demo / "sections.tsv")
    planned = demo_rows(small_demo_options)
    assert [r.section for r in rows] == [r["section"] for r in planned]
    assert [r.position_mm for r in rows] == [r["position_mm"] for r in planned]
    assert [r.image for r in rows] == [str(small_demo / r["image"]) for r in planned]
    shapes = {read_labels(r.labels).shape for r in rows}
    assert len(shapes) == len(rows)  # each section is cropped for itself


def test_mri_is_oblique_and_not_in_ras_order(small_demo):
    affine = nib.load(small_demo / "mri.nii.gz").affine
    assert nib.aff2axcodes(affine) == ("P", "I", "R")
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    assert np.abs(directions).max() < 0.999
    mri, mask = (read_volume(small_demo / f"{n}.nii.gz") for n in ("mri", "mri_mask"))
    assert mri.data.shape == mask.data.shape
    assert (mri.data[mask.data == 0] == 0).all()


def test_landmarks_lie_in_tissue_and_agree_with_the_truth(small_demo, truth):
    rows = {r.section: r for r in read_manifest(small_demo / "sections.tsv")}
    landmarks = read_landmarks(small_demo / "landmarks.tsv", rows, prealigned=False)
    per_section = {s: [m for m in landmarks if m.section == s] for s in rows}
    assert all(8 <= len(found) <= 20 for found in per_section.values())
    for section, found in per_section.items():
        xy = np.array([m.section_mm for m in found])
        labels = read_labels(rows[section].labels)
        column, row = np.rint(xy / rows[section].pixel_size_mm).astype(int).T
        assert (labels[row, column] > 0).all()  # not in what is torn away
        back, off_plane = true_section_mm_from_world(
            truth, section, np.array([m.mri_mm for m in found])
        )
        np.testing.assert_allclose(back, xy, atol=1e-6)
        np.testing.assert_allclose(off_plane, 0, atol=1e-9)


def test_recorded_error_is_what_an_affine_leaves(small_demo, truth):
    """Undoing only the true affine leaves the recorded landmark error; the best one a bit less."""
    rows = {r.section: r for r in read_manifest(small_demo / "sections.tsv")}
    landmarks = read_landmarks(small_demo / "landmarks.tsv", rows, prealigned=False)
    stack_from_world = np.linalg.inv(truth["world_from_stack"])
    true_affine, best = [], []
    for section in rows:
        found = [m for m in landmarks if m.section == section]
        xy = np.array([m.section_mm for m in found])
        target = geometry.apply(stack_from_world, np.array([m.mri_mm for m in found]))[:, :2]
        inverse = np.linalg.inv(truth["sections"][section]["section_mm_from_flat_mm"])
        true_affine.append(np.linalg.norm(geometry.apply(inverse, xy) - target, axis=1).mean())
        best.append(affine_residual_mm(xy, target).mean())
    assert truth["in_plane_mm_of_true_affine"] == pytest.approx(np.mean(true_affine))
    assert truth["in_plane_mm_of_best_affine"] == pytest.approx(np.mean(best))
    assert 1.3 < np.mean(best) < 3.0


def test_no_deformation_folds(truth):
    assert all(entry["least_determinant"] > 0.1 for entry in truth["sections"].values())


def test_anatomy_changes_sections_but_not_their_truth(
    small_demo, small_demo_options, truth, tmp_path
):
    """Without it labels are those of the plane at the true places; landmarks are the same."""
    plain = small_demo_options.model_copy(update={"anatomy_mm": 0.0, "gyral_tears": 0.0})
    demo.run(plain, out_dir=tmp_path)
    theirs = json.loads((tmp_path / "truth.json").read_text())
    for section, entry in truth["sections"].items():
        for key in ("swirls", "section_mm_from_flat_mm", "least_determinant"):
            assert theirs["sections"][section][key] == entry[key]
    ours, other = (
        {tuple(row.values()) for row in read_tsv(folder / "landmarks.tsv")[1]}
        for folder in (small_demo, tmp_path)
    )
    assert ours <= other and len(ours) > 0.85 * len(other)  # but those that are torn away

    anatomy = load_anatomy()
    rows = demo_rows(plain)
    template_from_world = np.linalg.inv(frames(rows)[1])
    for row in rows:
        found = read_labels(tmp_path / row["labels"])
        varied = read_labels(small_demo / row["labels"])
        section_mm = np.stack(np.indices(found.shape)[::-1], axis=-1) * row["pixel_size_mm"]
        world = true_world_from_section_mm(theirs, row["section"], section_mm)
        expected = labels_at(anatomy, geometry.apply(template_from_world, world))
        if row["notes"] not in ("tear", "missing piece"):
            assert (found == expected).mean() > 0.9999  # but for rounding
        differ = (varied != found)[(varied > 0) | (found > 0)].mean()
        assert 0.02 < differ < 0.25
