"""Edited copies of a manifest, which is the user's and is never written to."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sbr_core.errors import ConfigError, ManifestError
from sbr_core.io.manifests import (
    PATH_COLUMNS,
    check_manifest_columns,
    is_excluded,
    parse_section,
)
from sbr_core.io.tables import read_tsv, write_tsv


class ManifestCopy:
    """The cells of a manifest, to be edited and written elsewhere.

    Attributes
    ----------
    rows : as they are written, in their order.
    """

    def __init__(self, manifest: Path, out: Path | None) -> None:
        """Read a manifest.

        Parameters
        ----------
        out : where the copy goes; None where nothing is written.

        Raises
        ------
        ConfigError
            `out` is the manifest.
        """
        if out is not None and out.resolve() == manifest.resolve():
            raise ConfigError(f"-o: {out} is the manifest itself, expected another file")
        self.manifest, self.out = manifest, out
        self.header, self.rows = read_tsv(manifest)
        check_manifest_columns(manifest, self.header)
        self._row_of = {row.get("section", ""): row for row in self.rows}

    def __contains__(self, section: str) -> bool:
        return section in self._row_of

    def cell(self, section: str, column: str) -> str:
        """What stands there; empty where the manifest has no such column."""
        return self._row_of[section].get(column, "")

    def edit(
        self, section: str, cells: Mapping[str, tuple[str, str]], by: str, note: str = ""
    ) -> list[str]:
        """Change cells of a section, and say so in its `notes`.

        Parameters
        ----------
        cells : column -> (value, what `notes` adds to the change in brackets, or nothing).
        by : who changed it.
        note : of the user's own, for `notes`; one that stands there is not added again.

        Returns
        -------
        The changes in words; none where all cells were so before.
        """
        row, changes = self._row_of[section], []
        for column, (value, why) in cells.items():
            before = row.get(column, "")
            if value != before:
                row[column] = value
                because = f" ({why})" if why else ""
                changes.append(f"{column} {before or 'empty'} -> {value}{because}")
        notes = [row.get("notes", "")]
        if changes:
            notes.append(f"{by}: {', '.join(changes)}")
        if note and note not in notes[0]:
            notes.append(note)
        if len(notes) > 1:
            row["notes"] = "; ".join(filter(None, notes))
        return changes

    def before_last_edit(self, section: str, by: str, columns: Sequence[str]) -> dict[str, str]:
        """What some cells held before `edit` last changed one of them, by the section's `notes`.

        Returns
        -------
        column -> its cell of then, those that were not changed as they are; empty where the notes
        tell of no such change.
        """
        for note in reversed(self.cell(section, "notes").split("; ")):
            if note.startswith(f"{by}: "):
                changes = dict(re.findall(r"(\w+) (\S+) -> ", note))
                if any(column in changes for column in columns):
                    now = {column: self.cell(section, column) for column in columns}
                    found = {column: changes.get(column, cell) for column, cell in now.items()}
                    return {c: "" if cell == "empty" else cell for c, cell in found.items()}
        return {}

    def check(self, where: str, hint: str = "") -> None:
        """Refuse a copy that the workflow would refuse.

        Parameters
        ----------
        where : names the edits.
        hint : what two sections at one place are told.
        """
        at: dict[float, str] = {}
        for row in self.rows:
            section = parse_section(row, where, None)
            if is_excluded(row, f"{where}: section {section.section!r}"):
                continue
            if section.position_mm in at:
                raise ManifestError(
                    f"{where}, sections {at[section.position_mm]!r} and {section.section!r} come"
                    f" to the same position_mm {section.position_mm:g}{hint}"
                )
            at[section.position_mm] = section.section
        if not at:
            raise ManifestError(f"{where}, no section is left that is not excluded")

    def write(self) -> None:
        """Write the copy; in another folder, relative paths are written anew."""
        here, there = self.manifest.parent.resolve(), self.out.parent.resolve()
        if here != there:
            for row in self.rows:
                for column in PATH_COLUMNS:
                    if row.get(column) and not os.path.isabs(row[column]):
                        row[column] = os.path.relpath(here / row[column], there)
        write_tsv(self.out, self.rows, self.header)
