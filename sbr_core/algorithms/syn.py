"""SyN with Mattes mutual information by ANTs: the classical reference, of two images of a plane."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from sbr_core.algorithms.deformation import (
    Canvas,
    Deformation,
    centred_between_pixels,
    invert,
)
from sbr_core.errors import ImageError
from sbr_core.geometry import PlaneGrid


def register_syn(
    fixed: np.ndarray,
    moving: np.ndarray,
    grid: PlaneGrid,
    *,
    bins: int = 32,
    iterations: tuple[int, ...] = (100, 70, 40),
    gradient_step: float = 0.2,
    flow_sigma_px: float = 3.0,
    total_sigma_px: float = 0.0,
    seed: int = 1,
) -> Deformation:
    """The deformation that ANTs' SyN finds (Avants et al. 2008, Med. Image Anal. 12).

    It starts from the identity and has no affine part. SyN holds the image's border in place.
    ANTs' own inverse is only roughly one; it is refined until it undoes the deformation as it is
    stored, like that of every other method.

    Parameters
    ----------
    fixed, moving : (rows, columns) on `grid`, the MRI plane and the section.
    bins : of the joint histogram (Mattes et al. 2003).
    iterations : at each level, from coarse to fine.
    gradient_step, flow_sigma_px, total_sigma_px : of SyN.
    seed : of ANTs; equal seeds give equal deformations on one thread.

    Returns
    -------
    Without a velocity, on a canvas without a margin.

    Raises
    ------
    ImageError
        ANTs fails on these images.
    """
    import ants

    ants.config.set_ants_deterministic(True, seed)
    images = [
        ants.from_numpy(np.ascontiguousarray(image.T, np.float32), spacing=(grid.spacing_mm,) * 2)
        for image in (fixed, moving)
    ]
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = ants.registration(
                *images,
                type_of_transform="SyNOnly",
                syn_metric="mattes",
                syn_sampling=bins,
                reg_iterations=iterations,
                grad_step=gradient_step,
                flow_sigma=flow_sigma_px,
                total_sigma=total_sigma_px,
                outprefix=str(Path(folder) / "syn_"),
            )
        except RuntimeError as error:
            raise ImageError(f"ANTs gave up: {error}") from error
        disp_px = _warp_px(result["fwdtransforms"], "1Warp.nii.gz", grid)
        guess_px = _warp_px(result["invtransforms"], "1InverseWarp.nii.gz", grid)
    inverse_px = centred_between_pixels(invert(disp_px, guess_px))
    return Deformation(Canvas(grid, 0), None, disp_px, inverse_px)


def _warp_px(files: list[str], ending: str, grid: PlaneGrid) -> np.ndarray:
    """(rows, columns, 2) displacement (x, y) in px of one of ANTs' warp files.

    Plane mm are ITK's own coordinates, so nothing is flipped.
    """
    import ants

    (file,) = [name for name in files if name.endswith(ending)]
    disp_mm = ants.image_read(file).numpy()  # (columns, rows, 2)
    return np.swapaxes(disp_mm, 0, 1).astype(np.float64) / grid.spacing_mm
