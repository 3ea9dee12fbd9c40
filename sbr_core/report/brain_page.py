"""What the page of one brain shows: numbers, alarms, and pictures of volume and sections.

Whatever a brain does not have, an evaluation, a 3D volume, a training, simulated pairs or a
comparison of methods, is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from sbr_core import geometry
from sbr_core.artifacts import names
from sbr_core.artifacts.rows import Affine, Inferred, Plane, Row, read_rows
from sbr_core.errors import some_of
from sbr_core.io.files import read_json
from sbr_core.io.manifests import SIMULATED
from sbr_core.io.sums import lost_from
from sbr_core.io.tables import read_tsv
from sbr_core.io.transforms import PlaneField, read_section_transform
from sbr_core.io.volumes import Volume, read_cuts, read_plane, read_volume
from sbr_core.report import pictures
from sbr_core.report.corrections import Corrected
from sbr_core.report.measures import SIMULATED_STATISTICS, Measured, on_simulated_pairs
from sbr_core.report.page import comparison_of, jpeg, number, png_uri, read_png, simulated_from

if TYPE_CHECKING:
    from sbr_core.config import ReportOptions

logger = logging.getLogger(__name__)

_GRID_LINES = 18
"""Lines of the deformed grid along a picture's longer side: enough to see a fold, few enough for
the section to show between them."""
_BRAIN = 0.1
"""An MRI that is shown in [0, 1] has brain above this, roughly; grey levels of the histology are
scaled by what lies there."""
_GRID_WASH = 0.35
"""Contrast of the MRI behind the deformed grid, on white, so that the grid's lines stand out."""
_INVERSE_ALARM_PX = 0.1
"""Where a point that goes there and back ends this far off, the inverse is worth a look."""
_CUT_NAMES = {
    "mri": ("sagittal", "coronal", "axial"),
    "stack": ("middle column", "middle row", "middle position"),
}
_STAGES = ("prepare", "resample", "align_sections")
"""The stages before the methods that can leave out a section."""
_DEFORMATIONS = {
    "disp_mean_mm": np.mean,
    "disp_max_mm": np.max,
    "folding_percent": np.max,
    "inverse_mean_px": np.mean,
    "inverse_p99_px": np.max,
}
"""Columns of the table of deformations, and how the sections of a method are summed up."""


class _Evaluation(BaseModel):
    """What the page shows of what `evaluate` wrote."""

    labels_left_out: dict[str, str] = {}
    labels_apart: str = ""


class _Doubts(BaseModel):
    """What the page shows of what `prepare_mri` or `align` wrote."""

    doubts: list[str] = []


Rows = Mapping[str, Mapping[str, Row]]
"""Method -> section -> its row; sections that failed are no `Inferred`."""


def brain_page(
    options: ReportOptions, brain: str, methods: Mapping[str, Path], results_dir: Path
) -> dict[str, Any]:
    """Values of ``report.html.j2``.

    Parameters
    ----------
    methods : method -> its folder of results, in the order in which they are shown.
    results_dir : the brain's folder of results.
    """
    rows: Rows = {
        method: {row.section: row for row in _all_rows(folder / names.TABLE, Inferred)}
        for method, folder in methods.items()
    }
    measured = Measured(results_dir / "evaluation", list(methods))
    doctor = _doctor(results_dir / "doctor", options)
    corrected = Corrected.of(results_dir / "evaluation")
    return {
        "brain": brain,
        "simulated": simulated_from(brain, results_dir),
        "methods": list(methods),
        "tiles": _tiles(rows, measured, results_dir / "prepare" / names.TABLE),
        "alarms": corrected.alarms
        + _alarms(rows, results_dir)
        + measured.worse_than_linear()
        + _suspects(doctor),
        "accuracy": measured.table(),
        "on_simulated": on_simulated_pairs(results_dir.with_name(brain + SIMULATED) / "evaluation"),
        "statistics": SIMULATED_STATISTICS,
        "deformations": [_deformations(method, of_method) for method, of_method in rows.items()],
        "cuts": _volume_cuts(options, brain, methods, results_dir),
        "alignment": _alignment(results_dir / "align"),
        "losses": _losses({"registrar": results_dir / "registrar", **methods}),
        "checked": _checked(results_dir),
        "doctor": doctor,
        "comparison": comparison_of(results_dir / "compare"),
        "mri_colour": pictures.MRI_COLOUR,
        "sections": _sections(options, rows, measured, corrected, results_dir),
    }


def _all_rows(table: Path, kind: type[Row]) -> list[Row]:
    """Rows of all sections, without reading their files; a page shows what is there."""
    return read_rows(table, kind, only_ok=False, verify=False)


def _inferred(rows: Mapping[str, Row]) -> dict[str, Inferred]:
    """Those of the rows whose section did not fail."""
    return {key: row for key, row in rows.items() if isinstance(row, Inferred)}


# --------------------------------------------------------------------------------------------
# Numbers and alarms
# --------------------------------------------------------------------------------------------


def _tiles(rows: Rows, measured: Measured, prepared: Path) -> list[dict[str, str]]:
    first = next(iter(rows.values()), {})
    sections = {row.section for row in _all_rows(prepared, Row)} if prepared.is_file() else set()
    positions_mm = [row.position_mm for row in _inferred(first).values()]
    tiles = [{"name": "sections", "value": f"{len(positions_mm)} of {len(sections | {*first})}"}]
    if positions_mm:
        reach = f"{min(positions_mm):g} to {max(positions_mm):g} mm"
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


def _alarms(rows: Rows, results_dir: Path) -> list[str]:
    """Sections that were left out, warnings of stages, and deformations that fold."""
    failed: dict[str, str] = {}
    warned: dict[str, list[str]] = {}
    tables = {stage: results_dir / stage / names.TABLE for stage in _STAGES}
    of_stages = {s: _all_rows(table, Row) for s, table in tables.items() if table.is_file()}
    for row in (row for of_stage in of_stages.values() for row in of_stage):
        if row.ok and row.message:
            warned.setdefault(row.message, []).append(row.section)
    of_methods = {method: list(of_method.values()) for method, of_method in rows.items()}
    for maker, all_rows in [*of_stages.items(), *of_methods.items()]:
        for row in all_rows:
            if not row.ok:
                failed.setdefault(row.section, f"{maker}: {row.message}")
    alarms = _lost(results_dir)
    alarms += [f"section {section} was left out by {why}" for section, why in failed.items()]
    prepared = [row.section for row in of_stages.get("prepare", ())]
    for maker, all_rows in of_methods.items():
        there = {row.section for row in all_rows}
        if lost := [section for section in prepared if section not in there]:
            alarms.append(f"the table of {maker} lacks sections of prepare: {some_of(lost)}")
    # what is wrong with one section's pixel size mostly is with all
    alarms += [
        f"section{'s' * (len(sections) > 1)} {some_of(sections)}: {message}"
        for message, sections in warned.items()
    ]
    alarms += [f"the MRI: {d}" for d in _doubts(results_dir / "prepare" / names.MRI_FACTS)]
    alarms += _doubts(results_dir / "align" / names.QUALITY)
    # some is found again by the stages that are concerned
    alarms += [
        f"{line['looked_at']}: {line['words']}"
        for line in _checked(results_dir)
        if line["verdict"] != "fine" and not any(line["words"] in alarm for alarm in alarms)
    ]
    if (evaluation := results_dir / "evaluation" / names.EVALUATION).is_file():
        facts = read_json(evaluation, _Evaluation)
        for section, why in facts.labels_left_out.items():
            whose = f"section {section}" if section else "the MRI"
            alarms.append(f"{whose}: its labels were left out: {why}")
        alarms += [facts.labels_apart] * bool(facts.labels_apart)
    for method, of_method in rows.items():
        for section, row in _inferred(of_method).items():
            if row.folding_percent > 0:
                alarms.append(
                    f"section {section}: {method} folds {number(row.folding_percent)} % of it"
                )
            if row.inverse_p99_px > _INVERSE_ALARM_PX:
                alarms.append(
                    f"section {section}: {method} there and back ends"
                    f" {number(row.inverse_p99_px)} px away (99th percentile)"
                )
    return alarms


def _lost(results_dir: Path) -> list[str]:
    """Files that a stage wrote and that are gone, which the page would be without unseen."""
    folders = sorted([*results_dir.glob("*"), *results_dir.glob(f"*/{names.VOLUME}")])
    lost = [
        f"{path.relative_to(results_dir)} was written and is missing; this page is without it"
        for folder in folders
        for path in lost_from(folder)
    ]
    for line in lost:
        logger.warning(f"report: WARNING: {line}")
    return lost


def _doubts(facts: Path) -> list[str]:
    """What a stage found doubtful, by its facts; nothing where there are none."""
    return read_json(facts, _Doubts).doubts if facts.is_file() else []


def _checked(results_dir: Path) -> list[dict[str, str]]:
    """The table of `check`; empty of a brain that was not checked."""
    table = results_dir / "check" / names.FINDINGS
    return read_tsv(table)[1] if table.is_file() else []


def _deformations(method: str, of_method: Mapping[str, Row]) -> dict[str, Any]:
    """One line of the table of deformations."""
    rows = _inferred(of_method).values()
    texts = [
        number(float(summed_up([getattr(row, column) for row in rows]))) if rows else "–"
        for column, summed_up in _DEFORMATIONS.items()
    ]
    return {"method": method, "sections": len(rows), "texts": texts}


def _alignment(folder: Path) -> dict[str, Any] | None:
    """The picture and the plain numbers that `align` left."""
    quality = read_json(folder / names.QUALITY) if (folder / names.QUALITY).is_file() else {}
    facts = [
        (name.replace("_", " "), value if isinstance(value, str) else number(value))
        for name, value in quality.items()
        # seconds: a page is the same whenever it is made
        if name not in ("stage", "revision", "seconds")
        if isinstance(value, int | float | str) and not isinstance(value, bool)
    ]
    picture = folder / names.OVERVIEW
    if not facts and not picture.is_file():
        return None
    return {"facts": facts, "uri": png_uri(folder, names.OVERVIEW) if picture.is_file() else ""}


def _doctor(folder: Path, options: ReportOptions) -> dict[str, Any] | None:
    """The findings of `doctor`, and its contact sheet."""
    if not (folder / names.FINDINGS).is_file():
        return None
    picture = read_png(folder, names.CONTACT_SHEET).convert("RGB")
    sheet = jpeg(np.asarray(picture), "all sections", options.jpeg_quality)
    return {"findings": read_tsv(folder / names.FINDINGS)[1], "sheet": sheet}


def _suspects(doctor: Mapping[str, Any] | None) -> list[str]:
    """A line for each section the doctor would have changed; those left out have one already."""
    return [
        f"{line['words']} (the doctor says, {line['confidence']})"
        for line in (doctor or {"findings": []})["findings"]
        if line["suggestion"] and line["finding"] != "unusable"
    ]


def _losses(folders: Mapping[str, Path]) -> list[dict[str, str]]:
    """The loss curves that there are, by the name of what was trained."""
    return [
        {"title": title, "uri": png_uri(folder, names.LOSS_PLOT)}
        for title, folder in folders.items()
        if (folder / names.LOSS_PLOT).is_file()
    ]


# --------------------------------------------------------------------------------------------
# Pictures
# --------------------------------------------------------------------------------------------


def _volume_cuts(
    options: ReportOptions, brain: str, methods: Mapping[str, Path], results_dir: Path
) -> list[dict[str, Any]]:
    """Three cuts of the MRI and of every method's volume, or of the stack where there is no MRI."""
    mri = results_dir / "prepare" / names.MRI_VOLUME
    volumes = _volumes(brain, methods, "mri") if mri.is_file() else {}
    space = "mri" if volumes else "stack"
    volumes = volumes or _volumes(brain, methods, "stack")
    if not volumes:
        return []
    middle, mri_cuts = None, None
    if space == "mri":
        mask = results_dir / "prepare" / names.MRI_MASK_VOLUME
        middle = _centre_mm(read_volume(mask if mask.is_file() else mri))
        mri_cuts = read_cuts(mri, middle)
    cuts = {method: read_cuts(path, middle) for method, path in volumes.items()}
    lines = []
    for index, title in enumerate(_CUT_NAMES[space]):
        jpegs = []
        first = next(iter(cuts.values()))[index]
        shape = pictures.display_shape(first.image.shape, options.max_width_px, first.pixel_mm)
        fixed = None
        if mri_cuts is not None:
            fixed = pictures.resized(pictures.window(mri_cuts[index].image), shape)
            jpegs.append(jpeg(pictures.rgb(fixed), "MRI", options.jpeg_quality))
        for method, three in cuts.items():
            image = three[index].image
            if space == "stack":  # as the sections lie, columns and rows growing to the right
                image = image[:, ::-1]
            image = pictures.resized(image, shape)
            grey = pictures.window(image, None if fixed is None else fixed > _BRAIN)
            jpegs.append(jpeg(pictures.rgb(grey), method, options.jpeg_quality))
            if fixed is not None:
                edges = pictures.overlay(grey, fixed)
                jpegs.append(jpeg(edges, f"{method}, edges of the MRI", options.jpeg_quality))
        lines.append({"title": title, "pictures": jpegs})
    return lines


def _volumes(brain: str, methods: Mapping[str, Path], space: str) -> dict[str, Path]:
    """Method, and stain group if any -> reassembled histology, as far as there is some."""
    return {
        f"{method}, {group}" if group else method: names.volume_file(
            folder / names.VOLUME, brain, space, "histology", group
        )
        for method, folder in methods.items()
        for group in names.volume_groups(folder / names.VOLUME, brain, space)
        if not _is_of_nothing(names.volume_facts(folder / names.VOLUME, brain, space, group))
    }


def _is_of_nothing(facts: Path) -> bool:
    """Whether a volume is empty, since all sections of its stain group failed."""
    return facts.is_file() and read_json(facts).get("sections") == []


def _centre_mm(volume: Volume) -> np.ndarray:
    """Centre of what is above zero, RAS mm."""
    voxels = np.argwhere(volume.data > 0)
    return geometry.apply(volume.world_from_voxel, voxels.mean(axis=0))


def _sections(
    options: ReportOptions,
    rows: Rows,
    measured: Measured,
    corrected: Corrected,
    results_dir: Path,
) -> list[dict[str, Any]]:
    """Facts and pictures of every section, in the order of the tables."""
    planes_table = results_dir / "resample" / names.TABLE
    planes = {row.section: row for row in read_rows(planes_table, Plane, verify=False)}
    trusts = _trusts(results_dir / "align_sections" / names.TABLE)
    sections = []
    for section in dict.fromkeys(name for table in rows.values() for name in table):
        of_section = {method: table[section] for method, table in rows.items() if section in table}
        failures = [f"{m}: {row.message}" for m, row in of_section.items() if not row.ok]
        inferred = _inferred(of_section)
        facts = [f"at {row.position_mm:g} mm" for row in inferred.values()][:1]
        facts += [
            f"{method} moves it by {number(row.disp_mean_mm)} mm, at most"
            f" {number(row.disp_max_mm)} mm"
            for method, row in inferred.items()
            if row.disp_max_mm > 0
        ]
        if section in trusts:
            facts.append(f"affine trusted {trusts[section]:.2f} of 1")
        facts += measured.of_section(section)
        facts += corrected.facts(section)
        plane = planes.get(section) if inferred else None
        sections.append(
            {
                "name": section,
                "facts": " · ".join(facts),
                "message": "; ".join(dict.fromkeys(failures)),
                "pictures": _section_pictures(options, plane, inferred) if plane else [],
            }
        )
    return sections


def _trusts(table: Path) -> dict[str, float]:
    """Section -> how far its affine can be trusted, where `align_sections` says so."""
    rows = read_rows(table, Affine, verify=False) if table.is_file() else []
    return {row.section: row.trust for row in rows if row.trust is not None}


def _section_pictures(
    options: ReportOptions, plane: Plane, inferred: Mapping[str, Inferred]
) -> list[dict[str, Any]]:
    """Before and after, checkerboard, synthesis and grid of one section.

    Parameters
    ----------
    inferred : method -> the section's row.
    """
    mri, _ = read_plane(plane.intact(names.MRI))
    shape = pictures.display_shape(mri.shape, options.max_width_px)
    fixed = pictures.resized(pictures.window(mri), shape)
    edges = pictures.edges(fixed)
    jpegs = []
    for method, row in inferred.items():
        image, _ = read_plane(row.intact(names.REGISTERED))
        moving = pictures.window(pictures.resized(image, shape), fixed > _BRAIN)
        overlay = pictures.painted(pictures.rgb(moving), edges, pictures.MRI_COLOUR)
        jpegs.append(jpeg(overlay, f"{method}, edges of the MRI", options.jpeg_quality))
        if row.disp_max_mm == 0 and len(inferred) > 1:
            continue  # a trained method shows the rest
        board = pictures.checkerboard(moving, fixed)
        jpegs.append(jpeg(board, f"{method} and MRI", options.jpeg_quality))
        if row.has(names.SYNTHESISED):
            synthesised, _ = read_plane(row.intact(names.SYNTHESISED))
            grey = pictures.rgb(pictures.resized(np.clip(synthesised, 0, 1), shape))
            jpegs.append(jpeg(grey, f"{method}, synthesised", options.jpeg_quality))
        disp_px = _displacement_px(row, shape)
        if disp_px is not None:
            background = _GRID_WASH * fixed + (1 - _GRID_WASH)
            grid = pictures.grid(disp_px, background, max(shape) / _GRID_LINES)
            jpegs.append(jpeg(grid, f"{method}, deformation", options.jpeg_quality))
    return jpegs


def _displacement_px(row: Inferred, shape: tuple[int, int]) -> np.ndarray | None:
    """A section's deformation on a picture of its plane, (rows, columns, 2) px, if it has one."""
    field = read_section_transform(row.intact(names.SECTION_TO_STACK)).steps[0]
    if not isinstance(field, PlaneField):
        return None
    # the picture keeps the plane's outer edges
    scale = row.grid.shape[0] / shape[0], row.grid.shape[1] / shape[1]
    rows, columns = np.indices(shape)
    plane_px = np.stack([(columns + 0.5) * scale[1] - 0.5, (rows + 0.5) * scale[0] - 0.5], axis=-1)
    plane_mm = plane_px * row.grid.spacing_mm
    moved_px = (field.map(plane_mm) - plane_mm) / row.grid.spacing_mm
    return moved_px / [scale[1], scale[0]]
