"""The demo's MRI."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter

from sbr_core import geometry
from sbr_core.algorithms.simulation.anatomy import Anatomy, labels_at
from sbr_core.algorithms.simulation.frames import rotation, shift
from sbr_core.algorithms.simulation.waves import Waves

if TYPE_CHECKING:
    from sbr_core.config import DemoOptions

_ORIENTATION = "PIR"
_ROTATION_DEG = (-5.0, 8.0, 6.0)
"""How the voxels lie in the world: oblique, and not in RAS order, as scanners store them."""
_MARGIN_PX = 5
"""Background on every side."""
_MASK_T1 = 0.25
"""Of the skull-stripped template, half of its fluid (0.5): the brain's outline."""
_BLACK_T1 = 0.3
"""Subtracted, which widens the contrast between tissues."""
_BLUR = 0.35
"""Sigma of the template in voxels of the MRI, somewhat less than `prefilter`'s 0.42."""
_BIAS, _BIAS_MM = 0.12, (140.0, 260.0)
"""Standard deviation of the logarithm of the bias field, and its wavelengths: about a brain's."""
_NOISE = 0.015
"""Standard deviation in either channel, of a signal of about 0.7 in white matter."""
_LARGEST = 1500.0
"""Intensity of signal 1; an MRI's scale is arbitrary."""


def simulate_mri(
    anatomy: Anatomy, world_from_template: np.ndarray, options: DemoOptions
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The MRI on an oblique grid that is not in RAS order, with a bias field and noise.

    Returns
    -------
    mri : (I, J, K) float32, 0 outside the brain.
    mask : (I, J, K) uint8, the skull-stripped brain.
    labels : (I, J, K) uint8, 2 white and 3 grey matter.
    world_from_voxel : (4, 4).
    """
    rng = np.random.default_rng([options.seed, 2])
    axes = np.eye(4)
    axes[:3, :3] = geometry.orientation_matrix(_ORIENTATION) * options.mri_spacing_mm
    axes = rotation(_ROTATION_DEG) @ axes
    brain = np.argwhere(anatomy.t1 > 0)[::7].astype(float)
    brain = geometry.apply(world_from_template @ anatomy.template_from_voxel, brain)
    brain_voxels = geometry.apply(np.linalg.inv(axes), brain)
    low = np.floor(brain_voxels.min(0)) - _MARGIN_PX
    shape = (np.ceil(brain_voxels.max(0)) + 1 + _MARGIN_PX - low).astype(int)
    world_from_voxel = axes @ shift(tuple(low))

    voxels = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    world = geometry.apply(world_from_voxel, voxels)
    template = geometry.apply(np.linalg.inv(world_from_template), world)
    mask = anatomy.sample("t1", template) > _MASK_T1
    blur = _BLUR * options.mri_spacing_mm  # template voxels of 1 mm
    smooth = replace(anatomy, t1=gaussian_filter(anatomy.t1, blur))
    signal = np.clip(smooth.sample("t1", template) - _BLACK_T1, 0, None)  # widens the contrast
    bias = np.exp(_BIAS * Waves(rng, 3, _BIAS_MM)(world))
    noise = _NOISE * rng.normal(size=(2, *shape))
    signal = np.hypot(signal * bias + noise[0], noise[1])  # Rician, as of a magnitude image
    mri = np.where(mask, _LARGEST * signal, 0.0).astype(np.float32)
    return mri, mask.astype(np.uint8), labels_at(anatomy, template), world_from_voxel
