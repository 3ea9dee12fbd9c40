"""MRI from files of other formats than NIfTI, as what nibabel makes of a NIfTI.

nibabel reads MGZ, MINC 1 and Analyze by itself; SimpleITK reads NRRD, MetaImage and DICOM. What
neither reads is refused with the program that converts it.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from sbr_core.errors import ImageError
from sbr_core.geometry import LPS_FROM_RAS
from sbr_core.io.detached import detached_files
from sbr_core.io.nifti import check_claim, open_nifti
from sbr_core.io.sums import check_gzip, check_sum

READ = "NIfTI, MGZ, NRRD, MetaImage or a folder with one DICOM series"
"""What an MRI may be, in words."""
_CONVERTERS = {
    ".mnc": "MINC 2 is not read: `mnc2nii mri.mnc mri.nii` (MINC tools) converts it",
    ".czi": "a microscope's file: export it as NIfTI, with Fiji or Bio-Formats",
    ".h5": "HDF5 is not read: save its array as NIfTI, with the size of a voxel",
    ".zarr": "Zarr is not read: save its array as NIfTI, with the size of a voxel",
    ".tif": "a TIFF does not contain where its voxels lie: save it as NIfTI",
    ".npy": "an array does not contain where its voxels lie: save it as NIfTI",
    ".ima": "one slice of a DICOM series: give the folder, or convert it with dcm2niix",
}
"""Ending of a file -> what to do with it."""
_CONVERTERS |= {".tiff": _CONVERTERS[".tif"], ".hdf5": _CONVERTERS[".h5"]}
_CONVERTERS |= {".npz": _CONVERTERS[".npy"]}
_NRRD_UNITS = {
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), "mm"),
    **dict.fromkeys(("um", "µm", "μm", "micron", "microns"), "micron"),
    **dict.fromkeys(("micrometer", "micrometers", "micrometre", "micrometres"), "micron"),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), "meter"),
}
_DICOM_READER = "GDCMImageIO"
_UNEVEN = 0.02
"""Slices of a series are evenly spaced if their distances differ by less, as a share."""


def load_mri(path: Path) -> tuple[nib.spatialimages.SpatialImage, np.ndarray]:
    """A volume as nibabel gives a NIfTI, and its array, of a file that is read to its end.

    Raises
    ------
    ImageError
        A folder without one DICOM series, or a file that cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        if not any(path.iterdir()):
            raise ImageError(f"{path}: is an empty folder, expected {READ}")
        return _of_dicom(path)
    if not path.is_file():
        raise ImageError(f"{path}: no such file")
    intact = check_sum(path) is not None
    try:
        with open(path, "rb") as stream:
            head = stream.read(1 << 12)
        if reader := _reader_of(path, head):
            return _of_itk(path, head, reader)
        image = open_nifti(path)
        data = np.asarray(image.dataobj)  # a truncated file shows only here
        if not intact and path.suffix in (".gz", ".mgz"):
            check_gzip(path, math.prod(image.shape) * image.get_data_dtype().itemsize)
        return image, data
    except ImageError:
        raise
    except Exception as error:  # nibabel, SimpleITK and zlib raise whatever they like
        name = path.name.lower()
        if name.endswith((".nii", ".nii.gz")):
            raise ImageError(f"{path}: not readable as NIfTI: {error}") from error
        hint = _CONVERTERS.get(path.suffix.lower(), f"{_first_sentence(error)}: expected {READ}")
        raise ImageError(f"{path}: not readable as an MRI: {hint}") from error


def _first_sentence(error: Exception) -> str:
    """What a library says, without the trace that SimpleITK puts around it."""
    text = str(error)
    if found := re.search(r"(?:itk::ERROR|ITK ERROR): (?:\S+\(0x\w+\): )?(.*)", text):
        return found[1]
    return text


def _from_itk(
    path: Path, image: Any, unit: str = "mm", *, has_frame: bool = True
) -> tuple[nib.Nifti1Image, np.ndarray]:
    """What SimpleITK read, with its world, which is LPS, as a NIfTI has it.

    Parameters
    ----------
    unit : of length, as NIfTI calls it.
    has_frame : whether the file states which way its axes go.
    """
    import SimpleITK as sitk

    if (n_components := image.GetNumberOfComponentsPerPixel()) != 1:
        raise ImageError(f"{path}: expected one number per voxel, found {n_components}")
    dimensions = image.GetDimension()
    if dimensions > 3 and set(image.GetSize()[3:]) == {1}:
        image = sitk.Extract(image, [*image.GetSize()[:3], *[0] * (dimensions - 3)])
    if image.GetDimension() != 3:
        raise ImageError(f"{path}: expected a 3D volume, found shape {image.GetSize()}")
    lps_from_voxel = np.eye(4)
    lps_from_voxel[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    lps_from_voxel[:3, 3] = image.GetOrigin()
    data = sitk.GetArrayFromImage(image).T
    world_from_voxel = np.linalg.inv(LPS_FROM_RAS) @ lps_from_voxel
    nifti = nib.Nifti1Image(data, world_from_voxel, dtype=data.dtype)
    nifti.set_sform(world_from_voxel, int(has_frame))
    nifti.set_qform(world_from_voxel, 0)
    nifti.header.set_xyzt_units(unit)
    return nifti, data


def _reader_of(path: Path, head: bytes) -> str:
    """The reader of SimpleITK for a file, by its first bytes and its ending; "" for none."""
    ending = path.suffix.lower()
    if head[:4] == b"NRRD":
        return "NrrdImageIO" if ending in (".nrrd", ".nhdr") else ""
    if b"NDims" in head[:512] and ending in (".mha", ".mhd"):
        return "MetaImageIO"
    is_nifti = path.name.lower().endswith((".nii", ".nii.gz"))
    return _DICOM_READER if head[128:132] == b"DICM" and not is_nifti else ""


def _of_itk(path: Path, head: bytes, reader_name: str) -> tuple[nib.Nifti1Image, np.ndarray]:
    """An NRRD, a MetaImage or one file of DICOM."""
    import SimpleITK as sitk

    files = [] if reader_name == _DICOM_READER else detached_files(path)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    # left to choose, ITK may take it for HDF5, which reads numbers from other files
    reader.SetImageIO(reader_name)
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    check_claim(path, reader.GetSize(), reader.GetNumberOfComponents(), files=files)
    image = reader.Execute()
    if head[128:132] == b"DICM" and image.GetDimension() == 3 and image.GetSize()[2] == 1:
        raise ImageError(f"{path}: is one slice of a DICOM series: expected its folder")
    if head[:4] != b"NRRD":
        return _from_itk(path, image)
    has_frame = re.search(rb"^space:", head, re.M) is not None
    return _from_itk(path, image, _nrrd_unit(path, head), has_frame=has_frame)


def _nrrd_unit(path: Path, head: bytes) -> str:
    """The unit of length that an NRRD states, as NIfTI calls it; ``unknown`` where it has none."""
    text = head.split(b"\n\n")[0].decode("utf-8", "replace")
    found = re.search(r"^(?:space )?units:\s*(.*)$", text, re.M)
    stated = set(re.findall(r'"([^"]*)"', found[1])) - {"", "none", "???"} if found else set()
    if not stated:
        return "unknown"
    units = {_NRRD_UNITS.get(unit.casefold()) for unit in stated}
    if len(units) != 1 or None in units:
        raise ImageError(f"{path}: units: expected mm, um or m, found {', '.join(sorted(stated))}")
    return units.pop()


def _of_dicom(folder: Path) -> tuple[nib.Nifti1Image, np.ndarray]:
    """The one DICOM series in a folder."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO(_DICOM_READER)
    series = reader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        what = (
            f"{len(series)} DICOM series"
            if series
            else "a folder without a DICOM series that can be read (those below it do not count)"
        )
        hint = ": give each a folder of its own, or convert one with dcm2niix" if series else ""
        raise ImageError(f"{folder}: is {what}, expected {READ}{hint}")
    names = reader.GetGDCMSeriesFileNames(str(folder), series[0])
    reader.SetFileNames(names)
    reader.MetaDataDictionaryArrayUpdateOn()
    try:
        alone = len(names) == 1
        image = sitk.ReadImage(names[0], imageIO=_DICOM_READER) if alone else reader.Execute()
        places = [
            np.array(reader.GetMetaData(i, "0020|0032").split("\\"), float)
            for i in range(len(names) if len(names) > 1 else 0)
            if reader.HasMetaDataKey(i, "0020|0032")
        ]
    except Exception as error:  # GDCM and ITK raise whatever they like
        raise ImageError(
            f"{folder}: not readable as a DICOM series: {_first_sentence(error)}; dcm2niix may"
            " convert it"
        ) from error
    if image.GetDimension() == 3 and min(image.GetSize()) == 1:
        raise ImageError(f"{folder}: expected a DICOM series of a volume, found one slice")
    steps = np.diff(places, axis=0) if len(places) > 2 else np.zeros((0, 3))
    if len(steps) and np.ptp(steps, axis=0).max() > _UNEVEN * np.linalg.norm(steps, axis=1).min():
        raise ImageError(
            f"{folder}: slices of the DICOM series are not evenly spaced"
            f" ({np.linalg.norm(steps, axis=1).min():.3g} to"
            f" {np.linalg.norm(steps, axis=1).max():.3g} mm): is one missing, or are two scans in"
            " the folder? dcm2niix may convert it"
        )
    return _from_itk(folder, image)
