"""SyN with Mattes mutual information by ANTs: the classical reference, of two images of a plane."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sbr_core.algorithms.deformation import Canvas, Deformation, centred_between_pixels, invert
from sbr_core.errors import ImageError
from sbr_core.geometry import PlaneGrid

if TYPE_CHECKING:
    from sbr_core.config import SynOptions


def register_syn(
    fixed: np.ndarray, moving: np.ndarray, grid: PlaneGrid, options: SynOptions
) -> Deformation:
    """The deformation that ANTs' SyN finds (Avants et al. 2008, Med. Image Anal. 12).

    It starts from the identity and has no affine part. SyN holds the image's border in place.
    ANTs' own inverse is only roughly one; it is refined until it undoes the deformation as it is
    stored, like that of every other method.

    Parameters
    ----------
    fixed, moving : (rows, columns) on `grid`, the MRI plane and the section.
    options : of SyN, and of its metric (Mattes et al. 2003); `intensity` is the caller's. Equal
        seeds give equal deformations on one thread.

    Returns
    -------
    Without a velocity, on a canvas without a margin.

    Raises
    ------
    ImageError
        ANTs fails on these images.
    """
    import ants

    ants.config.set_ants_deterministic(True, options.seed)
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
                syn_sampling=options.bins,
                reg_iterations=options.iterations,
                grad_step=options.gradient_step,
                flow_sigma=options.flow_sigma_px,
                total_sigma=options.total_sigma_px,
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
