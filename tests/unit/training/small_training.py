"""A training small enough for a test; as a script, one that can kill itself.

``python small_training.py ROOT OUT [KILL_AT]`` trains below the checkpoint root ROOT and saves the
weights to OUT; before step KILL_AT it sends itself SIGKILL, as a scheduler out of memory would.
"""

import logging
import os
import signal
import sys
from pathlib import Path

import torch

from sbr_core.config import RegistrarOptions
from sbr_core.nn.registrar import UNetRegistrar
from sbr_core.training.checkpoints import checkpoint_key, open_checkpoints
from sbr_core.training.loop import train
from sbr_core.training.registrar import RegistrarTask

OPTIONS = RegistrarOptions(
    steps=8,
    batch_size=2,
    encoder_channels=(4, 8),
    decoder_channels=(8, 4),
    checkpoint_every_s=1e-9,  # at every step
)


def blobs(n=6, size=32, seed=0):
    """Planes (n, 1, size, size) of a few bright spots on tissue, and their masks."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    centre = (size - 1) / 2
    mask = (((x - centre) ** 2 + (y - centre) ** 2) < (0.42 * size) ** 2).float()
    image = 0.3 * mask
    for _ in range(12):
        cx, cy = centre + (torch.rand(2, generator=generator) - 0.5) * 0.6 * size
        spot = torch.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * (0.05 * size) ** 2))
        image = image + 0.7 * spot * mask
    planes = image.clamp(0, 1).expand(n, 1, size, size).clone()
    return planes, mask.expand(n, 1, size, size).clone()


def small_task(options=OPTIONS):
    """A `RegistrarTask` that is the same whenever it is made."""
    torch.manual_seed(options.seed)
    registrar = UNetRegistrar(options.encoder_channels, options.decoder_channels)
    planes, masks = blobs()
    return RegistrarTask(registrar, planes, masks, range(len(planes)), options)


def main(root, out, kill_at=None):
    logging.basicConfig(level="INFO", format="%(message)s")
    torch.set_num_threads(1)
    task = small_task()
    losses, calls = task.losses, []

    def losses_or_death(rng):
        calls.append(1)
        if kill_at is not None and len(calls) == int(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)
        return losses(rng)

    task.losses = losses_or_death
    key = checkpoint_key("small", 1, OPTIONS.model_dump(mode="json"), "data")
    with open_checkpoints(Path(root), key) as folder:
        train(task, OPTIONS, folder, torch.device("cpu"))
        torch.save(task.registrar.state_dict(), out)
        folder.clear()


if __name__ == "__main__":
    main(*sys.argv[1:])
