"""Section images and label images from PNG, JPEG, TIFF, whole-slide images and NIfTI slices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from sbr_core.errors import ImageError
from sbr_core.io.blocks import BlockMeans, Picture, check_memory, over_background
from sbr_core.io.channels import RGB, Channels
from sbr_core.io.files import atomic_path, check_is_file
from sbr_core.io.nifti import open_nifti
from sbr_core.io.pictures import open_picture
from sbr_core.io.sums import check_gzip, check_png
from sbr_core.io.tiff import MissingCodec, find_plane, is_tiff, read_tiff

_SAMPLES_AT_ONCE = 1 << 23
"""Made float32 at once, which is 32 MiB: enough for numpy to be fast, little beside the picture."""
_LUMINANCE = np.array([0.2125, 0.7154, 0.0721], np.float32)
"""Weights of red, green and blue: ITU-R BT.709, as in `skimage.color.rgb2gray`."""
_BYTES_PER_BYTE = {"PNG": 8 * 1100, "JPEG": 600, "GIF": 3000, "BMP": 150, "DIB": 150}
_BYTES_PER_BYTE |= {"TGA": 70, "PPM": 9}
"""Format -> what one byte of the file can stand for at most, and a little more, so that a damaged
header is not given memory. PNG, samples: deflate makes up to 1032 bytes of one, each of up to 8
samples. The others, pixels: of JPEG a bit for each block of 64; of GIF 12 bits for strings of up to
4096; of BMP two bytes for a run of 255, of TGA for one of 128; of PPM a bit for each."""
_AS_STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: np.fliplr,
    3: lambda turned: np.rot90(turned, 2),
    4: np.flipud,
    5: lambda turned: np.swapaxes(turned, 0, 1),
    6: np.rot90,
    7: lambda turned: np.swapaxes(np.rot90(turned, 2), 0, 1),
    8: lambda turned: np.rot90(turned, -1),
}
"""Orientation (TIFF 6.0, tag 274) -> what makes the pixels as they are stored of those that are
upright."""
_LYING = (5, 6, 7, 8)
"""Orientations in which rows and columns are exchanged."""


def read_samples(path: Path, keep_palette: bool) -> np.ndarray:
    """The samples (rows, columns[, channels]) of a file as they are stored, whole.

    Parameters
    ----------
    keep_palette : give the indices of a palette, not its colours.

    Raises
    ------
    ImageError
        No file, not an image, or more than one plane.
    """
    path = Path(path)
    check_is_file(path)
    with decoding(path):
        if _is_nifti(path):
            array = _nifti_slice(path)
        else:
            array = _tiff_samples(path) if is_tiff(path) else None
            if array is None:
                array = _pillow_samples(path, keep_palette)[0]
    if array.ndim < 2 or min(array.shape[:2]) < 2:
        raise ImageError(f"{path}: expected a 2D image, found shape {array.shape}")
    if array.dtype.kind not in "buif":
        raise ImageError(f"{path}: expected grey levels or colour, found {array.dtype} values")
    return array


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Faults of decoders, which raise whatever they like on damaged bytes, as the file's fault."""
    try:
        yield
    except ImageError:
        raise
    except PermissionError:
        raise ImageError(f"{path}: may not be read (permission denied)") from None
    except MissingCodec as error:
        raise ImageError(
            f"{path}: {error}; pip install 'sbr_core[wsi]' adds what whole-slide images need"
        ) from error
    except MemoryError as error:
        raise ImageError(f"{path}: not readable as an image: not enough memory") from error
    except Exception as error:
        raise ImageError(f"{path}: not readable as an image: {error}") from error


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith((".nii", ".nii.gz"))


def _nifti_slice(path: Path) -> np.ndarray:
    """[row, column] of a NIfTI with one slice: its first axis runs along a row, as ITK reads it."""
    image = open_nifti(path)
    shape = _slice_shape(path, image.shape)
    # as it is stored, as nibabel scales it, and as signal, once as read and once as means
    scaled = (image.dataobj.slope, image.dataobj.inter) != (1, 0)
    check_memory(path, math.prod(shape) * (image.get_data_dtype().itemsize + 4 * scaled + 8))
    array = np.asarray(image.dataobj).reshape(shape)
    if path.suffix.lower() == ".gz":
        check_gzip(path, math.prod(shape) * image.get_data_dtype().itemsize)
    if array.dtype.names == ("R", "G", "B"):
        array = np.stack([array[c] for c in "RGB"], axis=-1)
    return np.swapaxes(array, 0, 1)


def _slice_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int]:
    """The two extents of a NIfTI with one slice."""
    sides = tuple(n for n in shape if n > 1)
    if len(sides) != 2:
        hint = f": `sbr manifest {path}` writes its slices" if len(sides) == 3 else ""
        raise ImageError(f"{path}: expected one slice, found shape {shape}{hint}")
    return sides


def _tiff_samples(path: Path) -> np.ndarray | None:
    """The array of a TIFF; None when tifffile lacks its codec, which Pillow may have (LZW)."""
    import tifffile

    with tifffile.TiffFile(path, _multifile=False) as tiff:
        series = find_plane(path, tiff).series
        check_memory(path, series.nbytes)
        try:
            return series.asarray()
        except ValueError as error:
            if "imagecodecs" in str(error):
                return None
            raise


def _pillow_samples(
    path: Path, keep_palette: bool, coarsest: float = 1.0
) -> tuple[np.ndarray, tuple[int, int]]:
    """Samples of any file but NIfTI, and its (rows, columns).

    Parameters
    ----------
    coarsest : of a JPEG every 2nd, 4th or 8th pixel is made as it is decoded, where that serves.
    """
    from PIL import ExifTags

    with open_picture(path) as image:
        columns, rows = image.size
        n_bytes = rows * columns * len(image.getbands())
        most = _BYTES_PER_BYTE.get(image.format, math.inf)
        if (n_bytes if image.format == "PNG" else rows * columns) > most * path.stat().st_size:
            raise ImageError(
                f"{path}: not readable as an image: claims {columns} x {rows} pixels, which"
                f" {path.stat().st_size} bytes cannot hold"
            )
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # MPO: a camera's preview
            raise ImageError(f"{path}: expected one 2D plane, found {image.n_frames} frames")
        if image.format == "PNG":
            check_png(path)
        # of all formats, Pillow undoes the turn that is stated in a TIFF when it decodes it
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) if image.format == "TIFF" else 1
        if image.format == "JPEG" and coarsest >= 2:
            image.draft(None, tuple(max(1, int(n / coarsest)) for n in image.size))
        # `draft` left fewer; as bytes, and as what is made of them, once as read and once as signal
        samples = image.size[0] * image.size[1] * len(image.getbands())
        kept = n_bytes / int(max(1, coarsest)) ** 2
        check_memory(path, int(samples + 8 * kept), ": store it as a pyramid (OME-TIFF)")
        if image.mode in ("P", "PA") and not keep_palette:
            clear = image.mode == "PA" or "transparency" in image.info
            image = image.convert("RGBA" if clear else "RGB")
        elif image.mode in ("1", "CMYK", "YCbCr", "LAB", "HSV"):
            image = image.convert("L" if image.mode == "1" else "RGB")
        stored = _AS_STORED.get(turned, np.asarray)(np.asarray(image))
        return stored, (columns, rows) if turned in _LYING else (rows, columns)


def read_reduced(path: Path, coarsest: float, channel: str | None = None) -> Picture:
    """One section as it was photographed, at the resolution that is needed.

    Of a pyramid the coarsest level that serves is read, of anything else blocks of pixels are
    averaged; tiled files and files in strips never lie in memory whole.

    Parameters
    ----------
    coarsest : how many file pixels a pixel may be wide; below 2 the full resolution is read.
    channel : which one of several, by its number from 1 or its name in the file; of colours `red`,
        `green` or `blue`. "" where none was chosen, None where none can be.

    Returns
    -------
    1 = the full range of the file's integer type (255, 65535); float files and NIfTI keep their
    values. Transparent parts show the background, see `over_background`.

    Raises
    ------
    ImageError
        No file, not an image, more than one plane, larger than memory, or values that are not
        finite.
    """
    path, coarsest = Path(path), max(1.0, coarsest)
    check_is_file(path)
    with decoding(path):
        picture = None
        if not _is_nifti(path) and is_tiff(path):
            try:
                picture = read_tiff(path, coarsest, channel)
            except MissingCodec as missing:
                if channel and not missing.is_only_picture:
                    raise
                try:
                    read = _pillow_samples(path, False)
                    picture = _from_samples(path, channel, *read, int(coarsest))
                except ImageError:
                    raise
                except Exception:  # however Pillow fails, the codec is what would help
                    raise missing from None
        elif _is_nifti(path):
            array = _nifti_slice(path)
            array = array if array.dtype == np.uint8 and array.ndim == 3 else array.astype("f4")
            picture = _from_samples(path, channel, array, array.shape[:2], int(coarsest))
        else:
            array, shape = _pillow_samples(path, False, coarsest)
            done = max(1, round(shape[0] / array.shape[0]))
            picture = _from_samples(path, channel, array, shape, int(coarsest / done), done)
    if min(picture.file_shape) < 2:
        raise ImageError(f"{path}: expected a 2D image, found shape {picture.file_shape}")
    if not np.isfinite(picture.pixels).all():
        raise ImageError(f"{path}: has values that are not finite")
    return picture


def _chosen_colour(path: Path, channel: str | None, is_colour: bool) -> int | None:
    """Which of three colours was chosen; None where none was, or of grey."""
    if not channel:
        return None
    index = (RGB if is_colour else Channels(1)).index(path, channel)
    return index if is_colour else None


def _from_samples(
    path: Path,
    channel: str | None,
    array: np.ndarray,
    file_shape: tuple[int, int],
    step: int,
    done: int = 1,
) -> Picture:
    """A picture of the samples (rows, columns[, channels]) that Pillow or NIfTI gives.

    Parameters
    ----------
    channel : as of `read_reduced`.
    step : further reduction.
    done : how far `array` is reduced already.
    """
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (2,), (3,), (4,)):
        raise ImageError(f"expected one 2D plane, found shape {array.shape}")
    if array.dtype.kind not in "buif":
        raise ImageError(f"expected grey levels or colour, found {array.dtype} values")
    samples = array.reshape(*array.shape[:2], -1)
    channels = samples.shape[2]
    colour = _chosen_colour(path, channel, channels >= 3)
    opacity = channels in (2, 4)
    top = np.float32(np.iinfo(array.dtype).max if array.dtype.kind in "ui" else 1)
    step = max(1, step)
    means = BlockMeans(array.shape[:2], channels, step)
    band = step * max(1, _SAMPLES_AT_ONCE // max(1, step * array.shape[1] * channels))
    for row in range(0, array.shape[0], band):
        piece = samples[row : row + band].astype(np.float32) / top
        if opacity:
            piece[..., :-1] *= piece[..., -1:]
        means.add(piece, row, 0)
    pixels = means.means()
    cover, pixels = pixels[..., -1], pixels[..., :-1] if opacity else pixels
    pixels = pixels if colour is None else pixels[..., colour : colour + 1]
    if opacity:
        pixels = over_background(pixels, cover)
    pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    return Picture(np.ascontiguousarray(pixels), file_shape, (float(step * done),) * 2)


def read_picture(path: Path) -> np.ndarray:
    """The pixels of `read_reduced` at full resolution."""
    return read_reduced(path, 1.0).pixels


def read_section(path: Path) -> np.ndarray:
    """As `read_picture`, but (rows, columns): colour becomes luminance."""
    picture = read_picture(path)
    return picture if picture.ndim == 2 else np.ascontiguousarray(picture @ _LUMINANCE)


def read_labels(path: Path, shape: tuple[int, int] | None = None) -> np.ndarray:
    """A label image (rows, columns); a palette's indices are the labels.

    Returns
    -------
    uint16, or int64 where an id is larger, as those of large atlases are.

    Raises
    ------
    ImageError
        Not readable, not integers from 0 to 2^63 - 1, colour, or of another shape than `shape`.
    """
    array = read_samples(path, keep_palette=True)
    if array.ndim != 2 or not (np.issubdtype(array.dtype, np.integer) or array.dtype == bool):
        raise ImageError(
            f"{path}: expected one plane of integer labels, found {array.dtype} {array.shape}"
        )
    if shape is not None and array.shape != tuple(shape):
        raise ImageError(f"{path}: shape {array.shape} differs from its image's {tuple(shape)}")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > np.iinfo(np.int64).max:  # they would wrap round, to another label
        raise ImageError(f"{path}: expected labels from 0 to 2^63 - 1, found {low} to {high}")
    return array.astype(np.uint16 if high <= np.iinfo(np.uint16).max else np.int64)


def is_jpeg(path: Path) -> bool:
    """Whether a file is a JPEG, whatever its name ends in: it does not keep values as they were."""
    with open(path, "rb") as stream:
        return stream.read(3) == b"\xff\xd8\xff"


def image_shape(path: Path, channel: str | None = None) -> tuple[int, int]:
    """(rows, columns) of an image, without its pixels; ImageError when it is none.

    Parameters
    ----------
    channel : as of `read_reduced`; one that is not there is refused.
    """
    path = Path(path)
    check_is_file(path)
    with decoding(path):
        if _is_nifti(path):
            image = open_nifti(path)
            columns, rows = _slice_shape(path, image.shape)
            _chosen_colour(path, channel, image.get_data_dtype().names is not None)
            return rows, columns
        if is_tiff(path):
            import tifffile

            with tifffile.TiffFile(path, _multifile=False) as tiff:
                page = find_plane(path, tiff, channel).series.keyframe
                return page.imagelength, page.imagewidth
        with open_picture(path) as image:
            _chosen_colour(path, channel, image.mode[0] == "P" or len(image.getbands()) > 2)
            return image.height, image.width


def read_colours(path: Path) -> np.ndarray:
    """A colour image (rows, columns, 3), uint8, without its alpha; ImageError when it is none."""
    array = read_samples(path, keep_palette=False)
    if array.ndim != 3 or array.shape[2] not in (3, 4) or array.dtype != np.uint8:
        raise ImageError(f"{path}: expected 8-bit colours, found {array.dtype} {array.shape}")
    return array[..., :3]


def write_png(path: Path, array: np.ndarray) -> None:
    """Write uint8 or uint16 grey, or uint8 RGB, as PNG."""
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(array)).save(temporary, format="PNG")
