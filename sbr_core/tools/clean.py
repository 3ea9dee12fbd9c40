"""`sbr clean`: what may go of finished results, and how much that frees."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from sbr_core.artifacts.brain_folders import brains_in
from sbr_core.errors import ConfigError
from sbr_core.io.files import remove_tree
from sbr_core.io.manifests import read_brains
from sbr_core.planning.cleaning import KINDS, Kind, Removable, of_no_sheet, refuse_while_running
from sbr_core.planning.progress import in_words, size

logger = logging.getLogger(__name__)

_NAMED = 3
"""Paths that a line names."""


def run(
    options: None,
    results: Path,
    kinds: Sequence[str] | None = None,
    *,
    sheet: Path | None = None,
    yes: bool = False,
) -> None:
    """Say what may go of finished results and how much that frees; remove it with --yes.

    Without names only what no later run computes again: checkpoints (of finished trainings),
    leftovers (of killed processes), chunks (receipts, plans, logs and times of a split that is no
    more), sections (files that no table lists). Only by name: unfinished (checkpoints of trainings
    that did not end), logs, methods (that a brain's tables do not show), brains (that --sheet does
    not name). What is listed of those says what a later run would compute again.

    Parameters
    ----------
    results : folder of all results.
    kinds : what to look for (default: all that is safe to remove).
    sheet : the sheet of brains, for brains.
    yes : remove it.

    Raises
    ------
    ConfigError
        A kind that there is not, or brains without a sheet.
    ReceiptError
        No results of a brain there.
    StorageError
        A run is going on.
    """
    asked = _asked(results, kinds, sheet)
    brains = brains_in(results)
    if brains.keys() == {results.resolve().name}:
        raise ConfigError(f"{results}: is the folder of one brain, expected that of all results")
    refuse_while_running(results)
    freed = 0
    for name, kind in asked.items():
        found = list(kind.find(results, brains))
        freed += sum(item.n_bytes for item in found)
        logger.info(_line(name, kind, found))
        for item in found if yes else ():
            remove_tree(item.path)
    logger.info(f"clean: {size(freed)} {'freed' if yes else 'can be freed: --yes removes it'}")
    if not kinds:
        for name, kind in KINDS.items():
            if kind.again and (found := list(kind.find(results, brains))):
                logger.info(f"{_line(name, kind, found)} (only by name: sbr clean … {name})")


def _asked(results: Path, kinds: Sequence[str] | None, sheet: Path | None) -> dict[str, Kind]:
    if not kinds:
        return {name: kind for name, kind in KINDS.items() if not kind.again}
    asked = {}
    for name in kinds:
        if name == "brains":
            if sheet is None:
                raise ConfigError(
                    "clean: brains: expected --sheet, the sheet of the brains to keep"
                )
            asked[name] = of_no_sheet(read_brains(sheet))
        elif name in KINDS:
            asked[name] = KINDS[name]
        else:
            known = ", ".join([*KINDS, "brains"])
            raise ConfigError(f"clean: unknown kind {name!r} (known: {known})")
    return asked


def _line(name: str, kind: Kind, found: Sequence[Removable]) -> str:
    """What is found of a kind, in a line."""
    if not found:
        return f"clean: {name}: none ({kind.words})"
    largest = sorted(found, key=lambda item: -item.n_bytes)[:_NAMED]
    paths = ", ".join(str(item.path) for item in largest)
    paths += f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    line = f"clean: {name}: {size(sum(item.n_bytes for item in found))}, {kind.words}: {paths}"
    if kind.again:
        again_s = sum(item.again_s for item in found)
        took = f", which took {in_words(again_s)}" if again_s else ""
        line += f"; computed again without it: {kind.again}{took}"
    return line
