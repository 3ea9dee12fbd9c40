"""`sbr train-registrar`: MRI planes in, the weights of the registrar R out."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from sbr_core import plotting
from sbr_core.config import RegistrarOptions
from sbr_core.errors import TrainingError
from sbr_core.io.manifests import write_tsv
from sbr_core.io.provenance import atomic_path, write_provenance
from sbr_core.io.receipts import read_table
from sbr_core.io.weights import save_weights
from sbr_core.nn.registrar import Registrar
from sbr_core.stages import REVISION
from sbr_core.stages.networks import (
    read_planes,
    registrar_architecture,
    stacked,
    weights_header,
)
from sbr_core.training.loop import checkpoint_key, fingerprint, open_checkpoints, pick_device, train
from sbr_core.training.registrar import RegistrarTask

STAGE = "train_registrar"


def run(
    options: RegistrarOptions,
    *,
    planes: Path,
    out_dir: Path,
    checkpoint_root: Path,
    fresh: bool = False,
) -> None:
    """Train the registrar on all pairs of neighbouring MRI planes of a stack.

    Parameters
    ----------
    planes : table written by `resample`.
    out_dir : gets ``weights.safetensors``, ``loss.tsv``, ``loss.png`` and their provenance.
    checkpoint_root : an interrupted training is found again below it.
    fresh : forget its checkpoints first.

    Raises
    ------
    TrainingError
        Fewer than two planes to train on, a loss that runs away, or a second trainer.
    """
    rows = read_table(planes, verify=("_mri.nii.gz", "_mrimask.nii.gz"))
    images, masks, kept, skipped = read_planes(
        planes, rows, "_mri.nii.gz", "_mrimask.nii.gz", options.intensity
    )
    for line in skipped:
        print(f"{STAGE}: {line}", file=sys.stderr)
    if len(kept) < 2:
        raise TrainingError(f"{planes}: {len(kept)} usable planes, expected at least 2 to train on")

    device = pick_device(options.device)
    torch.manual_seed(options.seed)
    architecture = registrar_architecture(options)
    registrar = Registrar(**architecture).to(device)
    images, masks = stacked(images), stacked(masks)
    positions_mm = [float(rows[i]["position_mm"]) for i in kept]
    data = fingerprint(images, masks, torch.tensor(positions_mm, dtype=torch.float64))
    key = checkpoint_key(STAGE, REVISION[STAGE], options.model_dump(mode="json"), data)
    print(
        f"{STAGE}: {len(kept)} planes of {tuple(images.shape[-2:])} px on {device}", file=sys.stderr
    )

    with open_checkpoints(checkpoint_root, key, fresh=fresh) as folder:
        task = RegistrarTask(registrar, images.to(device), masks.to(device), positions_mm, options)
        history = train(task, options, folder, device)
        out_dir = Path(out_dir)
        write_tsv(out_dir / "loss.tsv", history, ("step", "loss"))
        with atomic_path(out_dir / "loss.png") as temporary:
            plotting.loss_curve(history, temporary)
        header = weights_header(
            "registrar",
            architecture,
            options,
            working_pixel_mm=float(rows[kept[0]]["spacing_mm"]),
            stain="",
            fingerprint=data,
            revision=REVISION[STAGE],
        )
        save_weights(out_dir / "weights.safetensors", registrar.state_dict(), header)
        write_provenance(
            out_dir / "weights.json",
            stage=STAGE,
            options=options.model_dump(mode="json"),
            inputs={"planes": planes},
            sections=[rows[i]["section"] for i in kept],
            device=str(device),
        )
        folder.clear()
