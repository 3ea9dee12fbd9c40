"""`sbr correct`: what a user put right on the report's page, to a manifest and a table."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from sbr_core.artifacts import names
from sbr_core.artifacts.rows import Plane, Prepared, Row, read_rows
from sbr_core.errors import ConfigError, ManifestError
from sbr_core.geometry import FLIPS, apply, turned_further, upright_from_file
from sbr_core.io.correction_pages import PagePair, PageSection, read_correction_page
from sbr_core.io.corrections import (
    Correction,
    merged,
    read_corrections,
    write_corrections,
)
from sbr_core.io.manifest_edits import ManifestCopy
from sbr_core.io.manifests import Landmark
from sbr_core.io.transforms import read_stack_from_world

logger = logging.getLogger(__name__)

_Turn = tuple[str, float]
"""`flip` and `rotate_deg`, as the manifest has them."""
_BY = "corrected"
"""Begins what the notes of a manifest say of a correction."""
_SAME_TURN = 1e-3
"""Largest difference of the cosines and sines of one turn, as tables have it."""


def run(
    options: None,
    corrections: Path,
    *,
    manifest: Path,
    results: Path,
    out: Annotated[Path | None, "-o"] = None,
    out_corrections: Path | None = None,
) -> None:
    """Show the corrections that a report saved, and write them into a manifest and a table.

    Flips, turns and exclusions go into a copy of the manifest; verdicts, landmarks for the
    registration to obey and notes into the table that the sheet's column `corrections` names.
    Without --out and --out-corrections nothing is written.

    Parameters
    ----------
    corrections : corrections.json saved by the page of a report.
    manifest : the manifest that the brain was made with; it stays as it is.
    results : folder of the brain's results, results/BRAIN.
    out : manifest to write; in another folder, relative paths are written anew.
    out_corrections : table of corrections to write; of one that is there, what is not said anew
        stays.

    Raises
    ------
    ManifestError
        A file that is none of a report, or of another state of the brain: another section, a
        picture that has changed since; or corrections that no section can have.
    ConfigError
        `out` is the manifest, an output is missing, or the results are of another brain.
    """
    page = read_correction_page(corrections)
    if results.resolve().name != page.brain:
        raise ConfigError(
            f"--results: {results}: {corrections} is of brain {page.brain!r}: expected its folder"
            f" of results, …/{page.brain}"
        )
    copy = ManifestCopy(manifest, out)
    shown = _Shown.of(results, corrections, manifest)
    later: list[Correction] = []
    n_edited = 0
    for section, said in page.sections.items():
        if section not in copy:
            raise ManifestError(f"{corrections}: section {section!r}: {manifest} has none")
        cells = _cells(copy, section, said, shown)
        changes = copy.edit(section, cells, _BY, said.note)
        n_edited += bool(changes)
        correction = Correction(
            section,
            "" if said.verdict in (None, "exclude") else said.verdict,
            None if said.landmarks is None else shown.landmarks(section, said),
            said.note,
        )
        later.append(correction)
        for words in changes + _words(correction):
            logger.info(f"correct: section {section}: {words}")
    copy.check(f"{corrections}: with its corrections")
    table = [each for each in later if each != Correction(each.section)]
    if out is None and out_corrections is None:
        logger.info("correct: nothing was written; -o and --out-corrections say where to")
        return
    if n_edited and out is None:
        raise ConfigError(f"-o: {n_edited} sections are edited in the manifest: where to?")
    if table and out_corrections is None:
        raise ConfigError(f"--out-corrections: {len(table)} sections have some: where to?")
    if out_corrections is not None:
        _write_table(out_corrections, table, copy, prealigned=shown.prealigned)
    if out is not None:
        copy.write()
    logger.info(
        f"correct: {n_edited} of {len(copy.rows)} sections edited in the manifest, {len(table)} in"
        " the table: name both in the sheet of brains, in its columns sections and corrections"
        " (add the column corrections where it has none), and run snakemake"
    )


def _write_table(
    path: Path, later: list[Correction], copy: ManifestCopy, *, prealigned: bool
) -> None:
    """Write the table, over what it said before where it is there."""
    before = {}
    if path.is_file():
        sections = {row["section"] for row in copy.rows}
        before = read_corrections(path, sections, prealigned=prealigned)
    both = merged(before, later)
    for each in later:
        old = before.get(each.section)
        if old is None:
            continue
        for kind in ("verdict", "landmarks", "note"):
            was, now = getattr(old, kind), getattr(both[each.section], kind)
            if was and was != now:
                logger.info(f"correct: section {each.section}: {kind} of {path} gives way")
    write_corrections(path, both.values(), prealigned=prealigned)


def _words(correction: Correction) -> list[str]:
    """What the table will say of a section, as a user would."""
    words = []
    if correction.verdict == "accept":
        words.append("accepted: looked at and found good")
    elif correction.verdict == "reject":
        words.append("rejected: kept out of volumes")
    if correction.landmarks is not None:
        n = len(correction.landmarks)
        words.append(f"{n} landmarks for the registration to obey" if n else "no landmarks")
    if correction.note:
        words.append(f"note: {correction.note}")
    return words


def _cells(
    copy: ManifestCopy, section: str, said: PageSection, shown: _Shown
) -> dict[str, tuple[str, str]]:
    """Cells of the manifest that a section's corrections change."""
    cells: dict[str, tuple[str, str]] = {}
    if said.flip != "none" or said.turn_deg % 360:
        flip = copy.cell(section, "flip") or "none"
        rotate_deg = _degrees(copy, section)
        if shown.is_turned(section, said, (flip, rotate_deg), _turn_before(copy, section)):
            logger.info(
                f"correct: section {section}: {_turn_words(said)}: {copy.manifest} states it"
                " already: passed over"
            )
        else:
            flip, rotate_deg = turned_further(flip, rotate_deg, said.flip, said.turn_deg)
        for column, before, now in (
            ("flip", copy.cell(section, "flip") or "none", flip),
            ("rotate_deg", _number(_degrees(copy, section)), _number(rotate_deg)),
        ):
            if before != now:
                cells[column] = now, ""
    if said.verdict == "exclude":
        cells["exclude"] = "true", ""
    return cells


def _turn_words(said: PageSection) -> str:
    """What the page asks for, as a user would say it."""
    flip = [f"flip {said.flip}"] if said.flip != "none" else []
    turn = [f"turn of {said.turn_deg:g} degrees"] if said.turn_deg % 360 else []
    return ", ".join(flip + turn)


def _turn_before(copy: ManifestCopy, section: str) -> _Turn | None:
    """What was stated before the last correction; None where the notes tell of none."""
    cells = copy.before_last_edit(section, _BY, ("flip", "rotate_deg"))
    flip = cells.get("flip") or "none"
    try:
        return (flip, float(cells["rotate_deg"] or 0.0)) if cells and flip in FLIPS else None
    except ValueError:  # notes are free text
        return None


def _is_same_turn(one: _Turn, other: _Turn) -> bool:
    return _apart(_displayed(one), _displayed(other)) < _SAME_TURN


def _displayed(turn: _Turn) -> np.ndarray:
    """(2, 2) from a section as displayed to its file."""
    return np.linalg.inv(upright_from_file((1, 1), *turn)[0])[:2, :2]


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max())


def _number(value: float) -> str:
    return f"{value:.10g}"


def _degrees(copy: ManifestCopy, section: str) -> float:
    try:
        return float(copy.cell(section, "rotate_deg") or 0.0)
    except ValueError:
        found = copy.cell(section, "rotate_deg")
        raise ManifestError(
            f"{copy.manifest}: section {section!r}: rotate_deg: expected a number, found {found!r}"
        ) from None


def _digests(row: Row, ending: str) -> list[str]:
    """Of a section's files of a kind."""
    return [sha256 for name, sha256 in row.files.items() if name.endswith(ending)]


@dataclass(frozen=True)
class _Shown:
    """What the page showed, as the results have it now.

    Attributes
    ----------
    world_from_stack : (4, 4) to RAS mm; None of a prealigned brain.
    corrections, manifest : for messages.
    """

    prepared: dict[str, Prepared]
    planes: dict[str, Plane]
    world_from_stack: np.ndarray | None
    corrections: Path
    manifest: Path

    @classmethod
    def of(cls, results: Path, corrections: Path, manifest: Path) -> _Shown:
        """Read the tables of a brain."""
        similarity = results / "align" / names.STACK_TRANSFORM
        prepared = read_rows(results / "prepare" / names.TABLE, Prepared, verify=False)
        planes = read_rows(results / "resample" / names.TABLE, Plane, verify=False)
        return cls(
            {row.section: row for row in prepared},
            {row.section: row for row in planes},
            np.linalg.inv(read_stack_from_world(similarity)) if similarity.is_file() else None,
            corrections,
            manifest,
        )

    @property
    def prealigned(self) -> bool:
        return self.world_from_stack is None

    def is_turned(
        self, section: str, said: PageSection, stated: _Turn, before: _Turn | None
    ) -> bool:
        """Whether the manifest has already what the page asks for.

        Parameters
        ----------
        stated : what the manifest states.
        before : what it stated before its last correction, by its notes; None where none is there.

        Raises
        ------
        ManifestError
            What the page showed is not what the manifest states, so that it would be undone.
        """
        where = f"{self.corrections}: section {section!r}"
        if self.prealigned:
            raise ManifestError(f"{where}: a prealigned section takes no flip or turn")
        asked = said.flip, said.turn_deg
        is_recorded = before is not None and _is_same_turn(turned_further(*before, *asked), stated)
        row = self.prepared.get(section)
        if row is None:
            if is_recorded:  # and excluded, at once or since
                return True
            raise ManifestError(f"{where}: is not prepared, so there is nothing to turn")
        made = row.section_mm_from_working_mm[:2, :2]
        is_as_made = _apart(_displayed(stated), made) < _SAME_TURN
        is_shown = said.prepared_sha256 in _digests(row, names.IMAGE)
        if is_shown and is_as_made:
            return False
        # corrected, but not made anew since
        if is_shown and _apart(_displayed(stated), made @ _displayed(asked)) < _SAME_TURN:
            return True
        if not is_as_made:
            raise ManifestError(
                f"{where}: the results were made with another flip or turn than {self.manifest}"
                f" states (flip {stated[0]}, rotate_deg {stated[1]:g}): give --manifest the one"
                " that they were made with"
            )
        if is_recorded:
            return True
        raise ManifestError(
            f"{where}: its {_turn_words(said)} was asked for on an earlier state of the section,"
            " which was prepared anew since: look at the new report, and take it out of the file"
            " if it is in force already"
        )

    def landmarks(self, section: str, said: PageSection) -> tuple[Landmark, ...]:
        """The pairs of a section, in its file and in the MRI; ManifestError as of `run`."""
        if not said.landmarks:
            return ()
        where = f"{self.corrections}: section {section!r}"
        row, plane = self.prepared.get(section), self.planes.get(section)
        if row is None or plane is None:
            raise ManifestError(f"{where}: has no picture, so it can have no landmarks")
        for what, of_row, ending, digest in (
            ("its picture", row, names.IMAGE, said.prepared_sha256),
            ("its MRI plane", plane, names.MRI, said.plane_sha256),
        ):
            if digest not in _digests(of_row, ending):
                raise ManifestError(
                    f"{where}: {what} has changed since the report that its landmarks were set on:"
                    " set them anew, on the new report"
                )
        marks: list[Landmark] = []
        for number, pair in enumerate(said.landmarks, 1):
            mark = self._landmark(pair, pair.name or str(number), row, plane)
            if any(mark.name == other.name for other in marks):
                raise ManifestError(f"{where}: a second landmark {mark.name!r}")
            marks.append(mark)
        return tuple(marks)

    def _landmark(self, pair: PagePair, name: str, row: Prepared, plane: Plane) -> Landmark:
        working_mm = np.array([pair.x_prepared_mm, pair.y_prepared_mm])
        section_mm = apply(row.section_mm_from_working_mm, working_mm)
        plane_mm = np.array([pair.x_plane_mm, pair.y_plane_mm])
        rows, columns = plane.grid.shape
        for point, pixel_mm, (height, width), what in (
            (section_mm, row.pixel_size_mm, row.file_shape, "its image"),
            (plane_mm, plane.grid.spacing_mm, (rows, columns), "its MRI plane"),
        ):
            px = point / pixel_mm
            if not (np.all(px >= -1) and px[0] <= width and px[1] <= height):
                raise ManifestError(
                    f"{self.corrections}: section {row.section!r}: landmark {name!r} lies outside"
                    f" {what}"
                )
        target = {"plane_mm": tuple(plane_mm.tolist())}
        if self.world_from_stack is not None:
            stack_mm = np.array([*plane_mm, plane.position_mm])
            target = {"mri_mm": tuple(apply(self.world_from_stack, stack_mm).tolist())}
        return Landmark(row.section, tuple(section_mm.tolist()), **target, name=name)
