"""What a step of every training asks of a graphics card, counted without one.

    python benchmarks/card_counts.py [NAME ...] [--waits]

On a card that only pretends to be there (`tests/pretend_card.py`): how often the processor waits
for it, and how many kernels are started at least. Every training is run too, stopped and taken up
again, in both precisions, so that what CUDA would refuse is found. Small images; widths of the
presets where a preset is named. A failure ends it with 1. It says nothing about seconds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from card_trainings import (
    Maker,
    count_a_step,
    method_training,
    predict_and_refine,
    registrar_training,
    shapes_training,
    train_and_resume,
)
from machine import heading
from pretend_card import Card, card

from sbr_core.methods import TRAINED_METHODS

_OTHER_WAY = {
    "warmup_fraction": 0.6,
    "warmup_start": "section",
    "registrar_gradient": False,
    "registrar_start": "shared",
}


def trainings() -> dict[str, Maker]:
    """Every training, by a name that begins with its method."""
    made: dict[str, Maker] = {}
    for method in TRAINED_METHODS:
        for preset in ("paper", "cpu"):
            made[f"{method} {preset}"] = method_training(method, preset)
        for precision in ("float32", "bfloat16"):
            made[f"{method} small {precision}"] = method_training(method, precision=precision)
        made[f"{method} small, other options"] = method_training(method, **_OTHER_WAY)
    for preset in ("paper", "cpu"):
        made[f"registrar {preset}"] = registrar_training(preset)
    for precision in ("float32", "bfloat16"):
        made[f"registrar small {precision}"] = registrar_training(precision=precision)
        made[f"shapes small {precision}"] = shapes_training(precision=precision)
    made["registrar small pyramid"] = registrar_training(network="pyramid")
    return made


def counted(what: Callable[[Card], tuple[int, int]]) -> tuple[tuple[int, int], dict[str, int]]:
    """What a function counts on a card of its own, and the waits by line."""
    with card() as seen:
        found = what(seen)
    return found, dict(seen.syncs.most_common())


def resumed(make: Maker) -> None:
    """Run a training on a card, stop it and take it up again."""
    with card() as seen, tempfile.TemporaryDirectory() as folder:
        train_and_resume(make, Path(folder))
    if set(seen.autocasts) - {"cuda"}:
        raise AssertionError(f"autocast of another device: {dict(seen.autocasts)}")


def predicted(preset: str, refine_steps: int) -> Callable[[Card], tuple[int, int]]:
    """A function that counts a prediction of four sections."""

    def count(seen: Card) -> tuple[int, int]:
        predict_and_refine(preset, refine_steps=refine_steps)
        return seen.syncs.total(), seen.launches.total()

    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="trainings whose name begins so; all by default")
    parser.add_argument("--waits", action="store_true", help="list the lines that wait")
    arguments = parser.parse_args()

    def wanted(name: str) -> bool:
        return not arguments.names or any(name.startswith(word) for word in arguments.names)

    chosen = {name: make for name, make in trainings().items() if wanted(name)}
    print(heading("What a step asks of a graphics card, counted"))
    print("| training | waits per step | launches per step |\n|---|---|---|")
    failed, waits = [], {}
    for name, make in chosen.items():
        try:
            found, waits[name] = counted(partial(count_a_step, make))
            if "small" in name:
                resumed(make)
        except Exception:
            traceback.print_exc()
            failed.append(name)
            continue
        print(f"| {name} | {found[0]} | {found[1]} |", flush=True)
    for preset in ("paper", "cpu"):
        for steps in (0, 20):
            name = f"prediction of four sections, {preset}, {steps} refinement steps a level"
            if not wanted(name):
                continue
            (syncs, launches), waits[name] = counted(predicted(preset, steps))
            print(f"| {name} | {syncs} | {launches} |")
    if arguments.waits:
        for name, lines in waits.items():
            print(f"\n{name}:\n")
            for line, times in lines.items():
                print(f"- {times} x {line}")
    if failed:
        print(f"\nFailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
