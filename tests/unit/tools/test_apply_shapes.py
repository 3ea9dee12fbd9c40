"""`sbr apply` on GeoJSON: annotations keep what they are, bend with the section, and come back."""

import json

import nibabel as nib
import numpy as np
import pytest
import shapely
from mapped_brain import GRID, MIDDLE_MM, SECTIONS, SPACING_MM
from shapely.geometry import mapping, shape

from sbr_core.cli import main
from sbr_core.tools import apply

CORNER = 0.5
"""QuPath counts from the corner of the first pixel."""


@pytest.fixture
def carry(truth, tmp_path):
    """Run `sbr apply` on features; the collection that it wrote."""

    def run(features, from_, to, out="out.geojson", **flags):
        given, out = tmp_path / "in.geojson", tmp_path / out
        given.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        flags = {"results": truth.results, "force": True} | flags
        apply.run(None, [given], from_=from_, to=to, out=out, **flags)
        return json.loads(out.read_text())

    return run


def feature(geometry, **properties):
    return {"type": "Feature", "id": "a-b", "geometry": mapping(geometry), "properties": properties}


def drawn(truth, section, geometry):
    """A shape of the plane, mm, as somebody draws it on a section: in px from its corner."""
    fine = shapely.segmentize(geometry, 0.05)
    return shapely.transform(fine, lambda mm: truth.px(section, mm) + CORNER)


def iou(a, b):
    return a.intersection(b).area / a.union(b).area


def region(size_mm=12.0):
    """A C with a hole, straight edges, and an island; plane mm."""
    x, y = MIDDLE_MM - size_mm / 2
    c = shapely.box(x, y, x + size_mm, y + size_mm)
    c = c.difference(shapely.box(x + 8, y + 4, x + 13, y + 8))
    c = c.difference(shapely.Point(x + 3, y + 6).buffer(2))
    return shapely.MultiPolygon([c, shapely.box(x + 9, y + 5, x + 11, y + 7)])


@pytest.mark.parametrize("section", SECTIONS)
def test_a_region_goes_to_the_mri_and_back(truth, carry, section, tmp_path):
    on_section = drawn(truth, section, region())
    there = carry([feature(on_section, name="C")], f"section:{section}", "mri", "mri.geojson")
    assert (there["space"], there["units"]) == ("mri", "mm")
    points = np.array(
        [p for ring in there["features"][0]["geometry"]["coordinates"][0] for p in ring]
    )
    stack_mm = points @ truth.stack_from_world[:3, :3].T + truth.stack_from_world[:3, 3]
    assert np.allclose(stack_mm[:, 2], SECTIONS.index(section) * SPACING_MM, atol=1e-5)
    flat = shapely.transform(shape(there["features"][0]["geometry"]), lambda p: p, include_z=True)
    in_plane = shapely.force_2d(
        shapely.transform(
            flat, lambda p: p @ truth.stack_from_world[:3, :3].T + truth.stack_from_world[:3, 3],
            include_z=True,
        )
    )  # fmt: skip
    assert iou(in_plane, region()) > 0.99
    back = carry(there["features"], "mri", f"section:{section}")
    returned = shape(back["features"][0]["geometry"])
    assert returned.is_valid and iou(returned, on_section) > 0.99
    assert (returned.geom_type, len(returned.geoms)) == ("MultiPolygon", 2)
    assert sum(len(part.interiors) for part in returned.geoms) == 1
    # its outline too: within a tenth of a working pixel
    apart_px = shapely.hausdorff_distance(returned.boundary, on_section.boundary)
    assert apart_px * truth.pixel_size_mm[section] < 0.1 * GRID.spacing_mm


def test_straight_edges_bend(truth, carry):
    """Drawn with two points on the plane, it is where the deformation has it on the section."""
    x, y = MIDDLE_MM
    line = shapely.LineString([(x - 12, y - 3), (x + 12, y + 5)])
    in_px = shapely.transform(line, lambda mm: mm / GRID.spacing_mm + CORNER)
    bent = shape(carry([feature(in_px)], "plane:plain", "section:plain")["features"][0]["geometry"])
    expected = drawn(truth, "plain", line)
    assert shapely.hausdorff_distance(bent, expected, densify=0.1) < 0.1
    straight = shapely.LineString([expected.coords[0], expected.coords[-1]])
    assert shapely.hausdorff_distance(straight, expected, densify=0.1) > 0.5


def test_what_qupath_writes_of_an_object_stays(truth, carry):
    """Name, class, colour, measurements, plane, id; of a cell its nucleus is carried as well."""
    cell = shapely.Point(MIDDLE_MM).buffer(0.02)
    nucleus = shapely.Point(MIDDLE_MM).buffer(0.01)
    kept = {
        "objectType": "cell",
        "name": "Zelle µ",
        "classification": {"name": "Tumor", "color": [200, 0, 0]},
        "isLocked": True,
        "measurements": {"Area µm^2": 12.5, "NaN": None},
    }
    given = feature(drawn(truth, "boxed", cell), **kept)
    given["geometry"]["plane"] = {"c": -1, "z": 0, "t": 0}
    given["geometry"]["isEllipse"] = True  # of its bounding box, which it is no longer
    given["nucleusGeometry"] = mapping(drawn(truth, "boxed", nucleus))
    points = feature(shapely.MultiPoint([(50, 50), (60, 70)]), objectType="annotation")
    done = carry([given, points], "section:boxed", "plane:boxed")["features"]
    assert done[0]["properties"] == kept and done[0]["id"] == "a-b"
    assert done[0]["geometry"]["plane"] == {"c": -1, "z": 0, "t": 0}
    assert "isEllipse" not in done[0]["geometry"]
    px = MIDDLE_MM / GRID.spacing_mm + CORNER
    for member, radius_mm in (("geometry", 0.02), ("nucleusGeometry", 0.01)):
        outline = shape(done[0][member])
        assert np.allclose(outline.centroid.coords[0], px, atol=0.1)
        assert outline.area == pytest.approx(np.pi * (radius_mm / GRID.spacing_mm) ** 2, rel=0.05)
    assert (
        done[1]["geometry"]["type"] == "MultiPoint" and len(done[1]["geometry"]["coordinates"]) == 2
    )
    assert not done[1]["properties"].keys() - {"objectType"}


def test_shapes_of_a_smaller_copy(truth, carry):
    whole = drawn(truth, "both", region())
    small = shapely.transform(whole, lambda px: px / 4)
    a = carry([feature(whole)], "section:both", "plane:both")["features"][0]["geometry"]
    b = carry([feature(small)], "section:both", "plane:both", scale=4.0)["features"][0]["geometry"]
    assert iou(shape(a), shape(b)) > 0.9999


def test_what_is_too_far_from_the_section_is_left_out(truth, carry):
    near = carry([feature(drawn(truth, "plain", region()))], "section:plain", "mri")["features"][0]
    far = carry([feature(drawn(truth, "boxed", region()))], "section:boxed", "mri")["features"][0]
    assert len(carry([near, far], "mri", "section:plain")["features"]) == 1
    assert len(carry([near, far], "mri", "section:plain", within_mm=20.0)["features"]) == 2
    # one that is drawn across the stack, and has no area on a section, is none of this section's
    edge = np.linalg.inv(truth.stack_from_world) @ [
        [20, 25, 30, 20],
        [20, 20, 20, 20],
        [0, 50, 0, 0],
        [1, 1, 1, 1],
    ]
    across = feature(shapely.Polygon(edge[:3].T))
    assert len(carry([near, across], "mri", "section:plain")["features"]) == 1


def test_outlines_become_labels_of_the_mri(truth, tmp_path):
    """An id for each class, in the voxels of its outline around the section; a table of these."""
    regions = [
        feature(drawn(truth, "both", region()), classification={"name": "B", "color": [9, 8, 7]}),
        feature(drawn(truth, "both", shapely.Point(MIDDLE_MM + 8).buffer(4)), name="A"),
    ]
    (tmp_path / "in.geojson").write_text(json.dumps(regions))
    out = tmp_path / "o.nii.gz"
    way = {"results": truth.results, "from_": "section:both", "to": "mri", "out": out}
    apply.run(None, [tmp_path / "in.geojson"], **way, pixel_mm=0.5)
    image = nib.load(out)
    data = np.asarray(image.dataobj)
    world = image.affine[:3, :3] @ np.indices(data.shape).reshape(3, -1) + image.affine[:3, 3:]
    stack = truth.stack_from_world[:3, :3] @ world + truth.stack_from_world[:3, 3:]
    near = np.abs(stack[2] - SECTIONS.index("both") * SPACING_MM) < 0.99 * SPACING_MM / 2
    a, b = (
        shapely.contains_xy(shape, *stack[:2]) & near
        for shape in (shapely.Point(MIDDLE_MM + 8).buffer(4), region())
    )
    found = data.reshape(-1) * near
    assert np.count_nonzero((found == 1) & a) / np.count_nonzero((found == 1) | a) > 0.95
    only_b = b & ~a
    assert np.count_nonzero((found == 2) & only_b) / np.count_nonzero((found == 2) | only_b) > 0.95
    assert (
        tmp_path / "o_labels.tsv"
    ).read_text() == "id\tname\tr\tg\tb\n1\tA\t\t\t\n2\tB\t9\t8\t7\n"


def test_an_older_list_of_features_and_a_single_one_are_read(truth, tmp_path):
    one = feature(drawn(truth, "plain", region()))
    for value in ([one], one):
        (tmp_path / "plain.json").write_text(json.dumps(value))
        out = tmp_path / "o.geojson"
        where = {"results": truth.results, "from_": "section", "to": "stack", "out": out}
        apply.run(None, [tmp_path / "plain.json"], **where, force=True)
        assert len(json.loads(out.read_text())["features"]) == 1


def test_a_crossing_outline_is_refused_or_mended(truth, carry):
    bow = shapely.Polygon([(40, 40), (60, 60), (60, 40), (40, 60)])
    mended = carry([feature(bow)], "section:plain", "plane:plain", mend=True)["features"][0]
    mended = shape(mended["geometry"])
    assert mended.is_valid and mended.geom_type == "MultiPolygon"
    with pytest.raises(
        Exception, match=r"feature 1: not a valid outline: Self-intersection.*--mend"
    ):
        carry([feature(bow)], "section:plain", "plane:plain")


SQUARE = {"type": "Polygon", "coordinates": [[[1, 1], [5, 1], [5, 5], [1, 1]]]}


def of(geometry, **properties):
    return json.dumps([{"type": "Feature", "geometry": geometry, "properties": properties}])


@pytest.mark.parametrize(
    ("text", "from_", "to", "said"),
    [
        ("{", "section:plain", "mri", "not readable as JSON"),
        ("[]", "section:plain", "mri", "expected features of GeoJSON, found none"),
        ('{"type": "FeatureCollection"}', "section:plain", "mri", "found none"),
        ("[1]", "section:plain", "mri", "feature 1: expected a feature with a geometry"),
        (of(None), "section:plain", "mri", "feature 1: expected a feature with a geometry"),
        (of({"type": "Ring"}), "section:plain", "mri", "expected one of Point, MultiPoint"),
        (of({"type": "Polygon"}, name="A"), "section:plain", "mri", "feature 1 ('A'): its coord"),
        (of(SQUARE | {"coordinates": [[[1, 1], [2, "x"], [3, 3], [1, 1]]]}), "section:plain", "mri",
         "are not those of a Polygon"),
        (of(SQUARE | {"coordinates": []}), "section:plain", "mri", "its geometry is empty"),
        (of(SQUARE | {"coordinates": [[[1, 1], [float("nan"), 1], [5, 5], [1, 1]]]}),
         "section:plain", "mri", "coordinates that are not finite"),
        (of(SQUARE), "mri", "section:plain", "two coordinates, expected x, y and z"),
        (of(SQUARE), "section", "mri", "of which section? Expected --from section:ID"),
        (of(SQUARE), "section:plain", "section", "of which section? Expected --to section:ID"),
        (of({"type": "Point", "coordinates": [0, 0, 900.0]}), "stack", "section:plain", "too far"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_is_told_in_one_line(truth, tmp_path, capfd, text, from_, to, said):
    given, out = tmp_path / "in.geojson", tmp_path / "out" / "out.geojson"
    given.write_text(text)
    flags = ["--results", str(truth.results), "--from", from_, "--to", to, "--out", str(out)]
    assert main(["apply", str(given), *flags]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0], lines
    assert not out.exists() and not [*tmp_path.glob("out/*")]


def test_a_section_on_which_nothing_is_drawn_stays_one(truth, tmp_path):
    """So that one of a folder does not stop the others."""
    given, out = tmp_path / "plain.geojson", tmp_path / "out"
    given.write_text('{"type": "FeatureCollection", "features": []}')
    flags = ["--results", str(truth.results), "--from", "section", "--to", "mri"]
    assert main(["apply", str(tmp_path), *flags, "--out", str(out)]) == 0
    assert json.loads((out / "plain.geojson").read_text())["features"] == []
    assert main(["apply", str(given), *flags, "--out", str(out / "plain.nii.gz")]) == 2
    assert [path.name for path in out.iterdir()] == ["plain.geojson"]
