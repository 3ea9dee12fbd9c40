"""Volumes opened within what their files can hold, before memory is given to their voxels."""

from __future__ import annotations

import gzip
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sbr_core.errors import ImageError
from sbr_core.io.blocks import check_memory

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialImage

# its remarks on damaged headers become one error here
logging.getLogger("nibabel").setLevel(logging.CRITICAL)

_DENSEST = 1032
"""Bytes that one byte of a compressed file can stand for at most (deflate)."""
_DENSITIES = {".nii": 1, ".bz2": math.inf, ".zst": math.inf}
"""The same of files of one ending, where it is another: these compress any number of zeros."""
_FARTHEST = 1 << 26
"""Where in a NIfTI its voxels may begin, 64 MiB: what stands before them, as extensions of the
header do, is read whole."""
_HEADER_BYTES = 540
"""Of NIfTI-2; that of NIfTI-1 is shorter."""


def open_nifti(path: Path) -> SpatialImage:
    """The image in a file that nibabel reads, its voxels only as they are asked for.

    What nibabel and zlib raise on damaged bytes, which may be anything, is left to the caller.

    Raises
    ------
    ImageError
        It claims more than its bytes can stand for, or than memory holds.
    """
    import nibabel as nib

    path = Path(path)
    _check_offset(path)
    image = nib.load(path)
    dtype = image.get_data_dtype()
    scaled = (getattr(image.dataobj, "slope", 1), getattr(image.dataobj, "inter", 0)) != (1, 0)
    # of a pair of a header and an image, as Analyze has it
    voxels = Path(image.file_map["image"].filename or path)
    check_claim(voxels, image.shape, dtype.itemsize, 8 * scaled)
    return image


def check_claim(
    path: Path, shape: Sequence[int], itemsize: int, more: int = 0, files: Sequence[Path] = ()
) -> None:
    """Refuse more voxels than a file can stand for, or than memory holds.

    Parameters
    ----------
    itemsize : bytes of a voxel, as it is stored.
    more : bytes of a voxel, as it is scaled; 0 where it is not.
    files : those that the voxels are in, where that is not `path`.

    Raises
    ------
    ImageError
    """
    if min(shape, default=0) < 1:
        raise ImageError(f"{path}: expected a volume, its header claims the shape {tuple(shape)}")
    n_voxels = math.prod(map(int, shape))
    sizes = {file: file.stat().st_size for file in files or [path]}
    n_bytes = sum(sizes.values())
    # what is not called .nii may be compressed
    densest = max(_DENSITIES.get(file.suffix.lower(), _DENSEST) for file in sizes)
    if n_voxels * itemsize > n_bytes * densest:
        raise ImageError(
            f"{path}: claims {' x '.join(map(str, shape))} voxels, which {n_bytes} bytes cannot"
            " hold: cut off, or damaged?"
        )
    check_memory(path, n_voxels * (2 * itemsize + more))


def _check_offset(path: Path) -> None:
    """Refuse a NIfTI whose header says that its voxels begin far behind it."""
    import nibabel as nib

    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as stream:
        first = stream.read(_HEADER_BYTES)
    for header in (nib.Nifti1Header, nib.Nifti2Header):
        size = header.template_dtype.itemsize
        if len(first) >= size and header.may_contain_header(first):
            offset = float(header(first[:size], check=False)["vox_offset"])
            if not offset <= _FARTHEST:
                raise ImageError(f"{path}: damaged: its voxels begin at byte {offset:g}")
