"""`train` and then `infer` of every method on an analytic brain, and where labels come from."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sbr_core import geometry
from sbr_core.artifacts.label_pairs import LabelPairs
from sbr_core.artifacts.names import SHIPPED_REGISTRAR, VELOCITY
from sbr_core.artifacts.networks import PADDING_MULTIPLE, load_method, load_registrar
from sbr_core.artifacts.rows import Inferred, Plane, Prepared, read_rows
from sbr_core.artifacts.training_data import read_label_maps, read_pairs
from sbr_core.config import Config, InferOptions, IntensityOptions
from sbr_core.errors import ConfigError, ImageError, TrainingError
from sbr_core.io.files import sha256_file
from sbr_core.io.images import write_png
from sbr_core.io.manifests import SectionRow
from sbr_core.io.tables import read_tsv, write_tsv
from sbr_core.io.volumes import Volume, read_plane, write_volume
from sbr_core.io.weights import load_weights
from sbr_core.methods import OWN_REGISTRAR_METHODS, SHARED_REGISTRAR_METHODS, TRAINED_METHODS
from sbr_core.stages import infer, train
from sbr_core.training.predict import crop

SMALL = {
    "steps": 2,
    "batch_size": 1,
    "encoder_channels": (4, 8),
    "decoder_channels": (8, 4),
    "generator_channels": 4,
    "residual_blocks": 1,
    "n_samples": 16,
    "projection_channels": 16,
    "discriminator_channels": 4,
}


def small_options(method, **changes):
    model = Config.model_fields[f"train_{method}"].annotation
    values = SMALL | changes
    return model(**{key: value for key, value in values.items() if key in model.model_fields})


@pytest.fixture
def labelled(fake_brain):
    """The analytic brain, and what its labels add to the keywords of `train`."""
    brain = fake_brain
    path = brain.results / "mri_labels.nii.gz"
    # finer than the MRI, as good labels are
    affine = brain.mri.world_from_voxel @ np.diag([0.5, 0.5, 0.5, 1.0])
    voxels = np.stack(np.indices([2 * n for n in brain.mri.data.shape]), axis=-1)
    labels = brain.labels_of(brain.density(geometry.apply(affine, voxels)))
    write_volume(path, Volume(labels, affine))
    return brain, {
        "prepared": brain.table("prepare"),
        "align_dir": brain.results / "align",
        "mri_labels": path,
    }


def run_train(brain, method, options=None, **more):
    train.run(
        options or small_options(method),
        method=method,
        planes=brain.table("resample"),
        sections=brain.table("align_sections"),
        out_dir=brain.results / method,
        checkpoint_root=brain.results / "checkpoints",
        **more,
    )
    return brain.results / method / "weights.safetensors"


@pytest.mark.parametrize("method", TRAINED_METHODS)
def test_weights_of_every_method_are_all_that_its_inference_needs(
    labelled, save_networks, tmp_path, method
):
    brain, of_labels = labelled
    shared = {}
    if method in SHARED_REGISTRAR_METHODS:
        shared["registrar"] = save_networks(tmp_path)["registrar"]
    weights = run_train(brain, method, **shared, **(of_labels if method == "nmiw" else {}))
    registrar, generator, header = load_method(weights)
    assert (registrar is not None) == (method in OWN_REGISTRAR_METHODS)
    assert (generator is not None) == (method not in ("nmi", "nmiw"))
    through_synthesis = method in SHARED_REGISTRAR_METHODS
    assert header["preprocessing"]["registers"] == (
        "synthesised" if through_synthesis else "section"
    )
    tensors, _ = load_weights(weights)
    assert {name.split(".")[0] for name in tensors} >= set(header["architecture"])
    facts = json.loads((weights.parent / "weights.json").read_text())
    assert facts["steps"] == 2 and facts["training_seconds"] > 0

    if method not in OWN_REGISTRAR_METHODS:
        with pytest.raises(ConfigError, match="holds no registrar: --registrar is needed"):
            run_infer(brain, method, weights)
    rows = run_infer(brain, method, weights, **({} if registrar is not None else shared))
    assert len(rows) == 12 and all(row.ok for row in rows)
    for row in rows:
        pictures = {name.split("_", 1)[1] for name in row.files if name.endswith(".nii.gz")}
        made = {"synthesised.nii.gz"} if generator is not None else set()
        assert pictures == {"registered.nii.gz", "velocity.nii.gz"} | made
        assert row.inverse_p99_px <= 0.1


def run_infer(brain, method, weights, **more):
    out_dir = brain.results / method
    infer.run(
        InferOptions(device="cpu", refine_steps=1),
        method=method,
        prepared=brain.table("prepare"),
        planes=brain.table("resample"),
        affines=brain.table("align_sections"),
        weights=weights,
        out_dir=out_dir,
        receipt=out_dir / "chunks" / "all.tsv",
        **more,
    )
    return read_rows(out_dir / "chunks" / "all.tsv", Inferred)


def test_the_registrar_of_sbr_r_starts_from_the_shared_one(fake_brain, save_networks, tmp_path):
    shared = save_networks(tmp_path)["registrar"]
    weights = run_train(fake_brain, "sbr_r", registrar=shared)
    tensors, header = load_weights(weights)
    before, shared_header = load_weights(shared)
    assert header["architecture"]["registrar"] == shared_header["architecture"]
    for key, tensor in before.items():
        torch.testing.assert_close(tensors[f"registrar.{key}"], tensor, atol=1e-3, rtol=0)


@pytest.mark.parametrize("method", ["nmi", "nmiw", "rot"])
def test_untrained_registrars_that_start_as_the_shared_one_infer_what_it_does(
    labelled, save_networks, tmp_path, method
):
    """The weights build the shared architecture again, whatever the section says of another."""
    brain, of_labels = labelled
    shared = save_networks(tmp_path)["registrar"]
    options = small_options(method, steps=0, registrar_start="shared", encoder_channels=(6, 6))
    more = of_labels if method == "nmiw" else {}
    weights = run_train(brain, method, options, registrar=shared, **more)
    registrar, _, header = load_method(weights)
    of_shared, shared_header = load_registrar(shared)
    assert header["architecture"]["registrar"] == shared_header["architecture"]
    assert header["preprocessing"]["registers"] == "section"
    for ours, theirs in zip(registrar.parameters(), of_shared.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    row = run_infer(brain, method, weights)[0]
    found, _ = read_plane(row.file(VELOCITY))
    assert np.abs(found).max() > 0.1  # a U-Net from nothing would leave all in place
    facts = json.loads((weights.parent / "weights.json").read_text())
    assert facts["inputs"]["registrar"]["sha256"] == sha256_file(shared)


def test_the_registrar_of_the_package_can_be_given_as_it_is(fake_brain):
    """It serves any pixel size and names none; the weights then name that of the planes."""
    weights = run_train(fake_brain, "sbr", registrar=SHIPPED_REGISTRAR)
    _, _, header = load_method(weights)
    assert header["preprocessing"]["working_pixel_mm"] == fake_brain.grid.spacing_mm


def test_a_method_that_takes_the_shared_registrar_needs_it(fake_brain):
    with pytest.raises(ConfigError, match="train: method 'cgan': --registrar is needed"):
        run_train(fake_brain, "cgan")
    started = small_options("nmi", registrar_start="shared")
    with pytest.raises(ConfigError, match="train: method 'nmi': --registrar is needed"):
        run_train(fake_brain, "nmi", started)


def label_maps(brain, **of_labels):
    """Of all sections, of their planes, by name; and the number of classes."""
    prepared, rows = of_labels["prepared"], of_labels.get("rows")
    where = {"align_dir": None, "mri_labels": None} | of_labels
    where = {key: where[key] for key in ("align_dir", "mri_labels")}
    labels = LabelPairs(rows, **where, stage="train")
    planes = read_rows(brain.table("resample"), Plane)
    pairs = read_pairs(planes, brain.table("align_sections"), IntensityOptions())
    maps, n_classes = read_label_maps(labels, prepared, 1, pairs)
    of_sections, of_planes = (
        dict(zip([row.section for row in pairs.sections], each[:, 0].numpy(), strict=True))
        for each in crop(maps, brain.grid.shape, PADDING_MULTIPLE).chunk(2)
    )
    return of_sections, of_planes, n_classes


def true_labels(brain, section):
    """Numbered from 1 on, on the plane's grid."""
    rows_columns = np.indices(brain.grid.shape).astype(float)
    plane_mm = np.stack(rows_columns[::-1], axis=-1) * brain.grid.spacing_mm
    labels = brain.labels_of(brain.plane_density(plane_mm, brain.positions_mm[section]))
    return np.select([labels == 2, labels == 3], [1, 2])


def test_labels_of_section_and_mri_lie_on_the_plane_as_the_truth_says(labelled):
    brain, of_labels = labelled
    of_sections, of_planes, n_classes = label_maps(brain, **of_labels)
    assert n_classes == 2 and len(of_sections) == len(of_planes) == 12
    for section in ("003", "006", "007"):
        truth = true_labels(brain, section)
        for maps in (of_sections, of_planes):
            assert (maps[section] == truth)[truth > 0].mean() > 0.9, section
            assert (maps[section] > 0)[truth == 0].mean() < 0.05, section


def test_labels_of_a_prealigned_brain_come_from_its_rows(labelled, tmp_path):
    """On the grid of the section's file; where the plane has none, the section's do not count."""
    brain, of_labels = labelled
    rows = []
    for row in read_rows(brain.table("prepare"), Prepared, verify=False):
        path = tmp_path / f"{row.section}.png"
        labels = np.zeros(row.file_shape, np.uint8)
        labels[20:60, 30:80] = 3
        write_png(path, labels)
        rows.append(
            SectionRow(
                section=row.section,
                image=row.image,
                position_mm=row.position_mm,
                pixel_size_mm=0.4,
                mri_labels="" if row.section == "003" else str(path),
            )
        )
    of_sections, of_planes, n_classes = label_maps(brain, prepared=of_labels["prepared"], rows=rows)
    assert n_classes == 1
    assert not of_sections["003"].any() and not of_planes["003"].any()
    assert of_sections["006"].any()
    # 40 by 50 pixels of 0.4 mm on a grid of 1 mm
    assert of_planes["006"].sum() == pytest.approx(16 * 20, rel=0.05)


def test_one_unreadable_label_image_does_not_stop_the_training(fake_brain, caplog):
    """Its section trains by mutual information alone, as one without labels does."""
    brain = fake_brain
    rows = []
    for row in read_rows(brain.table("prepare"), Prepared, verify=False):
        path = brain.results / "labels" / f"{row.section}.png"
        labels = np.zeros(row.file_shape, np.uint8)
        labels[20:60, 30:80] = 3
        write_png(path, labels)
        rows.append(SectionRow(row.section, row.image, row.position_mm, 0.4, mri_labels=str(path)))
    of_labels = {"prepared": brain.table("prepare"), "rows": rows}
    broken, misfit = brain.results / "labels" / "003.png", brain.results / "labels" / "006.png"
    broken.write_bytes(broken.read_bytes()[:40])
    write_png(misfit, np.ones((5, 6), np.uint8))

    with pytest.raises(ImageError, match=r"003\.png: not readable"):
        run_train(brain, "nmiw", strict=True, **of_labels)
    assert not (brain.results / "nmiw").exists()
    assert run_train(brain, "nmiw", **of_labels).is_file()
    said = [line for line in caplog.messages if "left out" in line]
    assert [line.split(": labels left out: ")[0] for line in said] == [
        "train: section 003",
        "train: section 006",
    ]
    of_sections, of_planes, _ = label_maps(brain, **of_labels)
    empty = {section for section, labels in of_planes.items() if not labels.any()}
    assert empty == {"003", "006"}
    assert not any(of_sections[section].any() for section in empty), "a pair has both or none"

    for row in rows:
        write_png(brain.results / "labels" / f"{row.section}.png", np.ones((5, 6), np.uint8))
    with pytest.raises(
        TrainingError, match="no class in common; section 000 was left out: .*shape"
    ):
        label_maps(brain, **of_labels)


def test_what_is_missing_to_learn_from_labels_is_one_line(labelled):
    brain, of_labels = labelled
    with pytest.raises(ConfigError, match="--prepared is needed"):
        run_train(brain, "nmiw")
    with pytest.raises(TrainingError, match="the MRI has no labels: expected `mri_labels`"):
        run_train(brain, "nmiw", prepared=of_labels["prepared"])
    header, rows = read_tsv(brain.table("prepare"))
    write_tsv(brain.table("prepare"), [row | {"labels": ""} for row in rows], header)
    with pytest.raises(TrainingError, match="no section has labels: expected `labels`"):
        run_train(brain, "nmiw", **of_labels)
    assert not (brain.results / "nmiw").exists()
