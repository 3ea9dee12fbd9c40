"""Lets the tests of this folder import `small_training`, which is also run as a script."""

import sys
from pathlib import Path

import pytest
import torch

from sbr_core.config import AugmentOptions, RegistrarOptions
from sbr_core.nn.registrar import UNetRegistrar
from sbr_core.training.checkpoints import open_checkpoints
from sbr_core.training.loop import train
from sbr_core.training.registrar import RegistrarTask

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _log_of_training(caplog):
    """What a training logs is in `caplog`."""
    caplog.set_level("INFO", "sbr_core")


@pytest.fixture(scope="session")
def recovered(tmp_path_factory):
    """A registrar trained for seconds on one blob image, augmented by shifts of up to 3 px."""
    from small_training import blobs

    shifts = AugmentOptions(rotation_deg=0, scale=0, translation_px=1.5, field_sigma_px=(0.0, 0.0))
    options = RegistrarOptions(
        steps=250,
        batch_size=4,
        learning_rate=3e-3,
        encoder_channels=(8, 16, 16),
        decoder_channels=(16, 16, 16),
        augment=shifts,
    )
    torch.manual_seed(0)
    planes, masks = blobs(2)
    registrar = UNetRegistrar(options.encoder_channels, options.decoder_channels)
    task = RegistrarTask(registrar, planes, masks, [0.0, 1.0], options)
    with open_checkpoints(tmp_path_factory.mktemp("checkpoints"), "shift") as folder:
        rows = train(task, options, folder, torch.device("cpu"))
    return registrar, planes, masks, rows
