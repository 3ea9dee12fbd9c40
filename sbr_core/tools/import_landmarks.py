"""`sbr import-landmarks`: points set in napari, QuPath and 3D Slicer, to one table of landmarks.

A file of points on an image is named after its section: ``012.csv`` or ``012.geojson`` belongs to
section ``012``. A file of MRI points is named so too, or has the points of many sections with
labels ``SECTION:NAME``. Within a section, points of the same name are partners, or, when asked for,
those of the same place in their files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from sbr_core.artifacts.names import section_of_name
from sbr_core.errors import ConfigError, ManifestError
from sbr_core.io.corrections import Correction, merged, read_corrections, write_corrections
from sbr_core.io.images import image_shape
from sbr_core.io.landmarks import Mark, named, read_image_marks, read_world_marks
from sbr_core.io.manifests import SECTION_POINT, Landmark, SectionRow, target_columns
from sbr_core.io.tables import write_tsv

logger = logging.getLogger(__name__)


def run(
    options: None,
    *,
    rows: Sequence[SectionRow],
    points: Sequence[Path],
    out: Path,
    mri_points: Sequence[Path] | None = None,
    plane_points: Sequence[Path] | None = None,
    scale: float | None = None,
    plane_scale: float | None = None,
    by_order: bool = False,
    constrain: bool = False,
) -> None:
    """Convert points of napari, QuPath and 3D Slicer to a table of landmarks.

    Parameters
    ----------
    rows : manifest rows: a JSON list, its path (.json), or a manifest (.tsv).
    points : points on the sections, a file each, named SECTION.…
    out : table to write, as `sbr evaluate` reads it; its column ``landmark`` is the name. With
        --constrain, a table of corrections, to which the points are added if it is there.
    mri_points : the same points in the MRI (3D Slicer).
    plane_points : prealigned: the same points on the MRI planes.
    scale : file pixels per pixel of the annotated sections, along each side (default: 1).
    plane_scale : file pixels per pixel of the annotated planes, along each side (default: 1).
    by_order : pair by the order in the files, not by name.
    constrain : the points are for the registration to obey (corrections of the sheet), not to
        measure by.

    Raises
    ------
    ConfigError
        Both kinds of partners or none, a scale that is not above 0.
    ManifestError
        A file of no section, a point outside its image, a point without a partner; naming file and
        row.
    """
    if (mri_points is None) == (plane_points is None):
        raise ConfigError("expected --mri-points or, of a prealigned brain, --plane-points")
    row_of = {row.section: row for row in rows}
    section_marks = _on_images(points, row_of, scale, "--scale", lambda row: row.image)
    prealigned = plane_points is not None
    if prealigned:
        target_marks = _on_images(
            plane_points, row_of, plane_scale, "--plane-scale", lambda row: row.mri_image
        )
    else:
        target_marks = _in_mri(mri_points, row_of)
    landmarks = [
        Landmark(
            section,
            ours.point,
            **{"plane_mm" if prealigned else "mri_mm": theirs.point},
            name=ours.name,
        )
        for section in row_of
        for ours, theirs in _pairs(
            section_marks.get(section, []), target_marks.get(section, []), by_order
        )
    ]
    if not landmarks:
        raise ManifestError(f"{points[0]}: no points in this file, nor in any other")
    if constrain:
        _add_to_corrections(out, landmarks, prealigned=prealigned)
    else:
        columns = *SECTION_POINT, *target_columns(prealigned=prealigned)
        table = [
            {"section": mark.section, "landmark": mark.name}
            | dict(zip(columns, (*mark.section_mm, *(mark.plane_mm or mark.mri_mm)), strict=True))
            for mark in landmarks
        ]
        write_tsv(out, table, ("section", "landmark", *columns))
    logger.info(f"import-landmarks: {len(landmarks)} landmarks on {len(section_marks)} sections")


def _add_to_corrections(path: Path, landmarks: Sequence[Landmark], *, prealigned: bool) -> None:
    """Write landmarks as pairs to obey; those that a section had in the table give way to them."""
    before = {}
    if path.is_file():
        # rows have no excluded sections, of which the table may say something
        before = read_corrections(path, None, prealigned=prealigned)
    marks_of: dict[str, tuple[Landmark, ...]] = {}
    for mark in landmarks:
        marks_of[mark.section] = (*marks_of.get(mark.section, ()), mark)
    for section in marks_of:
        if section in before and (old := before[section].landmarks):
            logger.info(
                f"import-landmarks: section {section}: {len(old)} landmarks of {path} give way to"
                f" {len(marks_of[section])} new ones"
            )
    later = [Correction(section, landmarks=marks) for section, marks in marks_of.items()]
    write_corrections(path, merged(before, later).values(), prealigned=prealigned)


def _on_images(
    paths: Iterable[Path],
    row_of: Mapping[str, SectionRow],
    scale: float | None,
    flag: str,
    image_of: Callable[[SectionRow], str],
) -> dict[str, list[Mark]]:
    """Section -> its marks, (x, y) in mm from the centre of the first pixel of its image."""
    scale = 1.0 if scale is None else scale
    if not scale > 0:
        raise ConfigError(f"{flag}: expected a number above 0, found {scale:g}")
    marks_of: dict[str, list[Mark]] = {}
    for path in paths:
        section = section_of_name(path, row_of)
        if section is None:
            raise ManifestError(f"{path}: expected a file named after its section, like 012.csv")
        row = row_of[section]
        if not image_of(row):
            raise ManifestError(f"{path}: section {section!r} has no mri_image in the manifest")
        channel = row.image_channel if image_of(row) == row.image else None
        rows, columns = image_shape(Path(image_of(row)), channel)
        for mark in read_image_marks(path, scale * row.pixel_size_mm):
            # annotated px from the corner -> file px from the corner, which is the same corner
            x, y = (scale * value for value in mark.point)
            if not (0 <= x <= columns and 0 <= y <= rows):
                raise ManifestError(
                    f"{mark.where}: column {x:.1f}, row {y:.1f} lies outside {image_of(row)}"
                    f" ({columns} x {rows} pixels): is {flag} right?"
                )
            point = tuple((value - 0.5) * row.pixel_size_mm for value in (x, y))
            marks_of.setdefault(section, []).append(Mark(mark.name, point, mark.where))
    return marks_of


def _in_mri(paths: Iterable[Path], row_of: Mapping[str, SectionRow]) -> dict[str, list[Mark]]:
    """Section -> its marks in the MRI, RAS mm."""
    marks_of: dict[str, list[Mark]] = {}
    for path in paths:
        section_of_file = section_of_name(path, row_of)
        for mark in read_world_marks(path):
            section, colon, name = mark.name.partition(":")
            if section_of_file is not None and not (colon and section in row_of):
                section, name = section_of_file, mark.name
            elif not colon or section not in row_of:
                raise ManifestError(
                    f"{mark.where}: label {mark.name!r}: expected SECTION:NAME with a section of"
                    " the manifest, or a file named after its section"
                )
            marks_of.setdefault(section, []).append(Mark(name, mark.point, mark.where))
    return marks_of


def _pairs(ours: Sequence[Mark], theirs: Sequence[Mark], by_order: bool) -> list[tuple[Mark, Mark]]:
    """Partners of one section, in the order of its own points."""
    ours, theirs = named(ours), named(theirs)
    if by_order:
        longer, shorter = (ours, theirs) if len(ours) > len(theirs) else (theirs, ours)
        if len(longer) > len(shorter):
            raise ManifestError(
                f"{longer[len(shorter)].where}: point {len(shorter) + 1} of {len(longer)} has no"
                f" partner: the other file has {len(shorter)}"
            )
        return list(zip(ours, theirs, strict=True))
    partner_of = {mark.name: mark for mark in theirs}
    for marks, others in ((ours, partner_of), (theirs, {mark.name: mark for mark in ours})):
        for mark in marks:
            if mark.name not in others:
                known = ", ".join(others) or "none"
                raise ManifestError(
                    f"{mark.where}: landmark {mark.name!r} has no partner of that name (there are:"
                    f" {known})"
                )
    return [(mark, partner_of[mark.name]) for mark in ours]
