"""Figures from arrays and tables; matplotlib is imported when a figure is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def loss_curve(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw every loss of a training against its step, one panel each.

    Parameters
    ----------
    rows : one per step: ``step``, ``learning_rate`` and the losses.
    path : picture to write; its suffix decides the format.
    """
    import numpy as np
    from matplotlib.figure import Figure

    names = [name for name in (rows[0] if rows else {}) if name not in ("step", "learning_rate")]
    figure = Figure(figsize=(3.2 * max(len(names), 1), 2.6), layout="constrained")
    for column, name in enumerate(names, 1):
        axes = figure.add_subplot(1, len(names), column)
        steps = np.array([row["step"] for row in rows], float)
        values = np.array([row[name] for row in rows], float)
        axes.plot(steps, values, color="0.8", linewidth=0.5)
        window = max(1, len(values) // 40)  # the trend under the noise of single batches
        means = np.convolve(values, np.full(window, 1 / window), mode="valid")
        axes.plot(steps[window - 1 :], means, color="C0", linewidth=1.2)
        axes.set(title=name, xlabel="step")
    figure.savefig(path, dpi=110)
