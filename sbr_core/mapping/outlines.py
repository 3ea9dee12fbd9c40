"""Labels on the grid of a section or a plane as outlines that QuPath opens."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import shapely

from sbr_core.algorithms.label_outlines import outlines_of_labels
from sbr_core.errors import some_of
from sbr_core.io.geojson import write_regions
from sbr_core.io.label_tables import LabelTable
from sbr_core.mapping.rasters import PlaneTarget

logger = logging.getLogger(__name__)


def write_outlines(
    grid: PlaneTarget, target: Path, labels: np.ndarray, names: LabelTable, simplify_mm: float
) -> str:
    """Write the outlines of labels as GeoJSON; what is to be said of them.

    Parameters
    ----------
    labels : (rows, columns) on the grid; they may lie on disk.
    names : of the labels; one that it does not have is called by its number, with a warning.
    simplify_mm : how far outlines may lie from the edges of the pixels, for fewer points.
    """
    regions = outlines_of_labels(labels, simplify_mm / grid.pixel_mm)
    on_file = {label: _corner_px(grid, region) for label, region in regions.items()}
    write_regions(target, on_file, names)
    unnamed = [str(label) for label in regions if label not in names.labels]
    if names.path is not None and unnamed:
        logger.warning(f"apply: WARNING: {names.path}: has no name of {some_of(unnamed)}")
    n_points = sum(int(shapely.get_num_coordinates(region)) for region in regions.values())
    return f"{len(regions)} regions, {n_points} points"


def _corner_px(grid: PlaneTarget, geometry: shapely.Geometry) -> shapely.Geometry:
    """A geometry in pixels of a grid from its corner, in px of the target's file from its own."""
    space = grid.route.target
    if space.kind == "plane":  # first centres are the same
        return shapely.transform(geometry, lambda at: at * grid.step + (1 - grid.step) / 2)
    # outer edges are the same, and the last pixels of a coarser grid may reach beyond the file
    size = grid.route.brain.section(space.section).shape[::-1]
    return shapely.transform(geometry, lambda at: np.minimum(at * grid.step, size))
