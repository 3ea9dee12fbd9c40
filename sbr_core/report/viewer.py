"""What the viewer of a brain's page is given: every section with its layers, numbers and digests.

It becomes JSON inside the page, read by ``templates/viewer.js``. What the viewer saves is read by
`io.correction_pages`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sbr_core.algorithms.doctor.findings import corrected as corrected_pose
from sbr_core.algorithms.doctor.findings import pose_of
from sbr_core.artifacts import names
from sbr_core.artifacts.rows import Affine, Inferred, Plane, Prepared, Row, Trusted, read_rows
from sbr_core.io.files import sha256_of
from sbr_core.report import words
from sbr_core.report.alarms import Rows, inferred
from sbr_core.report.corrections import Corrected
from sbr_core.report.layers import ErrorMap, Painter
from sbr_core.report.measures import Measured
from sbr_core.report.page import number
from sbr_core.report.shelf import Shelf

if TYPE_CHECKING:
    from sbr_core.config import ReportOptions

R = TypeVar("R", bound=Row)

_TRUST = "trust"
"""Folder of a method with its expected errors; results of before there were any have none."""
_STRIP_METRICS = ("in_plane_mm", "surface_distance_mm")
"""What colours the strip where no error is expected: the first that was measured."""
_OUTLIER = 3.0
"""Times the median: only what is that far off is as dark as can be, so that a strip of sections
that are all alike is no wall of red."""


def read_trusts(folder: Path) -> dict[str, Trusted]:
    """Section -> what is expected of it, of a method's folder; empty where nothing is."""
    return _rows_of(folder / _TRUST, Trusted)


def _error_map(row: Trusted) -> Path | None:
    """A section's expected error on its plane, if there is one."""
    path = row.table.parent / names.SECTIONS / f"{row.section}_error.nii.gz"
    return path if path.is_file() else None


def viewer_of(
    options: ReportOptions,
    brain: str,
    rows: Rows,
    measured: Measured,
    corrected: Corrected,
    results_dir: Path,
    trusts: Mapping[str, Mapping[str, Trusted]],
    shelf: Shelf,
) -> dict[str, Any]:
    """The JSON of the viewer; the pictures that it names are on the shelf.

    Parameters
    ----------
    trusts : method -> section -> what is expected of it.
    """
    planes = _rows_of(results_dir / "resample", Plane)
    prepared = _rows_of(results_dir / "prepare", Prepared)
    affines = _rows_of(results_dir / "align_sections", Affine)
    strip, values = _strip(measured, trusts)
    errors_mm = [t.expected_error_mm for of_method in trusts.values() for t in of_method.values()]
    top_mm = max([1.0, *errors_mm])
    of_sections = measured.of_sections()
    painter = Painter(options, shelf)
    sections = []
    for name in dict.fromkeys(section for table in rows.values() for section in table):
        of_section = {method: table[name] for method, table in rows.items() if name in table}
        of_methods = inferred(of_section)
        plane, section = planes.get(name), prepared.get(name)
        section_trusts = {m: t[name] for m, t in trusts.items() if name in t}
        maps = {
            method: ErrorMap(path, top_mm)
            for method, trust in section_trusts.items()
            if (path := _error_map(trust)) is not None
        }
        failures = [f"{m}: {row.message}" for m, row in of_section.items() if not row.ok]
        sections.append(
            {
                "name": name,
                "position_mm": next((r.position_mm for r in of_methods.values()), None),
                "message": "; ".join(dict.fromkeys(failures)),
                "facts": _facts(of_methods, affines.get(name), section_trusts),
                "measured": of_sections.get(name, []),
                "value": {m: v[name] for m, v in values.items() if name in v},
                "in_force": _flip_and_turn(section) + corrected.facts(name),
                "prepared_sha256": _digest(section, names.IMAGE),
                "plane_sha256": _digest(plane, names.MRI),
                "layers": painter.section(plane, section, of_methods, maps)
                if plane and of_methods
                else None,
            }
        )
    digests = [[s["name"], s["prepared_sha256"], s["plane_sha256"]] for s in sections]
    return {
        "brain": brain,
        # what was decided on another state of the brain is not taken for this one's
        "key": f"sbr_core corrections {brain} {sha256_of(digests)[:16]}",
        "prealigned": not (results_dir / "align" / names.STACK_TRANSFORM).is_file(),
        "methods": list(rows),
        "strip": strip,
        "error_top_mm": top_mm,
        "sections": sections,
    }


def _rows_of(folder: Path, kind: type[R]) -> dict[str, R]:
    table = folder / names.TABLE
    rows = read_rows(table, kind, verify=False) if table.is_file() else []
    return {row.section: row for row in rows}


def _digest(row: Row | None, ending: str) -> str:
    """sha256 of a row's file; empty where there is none."""
    files = row.files if row is not None else {}
    return next((sha256 for name, sha256 in files.items() if name.endswith(ending)), "")


def _flip_and_turn(section: Prepared | None) -> list[str]:
    """How a section was laid when it was prepared, as its manifest states it."""
    if section is None:
        return []
    flip, rotate_deg = corrected_pose(pose_of(section.section_mm_from_working_mm), (False, 0.0))
    turned = [f"turned {rotate_deg:g}° counter-clockwise"] if rotate_deg else []
    return ([f"flip {flip}"] if flip != "none" else []) + turned


def _strip(
    measured: Measured, trusts: Mapping[str, Mapping[str, Trusted]]
) -> tuple[dict[str, Any] | None, dict[str, dict[str, float]]]:
    """What colours the strip of all sections, and method -> section -> its value."""
    values = {
        method: {section: trust.expected_error_mm for section, trust in of_method.items()}
        for method, of_method in trusts.items()
    }
    metric = "expected_error_mm"
    for metric_measured in () if any(values.values()) else _STRIP_METRICS:
        metric = metric_measured
        values = {m: measured.by_section(metric, m) for m in measured.methods}
        if any(values.values()):
            break
    scales = {m: _scale(list(of_method.values())) for m, of_method in values.items() if of_method}
    if not scales:
        return None, {}
    said = words.metric(metric)
    return {"name": said.name, "unit": said.unit, "meaning": said.meaning, "scales": scales}, values


def _scale(values: Sequence[float]) -> tuple[float, float]:
    """What is pale, and what is dark: the better half, and an outlier if there is one."""
    median = float(np.median(values))
    return median, max(max(values), _OUTLIER * median, median + 1e-6)


def _facts(
    of_methods: Mapping[str, Inferred], affine: Affine | None, trusts: Mapping[str, Trusted]
) -> list[str]:
    """Lines about a section that no metric states."""
    facts = [
        f"{method} moves it by {number(row.disp_mean_mm)} mm in the mean, at most"
        f" {number(row.disp_max_mm)} mm"
        for method, row in of_methods.items()
        if row.disp_max_mm > 0
    ]
    if affine is not None and affine.trust is not None:
        facts.append(f"its affine can be trusted {affine.trust:.2f} of 1")
    facts += [
        f"{method}: {trust.reason}" + (f"; next: {trust.next_step}" if trust.next_step else "")
        for method, trust in trusts.items()
        if trust.reason
    ]
    return facts


def printed_figures(
    sections: Iterable[Mapping[str, Any]],
) -> dict[str, list[dict[str, Any]]]:
    """Section -> its figures as they stand on the page, each of pictures on top of each other."""
    return {section["name"]: _figures(section["layers"]) for section in sections}


def _figures(layers: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    if layers is None:
        return []
    figures = []

    def add(caption: str, grid: str, *pictures: str, is_white: bool = False) -> None:
        size = {side: layers[grid][side] for side in ("width", "height")}
        figures.append({"caption": caption, "pictures": pictures, "is_white": is_white, **size})

    if "prepared" in layers:
        add("as prepared", "prepared_grid", layers["prepared"])
    add("MRI plane", "plane", layers["mri"])
    edges = layers["edges"]
    for method, of_method in layers["methods"].items():
        add(f"{method}, outlines of the MRI", "plane", of_method["registered"], edges)
        if "synthesised" in of_method:
            add(f"{method}, synthesised", "plane", of_method["synthesised"])
        if "grid" in of_method:
            add(f"{method}, deformation", "plane", edges, of_method["grid"], is_white=True)
        if "error" in of_method:
            add(f"{method}, expected error", "plane", edges, of_method["error"], is_white=True)
    return figures
