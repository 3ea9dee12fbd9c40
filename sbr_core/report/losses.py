"""The losses of a training, as table and picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sbr_core.io.files import atomic_path
from sbr_core.io.tables import write_tsv
from sbr_core.report import pictures


def write_losses(history: Sequence[Mapping[str, Any]], out_dir: Path) -> None:
    """``loss.tsv`` and ``loss.png`` of a training: one row per step, and their curves."""
    write_tsv(out_dir / "loss.tsv", history, ("step", "loss"))
    with atomic_path(out_dir / "loss.png") as temporary:
        pictures.loss_curve(history, temporary)
