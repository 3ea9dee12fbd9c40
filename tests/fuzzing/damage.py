"""Strategies of hypothesis that make damaged files of good ones: bytes, tables, JSON, headers."""

from __future__ import annotations

import gzip
import io
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import tifffile
from hypothesis import strategies as st

DEEP = 100_000
"""Nested brackets: far beyond what any parser that calls itself can follow."""
DIGITS = 5000
"""More than Python reads as a whole number at once (4300)."""

_RAW = {
    "@deep@": "[" * DEEP + "]" * DEEP,
    "@deep objects@": '{"a":' * DEEP + "1" + "}" * DEEP,
    "@digits@": "9" * DIGITS,
    "@nan@": "NaN",
    "@infinite@": "-Infinity",
    "@overflow@": "1e999",
}
"""What JSON may contain and `json.dumps` does not write."""
_SCALARS = st.sampled_from(
    [
        *_RAW,
        *(
            None,
            True,
            False,
            0,
            1,
            -1,
            2,
            3,
            1e30,
            -1e30,
            1e-30,
            1e308,
            10**7,
            2**31,
            2**63,
            10**30,
        ),
        *(
            0.5,
            127,
            255,
            65536,
            1e9,
            "",
            "x",
            "1",
            "nan",
            "1e999",
            "a/../../b",
            "/etc/passwd",
            "\0",
        ),
        *("\ud800".encode("utf-8", "replace").decode(), "ä" * 300, "A" * 5000, "{brain}", "auto"),
    ]
)
VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["a", "", "rows", "files", "name", "1"]), inner, max_size=3
        ),
    ),
    max_leaves=5,
)
"""JSON values that are seldom meant."""

CELLS = st.sampled_from(
    [
        *("", "0", "1", "-1", "2", "0.5", "1e30", "-1e30", "1e-30", "1e308", "1e999", "nan", "inf"),
        *(
            "-inf",
            "1,5",
            "1.5 mm",
            "9" * DIGITS,
            "0x10",
            "1_0",
            "²",
            "٣",
            "x",
            "true",
            "false",
            "none",
        ),
        *(
            "lr",
            "ud",
            "g.png",
            "no.png",
            ".",
            "..",
            "/",
            "/dev/null",
            "/proc/self/mem",
            "a\0b",
            "\x1b[2J",
        ),
        *(
            "g",
            "h",
            '"',
            '""',
            "'",
            "[",
            "[]",
            "{}",
            "null",
            "[1]",
            "{",
            '{"a": "b"}',
            "[[1, 2], 3, 4]",
        ),
        *(
            "A" * 300,
            "A" * 70000,
            "\ufeff",
            "\u202e",
            "#",
            "ä",
            "a\tb",
            "a\rb",
            "a\nb",
            "🧠",
            "=1+1",
        ),
        *(
            "[" * 2000,
            "{}" * 3,
            "NaN",
            '{"x": 1}',
            "3.0",
            "1e3",
            "10000000000",
            "65536",
            "4294967296",
        ),
    ]
)
"""Cells of tables."""


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes], head: int = 0) -> bytes:
    """A good file with up to four changes of its bytes, half of them in its first `head` ones."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        end = min(head, len(data)) if head and draw(st.booleans()) else len(data)
        at = draw(st.integers(0, max(0, end - 1)))
        match draw(st.integers(0, 6)):
            case 0 | 1:
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case 2 | 3:
                kind = draw(st.sampled_from(["<B", "<H", "<I", "<Q", ">H", ">I", ">Q"]))
                top = 2 ** (8 * struct.calcsize(kind)) - 1
                value = draw(st.sampled_from([0, 1, 2, 127, 255, top // 2, top // 2 + 1, top]))
                packed = struct.pack(kind, min(value, top))
                data[at : at + len(packed)] = packed
            case 4:
                del data[at : at + draw(st.integers(1, 64))]
            case 5:
                data[at:at] = draw(st.binary(max_size=16))
            case 6:
                del data[at:]
    return bytes(data)


@st.composite
def tables(
    draw: st.DrawFn,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, str]],
    separator: str = "\t",
) -> bytes:
    """A good table with other columns, cells, separators and encodings."""
    header = list(columns)
    cells = [[row.get(c, "") for c in header] for row in rows]
    for _ in range(draw(st.integers(0, 3))):
        row = draw(st.integers(0, len(cells) - 1))
        column = draw(st.integers(0, len(header) - 1))
        match draw(st.integers(0, 9)):
            case 0:
                header[column] = draw(st.one_of(CELLS, st.sampled_from(columns)))
            case 1:
                cells[row] = cells[row] + [draw(CELLS)] * draw(st.sampled_from([1, 50]))
            case 2:
                cells[row] = cells[row][: column or 1]
            case 3:
                cells.append(list(cells[row]))
            case 4:
                header.append(draw(CELLS))
            case 5 if draw(st.integers(0, 5)) == 0:
                header += [f"c{i}" for i in range(20000)]
                cells *= 400
            case _:
                wide = cells[row] + [""] * (len(header) - len(cells[row]))
                wide[column] = draw(CELLS)
                cells[row] = wide
    mark = draw(st.sampled_from([separator] * 8 + [",", ";", " "]))
    end = draw(st.sampled_from(["\n"] * 6 + ["\r\n", "\r", "\n\n"]))
    text = end.join(mark.join(line) for line in [header, *cells]) + end
    encoding = draw(st.sampled_from(["utf-8"] * 8 + ["utf-16", "latin-1", "utf-8-sig"]))
    data = text.encode(encoding, "replace")
    return draw(mutated([data])) if draw(st.integers(0, 3)) == 0 else data


def json_text(value: Any) -> str:
    """JSON with what `json.dumps` does not write in the places kept for it."""
    text = json.dumps(value, ensure_ascii=False)
    for mark, raw in _RAW.items():
        text = text.replace(f'"{mark}"', raw)
    return text


@st.composite
def documents(draw: st.DrawFn, seeds: Sequence[Any]) -> str:
    """A good JSON document with up to three values replaced, removed or added."""
    value = json.loads(json.dumps(draw(st.sampled_from(seeds))))
    for _ in range(draw(st.integers(1, 3))):
        value = _changed(draw, value, draw(st.integers(0, 8)))
    return json_text(value)


def _changed(draw: st.DrawFn, value: Any, depth: int) -> Any:
    keys = (
        sorted(value)
        if isinstance(value, dict)
        else list(range(len(value)))
        if isinstance(value, list)
        else []
    )
    if not keys or depth == 0:
        return draw(VALUES)
    key = draw(st.sampled_from(keys))
    match draw(st.integers(0, 7)):
        case 0:
            del value[key]
        case 1 if isinstance(value, dict):
            value[draw(st.sampled_from(["x", "", *map(str, keys)]))] = draw(VALUES)
        case _:
            value[key] = _changed(draw, value[key], depth - 1)
    return value


@st.composite
def damaged_json(draw: st.DrawFn, seeds: Sequence[Any]) -> bytes:
    """A file of JSON: another document, a cut one, other bytes."""
    match draw(st.integers(0, 5)):
        case 0:
            return draw(mutated([json_text(seed).encode() for seed in seeds]))
        case 1:
            return json_text(draw(VALUES)).encode("utf-8", "replace")
        case _:
            return draw(documents(seeds)).encode("utf-8", "replace")


_NIFTI_NUMBERS = st.sampled_from(
    [
        0,
        1,
        -1,
        2,
        3,
        4,
        5,
        7,
        8,
        16,
        64,
        255,
        256,
        348,
        352,
        512,
        1500,
        32767,
        -32768,
        1000000000.0,
        1e-09,
        1e30,
        -1e30,
        float("nan"),
        float("inf"),
        0.5,
        0.001,
        2304,
        128,
        32,
        540,
    ]
)


@st.composite
def niftis(draw: st.DrawFn, arrays: Sequence[np.ndarray], *, many: bool = True) -> bytes:
    """A NIfTI with other numbers in its header, cut or padded, compressed or not."""
    array = draw(st.sampled_from(arrays))
    image = nib.Nifti1Image(array, np.diag([2.0, 2.0, 2.0, 1.0]))
    image.header.set_xyzt_units("mm")
    fields = image.header.structarr
    data = bytearray(image.to_bytes())
    offsets = {n: (o, fields.dtype[n]) for n, (d, o) in fields.dtype.fields.items()}
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(["dim", "pixdim", "datatype", *sorted(offsets)]))
        offset, dtype = offsets[name]
        index = draw(st.integers(0, int(np.prod(dtype.shape or (1,))) - 1))
        base = dtype.base
        with np.errstate(all="ignore"):
            if base.kind == "S":
                packed = draw(st.binary(min_size=1, max_size=base.itemsize))
            else:
                value = draw(_NIFTI_NUMBERS)
                whole = 0 if base.kind in "iu" and not np.isfinite(value) else value
                packed = np.array([whole]).astype(base).tobytes()
        data[offset + index * base.itemsize :][: len(packed)] = packed
        data[offset + index * base.itemsize : offset + index * base.itemsize + len(packed)] = packed
    match draw(st.integers(0, 9)):
        case 0:
            del data[draw(st.integers(0, len(data))) :]
        case 1:
            data = bytearray(draw(mutated([bytes(data)], 352)))
        case 2:
            data += bytes(draw(st.sampled_from([1, 10**6])))
    if draw(st.booleans()):
        return bytes(data)
    packed = gzip.compress(bytes(data), 1, mtime=0)
    return draw(mutated([packed])) if draw(st.integers(0, 3)) == 0 else packed


_XML_VALUES = st.sampled_from(
    [
        "",
        "0",
        "-1",
        "1",
        "5",
        "nan",
        "inf",
        "1e999",
        "0,5",
        "0.5",
        "x",
        "9" * DIGITS,
        "1e-30",
        "µm",
        "mm",
        "pixel",
        "nm",
        "reference frame",
        "&lt;",
        "<",
        "&#0;",
        "🧠",
        "A" * 5000,
        "0.25 µm",
    ]
)


@st.composite
def described_tiffs(draw: st.DrawFn, array: np.ndarray) -> bytes:
    """A TIFF with good pixels whose description is OME-XML, of ImageJ or of Aperio, damaged."""
    value = lambda: draw(_XML_VALUES)  # noqa: E731
    ome = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/'
        'OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT"'
        f' Type="uint8" SizeX="{draw(st.sampled_from(["16", value()]))}" SizeY="16" SizeC="1"'
        ' SizeZ="1" SizeT="1"'
        f' PhysicalSizeX="{value()}" PhysicalSizeY="{value()}" PhysicalSizeXUnit="{value()}">'
        f'<Channel ID="Channel:0:0" Name="{value()}" SamplesPerPixel="1"/>'
        '<TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
    )
    imagej = (
        f"ImageJ=1.11a\nimages={value()}\nunit={value()}\nslices={value()}\nspacing={value()}\n"
    )
    aperio = f"Aperio Image Library v1\n16x16|AppMag = 20|MPP = {value()}|x = {value()}"
    text = draw(st.sampled_from([ome, ome, imagej, aperio])).encode("utf-8", "replace")
    if draw(st.integers(0, 2)) == 0:
        text = draw(mutated([text]))
    resolution = draw(
        st.sampled_from([(1, 1), (0, 1), (1e9, 1e9), (300.0, 300.0), (1e-9, 1.0), (20, 20)])
    )
    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        array,
        description=text.replace(b"\0", b" "),
        metadata=None,
        resolution=resolution,
        resolutionunit=draw(st.sampled_from([1, 2, 3])),
    )
    return stream.getvalue()


@st.composite
def retagged_tiffs(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A little-endian TIFF whose first directory has other tags, types, counts and values."""
    data = bytearray(draw(st.sampled_from(seeds)))
    big = data[2] == 43
    at = struct.unpack_from("<Q" if big else "<I", data, 8 if big else 4)[0]
    count = struct.unpack_from("<Q" if big else "<H", data, at)[0]
    first, size = (at + 8, 20) if big else (at + 2, 12)
    for _ in range(draw(st.integers(1, 3))):
        entry = first + size * draw(st.integers(0, count - 1))
        numbers = st.sampled_from(
            [
                0,
                1,
                2,
                3,
                5,
                7,
                8,
                12,
                16,
                32,
                33,
                64,
                100,
                255,
                256,
                32773,
                34712,
                60000,
                65535,
                2**20,
                2**31 - 1,
                2**31,
                2**32 - 1,
                len(data) - 4,
                at,
            ]
        )
        match draw(st.integers(0, 5)):
            case 0:
                tags = [254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 282, 284, 317, 320]
                tags += [322, 323, 324, 325, 330, 338, 339, 347, 530, 32997, 50838, 50839, 65420]
                struct.pack_into("<H", data, entry, draw(st.sampled_from(tags)))
            case 1:
                struct.pack_into("<H", data, entry + 2, draw(st.sampled_from([*range(19), 65535])))
            case 2:
                struct.pack_into("<Q" if big else "<I", data, entry + 4, draw(numbers))
            case _:
                struct.pack_into(
                    "<Q" if big else "<I", data, entry + size - (8 if big else 4), draw(numbers)
                )
    return bytes(data)
