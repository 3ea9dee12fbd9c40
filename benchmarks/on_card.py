"""The day a graphics card is there: are results the CPU's, and how fast is everything?

    python benchmarks/on_card.py [--device cuda] [--size 448 320] [--steps 50] [--sections 64]
    python benchmarks/on_card.py --device cpu --size 64 64 --steps 2 --sections 2   # tried out here

Needs torch and numpy alone, and of the package `nn`, `functional` and `training`. At most 10
minutes on a card. Prints Markdown:

- agreement: every network, loss and warp, the first steps of the presets' trainings and a
  registration by optimisation, computed on the device and on the CPU in float32 (TF32 off), from
  the same start; ends with 1 if one of them differs by more than is said there;
- training: steps per second of SbR with the options of `paper` and `cpu`, in float32 and bfloat16,
  as they are, compiled, and compiled into CUDA graphs; the most memory; the share of the time in
  which the device waited for work;
- inference: sections per second through the networks, and with the optimisation.

A way that fails is a line with its error, not the end.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from machine import heading
from torch import Tensor, nn

from sbr_core.functional import losses, self_similarity, warp
from sbr_core.nn.discriminator import Discriminator
from sbr_core.nn.generator import Generator, generator_architecture
from sbr_core.nn.registrar import build_registrar, correlation
from sbr_core.training.checkpoints import open_checkpoints
from sbr_core.training.loop import train
from sbr_core.training.pairs import Pairs
from sbr_core.training.predict import predict
from sbr_core.training.refine import Views, refine
from sbr_core.training.sbr import SbrTask

_PAPER: dict[str, Any] = {
    "batch_size": 1,
    "learning_rate": 2e-4,
    "beta1": 0.5,
    "decay_fraction": 0.4,
    "max_grad_norm": 1.0,
    "mask_dilation_px": 2,
    "synthesis_rim_px": 0,
    "medium_share": 1.0,
    "medium_margin_px": 2,
    "augment_together": False,
    "generator_channels": 32,
    "residual_blocks": 6,
    "generator_skips": False,
    "registrar_gradient": True,
    "contrastive_weight": 0.02,
    "temperature": 0.05,
    "n_samples": 256,
    "projection_channels": 256,
    "augment": {
        "rotation_deg": 3.0,
        "scale": 0.05,
        "translation_px": 2.0,
        "field_sigma_px": (3.0, 5.0),
        "field_grid": 9,
    },
}
PRESETS: dict[str, dict[str, Any]] = {
    "paper": _PAPER,
    "cpu": _PAPER
    | {
        "learning_rate": 3e-4,
        "mask_dilation_px": 10,
        "synthesis_rim_px": 10,
        "medium_share": 0.02,
        "generator_channels": 16,
        "augment": _PAPER["augment"]
        | {
            "rotation_deg": 1.0,
            "scale": 0.015,
            "translation_px": 0.5,
            "field_sigma_px": (0.8, 1.4),
        },
    },
}
"""Of `train_sbr`, after its warm-up, as sbr_core/config/presets/ has them; a test compares."""
NETWORKS = {"paper": "unet", "cpu": "pyramid"}
REFINE: dict[str, Any] = {
    "refine_levels": (2, 1),
    "refine_steps": 15,
    "refine_learning_rate": 0.4,
    "refine_smoothness": 5.0,
    "refine_window_px": 21,
    "refine_l1_weight": 2.0,
    "refine_mind_weight": 10.0,
    "refine_mind_dilations_px": (1, 2, 3),
}
"""Of `infer` in the preset `cpu`."""
N_PAIRS = 8
BATCH = 8
"""Sections at a time, as `infer.batch_size`."""
LARGEST = {"networks": 1e-3, "losses": 1e-3, "velocities": 0.05}
"""What may differ: of outputs and gradients, as a share of the largest value; of losses,
relatively; of optimised velocities, px, on average: Adam turns rounding into steps where a gradient
is near 0."""
WARM_UP = 5


def options_of(preset: str, **changes: Any) -> SimpleNamespace:
    """What `train_sbr` of a preset is asked for, as its task and the loop read it."""
    fixed = {
        "minutes": None,
        "checkpoint_every_s": 1e9,
        "seed": 0,
        "precision": "float32",
        "compile": False,
        "threads": None,
        "box_step_px": 8,
        "warmup_fraction": 0.0,
        "warmup_start": "affine",
    }
    values = PRESETS[preset] | fixed | changes
    return SimpleNamespace(**values | {"augment": SimpleNamespace(**values["augment"])})


def brain(shape: tuple[int, int], n: int) -> dict[str, Tensor]:
    """Sections, their masks, planes, their masks, (n, 1, *shape): smooth noise in an ellipse."""
    rng = torch.Generator().manual_seed(0)
    y, x = (torch.linspace(-1, 1, side) for side in shape)
    mask = (y[:, None] ** 2 + x[None] ** 2 <= 0.57).float().expand(n, 1, *shape).clone()
    coarse = torch.rand(n, 1, shape[0] // 8, shape[1] // 8, generator=rng)
    planes = nn.functional.interpolate(coarse, size=shape, mode="bilinear") * mask
    sections = warp.warp((1 - 0.8 * planes) * mask, torch.full((1, 2, *shape), 1.5))
    return {"sections": sections, "masks": mask, "planes": planes, "plane_masks": mask.clone()}


def sbr_task(preset: str, shape: tuple[int, int], device: torch.device, **changes: Any) -> SbrTask:
    """The task of a preset, the same on every device."""
    torch.manual_seed(0)
    options = options_of(preset, **changes)
    pairs = Pairs(*(t.to(device) for t in brain(shape, N_PAIRS).values()), options=options)
    registrar = build_registrar(NETWORKS[preset]).to(device)
    return SbrTask(registrar, pairs, options)


def trained(task: SbrTask, device: torch.device) -> list[dict[str, float]]:
    """The rows of its training."""
    with tempfile.TemporaryDirectory() as folder, open_checkpoints(Path(folder), "it") as kept:
        rows = train(task, task.options, kept, device)
        kept.clear()
    return rows


def agreements(shape: tuple[int, int], device: torch.device) -> Iterator[tuple[str, float, float]]:
    """(what, how far the device is from the CPU, how far it may be)."""
    cpu, rng = torch.device("cpu"), torch.Generator().manual_seed(1)
    a, b = torch.rand(2, 2, 1, *shape, generator=rng)
    mask = brain(shape, 2)["masks"]
    disp = 2 * torch.randn(2, 2, *shape, generator=rng)
    features = torch.randn(2, 2, 16, *(n // 4 for n in shape), generator=rng)
    torch.manual_seed(0)
    registrars = {name: build_registrar(name) for name in ("unet", "pyramid")}
    for registrar in registrars.values():  # so that it answers with more than nothing
        layers = getattr(registrar, "estimators", None)
        for layer in [e[-1] for e in layers] if layers else [registrar.velocity]:
            nn.init.normal_(layer.weight, std=0.02)
    generator, discriminator = Generator(16), Discriminator(16)
    cases: dict[str, tuple[nn.Module | None, Callable[..., Tensor], tuple[Tensor, ...]]] = {
        "generator": (generator, lambda net, x: net(x), (a,)),
        "discriminator": (discriminator, lambda net, x: net(x), (a,)),
        "correlation": (None, lambda _, x, y: correlation(x, y, 2), tuple(features)),
        "warp": (None, lambda _, x, d: warp.warp(x, d), (a, disp)),
        "exponentiate": (None, lambda _, d: warp.exponentiate(d, 7), (disp,)),
        "lncc": (None, lambda _, x, y, m: losses.lncc(x, y, m), (a, b, mask)),
        "nmi": (None, lambda _, x, y, m: losses.nmi(x, y, m), (a, b, mask)),
        "mind_ssc": (None, lambda _, x, m: self_similarity.mind_ssc(x, m), (a, mask)),
    }
    for name, registrar in registrars.items():
        cases[name] = (registrar, lambda net, x, y: net(x, y), (a, b))
    for name, (network, what, inputs) in cases.items():
        found = [_with_gradient(network, what, inputs, where) for where in (cpu, device)]
        far = max(
            float((x - y).abs().max() / x.abs().max().clamp_min(1e-12))
            for x, y in zip(*found, strict=True)
        )
        yield f"{name}, output and gradient", far, LARGEST["networks"]
    for preset in PRESETS:
        rows = [trained(sbr_task(preset, shape, where, steps=3), where) for where in (cpu, device)]
        far = max(abs(x["loss"] - y["loss"]) / abs(x["loss"]) for x, y in zip(*rows, strict=True))
        yield f"three steps of SbR, {preset}", far, LARGEST["losses"]
    velocities = [registered(shape, 2, where, optimised=True) for where in (cpu, device)]
    far = float((velocities[0] - velocities[1]).abs().mean())
    yield "networks and optimisation, px", far, LARGEST["velocities"]


def _with_gradient(
    network: nn.Module | None,
    what: Callable[..., Tensor],
    inputs: tuple[Tensor, ...],
    device: torch.device,
) -> list[Tensor]:
    """A function's output and its gradient by the first input, computed on a device."""
    first, *rest = (t.clone().to(device) for t in inputs)
    first.requires_grad_()
    out = what(copy.deepcopy(network).to(device) if network is not None else None, first, *rest)
    weights = torch.rand(out.shape, generator=torch.Generator().manual_seed(2)).to(device)
    (out * weights).sum().backward()
    return [out.detach().cpu(), first.grad.cpu()]


def registered(shape: tuple[int, int], n: int, device: torch.device, *, optimised: bool) -> Tensor:
    """Velocities of `n` sections by the networks of `cpu`, and optimised, on the CPU."""
    torch.manual_seed(0)
    data = brain(shape, n)
    registrar = build_registrar("pyramid")
    generator = Generator(**generator_architecture(options_of("cpu")))
    options = SimpleNamespace(**REFINE)
    found = []
    for at in range(0, n, BATCH):
        sections, masks, planes, plane_masks = (t[at : at + BATCH] for t in data.values())
        velocity, image = predict(
            registrar, generator, planes, sections, masks, device=device, symmetric=True
        )
        if optimised:
            views = Views(planes, sections, image, plane_masks, plane_masks).to(device)
            velocity = refine(registrar, velocity.to(device), views, options).cpu()
        found.append(velocity)
    return torch.cat(found)


WAYS: dict[str, bool | str] = {"as it is": False, "compiled": True, "CUDA graphs": "graphs"}
"""With the option `compile` of each: a training with graphs tells torch where a step begins."""


def training_speed(
    preset: str, precision: str, way: str, shape: tuple[int, int], device: torch.device, steps: int
) -> tuple[float, float, float]:
    """(steps per second, most memory in GB, share of the time that the device waits)."""
    n = WARM_UP + steps
    task = sbr_task(preset, shape, device, steps=n, precision=precision, compile=WAYS[way])
    on_cuda = device.type == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    rows = trained(task, device)
    per_s = steps / (rows[-1]["seconds"] - rows[WARM_UP - 1]["seconds"])
    if not on_cuda:
        return per_s, float("nan"), float("nan")
    memory_gb = torch.cuda.max_memory_allocated(device) / 1e9
    task.options.steps = 10
    with torch.profiler.profile(activities=list(torch.profiler.supported_activities())) as seen:
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        trained(task, device)
        torch.cuda.synchronize(device)
        took_us = (time.perf_counter() - began) * 1e6
    busy_us = sum(event.self_device_time_total for event in seen.key_averages())
    return per_s, memory_gb, max(0.0, 1 - busy_us / took_us)


def inference_speed(
    shape: tuple[int, int], sections: int, device: torch.device, *, optimised: bool
) -> float:
    """Sections per second, from tensors of the CPU to velocities on the CPU."""
    registered(shape, min(BATCH, sections), device, optimised=optimised)
    began = time.perf_counter()
    registered(shape, sections, device, optimised=optimised)
    return sections / (time.perf_counter() - began)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", type=torch.device)
    parser.add_argument("--size", nargs=2, type=int, default=(448, 320), metavar=("ROWS", "COLS"))
    parser.add_argument("--steps", type=int, default=50, help="timed, after the first five")
    parser.add_argument("--sections", type=int, default=64)
    arguments = parser.parse_args()
    device, shape = arguments.device, tuple(arguments.size)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    print(heading(f"On {device} at {shape[0]}x{shape[1]}", device))

    print("| agreement with the CPU | differs by | may by |\n|---|---|---|")
    disagree = False
    for what, far, may in agreements(shape, device):
        disagree |= not far <= may
        print(f"| {what} | {far:.2g} | {may:g} |{'' if far <= may else ' **too far**'}", flush=True)

    print("\n| SbR | precision | way | steps/s | memory GB | device waits |\n" + "|---" * 6 + "|")
    ways = list(WAYS) if device.type == "cuda" else ["as it is"]
    for preset in PRESETS:
        for precision in ("float32", "bfloat16"):
            for way in ways:
                line = f"| {preset} | {precision} | {way} |"
                try:
                    found = training_speed(preset, precision, way, shape, device, arguments.steps)
                    memory = f"{found[1]:.2f} | {found[2]:.0%}" if device.type == "cuda" else "|"
                    print(f"{line} {found[0]:.2f} | {memory} |", flush=True)
                except Exception as error:
                    print(f"{line} {type(error).__name__}: {str(error)[:200]!r} | | |", flush=True)

    print("\n| inference | sections/s |\n|---|---|")
    for name, optimised in (("networks", False), ("networks and optimisation", True)):
        per_s = inference_speed(shape, arguments.sections, device, optimised=optimised)
        print(f"| {name} | {per_s:.2f} |", flush=True)
    return 1 if disagree else 0


if __name__ == "__main__":
    sys.exit(main())
