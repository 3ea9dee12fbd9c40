"""Points of other programs, from files as these write them."""

import csv
import json

import numpy as np
import pytest

from sbr_core.errors import ManifestError
from sbr_core.io.landmarks import Mark, named, read_image_marks, read_world_marks

# (column, row) of pixel centres, and the same from the corner of the image
CENTRES = np.array([(0.0, 0.0), (12.25, 3.5), (7.0, 20.0)])
CORNER = CENTRES + 0.5
RAS_MM = np.array([(53.4, 73.3, 0.0), (-49.9, 88.6, 1.5), (25.2, -59.3, -7.25)])
LPS_MM = RAS_MM * (-1, -1, 1)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def write_napari(path, points, properties=None, shapes=None):
    """As `napari_builtins` does: index and coordinates as one array, then the `csv` module."""
    data = np.asarray(points)[:, ::-1]  # (row, column)
    columns = [np.arange(len(data))[:, None], data]
    header = ["index", "axis-0", "axis-1"]
    if shapes:
        header = ["index", "shape-type", "vertex-index", "axis-0", "axis-1"]
        columns = [shapes[0][:, None], np.array(shapes[1])[:, None], shapes[2][:, None], data]
    for name, values in (properties or {}).items():
        header.append(name)
        columns.append(np.array(values)[:, None])
    with open(path, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(np.concatenate(columns, axis=1))
    return path


def feature(coordinates, kind="Point", **properties):
    """As QuPath's `exportObjectsToGeoJson` does."""
    return {
        "type": "Feature",
        "id": "3a1f0f9e-5f5c-4f0e-8f0e-0c7f3d2b1a00",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": {"objectType": "annotation", **properties},
    }


def of(marks):
    return [mark.name for mark in marks], np.array([mark.point for mark in marks])


def test_napari_counts_rows_first_and_from_pixel_centres(tmp_path):
    path = write_napari(tmp_path / "a.csv", CENTRES)
    assert path.read_text().splitlines()[1] == "0.0,0.0,0.0"
    names, points = of(read_image_marks(path, 1.0))
    assert names == ["0", "1", "2"]
    np.testing.assert_allclose(points, CORNER)


def test_a_property_of_napari_names_the_points(tmp_path):
    path = write_napari(tmp_path / "a.csv", CENTRES, {"label": ["fornix", "", "tail"]})
    names, points = of(read_image_marks(path, 1.0))
    assert names == ["fornix", "1", "tail"]
    np.testing.assert_allclose(points, CORNER)


def test_vertices_of_napari_shapes_are_points(tmp_path):
    shapes = np.array([0, 0, 1]), ["path", "path", "line"], np.array([0, 1, 0])
    names, points = of(
        read_image_marks(write_napari(tmp_path / "a.csv", CENTRES, shapes=shapes), 1.0)
    )
    assert names == ["0-0", "0-1", "1-0"]
    np.testing.assert_allclose(points, CORNER)
    shapes = np.array([0, 0, 0]), ["ellipse"] * 3, np.array([0, 1, 2])
    with pytest.raises(ManifestError, match="b.csv: line 2: .* found a ellipse"):
        read_image_marks(write_napari(tmp_path / "b.csv", CENTRES, shapes=shapes), 1.0)


def test_qupath_objects_count_from_the_corner(tmp_path):
    features = [
        feature(CORNER[0].tolist(), name="fornix", classification={"name": "Landmark"}),
        feature(CORNER[1:].tolist(), "MultiPoint", classification={"names": ["Sulcus", "deep"]}),
        feature([[[0, 0], [9, 0], [9, 9], [0, 0]]], "Polygon", name="outline"),
    ]
    collection = {"type": "FeatureCollection", "features": features}
    for name, value in (("a.geojson", collection), ("b.json", features)):
        path = write(tmp_path / name, json.dumps(value))
        names, points = of(named(read_image_marks(path, 1.0)))
        assert names == ["fornix", "Sulcus: deep-1", "Sulcus: deep-2"]
        np.testing.assert_allclose(points, CORNER)
    path = write(tmp_path / "c.geojson", json.dumps(features[0]))
    assert of(read_image_marks(path, 1.0))[0] == ["fornix"]


def test_qupath_points_without_a_name_are_numbered(tmp_path):
    path = write(tmp_path / "a.geojson", json.dumps([feature(p.tolist()) for p in CORNER]))
    assert of(named(read_image_marks(path, 1.0)))[0] == ["1", "2", "3"]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_qupath_points_saved_from_the_counting_tool(tmp_path, newline):
    lines = ["x\ty\tclass\tname\tcolor\t"]  # the header ends with a tab, as PointIO writes it
    for (x, y), name in zip(CORNER, ("fornix", "", ""), strict=True):
        lines.append(f"{x}\t{y}\tLandmark\t{name}\t-65536")
    path = tmp_path / "a.tsv"
    path.write_bytes(newline.join([*lines, ""]).encode())
    names, points = of(named(read_image_marks(path, 1.0)))
    assert names == ["fornix", "Landmark-1", "Landmark-2"]
    np.testing.assert_allclose(points, CORNER)


def test_qupath_measurements_in_pixels_or_micrometres(tmp_path):
    for unit, factor in (("px", 1.0), ("µm", 20.0)):  # pixels of 0.02 mm
        lines = [f"Image\tName\tClassification\tROI\tCentroid X {unit}\tCentroid Y {unit}"]
        lines[0] += "\tNum points"
        for i, (x, y) in enumerate(CORNER * factor):
            lines.append(f"slide.tif\tL{i}\t\tPoints\t{x}\t{y}\t1")
        path = write(tmp_path / f"{unit}.tsv", "\n".join(lines))
        names, points = of(read_image_marks(path, 0.02))
        assert names == ["L0", "L1", "L2"]
        np.testing.assert_allclose(points, CORNER)
    path = write(tmp_path / "b.tsv", "\n".join(lines).replace("\t1", "\t3"))
    with pytest.raises(ManifestError, match="b.tsv: line 2: an object of 3 points"):
        read_image_marks(path, 0.02)


@pytest.mark.parametrize("system", ["LPS", "RAS"])
def test_slicer_markups_say_which_way_their_axes_go(tmp_path, system):
    points = {"LPS": LPS_MM, "RAS": RAS_MM}[system]
    markup = {
        "type": "Fiducial",
        "coordinateSystem": system,
        "coordinateUnits": "mm",
        "controlPoints": [
            {"id": str(i), "label": f"F-{i}", "position": p.tolist(), "positionStatus": "defined"}
            for i, p in enumerate(points, 1)
        ],
    }
    markup["controlPoints"].append({"label": "F-4", "positionStatus": "undefined"})
    path = write(tmp_path / "F.mrk.json", json.dumps({"@schema": "…", "markups": [markup]}))
    names, found = of(read_world_marks(path))
    assert names == ["F-1", "F-2", "F-3"]
    np.testing.assert_allclose(found, RAS_MM)


@pytest.mark.parametrize(("system", "points"), [("LPS", LPS_MM), ("1", LPS_MM), ("0", RAS_MM)])
def test_slicer_fcsv_says_which_way_its_axes_go(tmp_path, system, points):
    lines = [
        "# Markups fiducial file version = 4.13",
        f"# CoordinateSystem = {system}",
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID",
    ]
    for i, (x, y, z) in enumerate(points, 1):
        lines.append(f'{i},{x},{y},{z},0,0,0,1,1,1,0,"F, {i}",,')
    names, found = of(read_world_marks(write(tmp_path / "F.fcsv", "\n".join(lines) + "\n")))
    assert names == ["F, 1", "F, 2", "F, 3"]
    np.testing.assert_allclose(found, RAS_MM)


@pytest.mark.parametrize(("axes", "points"), [("l,p,s", LPS_MM), ("r,a,s", RAS_MM)])
def test_a_table_of_slicer_or_by_hand(tmp_path, axes, points):
    lines = [f"label,{axes},defined,selected,visible,locked,description"]
    lines += [f"F-{i},{x},{y},{z},1,1,1,0," for i, (x, y, z) in enumerate(points, 1)]
    lines.append("F-4,0,0,0,0,1,1,0,")  # placed nowhere yet
    names, found = of(read_world_marks(write(tmp_path / "F.csv", "\n".join(lines))))
    assert names == ["F-1", "F-2", "F-3"]
    np.testing.assert_allclose(found, RAS_MM)


IMAGE_FAULTS = {
    "a,b\n1,2\n": "expected points of napari .* found columns a, b",
    "index,axis-0,axis-1\n0,1,2\n1,x,3\n": "line 3: axis-0: expected a number, found 'x'",
    "index,axis-0,axis-1\n0,nan,2\n": "line 2: axis-0: expected a number, found 'nan'",
    "index,axis-0,axis-1,axis-2\n0,1,2,3\n": "one 2D image, found three axes",
    "": "is empty",
    "{": "not readable as JSON",
    '{"type": "Feature"}': "feature 1: expected a GeoJSON feature",
    '[{"geometry": {"type": "Point", "coordinates": [1]}}]': "feature 1: expected .x, y., found",
    '[{"geometry": {"type": "Point", "coordinates": [1, "y"]}}]': "feature 1: expected a number",
    '{"features": 3}': "not as QuPath writes points",
}
WORLD_FAULTS = {
    '{"points": []}': "not as 3D Slicer writes points",
    '{"markups": [{"coordinateSystem": "IJK"}]}': "expected LPS or RAS, found 'IJK'",
    '{"markups": [{"coordinateUnits": ["um", "um", "um"]}]}': "coordinateUnits: expected mm",
    '{"markups": [{"controlPoints": [{"position": [1, 2]}]}]}': "control point 1: expected a pos",
    "# columns = id,x,y,z,label\n1,2,3,4,F\n": "CoordinateSystem.*found nothing",
    "# CoordinateSystem = 2\n": "expected LPS or RAS, found 2",
    "# CoordinateSystem = LPS\n# columns = id,x,y,z,label\n1,2,3\n": "line 3: expected 5 values",
    "# CoordinateSystem = LPS\n": "# columns': expected x, y, z, label",
    "label,x,y,z\nF,1,2,3\n": "expected markups of 3D Slicer, or columns label, r, a, s",
    "label,r,a,s\nF,1,,3\n": "line 2: expected a number, found ''",
}


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        *((lambda path: read_image_marks(path, 1.0), *fault) for fault in IMAGE_FAULTS.items()),
        *((read_world_marks, *fault) for fault in WORLD_FAULTS.items()),
    ],
)
def test_faults_name_the_file_and_the_row(tmp_path, read, text, said):
    with pytest.raises(ManifestError, match=f"^{tmp_path}/points.*{said}"):
        read(write(tmp_path / "points", text))


def test_files_that_are_not_there_or_no_text(tmp_path):
    with pytest.raises(ManifestError, match="none.csv: no such file"):
        read_image_marks(tmp_path / "none.csv", 1.0)
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="a.csv: not readable as UTF-8"):
        read_world_marks(tmp_path / "a.csv")


def test_two_points_do_not_get_one_name():
    marks = [Mark(name, (0.0, 0.0), f"line {i}") for i, name in enumerate(("a", "a", "a-1"), 1)]
    with pytest.raises(ManifestError, match="line 3: a second point with the name 'a-1'"):
        named(marks)


DECIMAL_COMMAS = {
    "QuPath": "Name,Centroid X µm,Centroid Y µm\na,5000,5,10000,5\n",
    "one number": "x,y,name\n1,2,a\n1,5,2,a\n",
    "napari": "index,axis-0,axis-1\n0,10,25,20,75\n",
    "empty cells at the end of the line": "Name,x,y\na,5000,5,10000,5,,\n",
    "empty cells at the end of the header": "Name,x,y,,\na,5000,5,10000,5\n",
    "in quotes": 'x,y\n"1,5","2,5"\n',
    "between semicolons": "x;y\n1,5;2,5\n",
}


@pytest.mark.parametrize("case", DECIMAL_COMMAS)
def test_decimal_commas_are_refused_with_their_line(tmp_path, case):
    path = write(tmp_path / "a.csv", DECIMAL_COMMAS[case])
    with pytest.raises(ManifestError, match=r"a.csv: line \d: .*decimal point"):
        read_image_marks(path, 1.0)


def test_decimal_commas_in_points_of_an_mri_are_refused(tmp_path):
    path = write(tmp_path / "mri.csv", "label,r,a,s\na,1,5,2,5,3,5\n")
    with pytest.raises(ManifestError, match="line 2: 7 cells for 4 columns: decimal commas?"):
        read_world_marks(path)
    head = (
        "# CoordinateSystem = LPS\n# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,node\n"
    )
    rest = "0,0,0,1,1,1,0,F-1,,"
    for point in ("12,5,3,4", "12,5,3,5,4,5"):
        path = write(tmp_path / "F.fcsv", f"{head}1,{point},{rest}\n")
        with pytest.raises(ManifestError, match="line 3: .*decimal commas?"):
            read_world_marks(path)
    path = write(tmp_path / "F.fcsv", f"{head}1,12.5,3,4,{rest},2,0\n")  # as Slicer 5 writes it
    assert of(read_world_marks(path))[0] == ["F-1"]


@pytest.mark.parametrize(
    "text",
    [
        "x;y;name\n1.5;2.5;a, b\n",
        "name,x,y,\na,1.5,2.5,\n",
        "x,y,name\n1,2,a,,\n",
        ",x,y,name\n0,1.5,2.5,a\n",
        "name,Centroid X \N{GREEK SMALL LETTER MU}m,Centroid Y \N{MICRO SIGN}m\na,1500,2500\n",
    ],
)
def test_other_separators_indices_and_empty_columns_are_read(tmp_path, text):
    (mark,) = read_image_marks(write(tmp_path / "a.csv", text), 1.0)
    assert mark.name.startswith("a") and sum(mark.point) in (4.0, 3.0)
