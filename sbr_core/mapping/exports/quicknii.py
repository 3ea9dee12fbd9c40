"""A series of QuickNII and VisuAlign (EBRAINS): where sections lie in a volume, and their markers.

Series and pictures are in the pixels of the sections' files, so that segmentations of these files
go through the series (Nutil, PyNutil). What numbers mean: `anchoring`. Names of the keys:
Tevemadar/VisuAlign, data/Series.java and data/Slice.java; folders ``.cutlas``: cutlas/readme.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sbr_core.artifacts import names
from sbr_core.artifacts.label_pairs import read_label_volume
from sbr_core.errors import ConfigError, ImageError
from sbr_core.geometry import apply, scaling
from sbr_core.io.files import json_text
from sbr_core.io.label_tables import LabelTable
from sbr_core.io.volumes import Volume, read_plane, read_volume, write_volume
from sbr_core.mapping.brain import Brain, Section
from sbr_core.mapping.exports.anchoring import Anchoring, fit_anchoring, fit_markers
from sbr_core.mapping.exports.files import Export

SERIES = "quicknii.json"
_MOST_POINTS = 4000
"""Of the tissue of a section, for the fits."""
_WITHIN_WORKING_PX = 0.25
"""How near markers bring the tissue to where it belongs, where there are enough of them."""
_OFF_PLANE_VOXELS = 2.0
"""A section of which more than a tenth lies further from its plane than this is named."""


@dataclass(frozen=True)
class Target:
    """The volume that sections are anchored in, its axes pointing right, anterior and superior.

    Attributes
    ----------
    space : ``mri`` or ``atlas``.
    name : that the series calls it by.
    volume : voxels as in the file that the programs read.
    labels : names and colours, where it is one of labels that VisuAlign is to show.
    is_theirs : whether the programs have it already, by that name.
    """

    space: str
    name: str
    volume: Volume
    labels: LabelTable | None = None
    is_theirs: bool = False


def target_of(
    brain: Brain, space: str, like: Path | None, name: str | None, labels: LabelTable | None
) -> Target:
    """The volume that sections are to be anchored in.

    Parameters
    ----------
    like : on whose grid, and what is written; None for the MRI.
    name : of an atlas that the programs have; its grid is then that of `like`.
    labels : of `like`, which is then written as an atlas of VisuAlign.

    Raises
    ------
    ConfigError
        The space atlas, names or an atlas' name without a volume.
    ImageError
        A volume that cannot be read, or labels that are none.
    """
    if like is None:
        for flag, value in (("--to atlas", space == "atlas"), ("--target", name)):
            if value:
                raise ConfigError(f"{flag}: expected --like too, the volume whose voxels count")
        if labels is not None:
            raise ConfigError("--names: expected --like too, the volume of labels they name")
    if name is not None and (not name or Path(name).name != name):
        raise ConfigError(
            f"--target: expected the name of an atlas, without folders, found {name!r}"
        )
    path = like or brain.results / "prepare" / names.MRI_VOLUME
    volume = read_volume(path)
    if labels is not None:  # whose lengths may be micrometres
        volume = replace(read_label_volume(path), data=_as_labels(path, volume.data))
    volume = upright(volume)
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    default = f"{stem}.cutlas" if labels is not None else f"{stem}_ras.nii.gz"
    return Target(space, name or default, volume, labels, name is not None)


def upright(volume: Volume) -> Volume:
    """The same volume with axes nearest to right, anterior, superior; no voxel changes."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    turned = io_orientation(volume.world_from_voxel)
    affine = volume.world_from_voxel @ inv_ornt_aff(turned, volume.data.shape)
    return replace(volume, data=apply_orientation(volume.data, turned), world_from_voxel=affine)


def _as_labels(path: Path, data: np.ndarray) -> np.ndarray:
    """Labels in the smallest type that VisuAlign reads; ImageError of what are none."""
    if np.any(data != np.round(data)) or data.min() < 0 or data.max() > np.iinfo(np.int32).max:
        raise ImageError(f"{path}: expected labels, whole numbers of 0 and more")
    for dtype in (np.uint8, np.uint16, np.int32):
        if data.max() <= np.iinfo(dtype).max:
            return data.astype(dtype)
    raise AssertionError("int32 holds them, as was just seen")


def quicknii(sections: Sequence[Section], target: Target, most_markers: int) -> Export:
    """The series, a picture of each section and, where the programs lack it, the volume.

    Parameters
    ----------
    sections : at least one, sorted by position.
    most_markers : per section; 0 for none, a series of QuickNII alone.
    """
    everyone = list(sections[0].brain)  # their numbers are the same, whichever are written
    numbers = dict(
        zip(
            (section.id for section in everyone),
            section_numbers([section.position_mm for section in everyone]),
            strict=True,
        )
    )
    slices, told = [], []
    doubts = [f"{target.name}: {doubt}" for doubt in target.volume.doubts]
    files: dict[str, Callable[[Path], object]] = {SERIES: _series_writer(target, slices)}
    for section in sections:
        number = numbers[section.id]
        name = f"{section.id}_s{number:03d}.png"
        entry, off_voxels, left_mm = _slice(section, target, most_markers)
        slices.append({"filename": name, "nr": number} | entry)
        files[name] = partial(_write_picture, section)
        told.append(
            f"{section.id}: {len(entry.get('markers', ()))} markers, which leave"
            f" {left_mm[0]:.2g} mm in the median and {left_mm[1]:.2g} mm of 99 %"
        )
        if off_voxels > _OFF_PLANE_VOXELS:
            doubts.append(
                f"{section.id}: a tenth of it lies more than {off_voxels:.2g} voxels off its plane:"
                " the way to the atlas bends it, and these programs know no bent planes"
            )
    spacing = target.volume.spacing_mm
    if spacing.max() > 1.01 * spacing.min():
        doubts.append(
            f"{target.name}: its voxels are {' x '.join(f'{s:.3g}' for s in spacing)} mm; the"
            " programs show them as cubes, sections accordingly stretched"
        )
    if target.labels is not None:
        files[f"{target.name}/labels.nii.gz"] = partial(write_volume, volume=target.volume)
        files[f"{target.name}/labels.txt"] = partial(_write_labels, target)
    elif not target.is_theirs:
        files[target.name] = partial(write_volume, volume=target.volume)
    return Export(files, tuple(told), tuple(doubts))


def section_numbers(positions_mm: list[float]) -> list[int]:
    """Whole numbers from 1, as far apart as sections are, or their order where these are not even.

    Parameters
    ----------
    positions_mm : in ascending order.
    """
    gaps = np.diff(positions_mm)
    if len(gaps):
        steps = (np.asarray(positions_mm) - positions_mm[0]) / gaps.min()
        numbers = np.round(steps).astype(int)
        if np.abs(steps - numbers).max() < 0.2 and np.all(np.diff(numbers) > 0):
            return (numbers + 1).tolist()
    return list(range(1, len(positions_mm) + 1))


def _series_writer(target: Target, slices: list[dict[str, Any]]) -> Callable[[Path], object]:
    series = {
        "name": target.name,
        "target": target.name,
        "target-resolution": list(target.volume.data.shape),
        "slices": slices,
    }
    return lambda path: path.write_text(json_text(series), encoding="utf-8")


def _slice(
    section: Section, target: Target, most_markers: int
) -> tuple[dict[str, Any], float, np.ndarray]:
    """The entry of a section; voxels of a tenth of it off its plane; mm that are left of φ."""
    rows, columns = section.shape
    size = (float(columns), float(rows))
    voxel_from_world = np.linalg.inv(target.volume.world_from_voxel)

    def to_voxels(points_px: np.ndarray) -> np.ndarray:
        # both count from the centres of pixels and voxels
        to = section.to_atlas if target.space == "atlas" else section.to_mri
        return apply(voxel_from_world, to(points_px - 0.5)) + 0.5

    points_px = _tissue_points(section)
    points_voxel = to_voxels(points_px)
    known = np.isfinite(points_voxel).all(axis=-1)
    points_px, points_voxel = points_px[known], points_voxel[known]
    if len(points_px) < 3 or np.linalg.matrix_rank(points_px - points_px.mean(axis=0)) < 2:
        raise ImageError(
            f"section {section.id!r}: too little of its tissue has a place in the space"
            f" {target.space}: expected three points that are on no line"
        )
    anchoring = fit_anchoring(points_px, points_voxel, size)

    def flatten(points_px: np.ndarray) -> np.ndarray:
        flat = anchoring.from_volume(to_voxels(points_px))
        return np.where(np.isfinite(flat), flat, points_px)

    px_per_working = section.prepared.working_pixel_mm / section.pixel_size_mm
    markers = fit_markers(
        points_px, flatten, size, within_px=_WITHIN_WORKING_PX * px_per_working, most=most_markers
    )
    entry: dict[str, Any] = {
        "width": columns,
        "height": rows,
        "anchoring": anchoring.numbers(),
    }
    if len(markers.pairs):
        entry["markers"] = markers.pairs.tolist()
    off_voxels = float(np.quantile(anchoring.off_plane(points_voxel), 0.9))
    left_mm = _left_mm(anchoring, target, markers.left_px)
    return entry, off_voxels, left_mm


def _left_mm(anchoring: Anchoring, target: Target, left_px: np.ndarray) -> np.ndarray:
    """(2,) median and 99th percentile of distances in the image, px, in mm of the volume."""
    linear = target.volume.world_from_voxel[:3, :3]
    edges = zip((anchoring.u, anchoring.v), anchoring.size, strict=True)
    mm_per_px = max(np.linalg.norm(linear @ edge) / n for edge, n in edges)
    return np.quantile(left_px, [0.5, 0.99]) * mm_per_px


def _tissue_points(section: Section) -> np.ndarray:
    """(n, 2) points of the tissue, px from the corner of the image, in no regular grid."""
    found = np.argwhere(section.tissue)[:, ::-1].astype(float)
    if not len(found):
        raise ImageError(f"section {section.id!r}: its mask is empty")
    step = max(1, round(np.sqrt(len(found) / _MOST_POINTS)))
    found = found[np.all(found.astype(int) % step == 0, axis=-1)] if len(found) > 50 else found
    rng = np.random.default_rng(0)
    working_px = found + step * rng.uniform(-0.4, 0.4, found.shape)
    prepared = section.prepared
    section_mm = apply(prepared.section_mm_from_working_mm, working_px * prepared.working_pixel_mm)
    return np.clip(section_mm / section.pixel_size_mm + 0.5, 0, section.shape[::-1])


def _write_picture(section: Section, path: Path) -> None:
    """The section as `prepare` left it, as it lies in its file, at about its working pixel."""
    from PIL import Image
    from scipy.ndimage import affine_transform

    prepared = section.prepared
    image, _ = read_plane(prepared.intact(names.IMAGE))
    rows, columns = section.shape
    coarse = prepared.working_pixel_mm / section.pixel_size_mm
    shape = tuple(max(1, round(n / coarse)) for n in (rows, columns))
    # of outer edges: those of the picture are those of the file
    file_from_picture = np.diag([columns / shape[1], rows / shape[0], 1.0])
    file_from_picture[:2, 2] = (np.diag(file_from_picture)[:2] - 1) / 2
    section_mm_from_picture = scaling(section.pixel_size_mm) @ file_from_picture
    working_mm_from_picture = np.linalg.solve(
        prepared.section_mm_from_working_mm, section_mm_from_picture
    )
    working_from_picture = scaling(1 / prepared.working_pixel_mm) @ working_mm_from_picture
    swapped = working_from_picture[[1, 0]][:, [1, 0, 2]]
    value = affine_transform(
        image.astype(np.float32), swapped[:, :2], swapped[:, 2], output_shape=shape, order=1
    )
    value = np.clip(value / max(float(np.quantile(image, 0.999)), 1e-6), 0, 1)
    if prepared.polarity == "bright_background":
        value = 1 - value
    Image.fromarray(np.round(value * 255).astype(np.uint8)).save(path)


def _write_labels(target: Target, path: Path) -> None:
    """Names and colours as ITK-SNAP writes them, of all labels that the volume has."""
    lines = ['    0     0    0    0        0  0  0    "Clear Label"']
    for number in np.unique(target.volume.data):
        if number:
            label = target.labels.of(int(number))
            rgb = label.rgb or _colour(int(number))
            cells = "  ".join(f"{part:3d}" for part in rgb)
            name = label.name.replace('"', "'")
            lines.append(f'{number:5d}   {cells}        1  1  1    "{name}"')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _colour(number: int) -> tuple[int, int, int]:
    """One for a label without: another one for each number, bright enough to be seen."""
    rng = np.random.default_rng(number)
    return tuple(int(part) for part in rng.integers(64, 256, 3))
