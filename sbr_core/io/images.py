"""Section images and label images from PNG, JPEG, TIFF."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sbr_core.errors import ImageError
from sbr_core.io.provenance import atomic_path

_TIFF = {".tif", ".tiff"}
_LUMINANCE = np.array([0.2125, 0.7154, 0.0721], np.float32)


def _read(path: Path, keep_palette: bool) -> np.ndarray:
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"{path}: no such file")
    # decoders raise whatever they like on damaged bytes; all of it is the file's fault
    try:
        array = _read_tiff(path) if path.suffix.lower() in _TIFF else None
        if array is None:
            array = _read_with_pillow(path, keep_palette)
    except Exception as error:
        raise ImageError(f"{path}: not readable as an image: {error}") from error
    if array.ndim < 2 or min(array.shape[:2]) < 2:
        raise ImageError(f"{path}: expected a 2D image, found shape {array.shape}")
    if array.dtype.kind not in "buif":
        raise ImageError(f"{path}: expected grey levels or colour, found {array.dtype} values")
    return array


def _read_tiff(path: Path) -> np.ndarray | None:
    """The array of a TIFF; None when tifffile lacks its codec, which Pillow then has (LZW)."""
    import tifffile

    try:
        return tifffile.imread(path)
    except ValueError as error:
        if "imagecodecs" in str(error):
            return None
        raise


def _read_with_pillow(path: Path, keep_palette: bool) -> np.ndarray:
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # a slide is larger than Pillow's guard for the web allows
    with Image.open(path) as image:
        if image.mode == "P" and not keep_palette:
            image = image.convert("RGB")
        elif image.mode in ("1", "CMYK", "YCbCr", "LAB", "HSV"):
            image = image.convert("L" if image.mode == "1" else "RGB")
        return np.asarray(image)


def read_picture(path: Path) -> np.ndarray:
    """One section as it was photographed.

    Returns
    -------
    (rows, columns) grey levels or (rows, columns, 3) red, green, blue; float32, 1 = the full range
    of the file's integer type (255, 65535); float files keep their values. Alpha is laid over
    white.

    Raises
    ------
    ImageError
        No file, not an image, more than one plane, or values that are not finite.
    """
    array = _read(path, keep_palette=False)
    image = array.astype(np.float32)
    if np.issubdtype(array.dtype, np.integer):
        image /= np.iinfo(array.dtype).max
    if image.ndim == 3 and image.shape[2] in (2, 4):
        alpha = image[..., -1:]
        image = image[..., :-1] * alpha + (1 - alpha)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim != 2 and image.shape[2:] != (3,):
        raise ImageError(f"{path}: expected one 2D plane, found shape {array.shape}")
    if not np.isfinite(image).all():
        raise ImageError(f"{path}: has values that are not finite")
    return np.ascontiguousarray(image)


def read_section(path: Path) -> np.ndarray:
    """As `read_picture`, but (rows, columns): colour becomes luminance."""
    picture = read_picture(path)
    return picture if picture.ndim == 2 else np.ascontiguousarray(picture @ _LUMINANCE)


def read_labels(path: Path, shape: tuple[int, int] | None = None) -> np.ndarray:
    """A label image (rows, columns), uint16; a palette's indices are the labels.

    Raises
    ------
    ImageError
        Not readable, not integers from 0 to 65535, colour, or of another shape than `shape`.
    """
    array = _read(path, keep_palette=True)
    if array.ndim != 2 or not (np.issubdtype(array.dtype, np.integer) or array.dtype == bool):
        raise ImageError(
            f"{path}: expected one plane of integer labels, found {array.dtype} {array.shape}"
        )
    if shape is not None and array.shape != tuple(shape):
        raise ImageError(f"{path}: shape {array.shape} differs from its image's {tuple(shape)}")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > np.iinfo(np.uint16).max:  # they would wrap round, to another label
        raise ImageError(f"{path}: expected labels from 0 to 65535, found {low} to {high}")
    return array.astype(np.uint16)


def image_shape(path: Path) -> tuple[int, int]:
    """(rows, columns) of an image, without its pixels; ImageError when it is none."""
    from PIL import Image

    path = Path(path)
    if not path.is_file():
        raise ImageError(f"{path}: no such file")
    try:
        if path.suffix.lower() in _TIFF:
            import tifffile

            with tifffile.TiffFile(path) as tiff:
                return tiff.pages[0].imagelength, tiff.pages[0].imagewidth
        Image.MAX_IMAGE_PIXELS = None
        with Image.open(path) as image:
            return image.height, image.width
    except Exception as error:  # decoders raise whatever they like on damaged bytes
        raise ImageError(f"{path}: not readable as an image: {error}") from error


def read_colours(path: Path) -> np.ndarray:
    """A colour image (rows, columns, 3), uint8, without its alpha; ImageError when it is none."""
    array = _read(path, keep_palette=False)
    if array.ndim != 3 or array.shape[2] not in (3, 4) or array.dtype != np.uint8:
        raise ImageError(f"{path}: expected 8-bit colours, found {array.dtype} {array.shape}")
    return array[..., :3]


def write_png(path: Path, array: np.ndarray) -> None:
    """Write uint8 or uint16 grey, or uint8 RGB, as PNG."""
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(array)).save(temporary, format="PNG")
