"""Which folders of results are brains, and which of them a user means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sbr_core.errors import ReceiptError

_OF_A_BRAIN = ("plan", "prepare", "check", "report")
"""Folders of which every brain that was begun has one."""


def brains_in(results: Path, asked: Sequence[str] = ()) -> dict[str, Path]:
    """Name of each brain -> its folder, sorted by name.

    Parameters
    ----------
    results : folder of all results, or of one brain.
    asked : names of brains; none: all there are.

    Raises
    ------
    ReceiptError
        No such folder, no results of a brain in it, or none of one that is asked for.
    """
    if not results.is_dir():
        raise ReceiptError(f"{results}: no such folder")
    if _is_brain(results):
        found = {results.resolve().name: results}
    else:
        found = {path.name: path for path in sorted(results.iterdir()) if _is_brain(path)}
    if not found:
        raise ReceiptError(f"{results}: no results of a brain there; run the workflow first")
    for name in asked:
        if name not in found:
            known = ", ".join(found)
            raise ReceiptError(f"{results}: no results of brain {name!r} (there are: {known})")
    return {name: found[name] for name in asked} if asked else found


def _is_brain(path: Path) -> bool:
    """Whether a folder contains what the workflow writes of a brain; links are none of it."""
    if path.is_symlink() or path.name.startswith(".") or not path.is_dir():
        return False
    return any((path / name).is_dir() for name in _OF_A_BRAIN)
