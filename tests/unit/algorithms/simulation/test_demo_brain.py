"""The demo brain: its sections, its truth, and that its staining gives nothing away."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

from sbr_core import geometry
from sbr_core.algorithms.simulation.anatomy import GREY, WHITE
from sbr_core.algorithms.simulation.demo_rows import demo_rows
from sbr_core.algorithms.simulation.frames import ORIENTATION, SHRINKAGE, frames
from sbr_core.algorithms.simulation.truth import (
    true_section_mm_from_world,
    true_world_from_section_mm,
)
from sbr_core.config import DemoOptions
from sbr_core.errors import ConfigError
from sbr_core.io.images import read_labels, read_section
from sbr_core.io.volumes import read_volume


def test_rows_are_known_before_the_demo_is_made():
    rows = demo_rows(DemoOptions())
    assert len(rows) == len({r["section"] for r in rows}) == 48
    gaps = np.diff([r["position_mm"] for r in rows])
    assert gaps.min() > 2.0 and np.ptp(gaps[gaps < 4]) > 0.1  # irregular
    assert (gaps > 5.0).sum() == 1  # one section of the series is missing
    assert {"tear", "missing piece", "uneven staining"} <= {r["notes"] for r in rows}
    assert any(r["flip"] != "none" for r in rows) and any(r["rotate_deg"] for r in rows)
    assert rows == demo_rows(DemoOptions())
    assert rows != demo_rows(DemoOptions(seed=2))


def test_planning_the_rows_imports_nothing_heavy():
    code = (
        "import sys; from sbr_core.algorithms.simulation.demo_rows import demo_rows;"
        "from sbr_core.config import DemoOptions; demo_rows(DemoOptions());"
        "print([m for m in ('scipy', 'torch', 'nilearn', 'nibabel') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_stack_longer_than_the_brain_is_refused():
    with pytest.raises(ConfigError, match="section_spacing_mm is 480 mm, expected at most"):
        demo_rows(DemoOptions(section_spacing_mm=10.0))


def test_stack_is_left_handed_shrunk_and_turned():
    world_from_stack, world_from_template = frames(demo_rows(DemoOptions()))
    assert np.linalg.det(world_from_stack[:3, :3]) < 0
    assert geometry.similarity_scale(world_from_stack) == pytest.approx(1 / SHRINKAGE)
    nominal = geometry.orientation_matrix(ORIENTATION)
    turn = world_from_stack[:3, :3] * SHRINKAGE @ nominal.T
    assert 15 < np.degrees(np.arccos((np.trace(turn) - 1) / 2)) < 30
    assert geometry.similarity_scale(world_from_template) == pytest.approx(1)
    assert np.linalg.det(world_from_template[:3, :3]) > 0


@pytest.fixture(scope="module")
def demo(small_demo):
    """(folder, truth, manifest rows) of the small demo brain."""
    rows = list(csv.DictReader((small_demo / "sections.tsv").open(), delimiter="\t"))
    return small_demo, json.loads((small_demo / "truth.json").read_text()), rows


def test_points_traced_both_ways_meet(demo):
    _, truth, rows = demo
    xy = np.random.default_rng(0).uniform(5, 90, (50, 2))
    for row in rows:
        world = true_world_from_section_mm(truth, row["section"], xy)
        back, off_plane = true_section_mm_from_world(truth, row["section"], world)
        np.testing.assert_allclose(back, xy, atol=1e-6)
        np.testing.assert_allclose(off_plane, 0, atol=1e-9)


def test_a_point_traced_from_an_mri_voxel_to_a_file_pixel_shows_the_same_tissue(demo):
    """MRI voxel -> section file pixel, through the truth alone: both labels agree."""
    folder, truth, rows = demo
    mri = read_volume(folder / "mri_labels.nii.gz")
    agree = total = 0
    for row in rows:
        labels = read_labels(folder / row["labels"])
        voxels = np.argwhere(mri.data > 0)
        world = geometry.apply(mri.world_from_voxel, voxels)
        plane_world = np.array(truth["world_from_stack"])
        z = geometry.apply(np.linalg.inv(plane_world), world)[:, 2]
        near = np.abs(z - float(row["position_mm"])) < 0.4
        xy, _ = true_section_mm_from_world(truth, row["section"], world[near])
        column, r = np.rint(xy / float(row["pixel_size_mm"])).astype(int).T
        inside = (r >= 0) & (r < labels.shape[0]) & (column >= 0) & (column < labels.shape[1])
        assert inside.mean() > 0.99
        found, expected = labels[r[inside], column[inside]], mri.data[tuple(voxels[near][inside].T)]
        present = (
            found > 0 if row["notes"] in ("tear", "missing piece") else np.ones(len(found), bool)
        )
        agree += (found == expected)[present].sum()
        total += present.sum()
    assert agree / total > 0.9  # the rest are boundary points: 2.4 mm voxels, 0.4 mm off plane


def test_staining_is_no_function_of_mri_intensity(demo):
    """The best function of the MRI's intensity, of any shape, explains less than half of it."""
    folder, truth, rows = demo
    mri = read_volume(folder / "mri.nii.gz")
    for row in rows:
        image = read_section(folder / row["image"])
        r, c = np.nonzero(read_labels(folder / row["labels"]))
        xy = np.column_stack([c, r]) * float(row["pixel_size_mm"])
        world = true_world_from_section_mm(truth, row["section"], xy)
        at = np.rint(geometry.apply(np.linalg.inv(mri.world_from_voxel), world)).astype(int)
        x, y = mri.data[tuple(at.T)], image[r, c]
        bins = np.digitize(x, np.quantile(x, np.linspace(0, 1, 31)[1:-1]))
        mean = np.bincount(bins, y, 30) / np.maximum(np.bincount(bins, minlength=30), 1)
        explained = 1 - np.mean((y - mean[bins]) ** 2) / y.var()
        assert explained < 0.55, row["section"]


def test_sections_look_like_nissl_on_glass(demo):
    """White glass around, grey matter darker than white on average, but not layer by layer."""
    folder, _, rows = demo
    for row in rows:
        image, labels = read_section(folder / row["image"]), read_labels(folder / row["labels"])
        assert np.median(image[labels == 0]) > 0.9
        white, grey = image[labels == WHITE], image[labels == GREY]
        assert grey.mean() < white.mean() - 0.02
        assert (grey > np.median(white)).mean() > 0.05  # some layers are paler than white matter
