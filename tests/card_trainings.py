"""Trainings and predictions that are run on a `pretend_card`: in the tests, and in the benchmark.

Widths are those of a preset or small ones; images are small, since what is counted does not depend
on their size.
"""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend_card import CARD, Card
from torch import Tensor, nn

from sbr_core.config import (
    Config,
    InferOptions,
    ShapesOptions,
    TrainOptions,
    as_finetuning,
    resolve,
    takes_registrar,
)
from sbr_core.errors import TERMINATED
from sbr_core.functional.warp import upsample_velocity
from sbr_core.methods import LABEL_METHODS
from sbr_core.nn.generator import Generator, generator_architecture
from sbr_core.nn.registrar import build_registrar, registrar_architecture
from sbr_core.training.checkpoints import open_checkpoints
from sbr_core.training.devices import pick_device
from sbr_core.training.loop import train
from sbr_core.training.pairs import Pairs
from sbr_core.training.predict import predict
from sbr_core.training.refine import Views, refine
from sbr_core.training.registrar import RegistrarTask
from sbr_core.training.shapes import ShapesTask
from sbr_core.training.tasks import Task, build_task

PRESETS = Path(__file__).resolve().parents[1] / "sbr_core" / "config" / "presets"
SIDE = 64
SMALL: dict[str, Any] = {
    "encoder_channels": (4, 8, 8),
    "decoder_channels": (8, 8, 4),
    "estimator_channels": (4, 8, 8),
    "generator_channels": 4,
    "residual_blocks": 1,
    "n_samples": 16,
    "projection_channels": 8,
    "discriminator_channels": 4,
}

Made = tuple[Task, TrainOptions]
Maker = Callable[[torch.device], Made]


def options_of(section: str, preset: str, **changes: Any) -> Any:
    """Options of a training: those of a preset, or ``small`` for a test; for a CUDA card.

    Changes that the section does not have are left out.
    """
    if preset == "small":
        found = Config.model_fields[section].annotation
        values = SMALL
    else:
        found = getattr(resolve({"preset": preset}, PRESETS), section)
        values = found.model_dump()
        found = type(found)
    values = values | {"device": "cuda", "steps": 4} | changes
    return found(**{key: value for key, value in values.items() if key in found.model_fields})


def brain(n: int = 4) -> dict[str, Tensor]:
    """Sections, planes, masks and labels (n, 1, SIDE, SIDE), on the processor."""
    rng = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, SIDE)] * 2, indexing="ij")
    masks = ((x**2 + y**2) < 0.5).float().expand(n, 1, SIDE, SIDE).clone()
    noise = nn.functional.interpolate(
        torch.rand(n, 1, 8, 8, generator=rng), size=(SIDE, SIDE), mode="bilinear"
    )
    planes = noise * masks
    return {
        "sections": (1 - 0.8 * planes) * masks,
        "section_masks": masks,
        "planes": planes,
        "plane_masks": masks.clone(),
        "section_labels": (planes > 0.5).float(),
        "plane_labels": (planes > 0.5).float(),
    }


def shared_registrar(preset: str) -> nn.Module:
    """The registrar that a preset shares: `paper` trains a U-Net, the others ship a pyramid."""
    if preset == "paper":
        return build_registrar(**registrar_architecture(options_of("train_registrar", preset)))
    widths = {k: SMALL[k] for k in ("encoder_channels", "estimator_channels")}
    return build_registrar("pyramid", **(widths if preset == "small" else {}))


def method_training(method: str, preset: str = "small", **changes: Any) -> Maker:
    """A function that builds the task of a method on a device, as the stage `train` does."""

    def make(device: torch.device) -> Made:
        torch.manual_seed(0)
        options = options_of(f"train_{method}", preset, **changes)
        data = {name: tensor.to(device) for name, tensor in brain().items()}
        if method not in LABEL_METHODS:
            data = {n: t for n, t in data.items() if not n.endswith("labels")}
        pairs = Pairs(**data, n_classes=int(method in LABEL_METHODS), options=options)
        shared = shared_registrar(preset) if takes_registrar(method, options) else None
        return build_task(method, options, pairs, shared), options

    return make


def registrar_training(preset: str = "small", **changes: Any) -> Maker:
    """The same for the stage `train_registrar`; of `cpu`, the fine-tuning."""

    def make(device: torch.device) -> Made:
        torch.manual_seed(0)
        options = options_of("train_registrar", preset, batch_size=2, **changes)
        if preset == "cpu":
            options, registrar = as_finetuning(options), shared_registrar(preset)
        else:
            registrar = build_registrar(**registrar_architecture(options))
        data = brain()
        planes, masks = data["planes"].to(device), data["plane_masks"].to(device)
        task = RegistrarTask(registrar.to(device), planes, masks, [0.0, 1.0, 2.0, 3.0], options)
        return task, options

    return make


def shapes_training(**changes: Any) -> Maker:
    """The same for the tool `train_shapes`."""

    def make(device: torch.device) -> Made:
        torch.manual_seed(0)
        values = {k: v for k, v in SMALL.items() if k in ShapesOptions.model_fields}
        values |= {"steps": 4, "batch_size": 1, "sizes_px": ((64, 64),)}
        options = ShapesOptions(**values | changes)
        return ShapesTask(shared_registrar("small").to(device), options, device), options

    return make


def train_and_resume(make: Maker, folder: Path) -> list[dict[str, float]]:
    """The loop itself: two steps, SIGTERM, and the rest from the checkpoint."""
    device = pick_device("auto")
    assert device.type == "cuda"
    task, options = make(device)
    losses, calls = task.losses, []

    def interrupted(rng: torch.Generator) -> dict[str, Tensor]:
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGTERM)
        return losses(rng)

    task.losses = interrupted
    with open_checkpoints(folder, "task") as checkpoints, pytest.raises(SystemExit) as stopped:
        train(task, options, checkpoints, device)
    assert stopped.value.code == TERMINATED and len(calls) == 2
    task, options = make(device)
    losses_again, calls = task.losses, []

    def counted(rng: torch.Generator) -> dict[str, Tensor]:
        calls.append(1)
        return losses_again(rng)

    task.losses = counted
    with open_checkpoints(folder, "task") as checkpoints:
        rows = train(task, options, checkpoints, device)
        checkpoints.clear()
    assert [row["step"] for row in rows] == list(range(1, options.steps + 1))
    assert len(calls) == options.steps - 2  # it went on, and did not begin again
    for module in task.modules.values():
        assert all(t.is_cuda for t in module.state_dict().values())
    return rows


def count_a_step(make: Maker, seen: Card) -> tuple[int, int]:
    """(waits, launches) from the third step of a training to the fourth; the waits stay in `seen`.

    The first two make Adam's moments and fill what is read a step late.
    """
    task, options = make(CARD)
    losses, found, calls = task.losses, [], []

    def watched(rng: torch.Generator) -> dict[str, Tensor]:
        calls.append(1)
        if len(calls) == 3:
            seen.clear()
        elif len(calls) == 4:
            found.append((dict(seen.syncs), seen.launches.total()))
        return losses(rng)

    task.losses = watched
    with tempfile.TemporaryDirectory() as folder, open_checkpoints(Path(folder), "it") as kept:
        train(task, options.model_copy(update={"steps": 4, "minutes": None}), kept, CARD)
        kept.clear()
    ((syncs, launches),) = found
    seen.clear()
    seen.syncs.update(syncs)
    return seen.syncs.total(), launches


def predict_and_refine(
    preset: str = "small",
    *,
    with_generator: bool = True,
    symmetric: bool = True,
    refine_steps: int = 3,
) -> tuple[Tensor, Tensor]:
    """What `infer` computes of a batch on the card: networks and refinement; both on the card."""
    torch.manual_seed(0)
    data = brain()
    registrar = shared_registrar(preset).requires_grad_(False)
    generator = None
    if with_generator:
        architecture = generator_architecture(options_of("train_sbr", preset))
        generator = Generator(**architecture).requires_grad_(False)
    velocity, image = predict(
        registrar,
        generator,
        data["planes"],
        data["sections"],
        data["section_masks"],
        device=CARD,
        registers="synthesised" if with_generator else "section",
        symmetric=symmetric,
    )
    assert not velocity.is_cuda and not image.is_cuda
    masks = data["plane_masks"]
    views = Views(data["planes"], data["sections"], image if with_generator else None, masks, masks)
    options = InferOptions(
        refine_steps=refine_steps, refine_levels=(2, 1), refine_window_px=5, refine_mind_weight=1.0
    )
    velocity = refine(registrar, velocity.to(CARD), views.to(CARD), options)
    assert velocity.is_cuda
    return upsample_velocity(velocity, (SIDE, SIDE)).cpu(), image
