"""`sbr train`: sections and their MRI planes in, the weights of a method's networks out."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sbr_core.artifacts.label_pairs import LabelPairs, read_label_volume
from sbr_core.artifacts.networks import (
    load_registrar,
    read_planes,
    stacked,
    start_from,
    weights_header,
)
from sbr_core.artifacts.receipts import matrix_of, read_table
from sbr_core.artifacts.rows import Plane, Prepared, read_rows
from sbr_core.config import PairOptions, ThroughRegistrarOptions, takes_registrar
from sbr_core.errors import ConfigError, TrainingError, WeightsError
from sbr_core.geometry import PlaneGrid
from sbr_core.io.files import sha256_file, sha256_of
from sbr_core.io.manifests import SectionRow
from sbr_core.io.provenance import write_provenance
from sbr_core.io.transforms import STACK_TRANSFORM, read_stack_from_world
from sbr_core.io.weights import save_weights
from sbr_core.methods import LABEL_METHODS, SHARED_REGISTRAR_METHODS
from sbr_core.nn.generator import generator_architecture
from sbr_core.nn.registrar import registrar_architecture
from sbr_core.report.losses import write_losses
from sbr_core.revisions import REVISION
from sbr_core.training.checkpoints import checkpoint_key, fingerprint, open_checkpoints
from sbr_core.training.devices import pick_device, pick_precision
from sbr_core.training.loop import train
from sbr_core.training.pairs import Pairs
from sbr_core.training.tasks import Task, build_task

STAGE = "train"


def run(
    options: PairOptions,
    *,
    method: str,
    planes: Path,
    sections: Path,
    out_dir: Path,
    checkpoint_root: Path,
    registrar: Path | None = None,
    prepared: Path | None = None,
    align_dir: Path | None = None,
    mri_labels: Path | None = None,
    rows: Sequence[SectionRow] | None = None,
    start: Path | None = None,
    fresh: bool = False,
    strict: bool = False,
) -> None:
    """Train the networks of a method on sections and their MRI planes.

    Sections that one of the two tables does not contain are left out.

    Parameters
    ----------
    method : name of the method.
    planes : table written by resample.
    sections : table written by align-sections.
    out_dir : folder the results go to.
    checkpoint_root : folder of the checkpoints of all trainings.
    registrar : weights of the shared registration network, for the methods that train through it or
        whose own registrar starts as a copy of it.
    prepared : table written by prepare, for labels of sections.
    align_dir : folder written by align, for labels of a 3D MRI.
    mri_labels : labels of the MRI, on its grid.
    rows : manifest rows, for the mri_labels of a prealigned brain.
    start : weights of the method on another brain, to train on from: for `finetune_steps` at
        `finetune_learning_rate`, without warming up.
    fresh : forget the checkpoints and start anew.
    strict : stop at the first label image that cannot be used, instead of training on its section
        without labels.

    Raises
    ------
    ConfigError
        No registrar for a method that needs it.
    TrainingError
        Fewer than two sections to train on, no labels for a method that needs some, a loss that
        runs away, or a second trainer.
    ImageError
        Labels of the MRI that cannot be read or, with `strict`, a label image.
    WeightsError
        The registrar's file does not hold a registrar, or one for another pixel size; or `start`
        does not fit.
    """
    if start is not None:
        tuned = {"steps": options.finetune_steps, "learning_rate": options.finetune_learning_rate}
        if isinstance(options, ThroughRegistrarOptions):
            tuned["warmup_fraction"] = 0.0  # the synthesis has long learnt what a plane looks like
        options = options.model_copy(update=tuned)
    shared, shared_header = None, None
    if takes_registrar(method, options):
        if registrar is None:
            raise ConfigError(f"train: method '{method}': --registrar is needed")
        shared, shared_header = load_registrar(registrar)
    plane_rows = read_table(planes, verify=("_mri.nii.gz", "_mrimask.nii.gz"))
    section_rows = {
        row["section"]: row
        for row in read_table(sections, verify=("_linear.nii.gz", "_linearmask.nii.gz"))
    }
    spacings_mm = {float(row["spacing_mm"]) for row in plane_rows}
    pixel_mm = max(spacings_mm, default=0.0)
    trained_mm = shared_header and shared_header["preprocessing"]["working_pixel_mm"]
    if trained_mm is not None:  # none: a registrar that serves any pixel size
        pixel_mm = trained_mm
        if any(abs(s - pixel_mm) > 1e-6 * pixel_mm for s in spacings_mm):
            raise WeightsError(
                f"{registrar}: was trained at {pixel_mm} mm, but {planes} has planes at"
                f" {sorted(spacings_mm)} mm"
            )

    both = [row for row in plane_rows if row["section"] in section_rows]
    targets, target_masks, kept, skipped = read_planes(
        planes, both, "_mri.nii.gz", "_mrimask.nii.gz", options.intensity
    )
    partners = [section_rows[both[i]["section"]] for i in kept]
    sources, source_masks, usable, more = read_planes(
        sections, partners, "_linear.nii.gz", "_linearmask.nii.gz", options.intensity
    )
    for line in skipped + more:
        print(f"{STAGE}: {line}", file=sys.stderr)
    if len(usable) < 2:
        raise TrainingError(
            f"{sections}: {len(usable)} usable sections with an MRI plane, expected at least 2"
        )
    targets = [targets[i] for i in usable]
    target_masks = [target_masks[i] for i in usable]

    device = pick_device(options.device)
    torch.manual_seed(options.seed)
    # sections and planes padded together, so that they stay on one grid
    tensors = stacked([*sources, *source_masks, *targets, *target_masks]).chunk(4)
    labels, n_classes = (), 0
    if method in LABEL_METHODS:
        maps, n_classes = read_label_maps(
            [both[kept[i]] for i in usable],
            [partners[i] for i in usable],
            prepared=prepared,
            align_dir=align_dir,
            mri_labels=mri_labels,
            rows=rows,
            strict=strict,
        )
        labels = stacked(maps).chunk(2)
    pairs = Pairs(
        *(t.to(device) for t in (*tensors, *labels)), options=options, n_classes=n_classes
    )
    task = build_task(method, options, pairs, shared)
    data = fingerprint(*tensors, *labels, *(shared.state_dict().values() if shared else ()))
    if start is not None:
        data = sha256_of([data, sha256_file(start)])
    revision = REVISION[f"{STAGE}_{method}"]
    stains = sorted({str(row.get("stain", "")) for row in partners} - {""})
    # the most frequent first: what inference makes of a section in none of them
    counted = Counter(str(row.get("channel") or "grey") for row in partners)
    header = weights_header(
        "method",
        _architecture(task, options, shared_header),
        options,
        working_pixel_mm=pixel_mm,
        stain=",".join(stains),
        channels=[name for name, _ in counted.most_common()],
        fingerprint=data,
        revision=revision,
        registers="synthesised" if method in SHARED_REGISTRAR_METHODS else "section",
        synthesis_rim_px=getattr(options, "synthesis_rim_px", 0),
        medium_share=options.medium_share,
        medium_margin_px=options.medium_margin_px,
    )
    if start is not None:
        for line in start_from(start, task.modules, header):
            print(f"{STAGE}: {method}: {line}", file=sys.stderr)
    key = checkpoint_key(f"{STAGE}_{method}", revision, options.model_dump(mode="json"), data)
    print(
        f"{STAGE}: {method}: {len(usable)} sections of {tuple(tensors[0].shape[-2:])} px"
        f"{f', from {start}' if start is not None else ''}",
        file=sys.stderr,
    )

    with open_checkpoints(checkpoint_root, key, fresh=fresh) as folder:
        history = train(task, options, folder, device)
        out_dir = Path(out_dir)
        write_losses(history, out_dir)
        # what inference does not need is kept to go on training
        weights = {
            f"{name}.{key}": tensor
            for name, module in task.modules.items()
            for key, tensor in module.state_dict().items()
        }
        save_weights(out_dir / "weights.safetensors", weights, header)
        inputs = {"planes": planes, "sections": sections}
        inputs |= {"registrar": registrar} if shared is not None else {}
        inputs |= {"mri_labels": mri_labels} if mri_labels is not None else {}
        inputs |= {"start": start} if start is not None else {}
        write_provenance(
            out_dir / "weights.json",
            stage=STAGE,
            options=options.model_dump(mode="json"),
            inputs=inputs,
            sections=[partners[i]["section"] for i in usable],
            method=method,
            device=str(device),
            precision=pick_precision(options.precision, device),
            steps=len(history),
            training_seconds=history[-1]["seconds"] if history else 0.0,
        )
        folder.clear()


def _architecture(
    task: Task, options: Any, shared_header: Mapping[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """Of each network of the task that inference needs, what builds it again."""
    found = {}
    if "generator" in task.modules:
        found["generator"] = generator_architecture(options)
    if "registrar" in task.modules:
        found["registrar"] = (
            registrar_architecture(options)
            if shared_header is None
            else shared_header["architecture"]
        )
    return found


def read_label_maps(
    plane_rows: Sequence[Mapping[str, Any]],
    section_rows: Sequence[Mapping[str, Any]],
    *,
    prepared: Path | None,
    align_dir: Path | None,
    mri_labels: Path | None,
    rows: Sequence[SectionRow] | None,
    strict: bool = False,
) -> tuple[list[np.ndarray], int]:
    """Labels of sections and planes on the planes' grids, numbered from 1.

    Parameters
    ----------
    plane_rows, section_rows : of the tables of `resample` and `align-sections`, in one order.
    prepared, align_dir, mri_labels, rows, strict : as in `run`.

    Returns
    -------
    maps : of all sections, then of all planes, (rows, columns) float32; zeros where a section or
        its plane has no labels to use, so that a pair has both or none. Classes that only sections
        or only planes have are left out.
    n_classes : how many are left.

    Raises
    ------
    TrainingError
        No section has labels that its plane has too.
    """
    if prepared is None:
        raise ConfigError("train: --prepared is needed, to find the labels of the sections")
    volume, stack_from_world = None, None
    if align_dir is not None and mri_labels is not None:
        volume = read_label_volume(mri_labels)
        stack_from_world = read_stack_from_world(Path(align_dir) / STACK_TRANSFORM)
    pairs = LabelPairs(volume, stack_from_world, rows, stage=STAGE, strict=strict)
    prepared_rows = {row.section: row for row in read_rows(prepared, Prepared, verify=False)}
    if volume is None and not pairs.plane_files:
        raise TrainingError(
            f"{prepared}: the MRI has no labels: expected `mri_labels` in the sheet of brains, or"
            " in the manifest of a prealigned brain"
        )
    if not any(row.labels for row in prepared_rows.values()):
        raise TrainingError(
            f"{prepared}: no section has labels: expected `labels` in some rows of the manifest"
        )
    of_sections, of_planes = [], []
    for plane, section in zip(plane_rows, section_rows, strict=True):
        grid = PlaneGrid((int(plane["rows"]), int(plane["columns"])), float(plane["spacing_mm"]))
        row = prepared_rows.get(plane["section"])
        of_plane = Plane(section=plane["section"], position_mm=plane["position_mm"], grid=grid)
        pair = pairs.of(row, of_plane) if row is not None else None
        if pair is None:
            both = np.zeros(grid.shape, np.int32), np.zeros(grid.shape, np.int32)
        else:
            affine = row.section_mm_from_working_mm @ np.asarray(matrix_of(section, "a"))
            both = pair.on_grid(grid, affine)
        of_sections.append(both[0])
        of_planes.append(both[1])
    classes = _found_in(of_sections) & _found_in(of_planes)
    if not classes:
        left_out = [f"; section {s} was left out: {why}" for s, why in pairs.unusable.items()]
        raise TrainingError(
            f"{prepared}: the labels of the sections and those of the MRI have no class in"
            f" common{''.join(left_out[:1])}"
        )

    def numbered(labels: np.ndarray) -> np.ndarray:
        out = np.zeros(labels.shape, np.float32)
        for number, class_ in enumerate(sorted(classes), 1):
            out[labels == class_] = number
        return out

    return [numbered(labels) for labels in (*of_sections, *of_planes)], len(classes)


def _found_in(maps: Sequence[np.ndarray]) -> set[int]:
    return {int(class_) for labels in maps for class_ in np.unique(labels)} - {0}
