"""Host memory of trainings on many sections, and the first steps of one larger than memory.

    python benchmarks/large_stack.py memory [--size 720 560] [--sections 25 50 100]
    python benchmarks/large_stack.py steps [--size 1800 1440] [--sections 7404] [--preset cpu]
    python benchmarks/large_stack.py read FOLDER [--size 1800 1440] [--sections 40]

`memory` fills a stack of made-up sections, gives it to the pairs of a training and draws some, each
number of sections in a process of its own: once in memory, once in a file. Its table has the most
memory that the process had, less what it had before the stack was made; the line through the
largest and the smallest number is the law.

`steps` trains on a made-up brain whose sections are generated as they are read, so that no disk
has to have room for it: everything but the file itself is what a training on a file does. `read`
measures that file, by drawing from a stack that was written to FOLDER.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import heading

from sbr_core.artifacts.networks import PADDING_MULTIPLE
from sbr_core.config import SbrOptions, resolve
from sbr_core.nn.registrar import build_registrar, registrar_architecture
from sbr_core.training.pairs import FiledPairs, pairs_of
from sbr_core.training.sbr import SbrTask
from sbr_core.training.stacks import Layout, Place, Planes, Stack

PRESETS = Path(__file__).resolve().parents[1] / "sbr_core" / "config" / "presets"
CPU = torch.device("cpu")
PLENTY = 10**15


def section(index: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A made-up section that its number decides, in [0, 1], and its mask: 45 % are tissue."""
    rng = np.random.default_rng(index)
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    mask = (y[:, None] ** 2 + x**2) < 0.57 * (1 + 0.05 * np.sin(index))
    waves = rng.uniform(4, 40, 4).astype(np.float32)
    image = 0.5 + 0.25 * np.sin(waves[0] * y + waves[1])[:, None] * np.cos(waves[2] * x + waves[3])
    return image * mask, mask


class Generated(Planes):
    """Planes that nobody has put anywhere: each is made when it is read."""

    def __init__(self, n: int, layout: Layout, dtype: type, part: int) -> None:
        self.layout, self.dtype, self.part = layout, np.dtype(dtype), part
        self.shape, self.array, self.folder = (n, 2, *layout.padded), None, None

    def of(self, index: int) -> np.ndarray:
        """As of `Planes`."""
        images = np.zeros(self.shape[1:], self.dtype)
        for group in (0, 1):
            images[group][self.layout.inside] = section(2 * index + group, self.layout.shape)[
                self.part
            ]
        return images


def rss_mb(*, most: bool = False) -> float:
    """Memory of this process, now or at most."""
    if most:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def filled(n: int, layout: Layout, place: Place) -> Stack:
    """A stack of made-up sections and planes."""
    stack = Stack.empty(n, 2, layout, place)
    for index in range(n):
        for group in (0, 1):
            stack.put(index, group, *section(2 * index + group, layout.shape))
    return stack


def most_memory(n: int, layout: Layout, folder: str | None) -> float:
    """MB more than at the start, with a stack of `n` sections and some draws of it."""
    before = rss_mb()
    place = Place(Path(folder or "."), 0 if folder else PLENTY)
    stack = filled(n, layout, place)
    pairs = pairs_of(stack, None, options=SbrOptions(), n_classes=0, device=CPU)
    del stack
    rng = torch.Generator().manual_seed(0)
    for _ in range(3):
        pairs.draw(rng)
    return rss_mb(most=True) - before


def memory(arguments: argparse.Namespace) -> None:
    """Table of memory by the number of sections."""
    print(heading("Host memory of the images of a training"))
    print("| sections | MB, in memory | MB, in a file |\n|---|---|---|")
    found = []
    for n in arguments.sections:
        row = []
        for where in ("memory", "file"):
            with tempfile.TemporaryDirectory() as folder:
                words = [sys.executable, __file__, "one", "--sections", str(n), "--size"]
                words += [*map(str, arguments.size)] + (["--folder", folder] * (where == "file"))
                out = subprocess.run(words, check=True, capture_output=True, text=True)
            row.append(float(out.stdout))
        found.append(row)
        print(f"| {n} | {row[0]:.0f} | {row[1]:.0f} |", flush=True)
    pixels = np.prod(Layout(tuple(arguments.size), PADDING_MULTIPLE).padded)
    more = arguments.sections[-1] - arguments.sections[0]
    for at, where in enumerate(("In memory", "In a file")):
        slope = (found[-1][at] - found[0][at]) / more
        print(
            f"\n{where}: {slope:.3g} MB for each section, {slope * 2**20 / pixels:.3g} bytes a px"
        )


def steps(arguments: argparse.Namespace) -> None:
    """The first steps on a brain that no memory has room for."""
    print(heading("First steps on a stack larger than memory"))
    (n,), layout = arguments.sections, Layout(tuple(arguments.size), PADDING_MULTIPLE)
    config = resolve({"preset": arguments.preset}, PRESETS)
    options = config.train_sbr.model_copy(update={"warmup_fraction": 0.0})
    architecture = registrar_architecture(config.train_registrar)
    stack = Stack(Generated(n, layout, np.float32, 0), Generated(n, layout, np.uint8, 1))
    pairs = FiledPairs(stack, None, options=options, n_classes=0, device=CPU)
    task = SbrTask(build_registrar(**architecture), pairs, options)
    parameters = [p for module in task.modules.values() for p in module.parameters()]
    optimiser, rng = torch.optim.Adam(parameters, lr=1e-4, fused=True), torch.Generator()
    rng.manual_seed(0)
    print(
        "| step | s | waited for its section, s | loss | most memory, MB |\n|---|---|---|---|---|"
    )
    for step in range(arguments.steps):
        began, waited = time.monotonic(), 0.0
        take = pairs.reader.take

        def timed(indices: list[int], take=take) -> list[torch.Tensor]:
            nonlocal waited
            since = time.monotonic()
            read = take(indices)
            waited += time.monotonic() - since
            return read

        pairs.reader.take = timed
        losses = task.losses(rng)
        pairs.reader.take = take
        pairs.read_ahead(rng)
        optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        optimiser.step()
        seconds, loss = time.monotonic() - began, float(losses["loss"].detach())
        most = rss_mb(most=True)
        print(
            f"| {step + 1} | {seconds:.1f} | {waited:.2f} | {loss:.3f} | {most:.0f} |", flush=True
        )
    whole = n * int(np.prod(layout.padded)) * 10 / 1e9
    print(f"\n{n} sections and planes of {layout.padded} px: a file of {whole:.0f} GB")


def read(arguments: argparse.Namespace) -> None:
    """Seconds that a pair of a file takes to be read and made ready."""
    print(heading("Pairs from a file"))
    (n,), layout = arguments.sections, Layout(tuple(arguments.size), PADDING_MULTIPLE)
    stack = filled(n, layout, Place(arguments.folder, 0))
    pairs = pairs_of(stack, None, options=SbrOptions(), n_classes=0, device=CPU)
    seconds = []
    for index in torch.randperm(n).tolist():
        began = time.process_time()
        pairs.reader.read(index)
        seconds.append(time.process_time() - began)
    print(f"{np.median(seconds):.3f} CPU s a pair of {layout.padded} px, median of {n}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("memory", "steps", "read", "one"))
    parser.add_argument("folder", nargs="?", type=Path, default=Path())
    parser.add_argument("--folder", dest="where", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, nargs=2, help="rows and columns, px")
    parser.add_argument("--sections", type=int, nargs="+")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--preset", default="cpu")
    arguments = parser.parse_args()
    size, sections = {
        "memory": ([720, 560], [25, 50, 100]),
        "steps": ([1800, 1440], [7404]),
        "read": ([1800, 1440], [40]),
        "one": ([720, 560], [25]),
    }[arguments.what]
    arguments.size = arguments.size or size
    arguments.sections = arguments.sections or sections
    if arguments.what == "one":
        layout = Layout(tuple(arguments.size), PADDING_MULTIPLE)
        print(most_memory(arguments.sections[0], layout, arguments.where))
        return
    {"memory": memory, "steps": steps, "read": read}[arguments.what](arguments)


if __name__ == "__main__":
    main()
