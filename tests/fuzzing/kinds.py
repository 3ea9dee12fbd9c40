"""The kinds of files that the package reads: good ones, their damage, and what reads them."""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from fuzzing import damage
from hypothesis import strategies as st
from PIL import Image

from sbr_core import cli
from sbr_core.artifacts import global_fit, networks, receipts, rows
from sbr_core.artifacts.section_signal import Source
from sbr_core.commands import COMMANDS, command_of
from sbr_core.config import RegistrarOptions, SbrOptions, load_yaml, resolve
from sbr_core.errors import SbrError
from sbr_core.io import images, label_tables, manifests, pixel_size, transforms, volumes
from sbr_core.io.weights import save_weights
from sbr_core.planning import lock, study, upkeep

REPOSITORY = Path(__file__).resolve().parents[2]
PRESETS = REPOSITORY / "sbr_core" / "config" / "presets"


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes
    ----------
    file : what it is called.
    damaged : the bytes of such files.
    read : reads a file, as a command of the package does.
    around : writes what the file needs beside it into a folder.
    only_results : whether every file must end in a result: what is damaged is made anew.
    """

    file: str
    damaged: st.SearchStrategy[bytes]
    read: Callable[[Path], object]
    around: Callable[[Path], object] = lambda folder: None
    only_results: bool = False


# --------------------------------------------------------------------------------------------
# Good files
# --------------------------------------------------------------------------------------------

_ROWS, _COLUMNS = np.mgrid[:24, :28]
_TISSUE = ((_ROWS - 12) / 8) ** 2 + ((_COLUMNS - 13) / 10) ** 2 < 1
GREY = np.where(_TISSUE, 150 - 2 * _COLUMNS, 250).astype(np.uint8)
RGB = np.stack([GREY, GREY // 2, GREY // 3], -1)
BRAIN = np.zeros((12, 14, 10), np.int16)
BRAIN[3:9, 3:11, 2:8] = 100 + np.arange(8)[None, :, None]
MANIFEST_COLUMNS = ("section", "image", "position_mm", "pixel_size_mm", "mask", "labels", "flip")
MANIFEST_COLUMNS += ("rotate_deg", "stain", "image_channel", "exclude", "mri_image", "notes")
MANIFEST = [
    {"section": f"s{i}", "image": "g.png", "position_mm": str(i), "pixel_size_mm": "0.5"}
    for i in range(2)
]
ROWS_JSON = [{"section": "a", "image": "g.png", "position_mm": 1.0, "pixel_size_mm": 0.5}]


def _tiff(array: np.ndarray = GREY, **how: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **how)
    return stream.getvalue()


def _picture(array: np.ndarray, kind: str, **how: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **how)
    return stream.getvalue()


def _pyramid() -> bytes:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, ome=True) as writer:
        size = {"PhysicalSizeX": 500, "PhysicalSizeY": 500}
        writer.write(GREY, subifds=1, tile=(16, 16), metadata=size)
        writer.write(GREY[::2, ::2], subfiletype=1, tile=(16, 16))
    return stream.getvalue()


TIFFS = [
    _tiff(),
    _tiff(RGB, photometric="rgb", tile=(16, 16)),
    _tiff(GREY, compression="zlib", rowsperstrip=8),
    _tiff(GREY.astype(np.float32), tile=(16, 16), compression="zlib"),
    _tiff(np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate"),
    _tiff(GREY, bigtiff=True),
    _tiff(255 - GREY, photometric="palette", colormap=np.zeros((3, 256), np.uint16)),
    _tiff(np.stack([GREY] * 2), imagej=True, metadata={"axes": "CYX", "Labels": ["a", "b"]}),
    _pyramid(),
]
PICTURES = [
    _picture(GREY, "PNG"),
    _picture(RGB, "PNG"),
    _picture(GREY.astype(np.uint16) * 257, "PNG"),
    _picture(RGB, "JPEG", quality=90),
    *(_picture(GREY, kind) for kind in ("GIF", "BMP", "PPM", "TGA", "JPEG2000", "WEBP", "PCX")),
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n{} loop\n",
]
NAPARI = b"index,axis-0,axis-1,name\n0.0,3.0,4.0,a\n1.0,5.5,6.5,b\n"
QUPATH = "Name\tCentroid X µm\tCentroid Y µm\tNum points\na\t900\t900\t1\nb\t2000\t2500\t1\n"
GEOJSON = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [3, 4]},
            "properties": {"name": "a", "classification": {"name": "x", "names": ["x", "y"]}},
        },
        {
            "type": "Feature",
            "geometry": {"type": "MultiPoint", "coordinates": [[5, 6]]},
            "properties": {"name": "b"},
        },
    ],
}
CELLS = b"x_px,y_px,n\n3.0,4.0,a\n5.5,6.5,b\n"
LUT = b"# names\n0 Unknown 0 0 0 0\n17 Left-Hippocampus 220 216 20 0\n2 White 9 9 9 0\n"
ITK_SNAP_LABELS = b'# IDX\n1 255 0 0 0.5 1 1 "Label 1"\n2 0 255 0 1 1 1 "Label 2"\n'
_RING = [[10, 10], [60, 12], [55, 70], [10, 10]]
_OUTLINE = {"type": "Polygon", "coordinates": [_RING, [[30, 20], [40, 20], [40, 30], [30, 20]]]}
SHAPES = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "geometry": _OUTLINE | {"plane": {"c": -1, "z": 0, "t": 0}},
            "nucleusGeometry": {"type": "MultiPolygon", "coordinates": [[_RING]]},
            "properties": {"name": "a", "classification": {"name": "x", "color": [1, 2, 3]}},
        },
        {"type": "Feature", "geometry": {"type": "LineString", "coordinates": _RING}},
    ],
}
CARRIED = [
    _tiff(np.zeros((52, 62), np.uint8)),  # of the proportions of the section
    _tiff(np.zeros((52, 62, 3), np.uint8), photometric="rgb", tile=(16, 16)),
    _tiff(np.zeros((2, 52, 62), np.uint16), imagej=True, metadata={"axes": "CYX"}),
    _tiff(np.zeros((52, 62), np.float32), compression="zlib", rowsperstrip=8),
]
MARKUPS = {
    "markups": [
        {
            "coordinateSystem": "LPS",
            "coordinateUnits": "mm",
            "controlPoints": [
                {"label": "a", "position": [1.0, 2.0, 3.0], "positionStatus": "defined"},
                {"label": "b", "position": [4.0, 5.0, 6.0]},
            ],
        }
    ]
}
FCSV = (
    b"# Markups fiducial file version = 5.0\n# CoordinateSystem = LPS\n# columns = id,x,y,z,label\n"
)
FCSV += b"1,1.0,2.0,3.0,a\n2,4.0,5.0,6.0,b\n"
LANDMARK_COLUMNS = ("section", "x_section_mm", "y_section_mm", "mri_x_mm", "mri_y_mm", "mri_z_mm")
LANDMARKS = [dict(zip(LANDMARK_COLUMNS, ("s1", "1", "2", "3", "4", "5"), strict=True))] * 2
SHEET_COLUMNS = ("brain", "sections", "mri", "mri_mask", "landmarks", "orientation")
SHEET_COLUMNS += ("weights_from", "weights_use", "prealigned", "notes")
SHEET = [
    {"brain": "b", "sections": "sections.tsv", "mri": "mri.nii", "orientation": "RIA"},
    {"brain": "c", "sections": "sections.tsv", "mri": "mri.nii", "weights_from": "b"},
]
FINDING_COLUMNS = ("section", "finding", "confidence", "suggestion")
FINDINGS = [
    {"section": "s1", "finding": "x", "confidence": "0.9", "suggestion": "flip=lr rotate_deg=180"},
    {"section": "s0", "finding": "y", "confidence": "0.5", "suggestion": "exclude=true"},
]
CONFIGURATIONS = [
    {"preset": "demo", "methods": ["linear", "sbr"], "prepare": {"working_pixel_mm": 1.0}},
    {
        "preset": "cpu",
        "train_sbr": {"steps": 10, "augment": {"rotation_deg": 5}, "intensity": {}},
        "align": {"rounds": 2},
        "compare": {"methods": ["sbr", "rot"], "minutes": 1},
    },
]
YAML_BOMBS = [
    "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(8)
    ),
    "a: &a {x: 1}\n" + "".join(f"b{i}: &b{i} {{<<: [*a, *a, *a]}}\n" for i in range(50)),
    "prepare: &p\n  working_pixel_mm: *p\n",
    "&a [*a]",
    "? [a, b]\n: 1\n? {a: b}\n: 2\n",
    "prepare: !!python/object/apply:os.system [true]\n",
    "seed: 2001-99-99\nb: 190:20:30\nc: .inf\nd: 0o17\n",
    "a: 1\na: 2\n",
    "a: !!binary x\nb: !!timestamp 2\nc: !!int x\nd: !!float x\n",
    "- " * 5000 + "x\n",
    "{" * 5000,
    "a: " + "9" * 5000 + "\n",
    "a: 0x" + "f" * 50000 + "\n",
    "%YAML 9.9\n---\na: 1\n---\nb: 2\n",
]


@cache
def good_weights(kind: str) -> bytes:
    """A weights file of the smallest networks."""
    import tempfile

    import torch

    from sbr_core.nn.generator import Generator
    from sbr_core.nn.registrar import UNetRegistrar

    torch.manual_seed(0)
    architecture: dict[str, Any] = {"encoder_channels": [2, 2], "decoder_channels": [2, 2]}
    registrar = UNetRegistrar(**architecture, squaring_steps=3)
    generator = Generator(channels=1, residual_blocks=1)
    architecture |= {"squaring_steps": 3, "network": "unet"}
    tensors = dict(registrar.state_dict())
    if kind == "method":
        tensors = {f"registrar.{k}": v for k, v in tensors.items()}
        tensors |= {f"generator.{k}": v for k, v in generator.state_dict().items()}
        architecture = {
            "registrar": architecture,
            "generator": {"channels": 1, "residual_blocks": 1},
        }
    header = networks.weights_header(
        kind,
        architecture,
        SbrOptions() if kind == "method" else RegistrarOptions(),
        working_pixel_mm=1.0,
        stain="",
        fingerprint="",
        revision=1,
        synthesis_rim_px=0,
        medium_share=1.0,
        medium_margin_px=2,
        registers="synthesised",
        channels=["grey"],
    )
    with tempfile.TemporaryDirectory() as folder:
        save_weights(Path(folder, "w"), tensors, header)
        return Path(folder, "w").read_bytes()


@st.composite
def damaged_weights(draw: st.DrawFn) -> bytes:
    """Safetensors with another header, other values, another table of tensors."""
    data = good_weights(draw(st.sampled_from(["registrar", "method"])))
    (size,) = struct.unpack_from("<Q", data)
    table, values = json.loads(data[8 : 8 + size]), bytearray(data[8 + size :])
    match draw(st.integers(0, 5)):
        case 0:
            return draw(damage.mutated([data], 8 + size))
        case 1:
            for _ in range(draw(st.integers(1, 3))):
                at = 4 * draw(st.integers(0, len(values) // 4 - 1))
                number = draw(st.sampled_from([np.nan, np.inf, 1e30, -1e30, 0.0]))
                values[at : at + 4] = np.float32(number).tobytes()
        case 2:
            names = sorted(k for k in table if k != "__metadata__")
            table[draw(st.sampled_from(names))] = json.loads(
                json.dumps(
                    {"dtype": "F32", "shape": [draw(st.integers(0, 2**40))], "data_offsets": [0, 4]}
                )
            )
        case _:
            header = json.loads(table["__metadata__"]["sbr_core"])
            table["__metadata__"]["sbr_core"] = draw(damage.documents([header]))
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text + bytes(values)


# --------------------------------------------------------------------------------------------
# What reads them
# --------------------------------------------------------------------------------------------


def sbr(*words: object) -> None:
    """A command line; its `SbrError` is raised."""
    command, *arguments = map(str, words)
    with suppress(FileNotFoundError):
        for path in (Path("out"),):
            for file in path.rglob("*"):
                if file.is_file():
                    file.unlink()
    if code := cli.main([command, *arguments, "--debug"]):
        raise SystemExit(code)


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """With that working directory."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _table(columns: tuple[str, ...], table: list[dict[str, str]]) -> str:
    return "\n".join(
        ["\t".join(columns), *("\t".join(r.get(c, "") for c in columns) for r in table)]
    )


def _sections_around(folder: Path) -> None:
    (folder / "g.png").write_bytes(PICTURES[0])
    (folder / "sections.tsv").write_text(_table(MANIFEST_COLUMNS, MANIFEST) + "\n")
    (folder / "mri.nii").write_bytes(b"")


def _prepare(path: Path) -> None:
    sbr(
        "prepare",
        "--rows",
        path,
        "--out-dir",
        "out",
        "--receipt",
        "out/chunks/1of1.tsv",
        "--strict",
    )


def _image(path: Path) -> None:
    """All that looks at an image: its size, pixels, labels, and the section it becomes."""
    for read in (
        images.image_shape,
        pixel_size.stated_pixel_size,
        images.read_labels,
        images.read_colours,
        lambda p: images.read_reduced(p, 1.0, ""),
        lambda p: images.read_reduced(p, 2.0, "2"),
    ):
        with suppress(SbrError):
            read(path)
    row = [{"section": "a", "image": path.name, "position_mm": 0.0, "pixel_size_mm": 0.5}]
    _prepare_json(json.dumps(row))


def _prepare_json(text: str) -> None:
    sbr(
        "prepare",
        f"--rows={text}",
        "--out-dir",
        "out",
        "--receipt",
        "out/chunks/1of1.tsv",
        "--strict",
    )


def _study(values: Mapping[str, Any]) -> None:
    study.read_study({"preset": "demo", **values}, PRESETS)


def _yaml(path: Path) -> None:
    resolve(load_yaml(path), PRESETS)


def _options(path: Path) -> None:
    for command, more in (("prepare", {}), ("align", {}), ("train", {"method": "sbr"})):
        cli.options_of(command, {"options": path.read_text("utf-8", "replace"), **more})


def _import(points: str, mri_points: str) -> None:
    sbr(
        *("import-landmarks", "--rows", "sections.tsv", "--points", points),
        *("--mri-points", mri_points, "--out", "out/landmarks.tsv"),
    )


def _points_around(folder: Path) -> None:
    _sections_around(folder)
    (folder / "s1.csv").write_bytes(NAPARI)
    (folder / "s1.fcsv").write_bytes(FCSV)


def _apply(path: Path) -> None:
    sbr("apply-findings", path, "--manifest", "sections.tsv", "-o", "out/edited.tsv")


def _prepare_mri(path: Path) -> None:
    with suppress(SbrError):
        volumes.read_cuts(path)
    sbr("prepare-mri", "--mri", path, "--out-dir", "out")


def _prepare_mri_mask(path: Path) -> None:
    sbr("prepare-mri", "--mri", "mri.nii.gz", "--mri-mask", path, "--out-dir", "out")


def _mri_around(folder: Path) -> None:
    volumes.write_volume(folder / "mri.nii.gz", volumes.Volume(BRAIN, np.diag([2.0, 2, 2, 1])))


def _any_row(**more: Any) -> dict[str, Any]:
    return {
        "section": "a",
        "position_mm": 1.0,
        "fingerprint": "f",
        "files": {"sections/a": "0"},
    } | more


def _good_rows() -> dict[type[rows.Row], rows.Row]:
    grid = rows.PlaneGrid((4, 5), 1.0)
    return {
        rows.Prepared: rows.Prepared(
            **_any_row(),
            pixel_size_mm=0.5,
            working_pixel_mm=1.0,
            file_rows=4,
            file_columns=5,
            polarity="bright_background",
            background=1.0,
            white=(1.0, 1.0, 1.0),
            section_mm_from_working_mm=np.eye(3),
            tissue_mm2=3.0,
            image="g.png",
            light="",
            staining="[[[1.0, 2.0], [1.0, 2.0]], 0.5, 2.0]",
        ),
        rows.Plane: rows.Plane(**_any_row(), grid=grid),
        rows.Affine: rows.Affine(**_any_row(), working_mm_from_plane_mm=np.eye(3), moved_mm=0.0),
        rows.Inferred: rows.Inferred(
            **_any_row(),
            grid=grid,
            **dict.fromkeys(("folding_percent", "disp_mean_mm", "disp_max_mm"), 0.0),
            **dict.fromkeys(("inverse_mean_px", "inverse_p99_px"), 0.0),
        ),
    }


def _of_itk(suffix: str) -> bytes:
    """The brain in another format of volumes."""
    import tempfile

    import SimpleITK as sitk

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a.{suffix}")
        sitk.WriteImage(sitk.GetImageFromArray(BRAIN.T.copy()), str(path), useCompression=False)
        return path.read_bytes()


@st.composite
def damaged_receipts(draw: st.DrawFn) -> bytes:
    """Tables of rows of every stage."""
    row = rows.columns_of(draw(st.sampled_from(list(_good_rows().values()))))
    cells = {k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()}
    return draw(damage.tables(list(cells), [cells, cells | {"section": "b"}]))


def _receipt(path: Path) -> None:
    upkeep.fault_of_receipt(path, lambda folder: ())
    for kind in _good_rows():
        with suppress(SbrError):
            for row in rows.read_rows(path, kind, verify=False):
                if kind is rows.Prepared:
                    Source.of(row)
        with suppress(SbrError):
            rows.read_rows(path, kind, only_ok=False)


def _sidecar(path: Path) -> None:
    def process(section: str) -> receipts.SectionResult:
        file = Path("sections/a_x")
        file.write_text("x")
        return receipts.SectionResult(rows.Row(section=section), [file])

    for section in ("a", "b"):
        receipts.run_sections(
            {section: section},
            stage="x",
            out_dir=Path(),
            receipt=Path("chunks/1of1.tsv"),
            fingerprint=lambda _: "f",
            process=process,
        )


def _sidecar_around(folder: Path) -> None:
    (folder / "sections").mkdir(exist_ok=True)


SIDECAR = {
    "stage": "x",
    "chunk": "1of1",
    "row": {"section": "a", "status": "ok", "fingerprint": "f", "files": {"sections/a_x": "0"}},
    "versions": {},
}
RUNNING = {"host": os.uname().nodename, "pid": 2**22 + 1, "started": 1.0}
TRUTH = {"options": {"n_sections": 3}, "in_plane_mm_of_linear": {"a": 1.0}}
PLANE_GRID = {"rows": 4, "columns": 5, "spacing_mm": 1.0, "enlargement": 1.0}


def _running(path: Path) -> None:
    lock.remove_lock_of_killed_run()


def _truth(path: Path) -> None:
    study.demo_of({}, resolve({"preset": "demo"}, PRESETS).demo)


def _load_weights(path: Path) -> None:
    for load in (networks.load_registrar, networks.load_method):
        with suppress(SbrError):
            load(path)


@cache
def _mapped_brain() -> Path:
    """A finished brain to carry things with; it goes with the process."""
    import atexit
    import shutil
    import tempfile

    from mapped_brain import make_mapped_brain

    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return make_mapped_brain(Path(folder, "b")).results


def _carry(path: Path | str, out: str, *more: str) -> None:
    results = ("--results", _mapped_brain(), "--from", "section:plain", "--to", "plane:plain")
    where = () if path == "--table" else ("--pixel-mm", "4", "--out")
    sbr("apply", path, *(*where, out), *results, *more)


def _count(*more: object) -> None:
    where = ("--results", _mapped_brain(), "--from", "section:plain", "--out", "out/counts")
    sbr("count", *more, *where)


def _similarity(path: Path) -> None:
    for read in (transforms.read_stack_from_world, transforms.read_section_transform):
        with suppress(SbrError):
            read(path)


@cache
def good_transforms() -> list[bytes]:
    import tempfile

    matrix = np.eye(4)
    matrix[:3, 3] = 1, 2, 3
    field = transforms.PlaneField(np.zeros((3, 4, 2)), 1.0)
    with tempfile.TemporaryDirectory() as folder:
        text, composite = Path(folder, "a.txt"), Path(folder, "a.h5")
        transforms.write_stack_from_world(text, matrix)
        transforms.write_section_transform(
            composite, transforms.SectionTransform((np.eye(3), field))
        )
        return [text.read_bytes(), composite.read_bytes()]


_SLICE = GREY.T[:, :, None].copy()


def _rows_json(path: Path) -> None:
    _prepare_json(path.read_text("utf-8", "replace").lstrip("-").replace("\0", ""))


def _manifest_tool(path: Path) -> None:
    sbr("manifest", path, "-o", "out/m.tsv")


KINDS = {
    "manifest": Kind(
        "sections2.tsv", damage.tables(MANIFEST_COLUMNS, MANIFEST), _prepare, _sections_around
    ),
    "rows as JSON": Kind("rows", damage.damaged_json([ROWS_JSON]), _rows_json, _sections_around),
    "sheet of brains": Kind(
        "brains.tsv",
        damage.tables(SHEET_COLUMNS, SHEET),
        lambda path: _study({"brains": path.name}),
        _sections_around,
    ),
    "manifest of a sheet": Kind(
        "sections.tsv",
        damage.tables(MANIFEST_COLUMNS, MANIFEST),
        lambda path: _study({"brains": "brains.tsv"}),
        lambda folder: (
            _sections_around(folder),
            (folder / "brains.tsv").write_text(_table(SHEET_COLUMNS, SHEET[:1])),
        ),
    ),
    "configuration": Kind(
        "config.yaml",
        st.one_of(
            damage.damaged_json(CONFIGURATIONS),
            st.sampled_from(YAML_BOMBS).map(str.encode),
            damage.mutated([text.encode() for text in YAML_BOMBS[1:9]]),
            damage.mutated([(PRESETS / "cpu.yaml").read_bytes()]),
        ),
        _yaml,
    ),
    "options": Kind(
        "options.json",
        damage.damaged_json([c for c in CONFIGURATIONS[1].values() if isinstance(c, dict)]),
        _options,
    ),
    "TIFF": Kind(
        "a.tif", st.one_of(damage.mutated(TIFFS, 400), damage.retagged_tiffs(TIFFS)), _image
    ),
    "TIFF metadata": Kind("a.tif", damage.described_tiffs(GREY), _image),
    "picture": Kind("a.png", damage.mutated(PICTURES, 100), _image),
    "section as NIfTI": Kind(
        "a.nii.gz", damage.niftis([_SLICE, _SLICE.astype(np.float32)]), _image
    ),
    "MRI": Kind("mri.nii.gz", damage.niftis([BRAIN, BRAIN.astype(np.float32)]), _prepare_mri),
    "MRI mask": Kind(
        "mask.nii.gz", damage.niftis([(BRAIN > 0).astype(np.uint8)]), _prepare_mri_mask, _mri_around
    ),
    "MRI as NRRD": Kind("mri.nrrd", damage.mutated([_of_itk("nrrd")], 260), _prepare_mri),
    "MRI as MetaImage": Kind("mri.mha", damage.mutated([_of_itk("mha")], 300), _prepare_mri),
    "volume for a manifest": Kind("v.nii", damage.niftis([BRAIN.astype(np.uint8)]), _manifest_tool),
    "plane": Kind(
        "p.nii.gz", damage.niftis([GREY[:, :, None, None, None].repeat(2, -1)]), volumes.read_plane
    ),
    "landmarks": Kind(
        "landmarks.tsv",
        damage.tables(LANDMARK_COLUMNS, LANDMARKS),
        lambda path: manifests.read_landmarks(path, ["s0", "s1"], prealigned=False),
    ),
    "points of napari": Kind(
        "s1.csv",
        st.one_of(
            damage.mutated([NAPARI]),
            damage.tables(
                ("index", "axis-0", "axis-1", "shape-type", "vertex-index", "name"),
                [{"axis-0": "3", "axis-1": "4", "name": n, "shape-type": "path"} for n in "ab"],
                ",",
            ),
        ),
        lambda path: _import(path.name, "s1.fcsv"),
        _points_around,
    ),
    "points of QuPath": Kind(
        "s1.tsv",
        st.one_of(
            damage.mutated([QUPATH.encode()]),
            damage.tables(
                ("x", "y", "class", "name"), [{"x": "3", "y": "4", "name": n} for n in "ab"]
            ),
        ),
        lambda path: _import(path.name, "s1.fcsv"),
        _points_around,
    ),
    "GeoJSON": Kind(
        "s1.geojson",
        damage.damaged_json([GEOJSON]),
        lambda path: _import(path.name, "s1.fcsv"),
        _points_around,
    ),
    "points of Slicer": Kind(
        "s1.mrk.json",
        damage.damaged_json([MARKUPS]),
        lambda path: _import("s1.csv", path.name),
        _points_around,
    ),
    "fiducials": Kind(
        "s1.fcsv",
        damage.mutated([FCSV]),
        lambda path: _import("s1.csv", path.name),
        lambda folder: (_sections_around(folder), (folder / "s1.csv").write_bytes(NAPARI)),
    ),
    "cells": Kind(
        "cells.csv",
        st.one_of(
            damage.mutated([QUPATH.encode(), NAPARI, CELLS]),
            damage.tables(
                ("x_px", "y_px", "x_mm", "y_mm", "section", "n"),
                [{"x_px": "3", "y_px": "4", "section": "plain", "n": n} for n in "ab"],
                ",",
            ),
        ),
        lambda path: _carry(path, "out/cells.csv"),
    ),
    "shapes": Kind(
        "shapes.geojson",
        damage.damaged_json([GEOJSON, SHAPES]),
        lambda path: _carry(path, "out/shapes.geojson", "--mend"),
    ),
    "drawn regions": Kind(
        "plain.geojson",
        damage.damaged_json([GEOJSON, SHAPES]),
        lambda path: _count("in.csv", "--regions", path, "--mend"),
        lambda folder: (folder / "in.csv").write_bytes(CELLS),
    ),
    "names of labels": Kind(
        "names.txt",
        st.one_of(
            damage.mutated([LUT, ITK_SNAP_LABELS]),
            damage.tables(
                ("index", "name", "color", "r", "g", "b"),
                [{"index": i, "name": "a", "color": "#0102ff"} for i in "12"],
            ),
        ),
        label_tables.read_label_table,
    ),
    "jobs to carry": Kind(
        "jobs.tsv",
        damage.tables(
            ("input", "from", "to", "out", "labels", "scale", "within_mm"),
            [{"input": "in.csv", "out": f"out/{n}.csv", "scale": "1"} for n in "ab"],
        ),
        lambda path: _carry("--table", path.name),
        lambda folder: (folder / "in.csv").write_bytes(CELLS),
    ),
    "TIFF to carry": Kind(
        "a.tif",
        st.one_of(damage.mutated(CARRIED, 400), damage.retagged_tiffs(CARRIED)),
        lambda path: _carry(path, "out/a.tif"),
    ),
    "findings": Kind(
        "findings.tsv", damage.tables(FINDING_COLUMNS, FINDINGS), _apply, _sections_around
    ),
    "receipt": Kind(
        "chunks/1of1.tsv",
        damaged_receipts(),
        _receipt,
        lambda folder: (folder / "chunks").mkdir(exist_ok=True),
    ),
    "sidecar": Kind(
        "sections/a.json", damage.damaged_json([SIDECAR]), _sidecar, _sidecar_around, True
    ),
    "plane grid": Kind(
        "plane_grid.json", damage.damaged_json([PLANE_GRID]), global_fit.read_plane_grid
    ),
    "initial affines": Kind(
        "initial.tsv",
        damage.tables(
            (
                "section",
                "position_mm",
                "prepared",
                *(f"a{i}{j}" for i in range(2) for j in range(3)),
            ),
            [
                {
                    "section": s,
                    "position_mm": "1",
                    **{f"a{i}{j}": "1.0" for i in range(2) for j in range(3)},
                }
                for s in "ab"
            ],
        ),
        global_fit.read_initial,
    ),
    "transform": Kind("a.txt", damage.mutated(good_transforms()[:1]), _similarity),
    "composite transform": Kind("a.h5", damage.mutated(good_transforms()[1:], 800), _similarity),
    "weights": Kind("w.safetensors", damaged_weights(), _load_weights),
    "note of a run": Kind(
        ".snakemake/sbr_running.json",
        damage.damaged_json([RUNNING]),
        _running,
        lambda folder: (folder / ".snakemake/locks").mkdir(parents=True, exist_ok=True),
        True,
    ),
    "truth of the demo": Kind(
        "data/demo/truth.json",
        damage.damaged_json([TRUTH]),
        _truth,
        lambda folder: (folder / "data/demo").mkdir(parents=True, exist_ok=True),
        True,
    ),
}
"""Name -> kind."""


def warm_up() -> None:
    """Import what commands import, which takes longer than a damaged file may."""
    for command in COMMANDS:
        import_module(command_of(command).module)


def read_damaged(name: str, data: bytes, folder: Path) -> None:
    """Write a damaged file of a kind into a folder and read it there.

    Raises
    ------
    Escape
        It ended in neither a result nor one line.
    """
    from fuzzing.bounds import Escape, outcome_of

    kind = KINDS[name]
    kind.around(folder)
    path = folder / kind.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    with inside(folder):
        outcome = outcome_of(lambda: kind.read(Path(kind.file)))
    if outcome.line and kind.only_results:
        raise Escape("a refusal where the file is made anew", outcome.line)
