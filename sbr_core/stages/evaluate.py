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
=======================  =========================================================================
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbr_core import geometry, metrics
from sbr_core.artifacts.label_pairs import LabelPair, LabelPairs, read_label_volume
from sbr_core.artifacts.receipts import file_of, read_table
from sbr_core.config import EvaluateOptions
from sbr_core.io.manifests import Landmark, SectionRow, read_landmarks
from sbr_core.io.provenance import write_provenance
from sbr_core.io.tables import write_tsv
from sbr_core.io.transforms import (
    STACK_TRANSFORM,
    PlaneField,
    SectionTransform,
    read_section_transform,
    read_stack_from_world,
    section_to_stack_path,
    stack_to_section_path,
)
from sbr_core.io.volumes import Volume, read_plane, read_volume

SUMMARY_COLUMNS = ("brain", "method", "metric", "class", "statistic", "value", "unit", "n")
SECTION_COLUMNS = ("brain", "method", "section", "metric", "class", "value", "unit")
PROVENANCE = "evaluation.json"


def unit_of(metric: str) -> str:
    """Unit of a metric's values: mm, or 1 for shares and overlaps."""
    return "mm" if metric.endswith("_mm") else "1"


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
    strict : stop at the first label image that cannot be used, instead of leaving it out.

    Raises
    ------
    ManifestError
        A landmark of a section that is not there.
    ImageError
        MRI labels that cannot be what they are said to be or, with `strict`, a label image.
    """
    prepared_rows = {r["section"]: r for r in read_table(prepared, only_ok=False, verify=False)}
    plane_rows = {r["section"]: r for r in read_table(planes, verify=("_mrimask.nii.gz",))}
    stack_from_world = None
    if align_dir is not None:
        stack_from_world = read_stack_from_world(Path(align_dir) / STACK_TRANSFORM)
    left_out = set(excluded or ())
    marks: dict[str, list[Landmark]] = {}
    if landmarks is not None:
        known = set(prepared_rows) | left_out
        for mark in read_landmarks(landmarks, known, prealigned=stack_from_world is None):
            marks.setdefault(mark.section, []).append(mark)
    mri = None
    if mri_labels is not None and stack_from_world is not None:
        mri = read_label_volume(mri_labels)
    pairs = LabelPairs(mri, stack_from_world, rows, stage="evaluate", strict=strict)

    def label_pair(section: str) -> LabelPair | None:
        """The labels to compare in one section, if it has any."""
        return pairs.of(prepared_rows[section], plane_rows[section])

    section_rows: list[dict[str, Any]] = []
    summary: list[dict[str, Any]] = []
    for method, folder in methods.items():
        found = _evaluate_method(
            Path(folder), planes, plane_rows, prepared_rows, marks, stack_from_world, label_pair
        )
        section_rows += [{"brain": brain, "method": method, **row} for row in found.rows()]
        summary += [
            {"brain": brain, "method": method, **row} for row in found.summary(options.percentiles)
        ]
        if mri is not None:
            summary += [
                {"brain": brain, "method": method, **row}
                for row in _volume_rows(Path(folder) / "volume", brain, mri)
            ]
        print(f"evaluate: {method}: {len(found.sections)} sections", file=sys.stderr)

    out_dir = Path(out_dir)
    write_tsv(out_dir / "sections.tsv", section_rows, SECTION_COLUMNS)
    write_tsv(out_dir / "summary.tsv", summary, SUMMARY_COLUMNS)
    inputs = {"prepared": prepared, "planes": planes}
    inputs |= {f"{method}_sections": Path(f) / "sections.tsv" for method, f in methods.items()}
    inputs |= {"landmarks": landmarks} if landmarks is not None else {}
    inputs |= {"mri_labels": mri_labels} if mri_labels is not None else {}
    write_provenance(
        out_dir / PROVENANCE,
        stage="evaluate",
        options=options.model_dump(mode="json"),
        inputs=inputs,
        labels_left_out=pairs.unusable,
    )


class _Found:
    """Values found for one method, section by section."""

    def __init__(self) -> None:
        self.sections: list[str] = []
        # (metric, class) -> section -> values; landmarks have many, the rest one
        self.values: dict[tuple[str, str], dict[str, np.ndarray]] = {}

    def add(self, section: str, metric: str, values: Any, class_: int | str = "") -> None:
        self.values.setdefault((metric, str(class_)), {})[section] = np.atleast_1d(values)

    def rows(self) -> list[dict[str, Any]]:
        """One row per section, metric and class: the mean of its values."""
        return [
            {
                "section": section,
                "metric": metric,
                "class": class_,
                "value": float(values[section].mean()),
                "unit": unit_of(metric),
            }
            for section in self.sections
            for (metric, class_), values in sorted(self.values.items())
            if section in values
        ]

    def summary(self, percentiles: tuple[float, ...]) -> list[dict[str, Any]]:
        """One row per metric, class and statistic."""
        rows = []
        for (metric, class_), values in sorted(self.values.items()):
            if metric in ("in_plane_mm", "through_plane_mm"):
                statistics = metrics.landmark_summary(values, percentiles)
            else:
                each = np.concatenate(list(values.values()))
                statistics = {
                    name: (float(function(each)), each.size)
                    for name, function in (("mean", np.mean), ("min", np.min), ("max", np.max))
                }
            for statistic, (value, n) in statistics.items():
                rows.append(
                    {
                        "metric": metric,
                        "class": class_,
                        "statistic": statistic,
                        "value": value,
                        "unit": unit_of(metric),
                        "n": n,
                    }
                )
        return rows


def _evaluate_method(
    folder: Path,
    planes: Path,
    plane_rows: dict[str, dict[str, Any]],
    prepared_rows: dict[str, dict[str, Any]],
    marks: dict[str, list[Landmark]],
    stack_from_world: np.ndarray | None,
    label_pair: Callable[[str], LabelPair | None],
) -> _Found:
    found = _Found()
    for row in read_table(folder / "sections.tsv", verify=("_xfm.h5",)):
        section = row["section"]
        if section not in plane_rows or section not in prepared_rows:
            continue  # its plane failed
        found.sections.append(section)
        section_from_plane = read_section_transform(
            section_to_stack_path(folder / "transforms", section)
        )
        plane_from_section = read_section_transform(
            stack_to_section_path(folder / "transforms", section)
        )
        if section in marks:
            in_plane, through_plane = landmark_errors_mm(
                marks[section],
                plane_from_section,
                stack_from_world,
                float(prepared_rows[section]["position_mm"]),
            )
            found.add(section, "in_plane_mm", in_plane)
            if through_plane is not None:
                found.add(section, "through_plane_mm", through_plane)
        if (pair := label_pair(section)) is not None:
            on_plane = labels_on_plane(pair, section_from_plane)
            for class_, value in metrics.dice(on_plane, pair.plane_labels).items():
                found.add(section, "dice", value, class_)
            distances_mm = metrics.surface_distances(
                on_plane, pair.plane_labels, pair.plane_grid.spacing_mm
            )
            for class_, (mean_mm, p95_mm) in distances_mm.items():
                found.add(section, "surface_distance_mm", mean_mm, class_)
                found.add(section, "surface_distance_p95_mm", p95_mm, class_)
        mask, spacing_mm = read_plane(file_of(planes, plane_rows[section], "_mrimask.nii.gz"))
        if mask.any():
            found.add(section, "folding", _folding(section_from_plane, mask, spacing_mm))
            rows, columns = np.nonzero(mask)
            tissue_mm = np.column_stack([columns, rows]) * spacing_mm
            back_mm = plane_from_section.map(section_from_plane.map(tissue_mm))
            error_mm = np.linalg.norm(back_mm - tissue_mm, axis=1)
            found.add(section, "there_and_back_mm", error_mm.mean())
    return found


def landmark_errors_mm(
    marks: list[Landmark],
    plane_from_section: SectionTransform,
    stack_from_world: np.ndarray | None,
    position_mm: float,
) -> tuple[np.ndarray, np.ndarray | None]:
    """How far a section's landmarks are from where they belong.

    Parameters
    ----------
    marks : landmarks of one section.
    plane_from_section : maps section mm to plane mm.
    stack_from_world : (4, 4), or None when the landmarks are in plane mm already.
    position_mm : of the section.

    Returns
    -------
    in_plane_mm : (n,).
    through_plane_mm : (n,) distances along the stack, not negative; None without a stack.
    """
    mapped = plane_from_section.map(np.array([m.section_mm for m in marks], float))
    if stack_from_world is None:
        target = np.array([m.plane_mm for m in marks], float)
        return np.linalg.norm(mapped - target, axis=1), None
    stack = geometry.apply(stack_from_world, np.array([m.mri_mm for m in marks], float))
    return np.linalg.norm(mapped - stack[:, :2], axis=1), np.abs(stack[:, 2] - position_mm)


def labels_on_plane(pair: LabelPair, section_from_plane: SectionTransform) -> np.ndarray:
    """The section's labels on the grid of its plane's, nearest neighbour in the section's file."""
    rows, columns = np.indices(pair.plane_grid.shape)
    plane_mm = np.stack([columns, rows], axis=-1) * pair.plane_grid.spacing_mm
    file_px = section_from_plane.map(plane_mm) / pair.section_pixel_mm
    return _nearest(pair.section_labels, file_px[..., ::-1])


def _folding(section_from_plane: SectionTransform, mask: np.ndarray, spacing_mm: float) -> float:
    """Share of the plane's tissue where a displacement field of the transform folds."""
    share = 0.0  # an affine folds nothing
    for step in section_from_plane.steps:
        if isinstance(step, PlaneField):
            field_px = np.stack(np.indices(step.disp_mm.shape[:2]), axis=-1)  # row, column
            plane_mm = np.array(step.origin_mm)[::-1] + field_px * step.spacing_mm
            inside = _nearest(mask, plane_mm / spacing_mm)
            share = max(share, metrics.folding(step.disp_mm, inside, step.spacing_mm))
    return share


def _nearest(array: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Elements of an (n1, ..., nd) array at fractional indices (..., d); 0 outside."""
    nearest = np.floor(indices + 0.5).astype(np.int64)
    limit = np.array(array.shape)
    inside = np.all((nearest >= 0) & (nearest < limit), axis=-1)
    taken = array[tuple(np.moveaxis(np.clip(nearest, 0, limit - 1), -1, 0))]
    return np.where(inside, taken, 0)


def _volume_rows(folder: Path, brain: str, mri: Volume) -> list[dict[str, Any]]:
    """Dice of the reassembled labels against the MRI's, over the voxels that sections cover."""
    path = folder / f"{brain}_space-mri_labels.nii.gz"
    if not path.is_file():
        return []  # the sections have no labels
    labels = read_label_volume(path)
    distance_mm = read_volume(folder / f"{brain}_space-mri_coverage.nii.gz").data
    covered = distance_mm >= 0  # negative where no section is near enough
    indices = np.argwhere(covered)
    voxel_from_voxel = np.linalg.inv(mri.world_from_voxel) @ labels.world_from_voxel
    truth = _nearest(mri.data, geometry.apply(voxel_from_voxel, indices))
    overlap = metrics.dice(labels.data[covered], truth)
    return [
        {
            "metric": "dice_volume",
            "class": str(class_),
            "statistic": "value",
            "value": value,
            "unit": "1",
            "n": len(indices),
        }
        for class_, value in sorted(overlap.items())
    ]
