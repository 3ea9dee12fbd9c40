"""How the demo's stack and anatomy lie in the world of its MRI."""

from __future__ import annotations

from typing import Any

import numpy as np

from sbr_core import geometry

ORIENTATION = "LIA"
SHRINKAGE = 0.93
"""Millimetres of stack per millimetre of world."""
_PLANE_CENTRE_MM = (75.0, 70.0)
"""Of the brain in the planes. Arbitrary, as is where the world's origin lies: nothing may depend on
an origin within the brain."""
_WORLD_CENTRE_MM = (7.0, -24.0, 19.0)
_TEMPLATE_CENTRE_MM = (0.0, -17.0, 6.0)
"""Middle of the brain in the MNI152 template."""
_STACK_ROTATION_DEG = (12.0, -11.0, 14.0)
"""Of the stack against its letters: about 22 degrees in all, well within `max_rotation_deg` (45)
and far from what a fit without a search would bridge."""
_CUT_ROTATION_DEG = (4.0, -3.0, 5.0)
"""Of the cut against the template's coronal plane: no section is quite symmetric."""


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """(4, 4) turn about x, then y, then z."""
    from scipy.spatial.transform import Rotation

    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return matrix


def shift(offset: tuple[float, float, float]) -> np.ndarray:
    """(4, 4) translation."""
    matrix = np.eye(4)
    matrix[:3, 3] = offset
    return matrix


def frames(rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """How the stack and the template lie in the world of the MRI.

    Returns
    -------
    world_from_stack : (4, 4) a reflection times a similarity of scale 1 / SHRINKAGE.
    world_from_template : (4, 4) rigid; the cut is a few degrees off the template's coronal plane.
    """
    orientation = np.eye(4)
    orientation[:3, :3] = geometry.orientation_matrix(ORIENTATION) / SHRINKAGE
    turn = rotation(_STACK_ROTATION_DEG)
    middle_mm = (rows[0]["position_mm"] + rows[-1]["position_mm"]) / 2
    stack_centre = (-_PLANE_CENTRE_MM[0], -_PLANE_CENTRE_MM[1], -middle_mm)
    to_world = shift(_WORLD_CENTRE_MM) @ turn
    world_from_stack = to_world @ orientation @ shift(stack_centre)
    template_centre = tuple(-c for c in _TEMPLATE_CENTRE_MM)
    return world_from_stack, to_world @ rotation(_CUT_ROTATION_DEG) @ shift(template_centre)
