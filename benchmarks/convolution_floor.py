"""The share of an SbR step that its convolutions take by themselves, forwards and backwards.

    OMP_NUM_THREADS=1 python benchmarks/convolution_floor.py --preset cpu --size 256 192

Every other millisecond is ours, or torch's: norms, padding, warps, losses, the optimiser. Both are
of one profiled run, so that what else the processor does cancels out. The time of a convolution is
that of the library's kernel, with the conversions of layout inside it.
"""

from __future__ import annotations

import argparse

import torch
from on_card import WARM_UP, sbr_task, trained
from torch.profiler import ProfilerActivity, profile

STEPS = 6
CONVOLUTIONS = ("aten::mkldnn_convolution", "aten::convolution_backward", "aten::_convolution")


def main() -> None:
    """Print a line for each precision."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--preset", default="cpu", choices=("cpu", "paper"))
    parser.add_argument(
        "--size", type=int, nargs=2, default=(256, 192), metavar=("ROWS", "COLUMNS")
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cpu")
    for precision in ("float32", "bfloat16"):
        size = tuple(arguments.size)
        task = sbr_task(arguments.preset, size, device, steps=WARM_UP + STEPS, precision=precision)
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            trained(task, device)
        events = seen.key_averages()
        total = sum(event.self_cpu_time_total for event in events)
        floor = sum(e.self_cpu_time_total for e in events if e.key in CONVOLUTIONS)
        print(f"{precision}: {floor / total:.0%} of {total / 1e6 / (WARM_UP + STEPS):.2f} s a step")


if __name__ == "__main__":
    main()
