"""`sbr demo`: its files and the truth beside them."""

import hashlib
import json

import nibabel as nib
import numpy as np
import pytest

from sbr_core import geometry
from sbr_core.algorithms.simulation.demo_rows import demo_rows
from sbr_core.algorithms.simulation.swirls import affine_residual_mm
from sbr_core.algorithms.simulation.truth import true_section_mm_from_world
from sbr_core.io.images import read_labels
from sbr_core.io.manifests import read_landmarks, read_manifest
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
    assert all(entry["least_determinant"] > 0.2 for entry in truth["sections"].values())
