"""Files from one space of a brain to another: what `sbr apply` does with each."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from sbr_core.artifacts.label_pairs import read_label_volume
from sbr_core.artifacts.names import section_of_name
from sbr_core.errors import ConfigError, ImageError
from sbr_core.io.colour_volumes import RGB24
from sbr_core.io.files import check_is_file
from sbr_core.io.folders import SUFFIXES
from sbr_core.io.geojson import is_geojson, read_geojson, region_of, write_geojson
from sbr_core.io.label_tables import NO_NAMES, LabelTable
from sbr_core.io.ome_zarr import Streamed, is_ome_zarr, write_ome_zarr
from sbr_core.io.pixel_size import stated_pixel_size
from sbr_core.io.point_tables import ENDINGS as POINT_ENDINGS
from sbr_core.io.point_tables import (
    MARKUPS,
    check_point_output,
    is_points,
    read_point_table,
    write_point_table,
)
from sbr_core.io.pyramids import is_picture, scratch_picture, write_picture
from sbr_core.io.scratch import scratch_array
from sbr_core.io.tables import write_tsv
from sbr_core.io.volumes import Volume, read_volume, write_plane, write_volume
from sbr_core.io.windows import Windows, open_windows
from sbr_core.mapping.grids import fill_image
from sbr_core.mapping.outlines import write_outlines
from sbr_core.mapping.points import SECTION, Route, map_points
from sbr_core.mapping.rasters import (
    MriVolume,
    PlaneTarget,
    SectionImage,
    grid_of,
    step_on_section,
)
from sbr_core.mapping.region_columns import with_regions
from sbr_core.mapping.section_files import background_of
from sbr_core.mapping.shapes import label_voxels, map_shapes, shapes_on_plane
from sbr_core.mapping.streamed import stream_image
from sbr_core.mapping.volume_grids import VolumeGrid, fill_from_volume, fill_volume

logger = logging.getLogger(__name__)

_NIFTI, _NIFTI_ENDING = (".nii", ".nii.gz"), r"\.nii(\.gz)?$"
_IMAGES = (*SUFFIXES, ".mgz", ".mgh", ".nrrd", ".nhdr", ".mha", ".mhd")
_SAY_EVERY_S = 15.0
_SMALLER_VOXELS = (
    "--pixel-mm makes smaller voxels, --within-mm says how far from the section one may be"
)


class NothingThereError(ConfigError):
    """Of what was given nothing lies in the target, so that the result would be empty."""


@dataclass(frozen=True)
class How:
    """What is asked for beside the way.

    Attributes
    ----------
    labels : images are of labels.
    pixel_mm : side of a pixel or voxel of images that are written; None for that of the target.
    mend : make outlines valid that cross themselves.
    names : of labels that are written as outlines, and of regions.
    simplify_mm : how far these may lie from the edges of the pixels, for fewer points.
    like : a volume whose grid volumes that are written have; None for that of the target.
    regions : labels in the target, in which points that are written are said to lie.
    """

    labels: bool = False
    pixel_mm: float | None = None
    mend: bool = False
    names: LabelTable = NO_NAMES
    simplify_mm: float = 0.0
    like: Path | None = None
    regions: Path | None = None


def can_be_carried(path: Path) -> bool:
    """Whether a file is named like something that `carry_file` reads."""
    return is_points(path) or is_geojson(path) or path.name.lower().endswith((*_IMAGES, ".nii.gz"))


def name_of_result(source: Path, route: Route) -> str:
    """What a file is called in the target's space: its own name, with an ending that fits."""
    name = source.name
    if is_geojson(source):
        return name
    if is_points(source):
        ending = next(e for e in POINT_ENDINGS if name.lower().endswith(e))
        stem = name[: -len(ending)]
        if ending in MARKUPS:
            ending = ".mrk.json" if route.target.n_axes == 3 else ".tsv"
        return stem + (".tsv" if ending == ".txt" else ending)
    stem = re.sub(r"(\.ome)?\.\w+(\.gz)?$", "", name)
    if route.target.n_axes == 3:
        return f"{stem}.nii.gz"
    return name if is_picture(source) else f"{stem}.tif"


def carry_file(route: Route, source: Path, target: Path, how: How) -> str:
    """Write one file in the target's space; what is to be said of it.

    Raises
    ------
    SbrError
        What the file is, or the target cannot hold; nothing is written then.
    """
    if is_points(source):
        return _points(route, source, target, how)
    route = of_file(route, source)
    if route.source.section is not None and route.source.kind != route.target.kind:
        # its own plane, or from the plane its own file
        route = replace(route, target=route.target.at(route.source.section))
    for flag, space in (("--from", route.source), ("--to", route.target)):
        if space.is_open:
            raise ConfigError(f"{source}: of which section? Expected {flag} {space}:ID")
    if is_geojson(source) and target.name.lower().endswith(_NIFTI):
        return _shapes_to_volume(route, source, target, how)
    if is_geojson(source):
        return _shapes(route, source, target, how.mend)
    if route.source.n_axes == 3:
        to = _volume_to_volume if route.target.n_axes == 3 else _volume_to_plane
        return to(route, source, target, how)
    with open_windows(source, palette_is_labels=how.labels) as windows:
        image = _image(route, source, windows, how.labels)
        if route.target.n_axes == 3:
            return _plane_to_volume(route, image, source, target, how)
        return _plane_to_plane(route, image, source, target, how)


def check_target(source: Path, target: Path, route: Route, how: How) -> None:
    """Refuse a target that files like the source cannot be written to; ConfigError."""
    name, space = target.name.lower(), route.target
    if is_points(source):
        check_point_output(target, space.n_axes)
        if how.regions is not None and space.kind not in ("mri", "atlas"):
            raise ConfigError(f"--regions: expected points that go to mri or atlas, not to {space}")
    elif is_geojson(source):
        as_labels = name.endswith(_NIFTI) and space.n_axes == 3 and route.source.n_axes == 2
        if not (is_geojson(target) or as_labels):
            raise ConfigError(
                f"{target}: expected .geojson for shapes, or, from a section to mri, stack or"
                " atlas, .nii.gz"
            )
        if as_labels:
            _check_grid(route, how)
    elif route.source.kind == "stack" or route.source == space:
        raise ConfigError(
            f"{source}: images go from section:ID, plane:ID, mri or atlas to another of these or to"
            f" stack, not from {route.source} to {space}"
        )
    elif space.n_axes == 3:
        if not name.endswith(_NIFTI):
            raise ConfigError(f"{target}: expected .nii.gz for an image in the {space}")
        _check_grid(route, how)
    elif is_geojson(target) and not how.labels:
        raise ConfigError(f"{target}: shapes are made of labels: is {source} of labels? --labels")
    elif not (
        is_picture(target)
        or is_ome_zarr(target)
        or is_geojson(target)
        or (space.kind == "plane" and name.endswith(_NIFTI))
    ):
        more = " or .nii.gz" if space.kind == "plane" else ""
        raise ConfigError(
            f"{target}: expected .tif, .ome.tif, .ome.zarr or .png{more} for an image, or, of"
            " labels, .geojson"
        )


def _check_grid(route: Route, how: How) -> None:
    """Refuse a volume in the atlas without its grid, before anything is written; ConfigError."""
    if route.target.kind == "atlas" and how.like is None:
        VolumeGrid.of(route, how.pixel_mm, how.like)


def files_written(source: Path, target: Path) -> list[Path]:
    """The target, and, where outlines become labels, the table of these beside it."""
    name = target.name
    if is_geojson(source) and name.lower().endswith(_NIFTI):
        return [target, target.with_name(re.sub(_NIFTI_ENDING, "_labels.tsv", name, flags=re.I))]
    return [target]


def of_file(route: Route, path: Path) -> Route:
    """The route from the section that a file is named after, where the source is open."""
    section = section_of_name(path, route.brain.section_ids)
    return route if section is None else route.at(section)


def _points(route: Route, source: Path, target: Path, how: How) -> str:
    table = read_point_table(source)
    if SECTION not in table.columns:
        route = of_file(route, source)
    lost = "too far from the section", "without a way to the atlas"
    counts = dict.fromkeys(("points", "outside the tissue", *lost), 0)

    def counted() -> Iterator:
        parts = map_points(route, table)
        if how.regions is not None:
            parts = with_regions(parts, _volume_of(how.regions, True), how.names)
        for part in parts:
            if "in_tissue" in part:
                counts["outside the tissue"] += int((~part["in_tissue"]).sum())
            if route.target.n_axes == 2:
                counts["too far from the section"] += int(part["x_px"].isna().sum())
            else:
                counts["without a way to the atlas"] += int(part["x_mm"].isna().sum())
            counts["points"] += len(part)
            if counts["points"] % 1_000_000 == 0:
                logger.info(f"apply: {source}: {counts['points']} points so far")
            yield part

    write_point_table(target, counted())
    return ", ".join(f"{n} {what}" for what, n in counts.items() if n or what == "points")


def _shapes(route: Route, source: Path, target: Path, mend: bool) -> str:
    shapes, n_lost = read_geojson(source, route.source.n_axes), 0
    n_features = len(shapes.features)
    if n_features:
        shapes, n_lost = map_shapes(route, shapes, mend=mend)
    if n_lost == n_features > 0:
        raise ConfigError(
            f"{source}: all its features are too far from {route.target}; --within-mm takes more in"
        )
    facts = {"space": str(route.target), "units": "mm"} if route.target.n_axes == 3 else {}
    write_geojson(target, shapes, **facts)
    lost = f", {n_lost} left out, too far from {route.target}" if n_lost else ""
    return f"{n_features - n_lost} features{lost}"


def _shapes_to_volume(route: Route, source: Path, target: Path, how: How) -> str:
    """Outlines as labels of a volume, and a table of what they are beside it."""
    shapes = read_geojson(source, 2)
    if not shapes.features:
        raise NothingThereError(f"{source}: has no shapes to make labels of")
    regions = [region_of(feature) for feature in shapes.features]
    known = sorted({name or "unnamed" for name, _ in regions})
    id_of = {name: number for number, name in enumerate(known, 1)}
    colour_of = {name or "unnamed": colour for name, colour in regions if colour is not None}
    outlines = np.array([member == "geometry" for member in shapes.members])
    geometries = shapes_on_plane(route, shapes, mend=how.mend)[outlines]
    ids = np.array([id_of[regions[owner][0] or "unnamed"] for owner in shapes.owners[outlines]])
    grid = VolumeGrid.of(route, how.pixel_mm, how.like)
    target.parent.mkdir(parents=True, exist_ok=True)
    out = scratch_array(target.parent, np.uint8 if len(known) < 256 else np.uint16, grid.shape)
    nothing = f"{source}: no outline contains the centre of a voxel; {_SMALLER_VOXELS}"
    _watch(target, label_voxels(route, geometries, ids, grid, out), nothing)
    write_volume(target, Volume(out, grid.world_from_voxel))
    table = [
        {"id": number, "name": name, **dict(zip("rgb", colour_of.get(name, ()), strict=False))}
        for name, number in id_of.items()
    ]
    write_tsv(files_written(source, target)[1], table)
    return f"{len(known)} labels, {np.count_nonzero(out)} voxels"


# --------------------------------------------------------------------------------------------
# Images
# --------------------------------------------------------------------------------------------


def _image(route: Route, path: Path, windows: Windows, labels: bool) -> SectionImage:
    """An image of the source's section or plane; ImageError where it can be none."""
    space = route.source
    if labels and (windows.channels > 1 or windows.is_colour or windows.dtype.kind not in "uib"):
        what = "colours" if windows.is_colour else f"{windows.channels} of {windows.dtype}"
        raise ImageError(f"{path}: expected one plane of integer labels, found {what}")
    if space.kind == "section":
        step = step_on_section(route, windows.shape, str(path))
    else:
        step = (_plane_step(route, path, windows),) * 2
    fill = np.zeros(windows.channels, windows.dtype)
    if not labels:
        fill = background_of(windows, route.brain.section(space.section).prepared.polarity)
    return SectionImage(route, space, windows, step, fill, labels)


def _plane_step(route: Route, path: Path, windows: Windows) -> float:
    """Px of the plane's grid per pixel of an image of it, as the file states its pixel."""
    section = route.brain.section(route.source.section)
    if windows.shape == section.grid.shape:
        return 1.0
    stated = stated_pixel_size(path)
    if stated is not None:
        step = stated.x_mm / section.grid.spacing_mm
        expected = section.grid.at_spacing(stated.x_mm).shape
        if max(abs(a - b) for a, b in zip(expected, windows.shape, strict=True)) <= 1:
            return step
    rows, columns = section.grid.shape
    raise ImageError(
        f"{path}: {windows.shape[1]} x {windows.shape[0]} pixels, expected {columns} x {rows} of"
        f" {section.grid.spacing_mm:g} mm, as {route.source} has, or a pixel size in the file"
    )


def _plane_to_plane(route: Route, image: SectionImage, source: Path, target: Path, how: How) -> str:
    grid = PlaneTarget.of(route, how.pixel_mm)
    windows = image.windows
    nothing = f"{source}: no pixel of {route.target} lies on {route.source}"
    if route.source.section != route.target.section:
        nothing += " or near enough to it; --within-mm says how far from it a section may be"
    if is_ome_zarr(target):
        watch = _Watch(target, nothing)
        as_written = _as_zarr(
            grid, image.channels, image.dtype, windows.photometric, how, windows.names
        )
        pixels = grid_of(grid, image)
        stream_image(target, pixels, image, as_written, watch=watch, finish=watch.finish)
        return _said(grid, image.channels)
    shape = (*grid.shape, image.channels)
    out = scratch_picture(target.parent, shape, image.dtype, windows.is_colour)
    _watch(target, fill_image(grid_of(grid, image), image, out), nothing)
    return _write_plane(route, grid, target, out, windows.photometric, how, windows.names)


def _volume_to_plane(route: Route, source: Path, target: Path, how: How) -> str:
    volume = _volume_of(source, how.labels)
    grid = PlaneTarget.of(route, how.pixel_mm)
    out = scratch_picture(target.parent, (*grid.shape, 1), volume.data.dtype, False)
    nothing = (
        f"{source}: no pixel of {route.target} lies in it; expected a volume in the world of the"
        f" space {route.source}"
    )
    looked_up = MriVolume(route, route.source, volume, how.labels)
    shares = fill_image(grid_of(grid, looked_up), looked_up, out)
    _watch(target, shares, nothing)
    return _write_plane(route, grid, target, out, "minisblack", how, ())


def _volume_to_volume(route: Route, source: Path, target: Path, how: How) -> str:
    looked_up = MriVolume(route, route.source, _volume_of(source, how.labels), how.labels)
    grid = VolumeGrid.of(route, how.pixel_mm, how.like)
    target.parent.mkdir(parents=True, exist_ok=True)
    out = scratch_array(target.parent, looked_up.dtype, (*grid.shape, 1))
    nothing = f"{source}: no voxel of the result lies in it; is it in the space {route.source}?"
    _watch(target, fill_from_volume(grid, looked_up, out), nothing)
    return _write_volume(target, out[..., 0], grid)


def _write_volume(target: Path, data: np.ndarray, grid: VolumeGrid) -> str:
    data = data.astype(np.uint8) if data.dtype == bool else data
    write_volume(target, Volume(data, grid.world_from_voxel))
    return f"{' x '.join(map(str, grid.shape))} voxels"


def _volume_of(path: Path, labels: bool) -> Volume:
    check_is_file(path)
    state = path.stat()
    return _volume(path, labels, (state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=1)  # the same for every section
def _volume(path: Path, labels: bool, state: tuple[int, int]) -> Volume:
    """A volume, of labels in the type that they are stored in; `state` is the file's."""
    if not labels:
        return read_volume(path)
    volume, stored = read_label_volume(path), read_volume(path).data.dtype
    for doubt in volume.doubts:
        logger.warning(f"apply: WARNING: {path}: {doubt}")
    return replace(volume, data=volume.data.astype(stored)) if stored.kind in "iu" else volume


def _write_plane(
    route: Route,
    grid: PlaneTarget,
    target: Path,
    out: np.ndarray,
    photometric: str,
    how: How,
    channel_names: tuple[str, ...],
) -> str:
    if is_geojson(target):
        return write_outlines(grid, target, out[..., 0], how.names, how.simplify_mm)
    if target.name.lower().endswith(_NIFTI):
        if out.shape[2] > 1:
            raise ConfigError(f"{target}: a NIfTI plane has one channel: write a .tif")
        write_plane(target, out[..., 0], grid.pixel_mm)
    elif is_ome_zarr(target):
        image = _as_zarr(grid, out.shape[2], out.dtype, photometric, how, channel_names)
        write_ome_zarr(target, image, lambda region: np.moveaxis(out[region[1:]], -1, 0))
    else:
        write_picture(
            target,
            out,
            photometric=photometric,
            pixel_mm=grid.pixel_mm,
            names=channel_names,
            labels=how.labels,
        )
    return _said(grid, out.shape[2])


def _as_zarr(
    grid: PlaneTarget,
    channels: int,
    dtype: np.dtype,
    photometric: str,
    how: How,
    channel_names: tuple[str, ...],
) -> Streamed:
    dtype = np.dtype(np.uint8) if dtype.kind == "b" else dtype
    spacing_mm = (grid.pixel_mm, grid.pixel_mm)
    shape = (channels, *grid.shape)
    return Streamed(shape, dtype, spacing_mm, photometric, channel_names, how.labels)


def _said(grid: PlaneTarget, channels: int) -> str:
    several = f", {channels} channels" if channels > 1 else ""
    return f"{grid.shape[1]} x {grid.shape[0]} pixels of {grid.pixel_mm:.6g} mm{several}"


def _plane_to_volume(
    route: Route, image: SectionImage, source: Path, target: Path, how: How
) -> str:
    grid = VolumeGrid.of(route, how.pixel_mm, how.like)
    windows, channels = image.windows, image.channels
    is_rgb = windows.is_colour and windows.photometric == "rgb" and windows.dtype == np.uint8
    if is_rgb:
        channels = 3  # NIfTI's colours have no opacity
    target.parent.mkdir(parents=True, exist_ok=True)
    # outside the section is nothing, not its background
    image = replace(image, fill=np.zeros_like(image.fill))
    out = scratch_array(target.parent, image.dtype, (*grid.shape, image.channels))
    nothing = f"{source}: the centre of no voxel lies on {route.source}; {_SMALLER_VOXELS}"
    _watch(target, fill_volume(grid, image, out), nothing)
    data: np.ndarray = out[..., 0] if image.channels == 1 else out
    if is_rgb:
        data = np.ascontiguousarray(out[..., :channels]).view(RGB24)[..., 0]
    return _write_volume(target, data, grid)


class _Watch:
    """Says from time to time how much of an image is done.

    Parameters
    ----------
    nothing : message of the NothingThereError where no pixel or voxel was hit.
    """

    def __init__(self, target: Path, nothing: str) -> None:
        self._target, self._nothing = target, nothing
        self._said, self._n_hit = time.monotonic(), 0

    def __call__(self, share: float, n_hit: int) -> None:
        """Of one block: what share is done then, and how many pixels of it were hit."""
        self._n_hit += n_hit
        if time.monotonic() - self._said > _SAY_EVERY_S:
            self._said = time.monotonic()
            logger.info(f"apply: {self._target}: {share:.0%}")

    def finish(self) -> None:
        if not self._n_hit:
            raise NothingThereError(self._nothing)


def _watch(target: Path, blocks: Iterator[tuple[float, int]], nothing: str) -> None:
    """Go through the blocks of an image; parameters and errors as of `_Watch`."""
    watch = _Watch(target, nothing)
    for share, n_hit in blocks:
        watch(share, n_hit)
    watch.finish()
