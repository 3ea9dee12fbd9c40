"""Poses whose outlines overlap: rotations one by one, all shifts of each at once."""

from __future__ import annotations

import numpy as np
import scipy.fft
from scipy.ndimage import gaussian_filter, map_coordinates

from sbr_core.algorithms.alignment.poses import Scene
from sbr_core.algorithms.planes import sample_volume
from sbr_core.geometry import apply

SCALES = (0.93, 1.07)
"""World mm per stack mm that are tried, where shrinkage is unknown. Steps of 15 % are what the
intensity steps take up; they found BigBrain within ±15 % of its size."""
_SPACING_MM = 9.0
"""Spacing at which outlines are compared. Time grows with its inverse third power; rotations are
about 20 degrees apart, which moves the rim of a brain by more than this anyway."""
_SMOOTHING = 0.4
"""Sigma of the outlines' smoothing in spacings, about that of `prefilter` (1 / 2.355)."""
_UNSEEN_SHARE = 0.5
"""How much tissue beyond a cut of the MRI counts in the denominator of the overlap: 1 would forbid
it, 0 would make a place outside the MRI as good as one inside."""


def overlapping_poses(
    stack: Scene, mri: Scene, orientations: np.ndarray, n_kept: int
) -> list[np.ndarray]:
    """The `n_kept` poses (4, 4) that overlap best, of each orientation the one best shift.

    The overlap is Dice's: twice the common volume over the sum of both, the MRI's within the
    slices that the stack has.

    Parameters
    ----------
    orientations : (n, 3, 3) world from stack, orthogonal; each is tried at both `SCALES`.
    """
    tissue, known, origin_mm = _coarse_tissue(stack)
    where = np.argwhere(mri.tissue > 0.5)
    world = apply(mri.mm_from_index, where)
    centre = world.mean(axis=0)
    radius = float(np.linalg.norm(world - centre, axis=1).max())
    outline = gaussian_filter(mri.tissue, _SMOOTHING * _SPACING_MM / mri.spacing_mm)
    index_from_world = np.linalg.inv(mri.mm_from_index)
    scored = []
    for scale in SCALES:
        # the MRI as far around its centre as it reaches
        half = int(np.ceil(radius / scale / _SPACING_MM)) + 1
        if mri.cuts:  # what is beyond a cut must be known to be beyond
            half += int(max(tissue.shape) // 2)
        axis = np.arange(-half, half + 1) * _SPACING_MM
        offsets = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
        overlap = _Overlap(tissue, known, 2 * half + 1)
        for orientation in orientations:
            linear = scale * orientation
            x = offsets @ (index_from_world[:3, :3] @ linear).T + apply(index_from_world, centre)
            brain = map_coordinates(outline, np.moveaxis(x, -1, 0), order=1, mode="constant")
            inside = None
            if mri.cuts:
                inside = np.all([x @ cut[:3] + cut[3] <= 0 for cut in mri.cuts], axis=0)
            score, shift = overlap.best_shift(brain, inside)
            # stack point origin + p * spacing lies at MRI offset (p + shift - half) * spacing
            pose = np.eye(4)
            pose[:3, :3] = linear
            pose[:3, 3] = centre + linear @ ((shift - half) * _SPACING_MM - origin_mm)
            scored.append((score, pose))
    scored.sort(key=lambda pair: -pair[0])
    return [pose for _, pose in scored[:n_kept]]


def _coarse_tissue(stack: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The stack on its own axes at the coarse spacing.

    Returns
    -------
    tissue : (nx, ny, nz), share of tissue.
    known : (nz,) bool, slices with data.
    origin_mm : (3,) stack mm of the first voxel.
    """
    ends = np.array([[0, 0, 0], np.array(stack.tissue.shape) - 1])
    extent = apply(stack.mm_from_index, ends)
    shape = np.ceil((extent[1] - extent[0]) / _SPACING_MM).astype(int) + 1
    points = extent[0] + np.stack(np.indices(shape), axis=-1) * _SPACING_MM
    index = apply(np.linalg.inv(stack.mm_from_index), points)
    smooth = gaussian_filter(stack.tissue, _SMOOTHING * _SPACING_MM / stack.spacing_mm)
    depth = np.any(stack.known, axis=(0, 1))
    nearest = np.clip(np.rint(index[0, 0, :, 2]).astype(int), 0, len(depth) - 1)
    known = depth[nearest]
    return sample_volume(smooth, index) * known, known, extent[0]


class _Overlap:
    """The stack's tissue, transformed once for all orientations of the MRI."""

    def __init__(self, tissue: np.ndarray, known: np.ndarray, side: int) -> None:
        self.shape = tissue.shape
        self.size = [scipy.fft.next_fast_len(int(n) + side, real=True) for n in tissue.shape]
        self.total = float(tissue.sum())
        self.tissue_f = np.conj(scipy.fft.rfftn(tissue.astype(np.float32), self.size))
        self.known_f = np.conj(scipy.fft.rfft(known.astype(np.float32), self.size[2]))

    def best_shift(self, brain: np.ndarray, inside: np.ndarray | None) -> tuple[float, np.ndarray]:
        """(overlap, shift in voxels) of the shift that overlaps best.

        Parameters
        ----------
        brain : (side, side, side), share of brain.
        inside : the same shape, where the MRI is known; None where it is everywhere.
        """
        both = scipy.fft.irfftn(self.tissue_f * scipy.fft.rfftn(brain, self.size), self.size)
        profile = scipy.fft.irfft(
            self.known_f * scipy.fft.rfft(brain.sum(axis=(0, 1)), self.size[2]), self.size[2]
        )
        seen = self.total
        if inside is not None:
            inside_f = scipy.fft.rfftn(inside.astype(np.float32), self.size)
            seen = scipy.fft.irfftn(self.tissue_f * inside_f, self.size)
        score = 2 * both / (profile + _UNSEEN_SHARE * self.total + (1 - _UNSEEN_SHARE) * seen)
        best = int(np.argmax(score))
        shift = np.array(np.unravel_index(best, self.size))
        shift = np.where(shift > np.array(self.size) - self.shape, shift - self.size, shift)
        return float(score.flat[best]), shift
