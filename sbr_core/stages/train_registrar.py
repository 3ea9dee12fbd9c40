"""`sbr train-registrar`: MRI planes in, the weights of the registrar R out.

The registrar comes from one of three sources: ``shipped``, the one in the package, which was
trained on synthetic shapes (`sbr train-shapes`) and serves any brain as it is; ``finetune``, the
same, trained on a little on this brain's planes; ``train``, the paper's way, from nothing.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import get_args

import torch

from sbr_core.artifacts import names
from sbr_core.artifacts.networks import load_registrar, weights_header
from sbr_core.artifacts.rows import Plane, read_rows
from sbr_core.artifacts.training_data import check_tissue_px, coarser, read_images
from sbr_core.config import RegistrarOptions, RegistrarSource, as_finetuning
from sbr_core.errors import ConfigError, TrainingError
from sbr_core.io.provenance import write_provenance
from sbr_core.io.tables import read_tsv
from sbr_core.io.weights import load_weights, save_weights
from sbr_core.nn.registrar import build_registrar, registrar_architecture
from sbr_core.report.losses import write_losses
from sbr_core.revisions import REVISION
from sbr_core.training import checkpoints, devices, loop
from sbr_core.training.registrar import registrar_task
from sbr_core.training.stacks import Place

STAGE = "train_registrar"

logger = logging.getLogger(__name__)


def run(
    options: RegistrarOptions,
    *,
    planes: Path,
    out_dir: Path,
    checkpoint_root: Path,
    source: RegistrarSource | None = None,
    fresh: bool = False,
) -> None:
    """Train the intra-modality registration network on MRI planes.

    On all pairs of neighbouring planes of a stack; or take the shipped network.

    Parameters
    ----------
    planes : table written by resample.
    out_dir : folder of ``weights.safetensors``, ``loss.tsv``, ``loss.png`` and their provenance.
    checkpoint_root : folder of the checkpoints of all trainings; an interrupted training is found
        again below it.
    source : shipped, finetune or train (default: train). With finetune the network is the shipped
        one, the steps and the learning rate are the options `finetune_steps` and
        `finetune_learning_rate`.
    fresh : forget the checkpoints and start anew.

    Raises
    ------
    ConfigError
        No such source.
    TrainingError
        Fewer than two planes to train on, a loss that runs away, or a second trainer.
    """
    source = source or "train"
    if source not in get_args(RegistrarSource):
        raise ConfigError(
            f"train-registrar: --source: expected one of {', '.join(get_args(RegistrarSource))},"
            f" found '{source}'"
        )
    if source == "shipped":
        _copy_shipped(options, planes, out_dir)
    else:
        _train(options, planes, out_dir, checkpoint_root, source, fresh)


def _train(
    options: RegistrarOptions,
    planes: Path,
    out_dir: Path,
    checkpoint_root: Path,
    source: RegistrarSource,
    fresh: bool,
) -> None:
    files = names.MRI, names.MRI_MASK
    rows = read_rows(planes, Plane, verify=files)
    device = devices.pick_device(options.device)
    place = Place.of(checkpoint_root, options.memory_gb, device)
    read = read_images(rows, *files, options.intensity, options.pixel_factor, place)
    for line in read.left_out:
        logger.warning(f"{STAGE}: {line}")
    if len(read.rows) < 2:
        raise TrainingError(
            f"{planes}: {len(read.rows)} usable planes, expected at least 2 to train on"
        )
    check_tissue_px(read.across_px, options.pixel_factor, planes)

    torch.manual_seed(options.seed)
    if source == "finetune":
        options = as_finetuning(options)
        registrar, shipped_header = load_registrar(names.SHIPPED_REGISTRAR)
        registrar.requires_grad_(True)
        architecture = shipped_header["architecture"]
    else:
        architecture = registrar_architecture(options)
        registrar = build_registrar(**architecture)
    registrar.to(device)
    stack = read.stack
    positions_mm = [row.position_mm for row in read.rows]
    data = checkpoints.fingerprint(
        *stack.columns(),
        torch.tensor(positions_mm, dtype=torch.float64),
        *(registrar.state_dict().values() if source == "finetune" else ()),
    )
    header = weights_header(
        "registrar",
        architecture,
        options,
        working_pixel_mm=coarser(read.rows[0].grid, options.pixel_factor).spacing_mm,
        stain="",
        fingerprint=data,
        revision=REVISION[STAGE],
    )
    header["source"] = source
    key = checkpoints.checkpoint_key(STAGE, REVISION[STAGE], header["options"], data)
    logger.info(f"{STAGE}: {len(read.rows)} planes of {stack.images.layout.padded} px")

    with checkpoints.open_checkpoints(checkpoint_root, key, fresh=fresh) as folder:
        task = registrar_task(registrar, stack, positions_mm, options, device)
        write_losses(loop.train(task, options, folder, device), out_dir)
        header["threads"] = torch.get_num_threads()
        save_weights(out_dir / names.WEIGHTS, registrar.state_dict(), header)
        write_provenance(
            out_dir / names.TRAINING,
            stage=STAGE,
            options=header["options"],
            inputs={"planes": planes},
            sections=[row.section for row in read.rows],
            device=str(device),
            precision=devices.pick_precision(options.precision, device),
        )
        folder.clear()


def _copy_shipped(options: RegistrarOptions, planes: Path, out_dir: Path) -> None:
    """The shipped weights, under the pixel size asked for, and the log of their training."""
    rows = read_rows(planes, Plane, verify=False)
    spacings_mm = {coarser(row.grid, options.pixel_factor).spacing_mm for row in rows}
    if len(spacings_mm) != 1:
        raise TrainingError(
            f"{planes}: expected planes of one pixel size, found {sorted(spacings_mm)} mm"
        )
    tensors, header = load_weights(names.SHIPPED_REGISTRAR)
    header["preprocessing"]["working_pixel_mm"] = spacings_mm.pop()
    header["source"] = "shipped"
    # the time it took elsewhere is none that this brain's registrar took
    history = [
        {key: float(value) for key, value in row.items() if key != "seconds"}
        for row in read_tsv(names.SHIPPED_LOSSES)[1]
    ]
    write_losses(history, out_dir)
    save_weights(out_dir / names.WEIGHTS, tensors, header)
    write_provenance(
        out_dir / names.TRAINING,
        stage=STAGE,
        options={"source": "shipped"},
        inputs={"planes": planes, "shipped": names.SHIPPED_REGISTRAR},
    )
    logger.info(f"{STAGE}: the registrar that ships, nothing to train")
