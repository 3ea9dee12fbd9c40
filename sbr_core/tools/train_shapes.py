"""`sbr train-shapes`: the registrar that ships, trained on synthetic shapes; needs no data."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from sbr_core.artifacts.networks import weights_header
from sbr_core.config import ShapesOptions
from sbr_core.io.weights import save_weights
from sbr_core.nn.registrar import build_registrar, registrar_architecture
from sbr_core.report.losses import write_losses
from sbr_core.revisions import REVISION
from sbr_core.training.checkpoints import checkpoint_key, open_checkpoints
from sbr_core.training.devices import pick_device
from sbr_core.training.loop import train
from sbr_core.training.shapes import ShapesTask

logger = logging.getLogger(__name__)

STAGE = "train_shapes"


def run(
    options: ShapesOptions, *, out_dir: Path, checkpoint_root: Path, fresh: bool = False
) -> None:
    """Train the registration network that ships, on synthetic shapes only.

    The same command goes on from its last checkpoint.

    Parameters
    ----------
    out_dir : folder of ``weights.safetensors``, ``loss.tsv`` and ``loss.png``.
    checkpoint_root : folder of the checkpoints of all trainings.
    fresh : forget the checkpoints and start anew.

    Raises
    ------
    TrainingError
        A loss that runs away, or a second trainer.
    """
    device = pick_device(options.device)
    torch.manual_seed(options.seed)
    architecture = registrar_architecture(options)
    registrar = build_registrar(**architecture).to(device)
    key = checkpoint_key(STAGE, REVISION[STAGE], options.model_dump(mode="json"), "shapes")
    logger.info(f"{STAGE}: {architecture['network']}")
    with open_checkpoints(checkpoint_root, key, fresh=fresh) as folder:
        history = train(ShapesTask(registrar, options, device), options, folder, device)
        write_losses(history, out_dir)
        header = weights_header(
            "registrar",
            architecture,
            options,
            working_pixel_mm=None,  # any, within the sizes and deformations it was trained on
            stain="",
            fingerprint="shapes",
            revision=REVISION[STAGE],
        )
        save_weights(out_dir / "weights.safetensors", registrar.state_dict(), header)
        folder.clear()
