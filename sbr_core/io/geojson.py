"""Shapes in GeoJSON, as QuPath writes and reads them.

QuPath counts pixels, (x, y), from the upper left corner of the full-resolution image. Beside
GeoJSON's own members (RFC 7946) it writes a cell's nucleus as ``nucleusGeometry`` of the feature,
and a ``plane`` in the geometry. All that is no coordinate stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry import mapping, shape

from sbr_core.errors import ManifestError
from sbr_core.io.files import check_is_file, parse_json, write_text
from sbr_core.io.label_tables import LabelTable

_GEOMETRIES = "geometry", "nucleusGeometry"
_KINDS = ("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon")
_OF_COORDINATES = ("type", "coordinates", "bbox", "isEllipse")
"""Members of a geometry that hold of the coordinates it had: QuPath reads a polygon with
``isEllipse`` as the ellipse in its bounding box, along the axes of the image."""
_DECIMALS = 6
"""Of written coordinates: a nanometre, or a millionth of a pixel."""


@dataclass(frozen=True)
class Shapes:
    """The features of a file.

    Attributes
    ----------
    features : as they are in the file.
    owners : (n,) index of the feature that each geometry is of, in order.
    members : (n,) the name of the feature's member that it is.
    geometries : (n,) of shapely.
    """

    path: Path
    features: list[dict[str, Any]]
    owners: np.ndarray
    members: tuple[str, ...]
    geometries: np.ndarray

    def where(self, index: int) -> str:
        """What a message calls the feature of a geometry."""
        return where(self.path, int(self.owners[index]), self.features[self.owners[index]])


def region_of(feature: dict[str, Any]) -> tuple[str, tuple[int, int, int] | None]:
    """What region a feature is of: the name of its class, else its own; and its colour."""
    properties = feature.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    given = properties.get("classification")
    given = given if isinstance(given, dict) else {}
    names = given.get("names")
    name = given.get("name") or (": ".join(map(str, names)) if isinstance(names, list) else "")
    colour = given.get("color", properties.get("color"))
    is_colour = isinstance(colour, list) and len(colour) == 3
    is_colour = is_colour and all(isinstance(c, int) and 0 <= c < 256 for c in colour)
    return str(name or properties.get("name") or ""), tuple(colour) if is_colour else None


def where(path: Path, number: int, feature: Any) -> str:
    """File, number and name of a feature, for messages."""
    properties = feature.get("properties") if isinstance(feature, dict) else None
    name = properties.get("name") if isinstance(properties, dict) else None
    return f"{path}: feature {number + 1}" + (f" ({name!r})" if name else "")


def is_geojson(path: Path) -> bool:
    """Whether a file is named like GeoJSON; markups of 3D Slicer are another JSON."""
    name = Path(path).name.lower()
    return name.endswith((".geojson", ".json")) and not name.endswith(".mrk.json")


def read_geojson(path: Path, n_axes: int) -> Shapes:
    """Shapes of a GeoJSON; none of a collection of none, as QuPath writes where nothing is drawn.

    Parameters
    ----------
    n_axes : of the coordinates that count: 2, or 3 in space.

    Raises
    ------
    ManifestError
        No GeoJSON, or a feature without a geometry that can be used; naming file and feature.
    """
    path = Path(path)
    check_is_file(path, ManifestError)
    try:
        value = parse_json(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError) as error:
        raise ManifestError(f"{path}: not readable as JSON: {error}") from None
    if isinstance(value, dict):
        value = value.get("features") if value.get("type") == "FeatureCollection" else [value]
        if value == []:
            return Shapes(path, [], np.zeros(0, int), (), np.zeros(0, object))
    if not isinstance(value, list) or not value:
        raise ManifestError(f"{path}: expected features of GeoJSON, found none")
    found = []
    for number, feature in enumerate(value):
        if not isinstance(feature, dict) or not isinstance(feature.get("geometry"), dict):
            raise ManifestError(f"{path}: feature {number + 1}: expected a feature with a geometry")
        for member in _GEOMETRIES:
            if feature.get(member) is not None:
                here = where(path, number, feature)
                found.append((number, member, _geometry(feature[member], n_axes, here)))
    owners, members, geometries = zip(*found, strict=True)
    return Shapes(path, value, np.array(owners), members, np.array(geometries, object))


def _geometry(value: Any, n_axes: int, here: str) -> shapely.Geometry:
    """What a geometry of GeoJSON says; ManifestError of one that has no points, or no numbers."""
    kind = value.get("type") if isinstance(value, dict) else value
    if kind not in _KINDS:
        raise ManifestError(
            f"{here}: geometry: expected one of {', '.join(_KINDS)}, found {kind!r}"
        )
    try:
        with np.errstate(invalid="ignore"):  # numbers are looked at below
            geometry = shape(value)
    except Exception as error:  # as different as what stands there
        raise ManifestError(f"{here}: its coordinates are not those of a {kind}: {error}") from None
    points = shapely.get_coordinates(geometry, include_z=n_axes == 3)
    if not len(points):
        raise ManifestError(f"{here}: its geometry is empty")
    if not np.isfinite(points).all():
        missing = n_axes == 3 and not geometry.has_z
        what = (
            "two coordinates, expected x, y and z" if missing else "coordinates that are not finite"
        )
        raise ManifestError(f"{here}: has {what}")
    return geometry


def write_geojson(path: Path, shapes: Shapes, **facts: Any) -> None:
    """Write features with geometries of their own, whole or not at all.

    Parameters
    ----------
    shapes : a feature whose own geometry is missing or empty is left out.
    facts : further members of the collection.
    """
    _write(path, list(_features(shapes)), facts)


def write_regions(
    path: Path, regions: Mapping[int, shapely.Geometry], table: LabelTable, **facts: Any
) -> None:
    """Write outlines of labels as annotations of QuPath, whole or not at all.

    Parameters
    ----------
    regions : label -> its outline, in px from the upper left corner of the image.
    table : names and colours, which become those of the class, too.
    facts : further members of the collection.
    """
    features = []
    for number, geometry in regions.items():
        label = table.of(number)
        of_class: dict[str, Any] = {"name": label.name}
        if label.rgb is not None:
            of_class["color"] = list(label.rgb)
        parts = shapely.get_parts(geometry)
        value = mapping(parts[0] if len(parts) == 1 else geometry)
        value["coordinates"] = _rounded(value["coordinates"])
        properties = {"objectType": "annotation", "name": label.name, "classification": of_class}
        properties |= {"label": number, "isLocked": True}
        features.append({"type": "Feature", "geometry": value, "properties": properties})
    _write(path, features, facts)


def _write(path: Path, features: list[dict[str, Any]], facts: Mapping[str, Any]) -> None:
    content = {"type": "FeatureCollection", **facts, "features": features}
    write_text(path, json.dumps(content, ensure_ascii=False))


def _features(shapes: Shapes) -> Iterator[dict[str, Any]]:
    changed: dict[int, dict[str, Any]] = {}
    for owner, member, geometry in zip(
        shapes.owners.tolist(), shapes.members, shapes.geometries, strict=True
    ):
        if geometry is not None and not geometry.is_empty:
            before = shapes.features[owner][member]
            value = mapping(geometry)
            value["coordinates"] = _rounded(value["coordinates"])
            more = {key: v for key, v in before.items() if key not in _OF_COORDINATES}
            changed.setdefault(owner, {})[member] = {**value, **more}
    for owner, members in changed.items():
        if "geometry" in members:
            kept = {
                k: v for k, v in shapes.features[owner].items() if k not in (*_GEOMETRIES, "bbox")
            }
            yield kept | members


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DECIMALS)
    return [_rounded(part) for part in value]
