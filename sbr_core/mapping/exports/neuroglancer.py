"""A view of Neuroglancer: MRI, histology and the volume in colour, in the millimetres of the MRI.

Nothing is converted: Neuroglancer reads NIfTI and OME-Zarr from a web server, here one that serves
the folder of the results. What is written is its state as JSON, and a page with the link.

In a transform of its state the linear part is a ratio of physical lengths and the translation in
units of the output (google/neuroglancer, docs/concepts/coordinate_spaces.rst); voxel centres of
OME-Zarr are at whole numbers (src/datasource/zarr/ome.ts), those of NIfTI where its affine says.
"""

from __future__ import annotations

import html
import json
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from sbr_core.artifacts import names
from sbr_core.errors import ConfigError, ImageError, ReceiptError
from sbr_core.geometry import apply
from sbr_core.io.files import json_text, read_json
from sbr_core.io.ome_zarr import ROOT
from sbr_core.io.volumes import read_volume
from sbr_core.mapping.brain import Brain
from sbr_core.mapping.exports.files import Export

STATE, PAGE = "neuroglancer.json", "neuroglancer.html"
SERVER, VIEWER = "http://localhost:9000", "https://neuroglancer-demo.appspot.com"
_MM = {axis: [1e-3, "m"] for axis in "xyz"}
_RGB = """void main() {
  vec3 rgb = vec3(toNormalized(getDataValue(0)), toNormalized(getDataValue(1)),
                  toNormalized(getDataValue(2)));
  if (rgb == vec3(0.0)) { emitTransparent(); } else { emitRGB(rgb); }
}"""
_ONE = """#uicontrol invlerp normalized
#uicontrol vec3 color color(default="{colour}")
void main() {{ emitRGB(color * normalized()); }}"""


def neuroglancer(brain: Brain, server: str | None, viewer: str | None) -> Export:
    """State and page of what a brain has: the MRI, its volumes and, as OME-Zarr, that in colour.

    Parameters
    ----------
    server : address at which the folder of the results is served (default: `SERVER`).
    viewer : address of a Neuroglancer (default: `VIEWER`).

    Raises
    ------
    ConfigError
        An address that is none.
    ReceiptError
        There is nothing to show.
    """
    server = _address("--server", server or SERVER)
    viewer = _address("--viewer", viewer or VIEWER)
    layers, middle_mm, width_mm, doubts = [], np.zeros(3), 100.0, []
    for layer, corners_mm in _layers(brain, server, doubts):
        if not layers:
            middle_mm, width_mm = corners_mm.mean(axis=0), float(np.ptp(corners_mm, axis=0).max())
        layers.append(layer)
    if not layers:
        raise ReceiptError(
            f"{brain.results}: has neither an MRI nor a volume of the method {brain.method!r} that"
            " Neuroglancer reads"
        )
    state = {
        "dimensions": _MM,
        "position": middle_mm.tolist(),
        # half a turn about x: anterior and superior are up
        "crossSectionOrientation": [1, 0, 0, 0],
        "crossSectionScale": width_mm / 400,
        "projectionOrientation": [1, 0, 0, 0],
        "projectionScale": 1.5 * width_mm,
        "layers": layers,
        "layout": "4panel",
    }
    link = f"{viewer}/#!{quote(json.dumps(state, separators=(',', ':')), safe='')}"
    port = urlsplit(server).port or 80
    told = (
        f"serve the results: npx http-server {shlex.quote(str(brain.results))} --cors -p {port}",
        f"then open {PAGE} in a browser",
    )
    files = {
        STATE: partial(Path.write_text, data=json_text(state), encoding="utf-8"),
        PAGE: partial(Path.write_text, data=_page(brain, link, told[0]), encoding="utf-8"),
    }
    return Export(files, told, tuple(doubts))


def _address(flag: str, text: str) -> str:
    try:
        parts = urlsplit(text)
        is_one = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        raise ConfigError(f"{flag}: expected an address, http://… or https://…, found {text!r}")
    return text.rstrip("/")


def _page(brain: Brain, link: str, serve: str) -> str:
    name = html.escape(brain.results.resolve().name)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{name}</title>\n'
        f"<p>While the results are served (<code>{html.escape(serve)}</code>), open\n"
        f'<a href="{html.escape(link)}">{name} in Neuroglancer</a>.</p>\n</html>\n'
    )


def _layers(
    brain: Brain, server: str, doubts: list[str]
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Layers, the lowest first, each with the corners (8, 3) of its volume, mm."""
    name = brain.results.resolve().name
    space = "mri" if brain.has_mri else "stack"
    folder = brain.results / brain.method / names.VOLUME
    if brain.has_mri:
        yield _nifti(brain, server, brain.results / "prepare" / names.MRI_VOLUME, "MRI")
    for group in _groups(folder, name, space):
        yield from _of_group(brain, server, group, doubts)


def _groups(folder: Path, name: str, space: str) -> list[str]:
    """Stain groups that have volumes, sorted; '' for that of sections of none."""
    # of an OME-Zarr, which is a folder, its name
    colours = ["_colour" + ending.partition("/")[0] for ending in names.COLOUR_ENDINGS.values()]
    ends = ("_histology.nii.gz", *colours)
    return sorted({g for end in ends for g in names.volume_groups(folder, name, space, end)})


def _of_group(
    brain: Brain, server: str, group: str, doubts: list[str]
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Layers of the volumes of a stain group, as of `_layers`."""
    name = brain.results.resolve().name
    space = "mri" if brain.has_mri else "stack"
    folder = brain.results / brain.method / names.VOLUME
    of_group = f", {group}" if group else ""
    colour = {
        kind: names.colour_file(folder, name, space, kind, group) for kind in names.COLOUR_ENDINGS
    }
    zarr = colour.pop("ome-zarr")
    for path in colour.values():
        if path.is_file() and not zarr.is_file():
            doubts.append(
                f"{path}: Neuroglancer does not read its colours; reassemble: {{format: ome-zarr}}"
                " writes what it reads"
            )
    histology = names.volume_file(folder, name, space, "histology", group)
    if histology.is_file():
        layer, corners_mm = _nifti(brain, server, histology, f"histology{of_group}")
        yield layer | {"visible": not zarr.is_file(), "opacity": 0.7}, corners_mm
    if zarr.is_file():
        for layer, corners_mm in _zarr(brain, server, zarr.parent):
            yield layer | {"name": f"{layer['name']}{of_group}"}, corners_mm
    labels = names.volume_file(folder, name, space, "labels", group)
    if labels.is_file():
        layer, corners_mm = _nifti(brain, server, labels, f"labels{of_group}")
        kept = {key: layer[key] for key in ("name", "source")}
        yield kept | {"type": "segmentation", "visible": False}, corners_mm


def _url(brain: Brain, server: str, path: Path) -> str:
    return f"{server}/{quote(path.relative_to(brain.results).as_posix())}"


def _nifti(brain: Brain, server: str, path: Path, name: str) -> tuple[dict[str, Any], np.ndarray]:
    volume = read_volume(path)
    shown = (
        np.quantile(volume.data[volume.data > 0], [0.01, 0.995]) if volume.data.any() else [0, 1]
    )
    layer = {
        "type": "image",
        "name": name,
        "source": f"{_url(brain, server, path)}|gzip:|nifti:",
        "shader": "#uicontrol invlerp normalized\nvoid main() { emitGrayscale(normalized()); }",
        "shaderControls": {"normalized": {"range": [min(0.0, float(shown[0])), float(shown[1])]}},
        "opacity": 1.0,
    }
    return layer, _corners(volume.data.shape, volume.world_from_voxel)


def _corners(shape: tuple[int, ...], world_from_voxel: np.ndarray) -> np.ndarray:
    ends = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij"), axis=-1)
    return apply(world_from_voxel, ends.reshape(-1, 3))


def _zarr(brain: Brain, server: str, folder: Path) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """The volume in colour: one layer of RGB, or one for each of its channels."""
    try:
        facts = read_json(folder / ROOT)["attributes"]
        world_from_voxel = np.asarray(facts["sbr"]["ras_mm_from_ijk"], float)
        channels = facts["ome"]["omero"]["channels"]
        level = read_json(folder / "0" / ROOT)
        shape, dtype = [int(n) for n in level["shape"]], level["data_type"]
    except (KeyError, TypeError, ValueError) as error:
        raise ImageError(f"{folder}: not an OME-Zarr as reassemble writes it: {error!r}") from None
    corners_mm = _corners(tuple(shape[:0:-1]), world_from_voxel)
    source = f"{_url(brain, server, folder)}/|zarr3:"
    if shape[0] in (3, 4) and dtype == "uint8" and _is_rgb(channels):
        transform = zarr_transform(world_from_voxel, "c^")
        layer = {"type": "image", "name": "histology in colour", "shader": _RGB, "opacity": 0.8}
        yield layer | {"source": {"url": source, "transform": transform}}, corners_mm
        return
    for number, channel in enumerate(channels):
        window = channel["window"]
        yield (
            {
                "type": "image",
                "name": str(channel["label"]),
                "source": {"url": source, "transform": zarr_transform(world_from_voxel, "c'")},
                "localDimensions": {"c'": [1, ""]},
                "localPosition": [number],
                "shader": _ONE.format(colour=f"#{channel['color']}"),
                "shaderControls": {"normalized": {"range": [window["start"], window["end"]]}},
                "blend": "additive",
                "opacity": 1.0,
            },
            corners_mm,
        )


def _is_rgb(channels: list[dict[str, Any]]) -> bool:
    return [channel["color"].upper() for channel in channels[:3]] == ["FF0000", "00FF00", "0000FF"]


def zarr_transform(world_from_voxel: np.ndarray, channel: str) -> dict[str, Any]:
    """From the axes c, z, y, x of an OME-Zarr, which states the sides of its voxels, to world mm.

    Parameters
    ----------
    world_from_voxel : (4, 4) of voxel (i, j, k), which are x, y, z of the OME-Zarr, to mm.
    channel : name of the axis of channels, ``c^`` where a shader sees all of them at once.
    """
    directions = world_from_voxel[:3, :3] / np.linalg.norm(world_from_voxel[:3, :3], axis=0)
    matrix = np.zeros((4, 5))
    matrix[0, 0] = 1.0
    matrix[1:, 1:4] = directions[:, ::-1]
    matrix[1:, 4] = world_from_voxel[:3, 3]
    return {"matrix": matrix.tolist(), "outputDimensions": {channel: [1, ""]} | _MM}
