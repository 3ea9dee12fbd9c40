"""The 3D affine between two volumes by ANTs, and how well they agree."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation

from sbr_core.algorithms.alignment.placement import no_fit
from sbr_core.algorithms.alignment.volumes import MARGIN_MM, GridVolume
from sbr_core.algorithms.planes import sample_volume
from sbr_core.geometry import apply

_BINS = 32
"""Of each intensity's histogram, of ANTs' mutual information as of ours: ANTs' own choice too."""
_ITERATIONS = 200
"""Of a level at most; ANTs stops by itself where it has converged."""
_SAMPLED = 0.5
"""Share of the voxels that ANTs' affine looks at, drawn at random: half the time of all."""


def agreement(
    fixed: GridVolume, moving: GridVolume, stack_from_oriented: np.ndarray
) -> tuple[float, float]:
    """(normalised mutual information, mask Dice), over all known slices of the stack.

    Judged wherever either has tissue, so that tissue on nothing counts against a pose.

    Parameters
    ----------
    fixed, moving : of the stack and of the MRI.
    """
    voxels = apply(
        np.linalg.inv(stack_from_oriented @ moving.grid.mm_from_index()), fixed.grid.points()
    )
    data = sample_volume(moving.data, voxels)
    brain = fixed.known & (sample_volume(moving.tissue.astype(np.uint8), voxels, order=0) > 0)
    tissue = fixed.known & fixed.tissue
    either = tissue | brain
    dice = 2 * np.sum(tissue & brain) / max(1, np.sum(tissue) + np.sum(brain))
    return normalised_mutual_information(fixed.data[either], data[either]), float(dice)


def normalised_mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """(H(a) + H(b)) / H(a, b) of two lists of intensities: 1 for independent, 2 for the same.

    Source: Studholme, Hill, Hawkes: An overlap invariant entropy measure of 3D medical image
    alignment, Pattern Recognition 1999, eq. 8.
    """
    joint, _, _ = np.histogram2d(a.ravel(), b.ravel(), bins=_BINS)
    joint /= max(joint.sum(), 1)

    def entropy(p: np.ndarray) -> float:
        p = p[p > 0]
        return float(-np.sum(p * np.log(p)))

    both = entropy(joint)
    return (entropy(joint.sum(0)) + entropy(joint.sum(1))) / both if both > 0 else 1.0


def fit_affine(
    fixed: GridVolume,
    moving: GridVolume,
    stack_from_oriented: np.ndarray,
    shrink: tuple[int, ...],
    seed: int,
) -> np.ndarray:
    """Refine a (4, 4) stack from oriented by ANTs: Mattes mutual information over the masks.

    ANTs runs on one thread, so equal input gives equal output on one machine and build.

    Parameters
    ----------
    fixed, moving : of the stack and of the MRI.
    shrink : factors of the levels, coarse to fine; each is smoothed by half its factor.

    Raises
    ------
    AlignmentError
        ANTs finds no overlap.
    """
    # ITK reads this when it is loaded: sums over threads differ in their last digits
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    import ants

    ants.config.set_ants_deterministic(True, seed + 1)  # ANTs takes 0 for "by the clock"
    # both origins at the centre of the stack's tissue, so that turning does not also shift
    centre = fixed.grid.points()[fixed.tissue & fixed.known].mean(axis=0)
    oriented_from_stack = np.linalg.inv(stack_from_oriented)
    origins = centre, apply(oriented_from_stack, centre)
    images, masks = zip(*map(_as_ants, (fixed, moving), origins), strict=True)
    with tempfile.TemporaryDirectory() as folder:
        start = str(Path(folder) / "start.mat")
        transform = ants.create_ants_transform(
            transform_type="AffineTransform", dimension=3, precision="double",
            matrix=oriented_from_stack[:3, :3], translation=np.zeros(3), center=np.zeros(3),
        )  # fmt: skip
        ants.write_transform(transform, start)
        try:
            result = ants.registration(
                images[0],
                images[1],
                type_of_transform="Affine",
                initial_transform=[start],
                outprefix=str(Path(folder) / "fit"),
                mask=masks[0],
                moving_mask=masks[1],
                mask_all_stages=True,
                aff_metric="mattes",
                aff_sampling=_BINS,
                aff_random_sampling_rate=_SAMPLED,
                aff_iterations=(_ITERATIONS,) * len(shrink),
                aff_shrink_factors=shrink,
                aff_smoothing_sigmas=tuple(0.5 * s for s in shrink),
                singleprecision=False,
            )
        except RuntimeError as error:
            raise no_fit(error) from error
        (name,) = result["fwdtransforms"]
        fitted = ants.read_transform(name, precision="double")
        parameters = np.array(fitted.parameters)
        fixed_centre = np.array(fitted.fixed_parameters)
    linear = parameters[:9].reshape(3, 3)
    offset = parameters[9:] + fixed_centre - linear @ fixed_centre
    moving_from_fixed = np.eye(4)
    moving_from_fixed[:3, :3] = linear
    moving_from_fixed[:3, 3] = offset + origins[1] - linear @ origins[0]
    return np.linalg.inv(moving_from_fixed)


def _as_ants(volume: GridVolume, origin_mm: np.ndarray):
    """(image, mask) as ANTs takes them, coordinates counted from `origin_mm`."""
    import ants

    place = {
        "origin": tuple(volume.grid.origin_mm - origin_mm),
        "spacing": (volume.grid.spacing_mm,) * 3,
    }
    reach = max(1, round(MARGIN_MM / volume.grid.spacing_mm))
    near = binary_dilation(volume.tissue, iterations=reach) & volume.known
    return (
        ants.from_numpy(np.ascontiguousarray(volume.data, np.float32), **place),
        ants.from_numpy(near.astype(np.float32), **place),
    )
