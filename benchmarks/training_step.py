"""Iterations per second of the SbR training step against the naive step, side by side.

    python benchmarks/training_step.py [--device cuda] [--size 448 320] [--threads 2] [--repeats 5]

The naive step is written here as one would write the method down: whole images, batch 1, float32,
every pass separately and with a graph, gradient through the registrar. The package's step starts
from the same networks and data; each row after the first changes one more option. Images are
synthetic, with an ellipse of tissue that covers 45 % of them. The contestants take turns, step by
step, so that whatever else runs on the machine slows all of them; the CPU seconds of the process do
not count it at all.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from machine import heading
from torch import Tensor, nn

from sbr_core.config import RegistrarNetwork, SbrOptions
from sbr_core.functional.losses import l1, patch_nce
from sbr_core.functional.warp import warp
from sbr_core.nn.generator import Generator
from sbr_core.nn.projection import Projection
from sbr_core.nn.registrar import build_registrar
from sbr_core.training import augment
from sbr_core.training.loop import pick_precision
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
        loss = loss + options.contrastive_weight * patch_nce(*described, options.temperature)
    return loss


def stepper(
    modules: tuple[nn.Module, ...],
    losses: Callable[[], Tensor],
    options: SbrOptions,
    device: torch.device,
) -> Callable[[], tuple[float, float]]:
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


def contestants(
    shape: tuple[int, int], network: str, device: torch.device
) -> dict[str, Callable[[], tuple[float, float]]]:
    """Name -> one step of it; every one has networks and random numbers of its own."""
    images = {}
    for seed, name in enumerate(("section", "plane")):
        image, mask = synthetic(shape, seed)
        images |= {name: image.to(device), f"{name}_mask": mask.to(device)}
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
            pairs = Pairs(
                images["section"],
                images["section_mask"],
                images["plane"],
                images["plane_mask"],
                options=options,
            )
            task = SbrTask(registrar, pairs, options)
            generator, projection = task.generator, task.projection

            def losses(task=task, rng=rng) -> Tensor:
                return task.losses(rng)["loss"]

        steppers[name] = stepper((generator, projection), losses, options, device)
    return steppers


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
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    steppers = contestants(tuple(arguments.size), arguments.network, arguments.device)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in steppers}
    for repeat in range(arguments.repeats + 1):
        for name, step in steppers.items():
            took = step()
            if repeat:  # the first warms up
                seconds[name].append(took)
    rows, columns = arguments.size
    print(heading(f"Training step at {rows}x{columns}", arguments.device))
    print(f"Our registrar: {arguments.network}; {arguments.repeats} steps each, in turns.\n")
    print("| step | s | CPU s | iterations/s | times naive | by CPU s |\n" + "|---" * 6 + "|")
    medians = {
        name: [statistics.median(one) for one in zip(*took, strict=True)]
        for name, took in seconds.items()
    }
    clock, cpu = medians["naive"]
    for name, (s, cpu_s) in medians.items():
        print(
            f"| {name} | {s:.3f} | {cpu_s:.3f} | {1 / s:.2f}"
            f" | {clock / s:.1f} | {cpu / cpu_s:.1f} |"
        )


if __name__ == "__main__":
    main()
