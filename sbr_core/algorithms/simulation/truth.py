"""Points followed from a section to the world and back, by the truth of a simulated brain."""

from __future__ import annotations

from typing import Any

import numpy as np

from sbr_core import geometry
from sbr_core.algorithms.simulation.swirls import apply_swirls, undo_swirls


def _section_truth(truth: dict[str, Any], section: str) -> tuple[np.ndarray, np.ndarray, float]:
    entry = truth["sections"][section]
    swirls = np.asarray(entry["swirls"], float).reshape(-1, 5)
    return np.asarray(entry["section_mm_from_flat_mm"], float), swirls, entry["position_mm"]


def true_plane_mm_from_section_mm(
    truth: dict[str, Any], section: str, xy: np.ndarray
) -> np.ndarray:
    """Where points of a section belong in its plane.

    Parameters
    ----------
    truth : the content of ``truth.json``.
    xy : (..., 2) section mm.

    Returns
    -------
    (..., 2) plane mm, exact.
    """
    section_from_flat, swirls, _ = _section_truth(truth, section)
    return apply_swirls(geometry.apply(np.linalg.inv(section_from_flat), xy), swirls)


def true_section_mm_from_plane_mm(
    truth: dict[str, Any], section: str, xy: np.ndarray
) -> np.ndarray:
    """The inverse of `true_plane_mm_from_section_mm`, to about 1e-9 mm."""
    section_from_flat, swirls, _ = _section_truth(truth, section)
    return geometry.apply(section_from_flat, undo_swirls(xy, swirls))


def true_world_from_section_mm(truth: dict[str, Any], section: str, xy: np.ndarray) -> np.ndarray:
    """World (RAS mm) of points (..., 2) in section mm; returns (..., 3)."""
    plane = true_plane_mm_from_section_mm(truth, section, xy)
    position = np.full((*plane.shape[:-1], 1), truth["sections"][section]["position_mm"])
    return geometry.apply(
        np.asarray(truth["world_from_stack"], float), np.concatenate([plane, position], axis=-1)
    )


def true_section_mm_from_world(
    truth: dict[str, Any], section: str, xyz: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Section mm (..., 2) of world points (..., 3), and their distance (...) from the plane, mm.

    The distance is measured along the stack, positive on the side of growing position.
    """
    stack = geometry.apply(np.linalg.inv(np.asarray(truth["world_from_stack"], float)), xyz)
    off_plane = stack[..., 2] - truth["sections"][section]["position_mm"]
    return true_section_mm_from_plane_mm(truth, section, stack[..., :2]), off_plane
