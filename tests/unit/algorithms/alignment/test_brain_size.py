"""How large a brain is, and which lengths cannot belong together."""

from __future__ import annotations

import numpy as np
import pytest

from sbr_core.algorithms.alignment.brain_size import check_sizes, enlargement_of, size_mm
from sbr_core.algorithms.alignment.stack import Mri, Stack, StackSection
from sbr_core.errors import ConfigError, ImageError


def _ball_mri(radius_mm: float, voxel_mm: float, keep_mm: float | None = None) -> Mri:
    """A ball in an MRI, or the slab of it within `keep_mm` of its middle."""
    n = int(2 * radius_mm / voxel_mm) + 3
    index = np.moveaxis(np.indices((n, n, n)), 0, -1) - (n - 1) / 2
    mask = np.linalg.norm(index, axis=-1) * voxel_mm < radius_mm
    if keep_mm is not None:
        mask &= np.abs(index[..., 0]) * voxel_mm < keep_mm
    return Mri(mask.astype(np.float32), mask, np.diag([*[voxel_mm] * 3, 1.0]))


def _discs(width_mm: float, pixel_mm: float, positions_mm: list[float]) -> Stack:
    n = round(width_mm / pixel_mm)
    mask = np.linalg.norm(np.moveaxis(np.indices((n, n)), 0, -1) - (n - 1) / 2, axis=-1) < n / 2
    sections = [StackSection(str(z), mask.astype(np.float32), mask, z) for z in positions_mm]
    return Stack(sections, pixel_mm)


@pytest.mark.parametrize(
    ("radius_mm", "voxel_mm", "keep_mm", "width_mm", "pixel_mm", "enlargement"),
    [
        (66, 3, None, 140, 1.25, 1),  # human
        (66, 3, 15, 140, 1.25, 1),  # a slab of its MRI: the sections are as large as ever
        (66, 3, None, 25, 0.25, 1),  # a piece of its sections: the MRI is
        (90, 4, None, 180, 1.25, 1),  # with the skull on: nothing is made smaller
        (25, 1, None, 25, 0.25, 2),  # a block of both, as a macaque's brain
        (28, 1, None, 60, 0.5, 2),  # macaque
        (7.5, 0.3, None, 15, 0.1, 8),  # rat
        (4.8, 0.2, None, 11, 0.06, 8),  # mouse
    ],
)
def test_how_large_a_brain_is_its_mri_or_its_sections_say(
    radius_mm, voxel_mm, keep_mm, width_mm, pixel_mm, enlargement
):
    mri = _ball_mri(radius_mm, voxel_mm, keep_mm)
    stack = _discs(width_mm, pixel_mm, [0.0, radius_mm / 2, radius_mm])
    check_sizes(stack, mri)  # all of these can be
    assert enlargement_of(size_mm(stack, mri)) == enlargement


def test_lengths_that_cannot_belong_together_are_named():
    """A mouse of which one length is in the wrong unit."""
    mri, positions = _ball_mri(4.8, 0.2), [0.0, 4.0, 8.0]
    in_um = [1000 * z for z in positions]
    with pytest.raises(ImageError, match=r"sections 660 times .*pixel_size_mm"):
        check_sizes(_discs(11000, 60, positions), mri)
    with pytest.raises(ImageError, match="position_mm"):
        check_sizes(_discs(11, 0.06, in_um), mri)
    check_sizes(_discs(11, 0.06, [1, 80, 160]), mri, in_order=True)
    with pytest.raises(ConfigError, match="working_pixel_mm 1.25 .* 11.2 mm wide; 0.04 is usual"):
        check_sizes(_discs(11.25, 1.25, positions), mri)


@pytest.mark.parametrize("times", [10, 20, 25.4, 1000])
def test_an_mri_that_is_many_times_too_large_is_named(times):
    """A rodent's header enlarged for human tools, twice so, in inches, in micrometres."""
    mri = _ball_mri(4.8, 0.2)
    large = Mri(mri.data, mri.mask, np.diag([*[times] * 3, 1.0]) @ mri.world_from_voxel)
    stack = _discs(11, 0.06, [0.0, 4.0, 8.0])
    with pytest.raises(ImageError, match=r"the MRI .* times as long; .* the MRI's voxel size"):
        check_sizes(stack, large)
