"""`sbr evaluate`: tables of how well each method aligned a brain's sections.

Landmarks and labels are followed through the *published* transform files, so what is measured is
what a user gets. Metrics, per section and summarised:

=======================  =========================================================================
in_plane_mm              distance within the plane of a mapped landmark from where it belongs
through_plane_mm         distance of a landmark's MRI point from its section's plane: no
                         section-wise method can mend it
dice                     overlap of the section's labels with those of its MRI plane, per class
surface_distance_mm      mean symmetric distance of their boundaries within the plane, per class
surface_distance_p95_mm  their 95 % Hausdorff distance, per class
dice_volume              the overlap in the reassembled volume, where sections cover it (summary
                         only)
folding                  share of the tissue where the deformation folds
there_and_back_mm        plane -> section -> plane, how far from where it started
expected_error_mm        in-plane error that `trust` expects: an estimate, no measured accuracy
=======================  =========================================================================
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbr_core import metrics
from sbr_core.artifacts import names
from sbr_core.artifacts.accuracy import (
    folding,
    labels_on_plane,
    landmark_errors_mm,
    there_and_back_mm,
    unit_of,
    volume_dice,
)
from sbr_core.artifacts.constraints import refuse_scored
from sbr_core.artifacts.label_pairs import LabelPairs, no_id_in_common
from sbr_core.artifacts.rows import Plane, Prepared, Row, Trusted, read_rows, sections_lost
from sbr_core.config import EvaluateOptions
from sbr_core.io.corrections import Correction, read_corrections
from sbr_core.io.manifests import Landmark, SectionRow, read_landmarks
from sbr_core.io.provenance import write_provenance
from sbr_core.io.tables import write_tsv
from sbr_core.io.transforms import read_section_transform
from sbr_core.io.volumes import Volume, read_plane

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

SUMMARY_COLUMNS = ("brain", "method", "metric", "class", "statistic", "value", "unit", "n")
SECTION_COLUMNS = ("brain", "method", "section", "metric", "class", "value", "unit")


def run(
    options: EvaluateOptions,
    *,
    brain: str,
    methods: dict[str, Path],
    prepared: Path,
    planes: Path,
    out_dir: Path,
    align_dir: Path | None = None,
    landmarks: Path | None = None,
    mri_labels: Path | None = None,
    rows: list[SectionRow] | None = None,
    excluded: Sequence[str] | None = None,
    corrections: Path | None = None,
    trusted: bool = False,
    strict: bool = False,
) -> None:
    """Write tables of accuracy.

    These are ``summary.tsv`` and ``sections.tsv`` of one brain.

    Parameters
    ----------
    brain : name of the brain.
    methods : one or more METHOD=FOLDER, the folders of their results.
    prepared : table written by prepare.
    planes : table written by resample.
    out_dir : folder the results go to.
    align_dir : folder written by align; not of a prealigned brain, whose landmarks are in plane mm.
    landmarks : table of landmarks.
    mri_labels : labels of the MRI, on its grid.
    rows : manifest rows, for the mri_labels of a prealigned brain.
    excluded : ids of excluded sections; their landmarks are passed over.
    corrections : table of corrections; its landmarks, which the registration obeys, are not scored.
    trusted : add the errors that trust expects, from its tables in the folders of the methods.
    strict : stop at the first label image that cannot be used, instead of leaving it out.

    Raises
    ------
    ManifestError
        A landmark of a section that is not there, or one that the registration obeys.
    ImageError
        With `strict`, labels of the MRI, or a label image, that cannot be used.
    """
    prepared_rows = {
        row.section: row for row in read_rows(prepared, Prepared, only_ok=False, verify=False)
    }
    plane_rows = {row.section: row for row in read_rows(planes, Plane, verify=(names.MRI_MASK,))}
    known = {*prepared_rows, *(excluded or ())}
    marks = _landmarks(landmarks, known, prealigned=align_dir is None)
    said = {}
    if corrections is not None:
        said = read_corrections(corrections, known, prealigned=align_dir is None)
        obeyed = {section: each.landmarks or () for section, each in said.items()}
        scored = [mark for of_section in marks.values() for mark in of_section]
        refuse_scored(scored, obeyed, prepared_rows)
    pairs = LabelPairs(
        rows, align_dir=align_dir, mri_labels=mri_labels, stage="evaluate", strict=strict
    )
    section_rows: list[dict[str, Any]] = []
    summary: list[dict[str, Any]] = []
    for method, folder in methods.items():
        if lost := sections_lost(folder / names.TABLE, prepared):
            logger.warning(f"evaluate: WARNING: {lost}")
        rows_of_method = [
            row
            for row in read_rows(folder / names.TABLE, Row, verify=("_xfm.h5",))
            if row.section in plane_rows and row.section in prepared_rows  # else its plane failed
        ]
        expected_mm = _expected_mm(folder) if trusted else {}
        table = _values(rows_of_method, prepared_rows, plane_rows, marks, pairs, expected_mm)
        of_method = {"brain": brain, "method": method}
        section_rows += [of_method | row for row in _section_means(table)]
        summary += [of_method | row for row in _summary(table, options.percentiles)]
        if pairs.mri is not None:
            volumes = folder / names.VOLUME
            summary += [of_method | row for row in _volume_summary(volumes, brain, pairs.mri)]
        logger.info(f"evaluate: {method}: {len(rows_of_method)} sections")

    labels_apart = ""
    if pairs.apart and not any(row["metric"] == "dice" for row in section_rows):
        labels_apart = next(iter(pairs.apart.values()))
        logger.warning(f"evaluate: WARNING: {labels_apart}")
    write_tsv(out_dir / names.TABLE, section_rows, SECTION_COLUMNS, facts={})
    write_tsv(out_dir / names.SUMMARY, summary, SUMMARY_COLUMNS, facts={})
    inputs = {"prepared": prepared, "planes": planes}
    inputs |= {f"{method}_sections": f / names.TABLE for method, f in methods.items()}
    inputs |= {"landmarks": landmarks, "mri_labels": mri_labels, "corrections": corrections}
    write_provenance(
        out_dir / names.EVALUATION,
        stage="evaluate",
        options=options.model_dump(mode="json"),
        inputs={name: file for name, file in inputs.items() if file is not None},
        labels_left_out=pairs.unusable,
        labels_apart=labels_apart,
        **(_said(said) if said else {}),
    )


def _said(corrections: Mapping[str, Correction]) -> dict[str, dict[str, str]]:
    """What the report shows of corrections: verdicts and notes by section."""
    return {
        "verdicts": {s: each.verdict for s, each in corrections.items() if each.verdict},
        "correction_notes": {s: each.note for s, each in corrections.items() if each.note},
    }


def _values(
    rows: Sequence[Row],
    prepared_rows: Mapping[str, Prepared],
    plane_rows: Mapping[str, Plane],
    marks: Mapping[str, Sequence[Landmark]],
    pairs: LabelPairs,
    expected_mm: Mapping[str, float],
) -> pd.DataFrame:
    """Every value of one method: number of its section, section, metric, class, value."""
    import pandas as pd

    values = []
    for number, row in enumerate(rows):
        section = row.section
        measured = _measure(
            row, prepared_rows[section], plane_rows[section], marks.get(section, ()), pairs
        )
        for metric, class_, of_section in measured:
            for value in np.atleast_1d(of_section):
                values.append((number, section, metric, str(class_), value))
        if section in expected_mm:
            values.append((number, section, "expected_error_mm", "", expected_mm[section]))
    return pd.DataFrame(values, columns=["number", "section", "metric", "class", "value"])


def _expected_mm(folder: Path) -> dict[str, float]:
    """Section -> the error that `trust` expects of a method."""
    table = folder / names.TRUST / names.TABLE
    return {row.section: row.expected_error_mm for row in read_rows(table, Trusted, verify=False)}


def _landmarks(
    path: Path | None, known: set[str], *, prealigned: bool
) -> dict[str, list[Landmark]]:
    """Landmarks by section."""
    marks: dict[str, list[Landmark]] = {}
    for mark in read_landmarks(path, known, prealigned=prealigned) if path is not None else ():
        marks.setdefault(mark.section, []).append(mark)
    return marks


def _section_means(table: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per section, metric and class: the mean of its values."""
    return [
        {
            "section": section,
            "metric": metric,
            "class": class_,
            "value": float(values.to_numpy().mean()),
            "unit": unit_of(metric),
        }
        for (_, section, metric, class_), values in table.groupby(list(table.columns[:-1]))["value"]
    ]


def _summary(table: pd.DataFrame, percentiles: Sequence[float]) -> list[dict[str, Any]]:
    """One row per metric, class and statistic."""
    rows = []
    for (metric, class_), group in table.groupby(["metric", "class"]):
        if metric in ("in_plane_mm", "through_plane_mm"):
            of_sections = {n: g.to_numpy() for n, g in group.groupby("number")["value"]}
            statistics = metrics.landmark_summary(of_sections, percentiles)
        else:
            values = group["value"].to_numpy()
            statistics = {
                name: (float(function(values)), values.size)
                for name, function in (("mean", np.mean), ("min", np.min), ("max", np.max))
            }
        rows += [_summary_row(metric, class_, name, *both) for name, both in statistics.items()]
    return rows


def _volume_summary(folder: Path, brain: str, mri: Volume) -> list[dict[str, Any]]:
    """One row per class, of the reassembled labels."""
    overlap, n_voxels = volume_dice(folder, brain, mri)
    return [
        _summary_row("dice_volume", str(class_), "value", value, n_voxels)
        for class_, value in sorted(overlap.items())
    ]


def _summary_row(metric: str, class_: str, statistic: str, value: float, n: int) -> dict[str, Any]:
    return {
        "metric": metric,
        "class": class_,
        "statistic": statistic,
        "value": value,
        "unit": unit_of(metric),
        "n": n,
    }


def _measure(
    row: Row,
    prepared: Prepared,
    plane: Plane,
    marks: Sequence[Landmark],
    pairs: LabelPairs,
) -> Iterator[tuple[str, int | str, float | np.ndarray]]:
    """(metric, class, values) of one section by one method: one value, or one per landmark.

    Parameters
    ----------
    row : of the method.
    """
    section_from_plane = read_section_transform(row.file(names.SECTION_TO_STACK))
    plane_from_section = read_section_transform(row.file(names.STACK_TO_SECTION))
    if marks:
        in_plane_mm, through_plane_mm = landmark_errors_mm(
            marks, plane_from_section, pairs.stack_from_world, prepared.position_mm
        )
        yield "in_plane_mm", "", in_plane_mm
        if through_plane_mm is not None:
            yield "through_plane_mm", "", through_plane_mm
    if (pair := pairs.of(prepared, plane)) is not None:
        on_plane = labels_on_plane(pair, section_from_plane)
        overlap = metrics.dice(on_plane, pair.plane_labels)
        if not overlap and (why := no_id_in_common(pair)):
            pairs.apart[row.section] = why
        for class_, value in overlap.items():
            yield "dice", class_, value
        distances_mm = metrics.surface_distances(
            on_plane, pair.plane_labels, pair.plane_grid.spacing_mm
        )
        for class_, (mean_mm, p95_mm) in distances_mm.items():
            yield "surface_distance_mm", class_, mean_mm
            yield "surface_distance_p95_mm", class_, p95_mm
    mask, spacing_mm = read_plane(plane.file(names.MRI_MASK))
    if mask.any():
        yield "folding", "", folding(section_from_plane, mask, spacing_mm)
        yield (
            "there_and_back_mm",
            "",
            there_and_back_mm(section_from_plane, plane_from_section, mask, spacing_mm),
        )
