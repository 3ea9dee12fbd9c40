"""`sbr import-landmarks`: what was clicked on in other programs comes out where it lies."""

import json

import numpy as np
import pytest
from scipy import ndimage

from sbr_core.cli import main
from sbr_core.io.corrections import Correction, read_corrections, write_corrections
from sbr_core.io.images import write_png
from sbr_core.io.manifests import Landmark, read_landmarks
from sbr_core.io.tables import read_tsv, write_tsv

PIXEL_MM = 0.02
SHAPE = 120, 160
SECTIONS = ("012", "012.5")  # the name of one begins the other's
# landmark -> (x, y) mm in the file of the section, and RAS mm in the MRI
TRUTH = {
    "012": {"fornix": ((1.3, 0.72), (-12.5, 30.0, 4.25)), "tail": ((2.0, 1.9), (8.0, -3.5, 10.0))},
    "012.5": {"fornix": ((0.5, 1.1), (-11.5, 31.0, 4.0))},
}


@pytest.fixture
def folder(tmp_path):
    """A manifest and its images, which only have a size."""
    rows = []
    for i, section in enumerate(SECTIONS):
        for name in (f"{section}.png", f"{section}_mri.png"):
            write_png(tmp_path / "images" / name, np.zeros(SHAPE, np.uint8))
        rows.append(
            {
                "section": section,
                "image": f"images/{section}.png",
                "position_mm": float(i),
                "pixel_size_mm": PIXEL_MM,
                "mri_image": f"images/{section}_mri.png",
            }
        )
    write_tsv(tmp_path / "sections.tsv", rows)
    return tmp_path


def napari(folder, section, centres_px, names=None):
    """A CSV of napari: names instead of the index, if there are any."""
    lines = ["index,axis-0,axis-1" + (",name" if names else "")]
    for i, (x, y) in enumerate(centres_px):
        lines.append(f"{float(i)},{y},{x}" + (f",{names[i]}" if names else ""))
    return text(folder / f"{section}.csv", "\n".join(lines) + "\n")


def text(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    return path


def slicer(path, labelled):
    """A .mrk.json of 3D Slicer; it writes LPS."""
    points = [
        {"label": label, "position": [-x, -y, z], "positionStatus": "defined"}
        for label, (x, y, z) in labelled
    ]
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": points}
    return text(path, json.dumps({"markups": [markup]}))


def run(folder, *words):
    """Exit code; words that are lists are spread out."""
    given = [w for word in words for w in (word if isinstance(word, list) else [word])]
    rows, out = folder / "sections.tsv", folder / "landmarks.tsv"
    return main(["import-landmarks", "--rows", str(rows), "--out", str(out), *map(str, given)])


def centres(section):
    return [np.array(xy) / PIXEL_MM for xy, _ in TRUTH[section].values()]


def assert_is_the_truth(folder, prealigned=False):
    """The table that `evaluate` reads has every landmark where it lies."""
    found = read_landmarks(folder / "landmarks.tsv", SECTIONS, prealigned=prealigned)
    truth = [(s, *pair) for s in SECTIONS for pair in TRUTH[s].values()]
    assert [mark.section for mark in found] == [s for s, *_ in truth]
    for mark, (_, section_mm, mri_mm) in zip(found, truth, strict=True):
        np.testing.assert_allclose(mark.section_mm, section_mm, atol=1e-9)
        target = mark.plane_mm if prealigned else mark.mri_mm
        np.testing.assert_allclose(target, section_mm if prealigned else mri_mm, atol=1e-9)


def test_napari_and_slicer_by_name(folder, capsys):
    marks = folder / "marks"
    points = [napari(marks, s, centres(s), list(TRUTH[s])) for s in SECTIONS]
    both = [(f"{s}:{n}", mri) for s in SECTIONS for n, (_, mri) in reversed(TRUTH[s].items())]
    mri = slicer(marks / "all.mrk.json", both)
    assert run(folder, "--points", points, "--mri-points", mri) == 0
    assert "3 landmarks on 2 sections" in capsys.readouterr().err
    assert_is_the_truth(folder)
    rows = read_tsv(folder / "landmarks.tsv")[1]
    assert [row["landmark"] for row in rows] == ["fornix", "tail", "fornix"]


def test_qupath_and_slicer_a_file_per_section(folder):
    points, mri = [], []
    for section in SECTIONS:
        features = [
            {
                "type": "Feature",
                "geometry": {"type": "Point", "coordinates": (centre + 0.5).tolist()},
                "properties": {"objectType": "annotation", "name": name},
            }
            for name, centre in zip(TRUTH[section], centres(section), strict=True)
        ]
        collection = {"type": "FeatureCollection", "features": features}
        points.append(text(folder / "q" / f"{section}.geojson", json.dumps(collection)))
        labelled = [(name, mri_mm) for name, (_, mri_mm) in TRUTH[section].items()]
        mri.append(slicer(folder / "m" / f"{section}.mrk.json", labelled))
    assert run(folder, "--points", points, "--mri-points", mri) == 0
    assert_is_the_truth(folder)


def test_points_of_napari_and_labels_of_slicer_pair_by_order(folder):
    points = [napari(folder / "marks", s, centres(s)) for s in SECTIONS]
    mri = [
        slicer(
            folder / "m" / f"{s}.mrk.json",
            [(f"F-{i}", mri) for i, (_, mri) in enumerate(TRUTH[s].values(), 1)],
        )
        for s in SECTIONS
    ]
    assert run(folder, "--points", points, "--mri-points", mri) == 2
    assert run(folder, "--points", points, "--mri-points", mri, "--by-order") == 0
    assert_is_the_truth(folder)


@pytest.mark.parametrize("scale", [2, 4])
def test_a_dot_marked_on_a_lower_level_of_the_pyramid(folder, scale):
    """The level is the mean of blocks of pixels; its dot is found by its centre of mass there."""
    rows, columns = SHAPE
    y, x = np.indices(SHAPE)
    centre = np.array([70.3, 41.8])
    image = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * 5.0**2))
    level = image.reshape(rows // scale, scale, columns // scale, scale).mean(axis=(1, 3))
    seen = np.array(ndimage.center_of_mass(level))[::-1]
    points = napari(folder / "marks", "012", [seen])
    planes = napari(folder / "planes", "012", [centre])
    marks = ["--points", points, "--plane-points", planes, "--scale", scale]
    assert run(folder, *marks) == 0
    (mark,) = read_landmarks(folder / "landmarks.tsv", SECTIONS, prealigned=True)
    np.testing.assert_allclose(mark.section_mm, centre * PIXEL_MM, atol=1e-3 * PIXEL_MM)
    np.testing.assert_allclose(mark.section_mm, mark.plane_mm, atol=1e-3 * PIXEL_MM)


def test_a_prealigned_brain_has_points_on_its_planes(folder):
    points = [napari(folder / "marks", s, centres(s)) for s in SECTIONS]
    lower = [napari(folder / "planes", s, (np.array(centres(s)) - 1) / 3) for s in SECTIONS]
    assert run(folder, "--points", points, "--plane-points", lower, "--plane-scale", 3) == 0
    assert_is_the_truth(folder, prealigned=True)


def test_faults_are_one_line_that_names_file_and_row(folder, capsys):
    marks = folder / "marks"
    good = napari(marks, "012", centres("012"), ["fornix", "tail"])
    labelled = [(name, mri) for name, (_, mri) in TRUTH["012"].items()]
    mri = slicer(marks / "012.mrk.json", labelled)

    def said(*words):
        assert run(folder, *words) == 2
        assert not (folder / "landmarks.tsv").exists()
        (line,) = (s for s in capsys.readouterr().err.splitlines() if s.startswith("sbr "))
        return line.removeprefix("sbr import-landmarks: ")

    given = ["--points", good, "--mri-points", mri]
    assert "expected --mri-points or" in said("--points", good)
    assert "expected --mri-points or" in said(*given, "--plane-points", good)
    assert "--scale: expected a number above 0, found -1" in said(*given, "--scale", -1)
    strange = napari(marks, "99", [(1, 1)])
    assert said("--points", strange, "--mri-points", mri).startswith(
        f"{strange}: expected a file named after its section"
    )
    unpaired = slicer(marks / "012.one.mrk.json", labelled[:1])
    assert said("--points", good, "--mri-points", unpaired) == (
        f"{good}: line 3: landmark 'tail' has no partner of that name (there are: fornix)"
    )
    more = slicer(marks / "012.more.mrk.json", [*labelled, ("knee", (0, 0, 0))])
    assert said("--points", good, "--mri-points", more) == (
        f"{more}: control point 3: landmark 'knee' has no partner of that name (there are: fornix,"
        " tail)"
    )
    assert said("--points", good, "--mri-points", more, "--by-order") == (
        f"{more}: control point 3: point 3 of 3 has no partner: the other file has 2"
    )
    nameless = slicer(marks / "all.mrk.json", [("fornix", (0, 0, 0))])
    assert "control point 1: label 'fornix': expected SECTION:NAME" in said(
        "--points", good, "--mri-points", nameless
    )
    assert f"{good}: line 2: column" in said(*given, "--scale", 4)
    empty = text(marks / "012.empty.csv", "index,axis-0,axis-1\n")
    none = slicer(marks / "012.none.mrk.json", [])
    assert "no points in this file" in said("--points", empty, "--mri-points", none)


def test_a_section_without_a_plane_takes_no_plane_points(folder, capsys):
    path = folder / "sections.tsv"
    path.write_text(path.read_text().replace("images/012_mri.png", ""))
    points = napari(folder / "marks", "012", centres("012"))
    assert run(folder, "--points", points, "--plane-points", points) == 2
    assert "section '012' has no mri_image" in capsys.readouterr().err


def test_pairs_to_obey_go_into_a_table_of_corrections_and_leave_its_other_rows(folder):
    sections = list(SECTIONS)
    path = folder / "landmarks.tsv"
    old = Landmark("012", (9.0, 9.0), mri_mm=(1.0, 2.0, 3.0), name="old")
    before = [Correction("012", "accept", (old,)), Correction("012.5", note="pale")]
    before.append(Correction("gone", note="of a section that is excluded"))
    write_corrections(path, before, prealigned=False)
    points = napari(folder / "marks", "012", centres("012"), ["fornix", "tail"])
    labelled = [(name, mri) for name, (_, mri) in TRUTH["012"].items()]
    mri = slicer(folder / "marks" / "012.mrk.json", labelled)
    assert run(folder, "--points", points, "--mri-points", mri, "--constrain") == 0
    said = read_corrections(path, [*sections, "gone"], prealigned=False)
    assert said["gone"] == before[2]
    assert said["012.5"] == before[1] and said["012"].verdict == "accept"
    assert [mark.name for mark in said["012"].landmarks] == ["fornix", "tail"]
    for mark in said["012"].landmarks:
        section_mm, mri_mm = TRUTH["012"][mark.name]
        np.testing.assert_allclose([*mark.section_mm, *mark.mri_mm], [*section_mm, *mri_mm])
