"""`sbr report`: one page per brain, with everything inside it.

The page has no links to other files, so it can be mailed. It shows what it finds: an evaluation,
a 3D volume, a training, simulated pairs or a comparison of methods that are not there are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbr_core import geometry
from sbr_core.artifacts.receipts import file_of, read_table
from sbr_core.errors import ReceiptError, some_of
from sbr_core.io.files import read_json
from sbr_core.io.manifests import SIMULATED
from sbr_core.io.tables import read_tsv
from sbr_core.io.transforms import PlaneField, read_section_transform
from sbr_core.io.volumes import Volume, read_cuts, read_plane, read_volume
from sbr_core.report import pictures
from sbr_core.report.page import comparison_of, jpeg, number, png_uri, simulated_from, write_page
from sbr_core.stages.doctor import CONTACT_SHEET, FINDINGS
from sbr_core.stages.evaluate import PROVENANCE

if TYPE_CHECKING:
    from sbr_core.config import ReportOptions

_GRID_LINES = 18
# where an MRI that is shown in [0, 1] has brain, roughly
_BRAIN = 0.1
_CUT_NAMES = {
    "mri": ("sagittal", "coronal", "axial"),
    "stack": ("middle column", "middle row", "middle position"),
}
# the change of a section's own value that is no longer chance or rounding
_WORSE = {"in_plane_mm": 0.05, "dice": -0.01}
_LOWER_IS_BETTER = {
    "in_plane_mm",
    "folding",
    "surface_distance_mm",
    "surface_distance_p95_mm",
}
_HIGHER_IS_BETTER = {"dice", "dice_volume"}
_SIMULATED_STATISTICS = ("mean", "rmse", "p95")
_STAGES = ("prepare", "resample", "align_sections")


def run(
    options: ReportOptions,
    *,
    brain: str,
    methods: Mapping[str, Path],
    results_dir: Path,
    out: Path,
) -> None:
    """Write one self-contained HTML page.

    Parameters
    ----------
    brain : name of the brain.
    methods : one or more METHOD=FOLDER, the folders of their results; linear first if it is there.
    results_dir : folder of the brain's results.
    out : page to write.
    """
    results_dir = Path(results_dir)
    doctor = _doctor(results_dir / "doctor", options)
    tables = {method: Path(folder) / "sections.tsv" for method, folder in methods.items()}
    rows = {
        method: {row["section"]: row for row in read_table(table, only_ok=False, verify=False)}
        for method, table in tables.items()
    }
    measured = _Measured(results_dir / "evaluation", list(methods))
    write_page(
        out,
        "report.html.j2",
        brain=brain,
        simulated=simulated_from(brain, results_dir),
        methods=list(methods),
        tiles=_tiles(rows, measured),
        alarms=_alarms(rows, measured, results_dir) + _suspects(doctor),
        accuracy=measured.table(),
        on_simulated=_on_simulated_pairs(results_dir.with_name(brain + SIMULATED) / "evaluation"),
        statistics=_SIMULATED_STATISTICS,
        deformations=[
            _deformations(method, list(found.values())) for method, found in rows.items()
        ],
        cuts=_volume_cuts(brain, methods, results_dir, options),
        alignment=_alignment(results_dir / "align"),
        losses=_losses(results_dir, methods),
        doctor=doctor,
        comparison=comparison_of(results_dir / "compare"),
        mri_colour=pictures.MRI_COLOUR,
        sections=_sections(tables, rows, measured, results_dir, options),
    )


class _Measured:
    """The tables of `evaluate`, or none of them."""

    def __init__(self, folder: Path, methods: list[str]) -> None:
        self.methods = methods
        self.summary: list[dict[str, str]] = []
        # section -> metric -> class -> method -> value
        self.sections: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
        if (folder / "summary.tsv").is_file():
            self.summary = read_tsv(folder / "summary.tsv")[1]
        if (folder / "sections.tsv").is_file():
            for row in read_tsv(folder / "sections.tsv")[1]:
                classes = self.sections.setdefault(row["section"], {}).setdefault(row["metric"], {})
                classes.setdefault(row["class"], {})[row["method"]] = float(row["value"] or "nan")

    def table(self) -> list[dict[str, Any]]:
        """Lines of the summary, one column per method, graded against linear."""
        lines: dict[tuple[str, ...], dict[str, dict[str, str]]] = {}
        for row in self.summary:
            key = row["metric"], row["class"], row["statistic"]
            lines.setdefault(key, {})[row["method"]] = row
        found = []
        for (metric, class_, statistic), by_method in lines.items():
            values = {m: float(r["value"] or "nan") for m, r in by_method.items()}
            some = next(iter(by_method.values()))
            found.append(
                {
                    "metric": metric,
                    "class": class_,
                    "statistic": statistic,
                    "unit": some["unit"],
                    "n": some["n"],
                    "cells": [
                        {
                            "text": number(values.get(method)),
                            "grade": _grade(metric, values.get("linear"), values.get(method)),
                        }
                        for method in self.methods
                    ],
                }
            )
        return found

    def headline(self, metric: str, method: str) -> float | None:
        """Mean of a metric over the brain and its classes."""
        values = [
            float(row["value"] or "nan")
            for row in self.summary
            if (row["metric"], row["method"]) == (metric, method)
            and row["statistic"] in ("mean", "value")
        ]
        return float(np.mean(values)) if values else None

    def worse_than_linear(self) -> list[str]:
        """One line per section and method that linear did better in something."""
        found = []
        for section, metrics in self.sections.items():
            worse: dict[str, list[str]] = {}
            for metric, margin in _WORSE.items():
                for class_, by_method in metrics.get(metric, {}).items():
                    for method, value in by_method.items():
                        change = value - by_method.get("linear", math.nan)
                        # margin > 0: lower is better, < 0: higher is
                        if change * math.copysign(1, margin) > abs(margin):
                            name = f"{metric} of class {class_}" if class_ else metric
                            linear = number(by_method["linear"])
                            worse.setdefault(method, []).append(
                                f"{name} {number(value)} (linear {linear})"
                            )
            found += [
                f"section {section}: {method} is worse than linear in {', '.join(what)}"
                for method, what in worse.items()
            ]
        return found

    def of_section(self, section: str) -> list[str]:
        """What was measured of a section, method by method."""
        texts = []
        for metric in ("in_plane_mm", "dice"):
            classes = self.sections.get(section, {}).get(metric, {})
            means = {
                method: np.mean([c[method] for c in classes.values() if method in c])
                for method in self.methods
                if any(method in c for c in classes.values())
            }
            if means:
                texts.append(f"{metric} " + ", ".join(f"{m} {number(v)}" for m, v in means.items()))
        return texts


def _grade(metric: str, linear: float | None, value: float | None) -> str:
    """CSS class of a value: better or worse than linear by more than 1 %, or neither."""
    if linear is None or value is None or abs(value - linear) <= 0.01 * abs(linear):
        return ""
    if metric in _LOWER_IS_BETTER:
        return "good" if value < linear else "bad"
    if metric in _HIGHER_IS_BETTER:
        return "good" if value > linear else "bad"
    return ""


def _tiles(
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]], measured: _Measured
) -> list[dict[str, str]]:
    first = next(iter(rows.values()), {})
    positions = [row["position_mm"] for row in first.values() if row["status"] == "ok"]
    tiles = [{"name": "sections", "value": f"{len(positions)} of {len(first)}"}]
    if positions:
        reach = f"{min(positions):g} to {max(positions):g} mm"
        tiles.append({"name": "along the stack", "value": reach})
    for metric, name in (
        ("in_plane_mm", "in-plane landmark error, mm"),
        ("dice", "Dice of sections, mean over classes"),
        ("dice_volume", "Dice of the volume, mean over classes"),
    ):
        values = {m: measured.headline(metric, m) for m in measured.methods}
        known = [f"{m} {number(v)}" for m, v in values.items() if v is not None]
        if known:
            tiles.append({"name": name, "value": " → ".join(known)})
    return tiles


def _alarms(
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]], measured: _Measured, results_dir: Path
) -> list[str]:
    failed: dict[str, str] = {}
    warned: dict[str, list[str]] = {}
    for stage in _STAGES:
        table = results_dir / stage / "sections.tsv"
        if table.is_file():
            for row in read_table(table, only_ok=False, verify=False):
                if row["status"] == "ok" and row["message"]:
                    warned.setdefault(row["message"], []).append(row["section"])
                if row["status"] != "ok":
                    failed.setdefault(row["section"], f"{stage}: {row['message']}")
    for method, found in rows.items():
        for section, row in found.items():
            if row["status"] != "ok":
                failed.setdefault(section, f"{method}: {row['message']}")
    alarms = [f"section {section} was left out by {why}" for section, why in failed.items()]
    # what is wrong with one section's pixel size mostly is with all
    alarms += [
        f"section{'s' * (len(sections) > 1)} {some_of(sections)}: {message}"
        for message, sections in warned.items()
    ]
    if (measuring := results_dir / "evaluation" / PROVENANCE).is_file():
        left_out = read_json(measuring).get("labels_left_out", {})
        alarms += [f"section {s}: its labels were left out: {why}" for s, why in left_out.items()]
    for method, found in rows.items():
        for section, row in found.items():
            if row["status"] != "ok":
                continue
            if row["folding_percent"] > 0:
                alarms.append(
                    f"section {section}: {method} folds {number(row['folding_percent'])} % of it"
                )
            if row["inverse_p99_px"] > 0.1:
                alarms.append(
                    f"section {section}: {method} there and back ends"
                    f" {number(row['inverse_p99_px'])} px away (99th percentile)"
                )
    return alarms + measured.worse_than_linear()


def _deformations(method: str, rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    """One line of the table of deformations."""
    done = [row for row in rows if row["status"] == "ok"]
    summaries = (
        ("disp_mean_mm", np.mean),
        ("disp_max_mm", np.max),
        ("folding_percent", np.max),
        ("inverse_mean_px", np.mean),
        ("inverse_p99_px", np.max),
    )
    texts = [number(float(f([row[c] for row in done]))) if done else "–" for c, f in summaries]
    return {"method": method, "sections": len(done), "texts": texts}


def _on_simulated_pairs(folder: Path) -> list[dict[str, Any]]:
    """Lines of what each method leaves on the brain's simulated pairs, where they were measured."""
    if not (folder / "summary.tsv").is_file():
        return []
    found: dict[str, dict[str, float]] = {}
    for row in read_tsv(folder / "summary.tsv")[1]:
        if row["metric"] == "in_plane_mm":
            values = found.setdefault(row["method"], {})
            values[row["statistic"]] = float(row["value"] or "nan")
    linear = found.get("linear", {})
    return [
        {
            "method": method,
            "cells": [
                {
                    "text": number(values.get(statistic)),
                    "grade": _grade("in_plane_mm", linear.get(statistic), values.get(statistic)),
                }
                for statistic in _SIMULATED_STATISTICS
            ],
        }
        for method, values in found.items()
    ]


def _alignment(folder: Path) -> dict[str, Any] | None:
    """The picture and the plain numbers that `align` left."""
    facts = []
    if (folder / "quality.json").is_file():
        for name, value in read_json(folder / "quality.json").items():
            if name in ("stage", "revision"):
                continue
            if isinstance(value, int | float | str) and not isinstance(value, bool):
                text = value if isinstance(value, str) else number(value)
                facts.append((name.replace("_", " "), text))
    picture = folder / "overview.png"
    if not facts and not picture.is_file():
        return None
    return {"facts": facts, "uri": png_uri(picture) if picture.is_file() else ""}


def _doctor(folder: Path, options: ReportOptions) -> dict[str, Any] | None:
    """What `doctor` found, and its contact sheet."""
    if not (folder / FINDINGS).is_file():
        return None
    from PIL import Image

    with Image.open(folder / CONTACT_SHEET) as picture:
        sheet = jpeg(np.asarray(picture.convert("RGB")), "all sections", options.jpeg_quality)
    return {"findings": read_tsv(folder / FINDINGS)[1], "sheet": sheet}


def _suspects(doctor: Mapping[str, Any] | None) -> list[str]:
    """A line for each section the doctor would have changed; those left out stand there already."""
    return [
        f"{line['words']} (the doctor says, {line['confidence']})"
        for line in (doctor or {"findings": []})["findings"]
        if line["suggestion"] and line["finding"] != "unusable"
    ]


def _losses(results_dir: Path, methods: Mapping[str, Path]) -> list[dict[str, str]]:
    found = [("registrar", results_dir / "registrar")]
    found += [(method, Path(folder)) for method, folder in methods.items()]
    return [
        {"title": title, "uri": png_uri(folder / "loss.png")}
        for title, folder in found
        if (folder / "loss.png").is_file()
    ]


def _volume_cuts(
    brain: str, methods: Mapping[str, Path], results_dir: Path, options: ReportOptions
) -> list[dict[str, Any]]:
    """Three cuts of the MRI and of every method's volume, or of the stack where there is no MRI."""
    space = "mri"
    found = {
        m: Path(f) / "volume" / f"{brain}_space-mri_histology.nii.gz" for m, f in methods.items()
    }
    mri = results_dir / "prepare" / "mri.nii.gz"
    if not mri.is_file() or not any(path.is_file() for path in found.values()):
        space = "stack"
        found = {
            m: Path(f) / "volume" / f"{brain}_space-stack_histology.nii.gz"
            for m, f in methods.items()
        }
    found = {method: path for method, path in found.items() if path.is_file()}
    if not found:
        return []
    middle, mri_cuts = None, None
    if space == "mri":
        mask = results_dir / "prepare" / "mri_mask.nii.gz"
        middle = _centre_mm(read_volume(mask if mask.is_file() else mri))
        mri_cuts = read_cuts(mri, middle)
    cuts = {method: read_cuts(path, middle) for method, path in found.items()}
    rows = []
    for index, title in enumerate(_CUT_NAMES[space]):
        drawn = []
        some = next(iter(cuts.values()))[index]
        shape = pictures.display_shape(some.image.shape, options.max_width_px, some.pixel_mm)
        fixed = None
        if mri_cuts is not None:
            fixed = pictures.resized(pictures.window(mri_cuts[index].image), shape)
            drawn.append(jpeg(pictures.rgb(fixed), "MRI", options.jpeg_quality))
        for method, three in cuts.items():
            image = three[index].image
            if space == "stack":  # as the sections lie, columns and rows growing to the right
                image = image[:, ::-1]
            image = pictures.resized(image, shape)
            grey = pictures.window(image, None if fixed is None else fixed > _BRAIN)
            drawn.append(jpeg(pictures.rgb(grey), method, options.jpeg_quality))
            if fixed is not None:
                edges = pictures.overlay(grey, fixed)
                drawn.append(jpeg(edges, f"{method}, edges of the MRI", options.jpeg_quality))
        rows.append({"title": title, "pictures": drawn})
    return rows


def _centre_mm(volume: Volume) -> np.ndarray:
    """Centre of what is above zero, RAS mm."""
    voxels = np.argwhere(volume.data > 0)
    return geometry.apply(volume.world_from_voxel, voxels.mean(axis=0))


def _sections(
    tables: Mapping[str, Path],
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]],
    measured: _Measured,
    results_dir: Path,
    options: ReportOptions,
) -> list[dict[str, Any]]:
    """A row of pictures for every section, in the order of the tables."""
    planes_table = results_dir / "resample" / "sections.tsv"
    planes = {row["section"]: row for row in read_table(planes_table, verify=False)}
    found = []
    for section in dict.fromkeys(name for table in rows.values() for name in table):
        ours = {method: table[section] for method, table in rows.items() if section in table}
        failures = [f"{m}: {r['message']}" for m, r in ours.items() if r["status"] != "ok"]
        done = {method: row for method, row in ours.items() if row["status"] == "ok"}
        facts, drawn = [], []
        if done:
            facts.append(f"at {next(iter(done.values()))['position_mm']:g} mm")
        for method, row in done.items():
            if row["disp_max_mm"] > 0:
                facts.append(
                    f"{method} moves it by {number(row['disp_mean_mm'])} mm, at most"
                    f" {number(row['disp_max_mm'])} mm"
                )
        facts += measured.of_section(section)
        if done and section in planes:
            mri, _ = read_plane(_existing(planes_table, planes[section], "_mri.nii.gz"))
            drawn = _section_pictures(mri, done, tables, options)
        found.append(
            {
                "name": section,
                "facts": " · ".join(facts),
                "message": "; ".join(dict.fromkeys(failures)),
                "pictures": drawn,
            }
        )
    return found


def _existing(table: Path, row: Mapping[str, Any], ending: str) -> Path:
    path = file_of(table, row, ending)
    if not path.is_file():
        raise ReceiptError(f"{path}: missing, although {table} lists it")
    return path


def _section_pictures(
    mri: np.ndarray,
    done: Mapping[str, Mapping[str, Any]],
    tables: Mapping[str, Path],
    options: ReportOptions,
) -> list[dict[str, Any]]:
    """Before and after, checkerboard, synthesis and grid of one section.

    Parameters
    ----------
    mri : (rows, columns), its MRI plane.
    done : its rows in the tables of the methods.
    """
    shape = pictures.display_shape(mri.shape, options.max_width_px)
    fixed = pictures.resized(pictures.window(mri), shape)
    edges = pictures.edges(fixed)
    drawn = []
    for method, row in done.items():
        image, _ = read_plane(_existing(tables[method], row, "_registered.nii.gz"))
        moving = pictures.window(pictures.resized(image, shape), fixed > _BRAIN)
        overlay = pictures.painted(pictures.rgb(moving), edges, pictures.MRI_COLOUR)
        drawn.append(jpeg(overlay, f"{method}, edges of the MRI", options.jpeg_quality))
        if row["disp_max_mm"] == 0 and len(done) > 1:
            continue  # a trained method shows the rest
        board = pictures.checkerboard(moving, fixed)
        drawn.append(jpeg(board, f"{method} and MRI", options.jpeg_quality))
        if any(name.endswith("_synthesised.nii.gz") for name in row["files"]):
            made, _ = read_plane(_existing(tables[method], row, "_synthesised.nii.gz"))
            grey = pictures.rgb(pictures.resized(np.clip(made, 0, 1), shape))
            drawn.append(jpeg(grey, f"{method}, synthesised", options.jpeg_quality))
        disp_px = _displacement_px(tables[method], row, shape)
        if disp_px is not None:
            lines = pictures.grid(disp_px, 0.35 * fixed + 0.65, max(shape) / _GRID_LINES)
            drawn.append(jpeg(lines, f"{method}, deformation", options.jpeg_quality))
    return drawn


def _displacement_px(
    table: Path, row: Mapping[str, Any], shape: tuple[int, int]
) -> np.ndarray | None:
    """A section's deformation on a picture of its plane, (rows, columns, 2) px, if it has one."""
    path = _existing(table, row, "_from-section_to-stack_mode-image_xfm.h5")
    field = read_section_transform(path).steps[0]
    if not isinstance(field, PlaneField):
        return None
    # the picture keeps the plane's outer edges
    scale = int(row["rows"]) / shape[0], int(row["columns"]) / shape[1]
    rows, columns = np.indices(shape)
    plane_px = np.stack([(columns + 0.5) * scale[1] - 0.5, (rows + 0.5) * scale[0] - 0.5], axis=-1)
    plane_mm = plane_px * float(row["spacing_mm"])
    moved_px = (field.map(plane_mm) - plane_mm) / float(row["spacing_mm"])
    return moved_px / [scale[1], scale[0]]
