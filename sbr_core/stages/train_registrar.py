"""`sbr train-registrar`: MRI planes in, the weights of the registrar R out.

The registrar comes from one of three sources: ``shipped``, the one in the package, which was
trained on synthetic shapes (`sbr train-shapes`) and serves any brain as it is; ``finetune``, the
same, trained on a little on this brain's planes; ``train``, the paper's way, from nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

import torch

from sbr_core.artifacts.names import SHIPPED_REGISTRAR
from sbr_core.artifacts.networks import (
    load_registrar,
    read_planes,
    stacked,
    weights_header,
)
from sbr_core.artifacts.receipts import read_table
from sbr_core.config import RegistrarOptions, RegistrarSource
from sbr_core.errors import ConfigError, TrainingError
from sbr_core.io.provenance import write_provenance
from sbr_core.io.tables import read_tsv
from sbr_core.io.weights import load_weights, save_weights
from sbr_core.nn.registrar import build_registrar, registrar_architecture
from sbr_core.report.losses import write_losses
from sbr_core.revisions import REVISION
from sbr_core.training.checkpoints import checkpoint_key, fingerprint, open_checkpoints
from sbr_core.training.devices import pick_device, pick_precision
from sbr_core.training.loop import train
from sbr_core.training.registrar import RegistrarTask

STAGE = "train_registrar"
SHIPPED_LOSSES = SHIPPED_REGISTRAR.with_name("shipped_registrar_loss.tsv")


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
    out_dir = Path(out_dir)
    if source == "shipped":
        _hand_out_shipped(planes, out_dir)
        return
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
    if source == "finetune":
        registrar, shipped_header = load_registrar(SHIPPED_REGISTRAR)
        registrar = registrar.requires_grad_(True).to(device)
        architecture = shipped_header["architecture"]
        options = options.model_copy(
            update={
                "steps": options.finetune_steps,
                "learning_rate": options.finetune_learning_rate,
            }
        )
    else:
        architecture = registrar_architecture(options)
        registrar = build_registrar(**architecture).to(device)
    images, masks = stacked(images), stacked(masks)
    positions_mm = [float(rows[i]["position_mm"]) for i in kept]
    data = fingerprint(
        images,
        masks,
        torch.tensor(positions_mm, dtype=torch.float64),
        *(registrar.state_dict().values() if source == "finetune" else ()),
    )
    key = checkpoint_key(STAGE, REVISION[STAGE], options.model_dump(mode="json"), data)
    print(f"{STAGE}: {len(kept)} planes of {tuple(images.shape[-2:])} px", file=sys.stderr)

    with open_checkpoints(checkpoint_root, key, fresh=fresh) as folder:
        task = RegistrarTask(registrar, images.to(device), masks.to(device), positions_mm, options)
        history = train(task, options, folder, device)
        write_losses(history, out_dir)
        header = weights_header(
            "registrar",
            architecture,
            options,
            working_pixel_mm=float(rows[kept[0]]["spacing_mm"]),
            stain="",
            fingerprint=data,
            revision=REVISION[STAGE],
        )
        header["source"] = source
        save_weights(out_dir / "weights.safetensors", registrar.state_dict(), header)
        write_provenance(
            out_dir / "weights.json",
            stage=STAGE,
            options=options.model_dump(mode="json"),
            inputs={"planes": planes},
            sections=[rows[i]["section"] for i in kept],
            device=str(device),
            precision=pick_precision(options.precision, device),
        )
        folder.clear()


def _hand_out_shipped(planes: Path, out_dir: Path) -> None:
    """The shipped weights under the pixel size of this brain, and the log of their training."""
    rows = read_table(planes, verify=False)
    spacings_mm = {float(row["spacing_mm"]) for row in rows}
    if len(spacings_mm) != 1:
        raise TrainingError(
            f"{planes}: expected planes of one pixel size, found {sorted(spacings_mm)} mm"
        )
    tensors, header = load_weights(SHIPPED_REGISTRAR)
    header["preprocessing"]["working_pixel_mm"] = spacings_mm.pop()
    header["source"] = "shipped"
    # the time it took elsewhere is none that this brain's registrar took
    history = [
        {key: float(value) for key, value in row.items() if key != "seconds"}
        for row in read_tsv(SHIPPED_LOSSES)[1]
    ]
    write_losses(history, out_dir)
    save_weights(out_dir / "weights.safetensors", tensors, header)
    write_provenance(
        out_dir / "weights.json",
        stage=STAGE,
        options={"source": "shipped"},
        inputs={"planes": planes, "shipped": SHIPPED_REGISTRAR},
    )
    print(f"{STAGE}: the registrar that ships, nothing to train", file=sys.stderr)
