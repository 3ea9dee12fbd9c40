"""`sbr train`: sections and their MRI planes in, the weights of a method's networks out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sbr_core.artifacts.label_pairs import LabelPairs
from sbr_core.artifacts.names import MRI, MRI_MASK, TRAINING, WEIGHTS
from sbr_core.artifacts.networks import load_registrar, start_from, weights_header
from sbr_core.artifacts.rows import Plane, read_rows
from sbr_core.artifacts.training_data import (
    SectionPairs,
    check_tissue_px,
    coarser,
    read_label_maps,
    read_pairs,
)
from sbr_core.config import PairOptions, as_finetuning, takes_registrar
from sbr_core.errors import ConfigError, TrainingError, WeightsError
from sbr_core.io.files import sha256_file, sha256_of
from sbr_core.io.manifests import SectionRow
from sbr_core.io.provenance import write_provenance
from sbr_core.io.weights import save_weights
from sbr_core.methods import REGISTRY
from sbr_core.nn.generator import generator_architecture
from sbr_core.nn.registrar import registrar_architecture
from sbr_core.report.losses import write_losses
from sbr_core.training import checkpoints, devices, loop
from sbr_core.training.pairs import pairs_of
from sbr_core.training.stacks import Place
from sbr_core.training.tasks import Task, build_task

STAGE = "train"

logger = logging.getLogger(__name__)


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
        Fewer than two sections to train on, no usable labels for a method that needs some, a loss
        that runs away, or a second trainer.
    ImageError
        With `strict`, labels of the MRI or of a section that cannot be used.
    WeightsError
        The registrar's file does not hold a registrar, or one for another pixel size; or `start`
        does not fit.
    """
    if start is not None:
        options = as_finetuning(options)
    if not takes_registrar(method, options):
        registrar = None
    elif registrar is None:
        raise ConfigError(f"train: method '{method}': --registrar is needed")
    labels = None
    if REGISTRY[method].needs_labels:
        if prepared is None:
            raise ConfigError("train: --prepared is needed, to find the labels of the sections")
        labels = LabelPairs(
            rows, align_dir=align_dir, mri_labels=mri_labels, stage=STAGE, strict=strict
        )
    files = {"planes": planes, "sections": sections, "registrar": registrar}
    files |= {"mri_labels": mri_labels, "start": start}
    inputs = {name: file for name, file in files.items() if file is not None}
    read_labels = (
        None if labels is None else partial(read_label_maps, labels, prepared, options.pixel_factor)
    )
    _train(method, options, inputs, read_labels, out_dir, checkpoint_root, fresh=fresh)


def _train(
    method: str,
    options: PairOptions,
    inputs: Mapping[str, Path],
    read_labels: Callable[[SectionPairs], tuple[Tensor, int]] | None,
    out_dir: Path,
    checkpoint_root: Path,
    *,
    fresh: bool,
) -> None:
    """Train and write what comes out; `inputs` as they are recorded."""
    shared, shared_header, start = None, None, inputs.get("start")
    if "registrar" in inputs:
        shared, shared_header = load_registrar(inputs["registrar"])
    device = devices.pick_device(options.device)
    place = Place.of(checkpoint_root, options.memory_gb, device)
    images, pixel_mm = _read(options, inputs, shared_header, place)
    maps, n_classes = read_labels(images) if read_labels is not None else (None, 0)

    torch.manual_seed(options.seed)
    labels = () if maps is None else (each.float() for each in maps.chunk(2))
    data = checkpoints.fingerprint(
        *images.stack.columns(), *labels, *(shared.state_dict().values() if shared else ())
    )
    shape_px = images.stack.images.layout.padded
    pairs = pairs_of(images.stack, maps, options=options, n_classes=n_classes, device=device)
    # what is not in a file is in the pairs now
    images = replace(images, stack=None)
    task = build_task(method, options, pairs, shared)
    if start is not None:
        data = sha256_of([data, sha256_file(start)])
    header = _header(method, task, options, images, shared_header, pixel_mm, data)
    if start is not None:
        for line in start_from(start, task.modules, header):
            logger.warning(f"{STAGE}: {method}: {line}")
    logger.info(
        f"{STAGE}: {method}: {len(images.sections)} sections of {shape_px} px"
        f"{f', from {start}' if start is not None else ''}"
    )
    key = checkpoints.checkpoint_key(
        f"{STAGE}_{method}", header["revision"], header["options"], data
    )
    with checkpoints.open_checkpoints(checkpoint_root, key, fresh=fresh) as folder:
        history = loop.train(task, options, folder, device)
        header["threads"] = torch.get_num_threads()
        write_losses(history, out_dir)
        # what inference does not need is kept to go on training
        weights = {
            f"{name}.{key}": tensor
            for name, module in task.modules.items()
            for key, tensor in module.state_dict().items()
        }
        save_weights(out_dir / WEIGHTS, weights, header)
        write_provenance(
            out_dir / TRAINING,
            stage=STAGE,
            options=header["options"],
            inputs=dict(inputs),
            sections=[row.section for row in images.sections],
            method=method,
            device=str(device),
            precision=devices.pick_precision(options.precision, device),
            steps=len(history),
            training_seconds=history[-1]["seconds"] if history else 0.0,
        )
        folder.clear()


def _read(
    options: PairOptions,
    inputs: Mapping[str, Path],
    registrar_header: Mapping[str, Any] | None,
    place: Place,
) -> tuple[SectionPairs, float]:
    """The pairs to train on, and their pixel size, mm.

    Raises
    ------
    WeightsError
        The registrar was trained at another pixel size.
    TrainingError
        Fewer than two pairs.
    """
    planes = read_rows(inputs["planes"], Plane, verify=(MRI, MRI_MASK))
    spacings_mm = {coarser(row.grid, options.pixel_factor).spacing_mm for row in planes}
    pixel_mm = max(spacings_mm, default=0.0)
    trained_mm = registrar_header and registrar_header["preprocessing"]["working_pixel_mm"]
    if trained_mm is not None:  # none: a registrar that serves any pixel size
        pixel_mm = trained_mm
        if any(abs(s - pixel_mm) > 1e-6 * pixel_mm for s in spacings_mm):
            raise WeightsError(
                f"{inputs['registrar']}: was trained at {pixel_mm} mm, but {inputs['planes']} has"
                f" planes at {sorted(spacings_mm)} mm, by `pixel_factor` of the options"
            )
    images = read_pairs(planes, inputs["sections"], options.intensity, options.pixel_factor, place)
    for line in images.left_out:
        logger.warning(f"{STAGE}: {line}")
    if len(images.sections) < 2:
        raise TrainingError(
            f"{inputs['sections']}: {len(images.sections)} usable sections with an MRI plane,"
            " expected at least 2"
        )
    check_tissue_px(images.across_px, options.pixel_factor, inputs["sections"])
    return images, pixel_mm


def _header(
    method: str,
    task: Task,
    options: PairOptions,
    images: SectionPairs,
    shared_header: Mapping[str, Any] | None,
    pixel_mm: float,
    data: str,
) -> dict[str, Any]:
    """The header of the weights: of each network that inference needs, what builds it again."""
    architecture = {}
    if "generator" in task.modules:
        architecture["generator"] = generator_architecture(options)
    if "registrar" in task.modules:
        architecture["registrar"] = (
            registrar_architecture(options)
            if shared_header is None
            else shared_header["architecture"]
        )
    # the most frequent first: what inference makes of a section in none of them
    channels = Counter(row.channel for row in images.with_plane)
    return weights_header(
        "method",
        architecture,
        options,
        working_pixel_mm=pixel_mm,
        stain=",".join(sorted({row.stain for row in images.with_plane} - {""})),
        channels=[name for name, _ in channels.most_common()],
        fingerprint=data,
        revision=REGISTRY[method].revision,
        registers="synthesised" if REGISTRY[method].through_shared_registrar else "section",
        synthesis_rim_px=getattr(options, "synthesis_rim_px", 0),
        medium_share=options.medium_share,
        medium_margin_px=options.medium_margin_px,
    )
