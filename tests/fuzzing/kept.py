"""Files that once ended in a traceback, in too much memory or in no end, by their kind."""

from __future__ import annotations

import gzip
import io
import json
import struct
from collections.abc import Mapping

import nibabel as nib
import numpy as np
import tifffile
from fuzzing import kinds
from fuzzing.damage import DEEP, DIGITS, json_text


def _nifti(**fields: object) -> bytes:
    """A compressed volume of 64 voxels whose header says something else."""
    image = nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4))
    header = bytearray(image.to_bytes())
    dtype = nib.Nifti1Header.template_dtype
    for name, value in fields.items():
        part = np.asarray(value, dtype[name].base).tobytes()
        offset = dtype.fields[name][1]
        header[offset : offset + len(part)] = part
    return gzip.compress(bytes(header), mtime=0)


def _weights(kind: str, *place: str, value: object) -> bytes:
    """Weights with one value of their header replaced."""
    data = kinds.good_weights(kind)
    (size,) = struct.unpack_from("<Q", data)
    table = json.loads(data[8 : 8 + size])
    header = json.loads(table["__metadata__"]["sbr_core"])
    part = header
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    table["__metadata__"]["sbr_core"] = json_text(header)
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def _with_value(kind: str, value: float) -> bytes:
    data = kinds.good_weights(kind)
    return data[:-4] + np.float32(value).tobytes()


_NESTED = ("[" * DEEP + "]" * DEEP).encode()
_NO_OBJECTS = [b"", b"3", b"null", b'"x"', b"[1]", _NESTED, b"{}", b"\xff\xfe", b"[" * 50]
_WIDE = "\t".join(f"c{i}" for i in range(20_000)) + "\nx" * 2000
_HUGE = {"dim": [3, 1500, 1500, 1500, 1, 1, 1, 1]}


def _wide_gif() -> bytes:
    """A GIF of a few hundred bytes whose one frame claims 4 · 10⁹ pixels."""
    data = bytearray(next(data for data in kinds.PICTURES if data.startswith(b"GIF")))
    frame = data.index(b",\0\0\0\0")  # after it, columns and rows
    data[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    return bytes(data)


def _tall_planes() -> bytes:
    """A TIFF of three planes of 24 rows that claims 2**20 rows of each."""
    stream = io.BytesIO()
    planes = np.zeros((3, 24, 28), np.uint8)
    tifffile.imwrite(stream, planes, photometric="rgb", planarconfig="separate", rowsperstrip=24)
    data = bytearray(stream.getvalue())
    (first,) = struct.unpack_from("<I", data, 4)
    (n_tags,) = struct.unpack_from("<H", data, first)
    tags = range(first + 2, first + 2 + 12 * n_tags, 12)
    (length,) = (at for at in tags if struct.unpack_from("<H", data, at)[0] == 257)
    struct.pack_into("<HI I", data, length + 2, 4, 1, 2**20)
    return bytes(data)


def _long_jp2() -> bytes:
    """A JPEG 2000 whose second box claims 4 GB."""
    signature = b"\0\0\0\x0cjP  \r\n\x87\n"
    return signature + b"\0\0\0\x14ftypjp2 \0\0\0\0jp2 " + b"\xff\0\0-jp2h" + bytes(100)


KEPT: Mapping[str, list[bytes]] = {
    "configuration": [
        *map(str.encode, kinds.YAML_BOMBS),
        b"a: \x00",
        f"prepare: {{working_pixel_mm: {'9' * DIGITS}}}".encode(),
        _NESTED,
    ],
    "options": [b'{"a": ' + _NESTED + b"}", b'{"a": ' + b"9" * DIGITS + b"}", b"9" * DIGITS, b"\0"],
    "rows as JSON": [_NESTED, b"[1]", b"[null]", b'[{"section": {"a": [1]}}]', b"[[" * 20],
    "manifest": [
        b"section\timage\tposition_mm\tpixel_size_mm\tmask\ns1\tg.png\t1\t0.5\t/proc/self/mem\n",
        *(_WIDE.encode(), f"section\t{_WIDE}".encode(), b"section\timage\nx\t\0"),
        f"section\timage\t{'a' * 70_000}\nx\ty\t1\n".encode(),
    ],
    "manifest of a sheet": [_WIDE.encode()],
    "sheet of brains": [_WIDE.encode(), f"brain\tsections\t{_WIDE}".encode()],
    "MRI": [
        _nifti(**_HUGE),
        _nifti(vox_offset=2e9),
        _nifti(vox_offset=float("nan")),
        _nifti(dim=[3, 0, 4, 4, 1, 1, 1, 1]),
        _nifti(dim=[3, -4, 4, 4, 1, 1, 1, 1]),
        _nifti(pixdim=[1, float("nan"), 0, 1e30, 1, 1, 1, 1]),
        _nifti(scl_slope=1e30),
        gzip.compress(_nifti(), mtime=0),
    ],
    "MRI mask": [_nifti(**_HUGE), _nifti(vox_offset=2e9)],
    "section as NIfTI": [_nifti(**_HUGE), _nifti(dim=[2, 30000, 30000, 1, 1, 1, 1, 1])],
    "plane": [_nifti(**_HUGE)],
    "picture": [_wide_gif(), _long_jp2()],
    "GeoJSON": [*_NO_OBJECTS, b'{"features": 3}', b'{"features": [[]]}'],
    "points of Slicer": [
        *(*_NO_OBJECTS, b'{"markups": 3}', b'{"markups": [3]}'),
        b'{"markups": [{"controlPoints": [{"label": [], "position": [1, 2, 3]}]}]}',
    ],
    "points of napari": [
        *(b",", b'""', b"axis-0,axis-1\n\0,1\n"),
        b"index,shape-type,axis-0,axis-1\n0,path,1,2\n",
    ],
    "TIFF": [_tall_planes()],
    "receipt": [
        b"section\tstatus\tfiles\na\tok\t3\n",
        b"section\tstatus\tfiles\na\tok\t[1]\n",
        b"section\tstatus\tfiles\na\tok\t" + _NESTED + b"\n",
        b"section\na\n",
        _WIDE.encode(),
    ],
    "sidecar": [*_NO_OBJECTS, b'{"row": 3}', b'{"row": {"files": 3}}', b'{"row": {"files": {}}}'],
    "plane grid": [*_NO_OBJECTS, b'{"rows": [], "columns": 1e999, "spacing_mm": -1}'],
    "initial affines": [b"section\na\n", b"section\tposition_mm\na\tnan\n"],
    "transform": [kinds.good_transforms()[0].replace(b"AffineTransform", b"\xff\xfe\x80")],
    "weights": [
        _weights("registrar", "preprocessing", value=3),
        _weights("registrar", "architecture", "encoder_channels", value=[1] * 10**5),
        _weights("registrar", "architecture", "encoder_channels", value=[2**40, 2]),
        _weights("registrar", "architecture", "squaring_steps", value=10**7),
        _weights("method", "architecture", "generator", "residual_blocks", value=10**7),
        _weights("method", "architecture", "generator", "channels", value=10**5),
        _weights("method", "architecture", value=[1]),
        _weights("registrar", "preprocessing", "low_quantile", value="@nan@"),
        _weights("registrar", "stain", value="@deep@"),
        _weights("registrar", "format", value="@digits@"),
        _with_value("registrar", np.nan),
        _with_value("method", np.inf),
    ],
    "note of a run": [*_NO_OBJECTS, b'{"host": 1, "pid": "x", "started": []}'],
    "truth of the demo": [*_NO_OBJECTS, b'{"options": 3}'],
}
"""Kind -> files."""
