"""What the page of one brain shows: numbers, alarms, and pictures of volume and sections.

Whatever a brain does not have, an evaluation, a 3D volume, a training, simulated pairs or a
comparison of methods, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbr_core import geometry
from sbr_core.artifacts import names
from sbr_core.artifacts.rows import Inferred, Row
from sbr_core.io.files import read_json
from sbr_core.io.label_tables import NO_NAMES, LabelTable
from sbr_core.io.manifests import SIMULATED
from sbr_core.io.tables import read_tsv
from sbr_core.io.volumes import Volume, read_cuts, read_volume
from sbr_core.report import pictures, words
from sbr_core.report.alarms import Rows, alarm_groups, all_rows, checked_lines, inferred
from sbr_core.report.corrections import Corrected
from sbr_core.report.layers import BRAIN
from sbr_core.report.measures import SIMULATED_STATISTICS, Measured, on_simulated_pairs
from sbr_core.report.next_commands import BrainPaths
from sbr_core.report.page import comparison_of, jpeg, number, png_uri, read_png, simulated_from
from sbr_core.report.shelf import Shelf
from sbr_core.report.suspects import most_of_the_mean, suspects
from sbr_core.report.viewer import printed_figures, read_trusts, viewer_of

if TYPE_CHECKING:
    from sbr_core.config import ReportOptions

_CUT_NAMES = {
    "mri": ("sagittal", "coronal", "axial"),
    "stack": ("middle column", "middle row", "middle position"),
}
_DEFORMATIONS = {
    "disp_mean_mm": np.mean,
    "disp_max_mm": np.max,
    "folding_percent": np.max,
    "inverse_mean_px": np.mean,
    "inverse_p99_px": np.max,
}
"""Columns of the table of deformations, and how the sections of a method are summed up."""


def brain_page(
    options: ReportOptions,
    brain: str,
    methods: Mapping[str, Path],
    paths: BrainPaths,
    shelf: Shelf,
    labels: LabelTable = NO_NAMES,
) -> dict[str, Any]:
    """Values of ``report.html.j2``.

    Parameters
    ----------
    methods : method -> its folder of results, in the order in which they are shown.
    paths : the brain's folder of results, and what commands on the page name.
    shelf : gets the pictures of the sections.
    labels : what the classes are called.
    """
    results_dir = paths.results
    rows: Rows = {
        method: {row.section: row for row in all_rows(folder / names.TABLE, Inferred)}
        for method, folder in methods.items()
    }
    measured = Measured(results_dir / "evaluation", list(methods), labels)
    doctor = _doctor(results_dir / "doctor", options)
    corrected = Corrected.of(results_dir / "evaluation")
    trusts = {m: found for m, folder in methods.items() if (found := read_trusts(folder))}
    shown = list(trusts or methods or [""])[-1]  # first
    viewer = viewer_of(options, brain, rows, measured, corrected, results_dir, trusts, shelf)
    return {
        "brain": brain,
        "simulated": simulated_from(brain, results_dir),
        "methods": list(methods),
        "tiles": _tiles(rows, measured, results_dir / "prepare" / names.TABLE),
        "suspects": suspects(trusts.get(shown, {}), corrected, measured, shown),
        "viewer": viewer | {"correct_command": paths.correct},
        "apply_findings_command": paths.apply_findings,
        "figures": printed_figures(viewer["sections"]),
        "pictures": shelf.uris(),
        "is_beside": shelf.is_beside,
        "alarms": alarm_groups(rows, results_dir, measured.worse_than_linear(), corrected, doctor),
        "accuracy": measured.table(),
        "most_of_the_mean": most_of_the_mean(measured, shown),
        "on_simulated": on_simulated_pairs(results_dir.with_name(brain + SIMULATED) / "evaluation"),
        "statistics": [words.statistic(name) for name in SIMULATED_STATISTICS],
        "deformations": [_deformations(method, of_method) for method, of_method in rows.items()],
        "cuts": _volume_cuts(options, brain, methods, results_dir),
        "alignment": _alignment(results_dir / "align"),
        "losses": _losses({"registrar": results_dir / "registrar", **methods}),
        "checked": checked_lines(results_dir),
        "doctor": doctor,
        "comparison": comparison_of(results_dir / "compare"),
        "mri_colour": pictures.MRI_COLOUR,
    }


# --------------------------------------------------------------------------------------------
# Numbers and alarms
# --------------------------------------------------------------------------------------------


def _tiles(rows: Rows, measured: Measured, prepared: Path) -> list[dict[str, str]]:
    first = next(iter(rows.values()), {})
    sections = {row.section for row in all_rows(prepared, Row)} if prepared.is_file() else set()
    positions_mm = [row.position_mm for row in inferred(first).values()]
    tiles = [{"name": "sections", "value": f"{len(positions_mm)} of {len(sections | {*first})}"}]
    if positions_mm:
        reach = f"{min(positions_mm):g} to {max(positions_mm):g} mm"
        tiles.append({"name": "along the stack", "value": reach})
    for metric in ("in_plane_mm", "dice", "dice_volume"):
        values = {m: measured.headline(metric, m) for m in measured.methods}
        known = [f"{m} {number(v)}" for m, v in values.items() if v is not None]
        if known:
            said = words.metric(metric)
            name = said.name + (f", {said.unit}" if said.unit else ", mean over classes")
            tiles.append({"name": name, "value": " → ".join(known)})
    return tiles


def _deformations(method: str, of_method: Mapping[str, Row]) -> dict[str, Any]:
    """One line of the table of deformations."""
    rows = inferred(of_method).values()
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
            grey = pictures.window(image, None if fixed is None else fixed > BRAIN)
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
