"""A sheared volume on a grid of right angles, where it was."""

import numpy as np
import pytest

from sbr_core.algorithms.planes import sample_volume
from sbr_core.algorithms.right_angles import on_right_angles
from sbr_core.geometry import apply, shear_voxels, with_right_angles

SHAPE = (36, 30, 32)
TURNED = np.array([[0, 0, -1.5, 3], [0.6, 0.8, 0, -7], [0.8, -0.6, 0, 2], [0, 0, 0, 1.0]])
SHEARS = {
    "none": np.eye(3),
    "a few percent": np.array([[1, 0.03, 0], [0, 1, -0.03], [0, 0, 1]]),
    "much": np.array([[1, 0.3, 0.1], [0, 1, 0], [0, -0.2, 1]]),
    "stretched askew": np.eye(3) + 0.1 * np.outer([1, 2, 0.5], [1, 2, 0.5]),
}


def _affine(name):
    affine = TURNED.copy()
    affine[:3, :3] = SHEARS[name] @ TURNED[:3, :3]
    return affine


def _intensity(world):
    return 500 + 300 * np.sin(world[..., 0] / 6) * np.cos(world[..., 1] / 7 + world[..., 2] / 9)


@pytest.mark.parametrize("name", SHEARS)
def test_values_and_mask_stay_where_they_are(name):
    affine = _affine(name)
    world = apply(affine, np.stack(np.indices(SHAPE), -1))
    centre = apply(affine, (np.array(SHAPE) - 1) / 2)
    mask = np.linalg.norm(world - centre, axis=-1) < 11
    data = _intensity(world).astype(np.float32)
    out, inside, straight = on_right_angles(data, mask, affine)
    assert shear_voxels(straight, out.shape) < 1e-9
    there = apply(straight, np.stack(np.indices(out.shape), -1))
    far = np.abs(np.linalg.norm(there - centre, axis=-1) - 11)
    np.testing.assert_array_equal(
        inside[far > 1.5], (np.linalg.norm(there - centre, axis=-1) < 11)[far > 1.5]
    )
    np.testing.assert_allclose(out[inside], _intensity(there[inside]), rtol=0.01)
    # all of it is there
    voxels = apply(np.linalg.inv(straight), world[mask])
    assert (voxels > -0.5).all() and (voxels < np.array(out.shape) - 0.5).all()
    assert sample_volume(inside.astype(np.float32), voxels).mean() > 0.92


def test_handedness_and_spacing_are_kept():
    mirrored = _affine("a few percent") @ np.diag([1, -1, 1, 1])
    straight = with_right_angles(mirrored, SHAPE)
    assert np.linalg.det(straight[:3, :3]) * np.linalg.det(mirrored[:3, :3]) > 0
    norms = [np.linalg.norm(a[:3, :3], axis=0) for a in (straight, mirrored)]
    np.testing.assert_allclose(*norms)
