"""A miniature brain through the whole workflow, every stage for real.

The networks are trained for a few steps only, so nothing here says how good the method is; it says
that what is published fits together, survives being killed, and is as good as its tables claim.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest
import SimpleITK as sitk
import zarr
from PIL import Image
from safetensors.numpy import load_file
from scipy import ndimage

from sbr_core.algorithms.planes import resample_plane
from sbr_core.algorithms.sections import grid_px, resample_section
from sbr_core.algorithms.simulation.truth import true_section_mm_from_world
from sbr_core.artifacts.names import SECTION_TO_STACK, section_file
from sbr_core.artifacts.rows import Full, Inferred, Plane, Prepared, read_rows
from sbr_core.io.images import read_section, write_png
from sbr_core.io.tables import read_tsv, write_tsv
from sbr_core.io.transforms import (
    read_section_transform,
    read_stack_from_world,
)
from sbr_core.io.volumes import read_plane, read_volume

pytestmark = pytest.mark.slow

CONFIG = """\
preset: demo
methods: [sbr]
registrar: train
chunk_size: 8
demo: {n_sections: 10, section_spacing_mm: 14.0, pixel_size_mm: 1.0, mri_spacing_mm: 2.4}
prepare: {working_pixel_mm: 2.5}
align: {rounds: 2, spacing_mm: 3.0}
train_registrar:
  steps: 40
  pixel_factor: 1
  batch_size: 4
  encoder_channels: [8, 8, 8, 8]
  decoder_channels: [8, 8, 8, 8]
train_sbr:
  steps: 40
  pixel_factor: 1
  generator_channels: 4
  residual_blocks: 2
  n_samples: 64
  projection_channels: 32
  checkpoint_every_s: 0.5
infer: {refine_steps: 0}  # what the networks say, alone
registered: {pixel_mm: file, format: ome-zarr}
reassemble: {colour: true, format: ome-zarr}
"""
DEMO = Path("results/demo")
SBR_WEIGHTS = "results/demo/sbr/weights.safetensors"
SIMILARITY = "align/from-stack_to-mri_mode-image_xfm.txt"


@pytest.fixture(scope="module")
def finished_brain(tmp_path_factory, repository, open_lab):
    """The miniature demo brain with every result; to look at, not to write to."""
    lab = open_lab(tmp_path_factory.mktemp("real"), repository / "workflow" / "Snakefile")
    (lab.folder / "config").mkdir()
    (lab.folder / "config" / "config.yaml").write_text(CONFIG)
    shutil.copy(repository / "config" / "brains.tsv", lab.folder / "config")
    lab.snakemake()
    return lab


@pytest.fixture
def copied(tmp_path, open_lab):
    """`copied(lab)`: a copy to edit; time stamps are kept, so nothing in it is out of date."""

    def copy(lab):
        shutil.copytree(lab.folder, tmp_path / "lab", symlinks=True)
        return open_lab(tmp_path / "lab", lab.snakefile)

    return copy


def summary_of(lab) -> dict[tuple[str, str, str, str], float]:
    """(method, metric, class, statistic) -> value."""
    rows = read_tsv(lab.folder / DEMO / "evaluation" / "summary.tsv")[1]
    keys = ("method", "metric", "class", "statistic")
    return {tuple(row[k] for k in keys): float(row["value"]) for row in rows}


# --------------------------------------------------------------------------------------------
# What a run leaves
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["linear", "sbr"])
def test_volume_lies_on_the_mri_and_the_histology_on_its_brain(finished_brain, method):
    folder = finished_brain.folder / DEMO / method / "volume"
    mri = nib.load(finished_brain.folder / "data/demo/mri.nii.gz")
    brain = nib.load(finished_brain.folder / "data/demo/mri_mask.nii.gz").get_fdata() > 0
    volumes = {
        kind: nib.load(folder / f"demo_space-mri_{kind}.nii.gz")
        for kind in ("histology", "labels", "coverage")
    }
    for volume in volumes.values():
        assert volume.shape == mri.shape
        np.testing.assert_allclose(volume.affine, mri.affine, atol=1e-5)

    covered = volumes["coverage"].get_fdata() >= 0
    assert covered[brain].mean() > 0.7  # the stack ends before the brain does
    histology = volumes["histology"].get_fdata()
    assert not histology[~covered].any()
    tissue = histology > 0.25 * np.median(histology[brain & covered])
    overlap = (
        2
        * np.sum(tissue & brain & covered)
        / np.sum((tissue & covered).astype(int) + (brain & covered))
    )
    assert overlap > 0.85
    # 2 white, 3 grey, as the demo codes them
    assert set(np.unique(volumes["labels"].get_fdata())) == {0, 2, 3}


def test_colours_and_sections_in_full_lie_where_the_histology_does(finished_brain):
    sbr = finished_brain.folder / DEMO / "sbr"
    group = zarr.open_group(sbr / "volume" / "demo_space-mri_colour.ome.zarr", mode="r")
    colours = np.moveaxis(group["0"][0], (0, 1, 2), (2, 1, 0)).astype(float)
    histology, coverage = (
        nib.load(sbr / "volume" / f"demo_space-mri_{kind}.nii.gz").get_fdata()
        for kind in ("histology", "coverage")
    )
    assert np.mean((colours > 0) == (coverage >= 0)) > 0.99
    # dark on glass, and the histology bright on nothing
    covered = coverage >= 0
    assert np.corrcoef(255 - colours[covered], histology[covered])[0, 1] > 0.98
    rows = read_rows(sbr / "sections.tsv", Inferred)
    full = read_rows(next((sbr / "registered/chunks").glob("1of*.tsv")), Full)
    assert {row.section for row in full} <= {row.section for row in rows}
    for row in full:
        image = zarr.open_group(row.intact("zarr.json").parent, mode="r")["0"]
        grid = next(r.grid for r in rows if r.section == row.section).at_spacing(row.pixel_mm)
        assert image.shape == (1, *grid.shape) and image[:].std() > 10


def test_tables_have_every_metric_of_both_methods(finished_brain):
    summary = summary_of(finished_brain)
    for method in ("linear", "sbr"):
        for statistic in ("mean", "rmse", "p50", "p90", "p95"):
            assert summary[method, "in_plane_mm", "", statistic] > 0
        for class_ in ("2", "3"):
            assert 0.3 < summary[method, "dice", class_, "mean"] < 1
            assert 0.3 < summary[method, "dice_volume", class_, "value"] < 1
        assert summary[method, "folding", "", "mean"] == 0
        assert summary[method, "there_and_back_mm", "", "mean"] < 0.02 * 2.5
    assert (finished_brain.folder / DEMO / "registrar" / "loss.tsv").is_file()
    assert (finished_brain.folder / DEMO / "sbr" / "loss.tsv").is_file()


def test_report_is_one_page_that_needs_no_other_file(finished_brain):
    page = (finished_brain.folder / DEMO / "report" / "index.html").read_text()
    assert "s001" in page and "landmark error in the plane" in page
    assert "<img" in page
    references = re.findall(r"""(?:src|href|srcset|data)\s*=\s*["']([^"']+)""", page)
    references += re.findall(r"url\(([^)]+)\)", page)
    assert references
    outside = [r[:60] for r in references if not r.startswith(("#", "data:image/"))]
    assert outside == []
    assert "@import" not in page and "<script src" not in page


# --------------------------------------------------------------------------------------------
# Tracing points by the published files alone
# --------------------------------------------------------------------------------------------


def test_published_files_trace_an_mri_point_to_where_the_tables_say(finished_brain):
    results = finished_brain.folder / DEMO
    truth = json.loads((finished_brain.folder / "data/demo/truth.json").read_text())
    landmarks = read_tsv(finished_brain.folder / "data/demo/landmarks.tsv")[1]
    stack_from_mri = sitk.ReadTransform(str(results / SIMILARITY))
    table = {
        (row["method"], row["section"]): float(row["value"])
        for row in read_tsv(results / "evaluation" / "sections.tsv")[1]
        if row["metric"] == "in_plane_mm"
    }
    assert len(table) == 2 * 10

    for method in ("linear", "sbr"):
        for section in sorted({mark["section"] for mark in landmarks}):
            name = f"{section}_from-{{}}_to-{{}}_mode-image_xfm.h5"
            section_from_plane, plane_from_section = (
                sitk.ReadTransform(str(results / method / "transforms" / name.format(*ends)))
                for ends in (("section", "stack"), ("stack", "section"))
            )
            in_plane_mm, in_section_mm = [], []
            for mark in (m for m in landmarks if m["section"] == section):
                xy = [float(mark[c]) for c in ("x_section_mm", "y_section_mm")]
                x, y, z = (float(mark[f"mri_{c}_mm"]) for c in "xyz")
                true_xy, off_plane_mm = true_section_mm_from_world(
                    truth, section, np.array([x, y, z])
                )
                np.testing.assert_allclose(true_xy, xy, atol=1e-6)
                assert abs(off_plane_mm) < 1e-6

                stack = stack_from_mri.TransformPoint((-x, -y, z))  # RAS to LPS
                in_plane_mm.append(
                    np.linalg.norm(np.subtract(plane_from_section.TransformPoint(xy), stack[:2]))
                )
                found = section_from_plane.TransformPoint(stack[:2])
                in_section_mm.append(np.linalg.norm(np.subtract(found, true_xy)))
            assert np.mean(in_plane_mm) == pytest.approx(table[method, section], abs=1e-6)
            # the same error seen in the section, which is stretched a little against its plane
            assert np.mean(in_section_mm) == pytest.approx(table[method, section], rel=0.35)
    linear = summary_of(finished_brain)["linear", "in_plane_mm", "", "mean"]
    assert linear < 6, "a chain that is turned or mirrored is centimetres off"


# --------------------------------------------------------------------------------------------
# Running it again
# --------------------------------------------------------------------------------------------


def sha256_of_files(folder: Path) -> dict[str, str]:
    """Relative path -> digest of every file below `folder`, but for logs and timings."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not {"logs", "benchmarks"} & set(path.parts)
    }


def test_second_call_runs_nothing(finished_brain):
    assert finished_brain.planned() == []


def test_deleted_transform_is_restored_and_nothing_else_computed(finished_brain, copied):
    lab = copied(finished_brain)
    before = sha256_of_files(lab.folder / DEMO / "sbr" / "sections")
    deleted = section_file(lab.folder / DEMO / "sbr", "s005", SECTION_TO_STACK)
    points = np.array([[40.0, 50.0], [70.0, 60.0]])
    mapped = read_section_transform(deleted).map(points)
    deleted.unlink()
    jobs = lab.rules()
    assert jobs["infer"] == 1 and jobs.keys() == {
        *("infer", "collect", "registered", "reassemble", "reassemble_colour"),
        *("trust", "evaluate", "report"),
    }
    lab.snakemake("infer_all")
    # a network rounds otherwise for a batch of another size
    np.testing.assert_allclose(read_section_transform(deleted).map(points), mapped, atol=1e-4)
    (log,) = [
        path
        for path in (lab.folder / DEMO / "logs" / "infer" / "sbr").glob("*.log")
        if "section s005" in path.read_text()
    ]
    states = dict(re.findall(r"section (\S+) (\S+)$", log.read_text(), re.M))
    assert states.pop("s005") == "done" and set(states.values()) == {"kept"}
    after = sha256_of_files(lab.folder / DEMO / "sbr" / "sections")
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert {name.partition("_")[0].removesuffix(".json") for name in changed} <= {"s005"}


# --------------------------------------------------------------------------------------------
# Killed in the middle
# --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(finished_brain, tmp_path_factory, open_lab):
    """A copy whose second network was lost, and whose new training was killed half-way.

    Snakemake and the trainer are killed both: a trainer that outlives its Snakemake goes on, and
    rightly keeps the lock of its checkpoints.
    """
    folder = tmp_path_factory.mktemp("killed") / "lab"
    shutil.copytree(finished_brain.folder, folder, symlinks=True)
    lab = open_lab(folder, finished_brain.snakefile)
    lose_weights(lab)
    run = lab.start(SBR_WEIGHTS)
    while not checkpoints(lab) and run.poll() is None:
        time.sleep(0.05)
    family = [psutil.Process(run.pid)]
    family += family[0].children(recursive=True)
    for process in family:
        process.kill()
    output, errors = run.communicate()
    assert run.returncode == -9, output + errors
    assert any("sbr train " in line for line in errors.splitlines()), errors
    return lab


def lose_weights(lab) -> None:
    """Remove what the second training made, and its log."""
    for name in ("weights.safetensors", "weights.json", "loss.tsv", "loss.png"):
        (lab.folder / DEMO / "sbr" / name).unlink()
    (lab.folder / DEMO / "logs" / "train" / "sbr.log").unlink()


def checkpoints(lab) -> list[Path]:
    """Checkpoints of the second network."""
    folder = lab.folder / "results" / ".checkpoints" / "demo" / "sbr"
    return sorted(folder.glob("*/step-*.pt"))


def log_of_training(lab) -> str:
    log = lab.folder / DEMO / "logs" / "train" / "sbr.log"
    return log.read_text() if log.exists() else ""


def test_killed_training_goes_on_and_ends_with_equal_weights(finished_brain, killed, copied):
    lab = copied(killed)
    assert not (lab.folder / SBR_WEIGHTS).exists()
    step = int(checkpoints(lab)[-1].stem.removeprefix("step-"))
    assert 0 < step < 40
    lab.snakemake(SBR_WEIGHTS)
    assert f"going on from step {step} of 40" in log_of_training(lab)
    assert checkpoints(lab) == []
    resumed = load_file(lab.folder / SBR_WEIGHTS)
    uninterrupted = load_file(finished_brain.folder / SBR_WEIGHTS)
    assert resumed.keys() == uninterrupted.keys()
    for name, tensor in uninterrupted.items():
        assert resumed[name].tobytes() == tensor.tobytes(), name
    losses = [read_tsv(x.folder / DEMO / "sbr/loss.tsv")[1] for x in (lab, finished_brain)]
    for row in (*losses[0], *losses[1]):
        del row["seconds"]  # of the clock, which is never the same
    assert losses[0] == losses[1]


def test_a_job_that_is_terminated_whole_writes_a_checkpoint_and_goes_on(finished_brain, copied):
    """Every process of the run gets SIGTERM at once, as from a scheduler or at a shutdown."""
    lab = copied(finished_brain)
    lose_weights(lab)
    run = lab.start(SBR_WEIGHTS)
    while not checkpoints(lab) and run.poll() is None:
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGTERM)
    output, errors = run.communicate()
    assert run.returncode == 1, output + errors
    found = re.search(r"SIGTERM: checkpoint written at step (\d+) of 40", log_of_training(lab))
    assert found and found[0] in output + errors
    assert not (lab.folder / SBR_WEIGHTS).exists()
    lab.snakemake(SBR_WEIGHTS)
    assert f"going on from step {found[1]} of 40" in log_of_training(lab)
    again, whole = (load_file(x.folder / SBR_WEIGHTS) for x in (lab, finished_brain))
    assert again.keys() == whole.keys()
    for name, tensor in whole.items():
        assert again[name].tobytes() == tensor.tobytes(), name


def test_changed_option_starts_anew_although_a_checkpoint_waits(killed, copied):
    lab = copied(killed)
    lab.edit("config/config.yaml", "train_sbr:\n  steps: 40", "train_sbr:\n  steps: 3")
    lab.snakemake(SBR_WEIGHTS)
    assert "going on from step" not in log_of_training(lab)
    steps = [row["step"] for row in read_tsv(lab.folder / DEMO / "sbr/loss.tsv")[1]]
    assert steps == ["1", "2", "3"]


# --------------------------------------------------------------------------------------------
# Another brain that borrows the networks
# --------------------------------------------------------------------------------------------


def twice_as_fine(image: np.ndarray) -> np.ndarray:
    """An 8-bit image at half the pixel, in 16 bit: the same centres, and cubic in between."""
    shape = 2 * np.array(image.shape) - 1
    zoomed = ndimage.zoom(image.astype(float), shape / image.shape, order=3, mode="nearest")
    return np.clip(np.rint(zoomed * 257), 0, 65535).astype(np.uint16)


def add_prealigned_pair(lab, pixel_mm: float = 1.0) -> None:
    """Brains `coarse` and `fine`: the demo's sections on their MRI planes, twice the same.

    `coarse` has 8 bits and pixels of `pixel_mm`, `fine` 16 bits and half the pixel. Prealigned
    brains have no 3D fit and no affines of their own to find, so what differs between their
    transforms is the deformation alone.
    """
    results, data = lab.folder / DEMO, lab.folder / "data"
    stack_from_world = read_stack_from_world(results / SIMILARITY)
    mri = read_volume(results / "prepare" / "mri.nii.gz")
    mask = read_volume(results / "prepare" / "mri_mask.nii.gz")
    mri_scale = 255 / float(np.quantile(mri.data[mask.data > 0], 0.9999))
    planes = {row.section: row for row in read_rows(results / "resample" / "sections.tsv", Plane)}
    rows = []
    for row in read_rows(results / "prepare" / "sections.tsv", Prepared):
        section = row.section
        grid = planes[section].grid.at_spacing(pixel_mm)
        where = (mri.world_from_voxel, stack_from_world, grid, row.position_mm)
        inside = resample_plane(mask.data.astype(np.float32), *where, order=1) > 0.5
        # 1 at least, so that what is not 0 is the brain
        plane_image = np.where(
            inside, np.clip(resample_plane(mri.data, *where, order=1) * mri_scale, 1, 255), 0
        )
        transform = read_section_transform(
            section_file(results / "linear", section, SECTION_TO_STACK)
        )
        section_px = transform.map(grid_px(grid.shape) * grid.spacing_mm) / row.pixel_size_mm
        image = read_section(Path(lab.folder / row.image))
        image = resample_section(image, section_px, background=row.background)
        # 8-bit files are read as [0, 1]
        pictures = {"image": image * 255, "mri_image": plane_image}
        for kind, picture in pictures.items():
            picture = np.rint(picture).astype(np.uint8)
            write_png(data / "coarse" / kind / f"{section}.png", picture)
            write_png(data / "fine" / kind / f"{section}.png", twice_as_fine(picture))
        inside = inside.astype(np.uint8)
        write_png(data / "coarse" / "mri_mask" / f"{section}.png", inside)
        finer = ndimage.zoom(inside, 2 - 1 / np.array(inside.shape), order=0, mode="nearest")
        write_png(data / "fine" / "mri_mask" / f"{section}.png", finer)
        rows.append(
            {
                "section": section,
                **{k: f"{k}/{section}.png" for k in ("image", "mri_image", "mri_mask")},
                "position_mm": row.position_mm,
            }
        )
    sheet = lab.folder / "config" / "brains.tsv"
    header, brains = read_tsv(sheet)
    for name, pixel in (("coarse", pixel_mm), ("fine", pixel_mm / 2)):
        write_tsv(data / name / "sections.tsv", [r | {"pixel_size_mm": pixel} for r in rows])
        borrowing = {"weights_from": "demo", "prealigned": "true"}
        brains.append({"brain": name, "sections": f"data/{name}/sections.tsv"} | borrowing)
    write_tsv(sheet, brains, header)


def test_same_brain_at_another_pixel_size_and_depth_gets_the_same_deformation(
    finished_brain, copied
):
    lab = copied(finished_brain)
    add_prealigned_pair(lab)
    files = [lab.folder / "data" / name / "image" / "s005.png" for name in ("coarse", "fine")]
    modes, sizes = zip(*((im.mode, im.size) for im in map(Image.open, files)), strict=True)
    assert modes == ("L", "I;16") and sizes[1] == tuple(2 * n - 1 for n in sizes[0])

    # the borrowers train nothing and leave the first brain alone
    jobs = lab.planned()
    assert {job.split()[1] for job in jobs} == {"coarse", "fine"}
    assert not [job for job in jobs if job.startswith(("train", "align "))]
    before = sha256_of_files(lab.folder / DEMO)
    tables = {name: f"results/{name}/sbr/sections.tsv" for name in ("coarse", "fine")}
    lab.snakemake(*tables.values())
    assert sha256_of_files(lab.folder / DEMO) == before

    lengths_mm, apart_mm = [], []
    for row in read_rows(lab.folder / tables["coarse"], Inferred):
        coarse, fine = (
            read_section_transform(
                section_file(lab.folder / "results" / name / "sbr", row.section, SECTION_TO_STACK)
            )
            for name in ("coarse", "fine")
        )
        mask, spacing_mm = read_plane(
            lab.folder / "results/coarse/resample/sections" / f"{row.section}_mrimask.nii.gz"
        )
        plane_mm = np.argwhere(mask > 0)[:, ::-1] * spacing_mm
        found = coarse.map(plane_mm)
        lengths_mm.append(np.linalg.norm(found - plane_mm, axis=1))
        apart_mm.append(np.linalg.norm(found - fine.map(plane_mm), axis=1))
    assert np.mean(np.concatenate(lengths_mm)) > 0.3, "too little deformation to compare"
    apart_mm = np.concatenate(apart_mm)
    assert apart_mm.mean() < 0.05
    assert np.quantile(apart_mm, 0.99) < 0.1
