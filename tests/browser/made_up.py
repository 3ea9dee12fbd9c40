"""Pages of brains that never were, with as many sections, and such names, as a test asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sbr_core.report.alarms import AlarmGroup
from sbr_core.report.page import write_page
from sbr_core.report.pictures import GRID_COLOUR, MRI_COLOUR
from sbr_core.report.shelf import Shelf, grey_jpeg, overlay_png
from sbr_core.report.viewer import printed_figures

METHODS = ("linear", "sbr")
PLANE = {"rows": 60, "columns": 80, "pixel_mm": 0.5}
PREPARED = {"rows": 40, "columns": 50, "pixel_mm": 0.8}


def picture(seed: int, shape: tuple[int, int]) -> np.ndarray:
    """A blob with a texture of its own, (rows, columns) in [0, 1]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    off = np.hypot(rows / shape[0] - 0.5, (columns / shape[1] - 0.5) * 1.2)
    return np.clip((off < 0.4) * (0.6 + 0.15 * rng.standard_normal(shape)), 0, 1)


def section(shelf: Shelf, name: str, number: int, files: Sequence[bytes], width: int) -> dict:
    """One entry of the viewer's JSON; its pictures go on the shelf."""
    height = width * PLANE["rows"] // PLANE["columns"]
    jpegs, edges, grid = files[:-2], files[-2], files[-1]

    def add(what: str, data: bytes) -> str:
        return shelf.add(f"{number:03d}_{what}", data)

    jpeg = [jpegs[(number + i) % len(jpegs)] for i in range(4)]
    return {
        "name": name,
        "position_mm": 0.4 * number,
        "message": "",
        "facts": ["sbr moves it by 1.2 mm in the mean, at most 3 mm"],
        "in_force": [],
        "measured": [
            {
                "metric": "landmark error in the plane",
                "class": "",
                "unit": "mm",
                "meaning": "how far off",
                "cells": [{"text": "2.00", "grade": ""}, {"text": "1.00", "grade": "good"}],
            }
        ],
        "value": {"linear": 2.0, "sbr": 0.2 + number % 7},
        "prepared_sha256": f"prepared {number}",
        "plane_sha256": f"plane {number}",
        "layers": {
            "mri": add("mri.jpg", jpeg[0]),
            "edges": add("edges.png", edges),
            "prepared": add("prepared.jpg", jpeg[1]),
            "plane": {**PLANE, "width": width, "height": height},
            "prepared_grid": {**PREPARED, "width": width, "height": width * 4 // 5},
            "methods": {
                "linear": {"registered": add("linear.jpg", jpeg[2])},
                "sbr": {"registered": add("sbr.jpg", jpeg[3]), "grid": add("grid.png", grid)},
            },
        },
    }


def write_made_up(
    out: Path, section_names: Sequence[str], width: int = 160, key: str = "k"
) -> Shelf:
    """Write a page; returns where its pictures are.

    Parameters
    ----------
    width : of its pictures, pixels; 700 is about 90 kB.
    key : of what the page keeps in the browser.
    """
    shelf = Shelf(out)
    shape = width * PLANE["rows"] // PLANE["columns"], width
    lines = np.indices(shape).sum(axis=0) % 20 < 1
    files = [grey_jpeg(picture(seed, shape), 70) for seed in range(7)]
    files += [overlay_png(lines, MRI_COLOUR), overlay_png(lines[::-1], GRID_COLOUR)]
    sections = [section(shelf, name, i, files, width) for i, name in enumerate(section_names)]
    viewer = {
        "brain": "b",
        "key": key,
        "prealigned": False,
        "methods": list(METHODS),
        "strip": {
            "name": "expected error",
            "unit": "mm",
            "meaning": "",
            "scales": {"sbr": [3.0, 9.0]},
        },
        "error_top_mm": 7.0,
        "sections": sections,
        "correct_command": "sbr correct corrections.json --manifest s.tsv --results results/b",
    }
    empty = ("on_simulated", "cuts", "losses", "checked", "deformations", "tiles")
    shelf.write()
    write_page(
        out,
        "report.html.j2",
        brain="b",
        simulated=None,
        methods=list(METHODS),
        suspects=[
            {"section": section_names[-1], "expected_error_mm": "9.00", "reason": "<i>far</i>"}
            | {"next_step": "flip?"}
        ],
        viewer=viewer,
        figures=printed_figures(sections),
        pictures=shelf.uris(),
        is_beside=shelf.is_beside,
        alarms=[AlarmGroup("Sections left out", ["section <b>x</b>"], grave=True)],
        accuracy=[],
        most_of_the_mean="",
        statistics=[],
        alignment=None,
        doctor=None,
        comparison=None,
        mri_colour=MRI_COLOUR,
        **{name: [] for name in empty},
    )
    return shelf
