"""Iterations per second of the SbR training step against the naive step, side by side.

    python benchmarks/training_step.py [--device cuda] [--size 448 320] [--threads 2] [--repeats 5]
    python benchmarks/training_step.py --preset cpu    # what each of our own kernels gives
    python benchmarks/training_step.py --preset cpu --losses 5

The naive step is written here as one would write the method down: whole images, batch 1, float32,
every pass separately and with a graph, gradient through the registrar. The package's step starts
from the same networks and data; each row after the first changes one more option. Images are
synthetic, with an ellipse of tissue that covers 45 % of them. The contestants take turns, step by
step, so that whatever else runs on the machine slows all of them. Of the clock's seconds the median
stands in the table, of the process's CPU seconds the least: other jobs are not in them, but make
them longer by what they take of caches and of the core's other thread.

With a preset, its step is compared with itself, one of the package's own kernels at a time
exchanged for the plain way of torch; then each kernel alone is timed, on what a step gives it, by
the least of many short calls, which a busy machine disturbs less. `--losses` prints the losses of
its first steps instead, to the last digit, so that two versions of the package can be compared
(PYTHONPATH says which one is imported).
"""

from __future__ import annotations

import argparse
import contextlib
import pkgutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from machine import heading
from torch import Tensor, nn

from sbr_core.config import RegistrarNetwork, SbrOptions, resolve
from sbr_core.functional.losses import l1
from sbr_core.functional.warp import warp
from sbr_core.nn.generator import Generator
from sbr_core.nn.projection import Projection
from sbr_core.nn.registrar import build_registrar
from sbr_core.training import augment
from sbr_core.training.checkpoints import open_checkpoints
from sbr_core.training.loop import pick_precision, train
from sbr_core.training.pairs import Pairs
from sbr_core.training.sbr import SbrTask, draw_places, features_at

N_PAIRS = 4
TISSUE_SHARE = 0.45
DEPARTURES = (
    ("ours, as the paper has it", {}),
    ("+ bfloat16 where the device computes in it", {"precision": "auto"}),
    ("+ R's answer taken as given", {"registrar_gradient": False}),
    ("+ generator of half the width", {"generator_channels": 16}),
)
CPU = torch.device("cpu")
PRESETS = Path(__file__).resolve().parents[1] / "sbr_core" / "config" / "presets"

Step = Callable[[], tuple[float, float]]


def plain_correlation(a: Tensor, b: Tensor, radius_px: int) -> Tensor:
    """`correlation` as torch differentiates it."""
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    rows, columns = a.shape[-2:]
    padded, side = F.pad(b, (radius_px,) * 4), range(2 * radius_px + 1)
    shifted = [padded[..., dy : dy + rows, dx : dx + columns] for dy in side for dx in side]
    return torch.cat([(a * other).sum(1, keepdim=True) for other in shifted], 1)


def plain_reflected(x: Tensor, width_px: int) -> Tensor:
    """`reflected` under autocast, with the conversion that the convolution after it makes."""
    return F.pad(x, (width_px,) * 4, mode="reflect").to(x.dtype)


PLAIN = {
    "reflection pads under autocast": ("sbr_core.nn.generator.reflected", plain_reflected),
    "correlation as torch differentiates it": (
        "sbr_core.nn.registrar.correlation",
        plain_correlation,
    ),
}


def synthetic(shape: tuple[int, int], seed: int) -> tuple[Tensor, Tensor]:
    """(N, 1, H, W) smooth noise in [0, 1] within an ellipse of tissue, and the ellipse."""
    rng = torch.Generator().manual_seed(seed)
    noise = torch.rand(N_PAIRS, 1, shape[0] // 8, shape[1] // 8, generator=rng)
    image = nn.functional.interpolate(noise, size=shape, mode="bilinear")
    y, x = (torch.linspace(-1, 1, n) for n in shape)
    # an ellipse with half axes r times the image's has pi / 4 r^2 of its area
    mask = (y[:, None] ** 2 + x[None] ** 2 <= TISSUE_SHARE * 4 / torch.pi).float()
    masks = mask.expand(N_PAIRS, 1, *shape).clone()
    return image * masks, masks


def naive_losses(
    generator: Generator,
    projection: Projection,
    registrar: nn.Module,
    images: dict[str, Tensor],
    options: SbrOptions,
    rng: torch.Generator,
) -> Tensor:
    """Equation 7 with each network run whenever it is named; keys are not learned from."""
    chosen = torch.randint(N_PAIRS, (1,), generator=rng)
    (section, section_mask), (plane, plane_mask) = (
        augment.apply(
            images[name][chosen],
            images[f"{name}_mask"][chosen],
            augment.draw(1, options.augment, rng),
        )
        for name in ("section", "plane")
    )
    synthesised = generator(section) * section_mask
    velocity_half_px = registrar(plane, synthesised)
    disp_px = registrar.displacement(velocity_half_px, plane.shape[-2:])
    loss = l1(plane, warp(synthesised, disp_px), plane_mask)
    for query, key, tissue in (
        (synthesised, section, section_mask),
        (warp(section, disp_px), plane, plane_mask),
    ):
        described = []
        places = [
            draw_places(tissue, stride, options.n_samples, rng)
            for stride in generator.layer_strides
        ]
        for image in (query, key):
            features = generator.encode(image)
            described.append(
                projection([features_at(f, p) for f, p in zip(features, places, strict=True)])
            )
        loss = loss + options.contrastive_weight * naive_contrast(*described, options.temperature)
    return loss


def naive_contrast(queries: list[Tensor], keys: list[Tensor], temperature: float) -> Tensor:
    """Layer by layer, the cross-entropy of each query's own place."""
    layers = []
    for query, key in zip(queries, keys, strict=True):
        logits = query @ key.detach().transpose(1, 2) / temperature
        own_place = torch.arange(query.shape[1], device=query.device).expand(query.shape[:2])
        layers.append(F.cross_entropy(logits.flatten(0, 1), own_place.flatten()))
    return torch.stack(layers).mean()


def synthetic_pairs(shape: tuple[int, int], device: torch.device) -> dict[str, Tensor]:
    """Sections, planes and the tissue of each, in the order that `Pairs` takes them."""
    images = {}
    for seed, name in enumerate(("section", "plane")):
        image, mask = synthetic(shape, seed)
        images |= {name: image.to(device), f"{name}_mask": mask.to(device)}
    return images


def stepper(
    modules: tuple[nn.Module, ...],
    losses: Callable[[], Tensor],
    options: SbrOptions,
    device: torch.device,
) -> Step:
    """A function that makes a step like the training loop's; its seconds by clock and CPU."""
    parameters = [p for module in modules for p in module.parameters()]
    optimiser = torch.optim.Adam(
        parameters, lr=options.learning_rate, betas=(options.beta1, 0.999), fused=True
    )

    precision = pick_precision(options.precision, device)

    def step() -> tuple[float, float]:
        began = time.perf_counter(), time.process_time()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = losses()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, options.max_grad_norm)
        float(loss.detach())  # waits for the device
        optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began[0], time.process_time() - began[1]

    return step


def contestants(shape: tuple[int, int], network: str, device: torch.device) -> dict[str, Step]:
    """Name -> one step of it; every one has networks and random numbers of its own."""
    images = synthetic_pairs(shape, device)
    steppers = {}
    changed: dict[str, object] = {}
    for name, change in (("naive", {}), *DEPARTURES):
        changed |= change
        options = SbrOptions(**changed)
        torch.manual_seed(0)
        generator = Generator(options.generator_channels, options.residual_blocks).to(device)
        projection = Projection(generator.layer_channels, options.projection_channels).to(device)
        # naive means the paper's registrar; ours has the one that was asked for
        registrar = build_registrar("unet" if name == "naive" else network)
        registrar = registrar.to(device).requires_grad_(False).eval()
        rng = torch.Generator().manual_seed(0)
        if name == "naive":

            def losses(g=generator, p=projection, r=registrar, o=options, rng=rng) -> Tensor:
                return naive_losses(g, p, r, images, o, rng)

        else:
            task = SbrTask(registrar, Pairs(*images.values(), options=options), options)
            generator, projection = task.generator, task.projection

            def losses(task=task, rng=rng) -> Tensor:
                return task.losses(rng)["loss"]

        steppers[name] = stepper((generator, projection), losses, options, device)
    return steppers


def preset_task(
    preset: str, shape: tuple[int, int], network: str, device: torch.device
) -> tuple[SbrTask, SbrOptions]:
    """The task of a preset, after its warm-up, on synthetic pairs; the same whenever it is made."""
    options = resolve({"preset": preset}, PRESETS).train_sbr
    options = options.model_copy(update={"warmup_fraction": 0.0, "minutes": None})
    torch.manual_seed(0)
    registrar = build_registrar(network).to(device)
    images = synthetic_pairs(shape, device)
    return SbrTask(registrar, Pairs(*images.values(), options=options), options), options


def exchanged(
    preset: str, shape: tuple[int, int], network: str, device: torch.device
) -> dict[str, Step]:
    """Name -> one step of the preset, as it is and with one kernel at a time the plain one."""

    def one(patches: list[tuple[str, Callable]]) -> Step:
        task, options = preset_task(preset, shape, network, device)
        rng = torch.Generator().manual_seed(0)
        modules = (task.generator, task.projection)
        step = stepper(modules, lambda: task.losses(rng)["loss"], options, device)

        def patched() -> tuple[float, float]:
            with contextlib.ExitStack() as stack:
                for name, plain in patches:
                    stack.enter_context(mock.patch(name, plain))
                return step()

        return patched

    steps = {"as it is": one([]), "all of them": one(list(PLAIN.values()))}
    return steps | {name: one([patch]) for name, patch in PLAIN.items()}


def kernel_table(preset: str, shape: tuple[int, int], network: str, repeats: int) -> None:
    """Least CPU seconds of each kernel of our own, both ways, on all that a step gives it."""
    precision = pick_precision(resolve({"preset": preset}, PRESETS).train_sbr.precision, CPU)
    print("\n| kernel | calls a step | CPU ms, plain | own | times |\n" + "|---" * 5 + "|")
    for name, (path, plain) in PLAIN.items():
        own = pkgutil.resolve_name(path)
        calls: list[tuple[Tensor, ...]] = []

        def noted(*given, own=own, calls=calls):
            calls.append(given)
            return own(*given)

        task, _ = preset_task(preset, shape, network, CPU)
        bfloat16 = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
        with mock.patch(path, noted), bfloat16:
            task.losses(torch.Generator().manual_seed(0))
            ms = [
                1e3 * sum(least_seconds(function, given, repeats) for given in calls)
                for function in (plain, own)
            ]
        print(f"| {name} | {len(calls)} | {ms[0]:.1f} | {ms[1]:.1f} | {ms[0] / ms[1]:.2f} |")


def least_seconds(function: Callable[..., Tensor], given: tuple, repeats: int) -> float:
    """CPU seconds of a call and, where one of its tensors wants a gradient, of its way back."""
    wants = any(isinstance(t, Tensor) and t.requires_grad for t in given)
    least = float("inf")
    for _ in range(repeats):
        fresh = [
            t.detach().requires_grad_(t.requires_grad) if isinstance(t, Tensor) else t
            for t in given
        ]
        with torch.set_grad_enabled(wants):
            began = time.process_time()
            out = function(*fresh)
            took = time.process_time() - began
        if wants:
            gradient = torch.ones_like(out)
            with torch.autocast("cpu", enabled=False):
                began = time.process_time()
                out.backward(gradient)
                took += time.process_time() - began
        least = min(least, took)
    return least


def print_losses(
    preset: str, shape: tuple[int, int], network: str, device: torch.device, steps: int
) -> None:
    """What the loop writes down of its first steps."""
    task, options = preset_task(preset, shape, network, device)
    options = options.model_copy(update={"steps": steps})
    with tempfile.TemporaryDirectory() as folder, open_checkpoints(Path(folder), "it") as kept:
        rows = train(task, options, kept, device)
        kept.clear()
    for row in rows:
        print(*(f"{name} {value!r}" for name, value in row.items() if name != "seconds"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--size", nargs=2, type=int, default=(448, 320), metavar=("ROWS", "COLS"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--network",
        default=RegistrarNetwork().network,
        help="registrar of our step: unet (as in the naive step) or pyramid",
    )
    parser.add_argument("--preset", help="compare the step of this preset with itself")
    parser.add_argument("--losses", type=int, metavar="N", help="print N steps' losses, no times")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    shape, network, device = tuple(arguments.size), arguments.network, arguments.device
    if arguments.losses:
        print_losses(arguments.preset or "paper", shape, network, device, arguments.losses)
        return
    if arguments.preset:
        steppers = exchanged(arguments.preset, shape, network, device)
    else:
        steppers = contestants(shape, network, device)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in steppers}
    for repeat in range(arguments.repeats + 1):
        for name, step in steppers.items():
            took = step()
            if repeat:  # the first warms up
                seconds[name].append(took)
    rows, columns = arguments.size
    print(heading(f"Training step at {rows}x{columns}", arguments.device))
    print(f"Our registrar: {arguments.network}; {arguments.repeats} steps each, in turns.\n")
    first = next(iter(steppers))
    print(f"| step | s | CPU s | iterations/s | times {first} | by CPU s |\n" + "|---" * 6 + "|")
    found = {}
    for name, took in seconds.items():
        by_clock, by_cpu = zip(*took, strict=True)
        found[name] = statistics.median(by_clock), min(by_cpu)
    clock, cpu = found[first]
    for name, (s, cpu_s) in found.items():
        print(
            f"| {name} | {s:.3f} | {cpu_s:.3f} | {1 / s:.2f}"
            f" | {clock / s:.2f} | {cpu / cpu_s:.2f} |"
        )
    if arguments.preset and device.type == "cpu":
        kernel_table(arguments.preset, shape, network, 4 * arguments.repeats)


if __name__ == "__main__":
    main()
