"""The losses of a training, as table and picture; matplotlib is imported when they are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbr_core.artifacts.names import LOSS_PLOT, LOSSES
from sbr_core.io.files import atomic_path
from sbr_core.io.tables import write_tsv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 110
"""Dots an inch of the picture: the page shows it as it is, with letters a little larger than its
own."""
_WINDOWS = 40
"""A training is smoothed over this share of its steps: the noise of single batches goes, and what
takes longer than a fortieth of the training stays."""


def write_losses(history: Sequence[Mapping[str, Any]], out_dir: Path) -> None:
    """``loss.tsv`` and ``loss.png`` of a training: one row per step, and their curves."""
    write_tsv(out_dir / LOSSES, history, ("step", "loss"), facts={})
    with atomic_path(out_dir / LOSS_PLOT) as temporary:
        loss_curves(history).savefig(temporary, dpi=_DPI)


def loss_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Every loss of a training against its step, one panel each: grey as it is, blue smoothed.

    Parameters
    ----------
    history : one row per step: ``step``, ``learning_rate``, ``seconds`` and the losses.
    """
    from matplotlib.figure import Figure

    no_losses = ("step", "learning_rate", "seconds")
    names = [name for name in (history[0] if history else {}) if name not in no_losses]
    figure = Figure(figsize=(3.2 * max(len(names), 1), 2.6), layout="constrained")
    steps = np.array([row["step"] for row in history], float)
    for column, name in enumerate(names, 1):
        axes = figure.add_subplot(1, len(names), column)
        values = np.array([row[name] for row in history], float)
        axes.plot(steps, values, color="0.8", linewidth=0.5)
        window = max(1, len(values) // _WINDOWS)
        means = np.convolve(values, np.full(window, 1 / window), mode="valid")
        axes.plot(steps[window - 1 :], means, color="C0", linewidth=1.2)
        axes.set(title=name, xlabel="step")
    return figure
