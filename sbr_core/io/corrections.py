"""What a user decided about sections: the table of corrections of a brain, `corrections.tsv`.

A row is one thing that is said of a section; its `kind` says what:

- ``verdict``: `value` is ``accept`` (looked at and found good) or ``reject`` (kept out of volumes).
- ``landmark``: a pair of points that the registration is to obey, as in a table of landmarks;
  `value` is its name.
- ``note``: `value` is text of the user's own.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sbr_core.errors import ManifestError
from sbr_core.io.columns import CORRECTION_SYNONYMS, check_columns
from sbr_core.io.files import parse_json
from sbr_core.io.manifests import (
    SECTION_POINT,
    Landmark,
    parse_landmark,
    require_columns,
    target_columns,
)
from sbr_core.io.tables import read_tsv, write_tsv

VERDICTS = ("accept", "reject")
_KINDS = ("verdict", "landmark", "note")


@dataclass(frozen=True)
class Correction:
    """What is said of one section.

    Attributes
    ----------
    verdict : of `VERDICTS`; empty for none.
    landmarks : pairs that the registration is to obey; None where nothing is said of them, which
        leaves those that an earlier table has.
    note : empty for none.
    """

    section: str
    verdict: str = ""
    landmarks: tuple[Landmark, ...] | None = None
    note: str = ""

    def over(self, before: Correction) -> Correction:
        """With what was said before of the same section, as far as this says nothing of it."""
        return Correction(
            self.section,
            self.verdict or before.verdict,
            before.landmarks if self.landmarks is None else self.landmarks,
            self.note or before.note,
        )


def read_corrections(
    path: Path, sections: Collection[str] | None, *, prealigned: bool
) -> dict[str, Correction]:
    """Section -> what is said of it, in the order of the table.

    Parameters
    ----------
    sections : ids that rows may name, those of excluded sections too; None where these are unknown.

    Raises
    ------
    ManifestError
        A column is missing, a kind or a verdict that is none, a cell that is no number, another
        section, or one thing said twice.
    """
    path = Path(path)
    header, table = read_tsv(path)
    target = target_columns(prealigned=prealigned)
    known = ["section", "kind", "value", *SECTION_POINT, *target]
    check_columns(path, header, known, CORRECTION_SYNONYMS)
    require_columns(path, header, known[:3])
    found: dict[str, Correction] = {}
    for number, values in enumerate(table, 2):
        section, kind, value = (values[c] for c in known[:3])
        where = f"{path}: line {number}: section {section!r}"
        if sections is not None and section not in sections:
            raise ManifestError(f"{where}: no such section in this brain")
        if kind not in _KINDS:
            raise ManifestError(f"{where}: kind: expected one of {_KINDS}, found {kind!r}")
        if kind == "verdict" and value not in VERDICTS:
            meant = ": write exclude into the manifest" if value.startswith("exclude") else ""
            raise ManifestError(f"{where}: expected one of {VERDICTS}, found {value!r}{meant}")
        so_far = found.get(section, Correction(section))
        if kind == "landmark":
            require_columns(path, header, known[3:])
            marks = so_far.landmarks or ()
            named = values | {"landmark": value or str(len(marks) + 1)}
            mark = parse_landmark(named, where, prealigned=prealigned)
            if any(mark.name == other.name for other in marks):
                raise ManifestError(f"{where}: a second landmark {mark.name!r}")
            found[section] = replace(so_far, landmarks=(*marks, mark))
        elif getattr(so_far, kind):
            raise ManifestError(f"{where}: a second {kind}")
        else:
            found[section] = replace(so_far, **{kind: value})
    return found


def merged(before: Mapping[str, Correction], later: Iterable[Correction]) -> dict[str, Correction]:
    """Corrections of which the later ones win, section by section and kind by kind."""
    both = dict(before)
    for each in later:
        both[each.section] = each.over(both.get(each.section, Correction(each.section)))
    return both


def write_corrections(path: Path, corrections: Iterable[Correction], *, prealigned: bool) -> None:
    """Write the table that `read_corrections` reads, whole or not at all."""
    target = target_columns(prealigned=prealigned)
    rows: list[dict[str, Any]] = []
    for each in corrections:
        for kind in ("verdict", "note"):
            if value := getattr(each, kind):
                rows.append({"section": each.section, "kind": kind, "value": value})
        for mark in each.landmarks or ():
            points = (*mark.section_mm, *(mark.plane_mm if prealigned else mark.mri_mm))
            columns = (*SECTION_POINT, *target)
            rows.append(
                {"section": each.section, "kind": "landmark", "value": mark.name}
                | dict(zip(columns, points, strict=True))
            )
    write_tsv(path, rows, ("section", "kind", "value", *SECTION_POINT, *target))


def landmarks_json(corrections: Mapping[str, Correction], sections: Iterable[str]) -> str:
    """Landmarks of some sections as the JSON list a rule hands to the command line."""
    marks = [
        {key: value for key, value in asdict(mark).items() if value is not None}
        for section in sections
        if section in corrections
        for mark in corrections[section].landmarks or ()
    ]
    return json.dumps(marks, sort_keys=True)


def landmarks_from(text: str) -> list[Landmark]:
    """Landmarks from `landmarks_json`'s JSON, or from the table of corrections whose path it is."""
    if not text.lstrip().startswith("["):
        path = Path(text)
        prealigned = set(target_columns(prealigned=True)) <= set(read_tsv(path)[0])
        found = read_corrections(path, None, prealigned=prealigned)
        return [mark for each in found.values() for mark in each.landmarks or ()]
    try:
        return [
            Landmark(
                str(value["section"]),
                *(
                    tuple(float(v) for v in value[key]) if key in value else None
                    for key in ("section_mm", "mri_mm", "plane_mm")
                ),
                name=str(value["name"]),
            )
            for value in parse_json(text)
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ManifestError(f"--landmarks: not readable as landmarks: {error!r}") from None
