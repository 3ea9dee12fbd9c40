"""`sbr apply` on tables of points: what programs write, what comes out, what is refused."""

import json

import numpy as np
import pandas as pd
import pytest
from mapped_brain import GRID, SECTIONS, tissue_points

from sbr_core.artifacts import names
from sbr_core.cli import main
from sbr_core.geometry import apply as through
from sbr_core.io.landmarks import read_world_marks
from sbr_core.io.point_tables import write_point_table
from sbr_core.tools import apply

N = 30
CLOSE_MM = 0.1 * GRID.spacing_mm


@pytest.fixture
def carry(truth, tmp_path):
    """Run `sbr apply` on one file or table; the table that it wrote, as text."""

    def run(given, from_, to, out="out.tsv", **flags):
        if isinstance(given, pd.DataFrame):
            given.to_csv(tmp_path / "in.csv", index=False)
            given = tmp_path / "in.csv"
        out = tmp_path / out
        apply.run(None, [given], results=truth.results, from_=from_, to=to, out=out, **flags)
        if out.suffix == ".parquet":
            return pd.read_parquet(out)
        return pd.read_csv(out, sep="\t" if out.suffix == ".tsv" else ",", dtype=str).fillna("")

    return run


def xyz(table, columns=("x_mm", "y_mm", "z_mm")):
    return table[list(columns)].to_numpy().astype(float)


def on_section(truth, section, seed=0):
    """(px, RAS mm) of some points of the tissue."""
    plane_mm = tissue_points(N, seed)
    return truth.px(section, plane_mm), truth.world(section, plane_mm)


@pytest.mark.parametrize("section", SECTIONS)
def test_cells_go_to_the_mri_and_back(truth, carry, section, tmp_path):
    """Their other columns too, to the letter."""
    px, world = on_section(truth, section)
    cells = pd.DataFrame({"id": [f"00{i}" for i in range(N)], "x_px": px[:, 0], "y_px": px[:, 1]})
    cells["note"] = '1.50, "µ"'
    there = carry(cells, f"section:{section}", "mri", "mri.csv")
    assert np.abs(xyz(there) - world).max() < CLOSE_MM
    assert list(there) == [
        *("id", "from_x_px", "from_y_px", "note", "x_mm", "y_mm", "z_mm", "section", "in_tissue"),
        "expected_error_mm",
    ]
    assert there["id"].tolist() == cells["id"].tolist() and set(there["note"]) == {'1.50, "µ"'}
    assert set(there["section"]) == {section} and set(there["in_tissue"]) == {"true"}
    assert set(there["expected_error_mm"]) == {""}, "nothing was estimated"
    back = carry(tmp_path / "mri.csv", "mri", f"section:{section}")
    pixel_size_mm = truth.pixel_size_mm[section]
    assert np.abs(xyz(back, ("x_px", "y_px")) - px).max() * pixel_size_mm < CLOSE_MM
    assert np.allclose(xyz(back, ("x_mm", "y_mm")), xyz(back, ("x_px", "y_px")) * pixel_size_mm)
    assert xyz(back, ["distance_to_plane_mm"]).max() < 1e-9
    assert back["id"].tolist() == cells["id"].tolist()
    assert np.allclose(xyz(back, ("from_x_mm", "from_y_mm", "from_z_mm")), xyz(there), atol=1e-9)


def test_every_way_to_count_gives_the_same_points(truth, carry, tmp_path):
    """Pixels, micrometres and millimetres; napari from the centre, QuPath from the corner."""
    section, size_mm = "boxed", truth.pixel_size_mm["boxed"]
    px, world = on_section(truth, section)
    x, y = px.T
    corner_um = (px + 0.5) * size_mm * 1000
    tables = {
        "px": {"x_px": x, "y_px": y},
        "um": {"x_um": x * size_mm * 1000, "y_um": y * size_mm * 1000},
        "mm": {"y_mm": y * size_mm, "x_mm": x * size_mm},
        "both": {"x_px": x, "y_px": y, "x_mm": x * size_mm, "y_mm": y * size_mm},
        "napari": {"index": np.arange(N, dtype=float), "axis-0": y, "axis-1": x},
        "qupath": {"Centroid X µm": corner_um[:, 0], "Centroid Y µm": corner_um[:, 1]},
        "greek": {"Centroid X μm": corner_um[:, 0], "Centroid Y μm": corner_um[:, 1]},
        "qupath px": {"Centroid X px": x + 0.5, "Centroid Y px": y + 0.5},
    }
    for name, table in tables.items():
        mapped = carry(pd.DataFrame(table), "section:boxed", "mri", force=True)
        assert np.abs(xyz(mapped) - world).max() < CLOSE_MM, name
        programs = [c for c in table if not c.startswith(("x_", "y_"))]
        assert set(programs) <= set(mapped), name
    points_tool = tmp_path / "points.tsv"  # a tab at the end of its header
    lines = [
        "x\ty\tclass\tname\t",
        *(f"{a + 0.5}\t{b + 0.5}\tcell\t{i}" for i, (a, b) in enumerate(px)),
    ]
    points_tool.write_text("\n".join(lines) + "\n", encoding="utf-8")
    mapped = carry(points_tool, "section:boxed", "mri", force=True)
    assert np.abs(xyz(mapped) - world).max() < CLOSE_MM and set(mapped["class"]) == {"cell"}
    # on a copy that was made three times smaller, edges kept
    small = pd.DataFrame(dict(zip(("x_px", "y_px"), ((px + 0.5) / 3 - 0.5).T, strict=True)))
    mapped = carry(small, "section:boxed", "mri", force=True, scale=3.0)
    assert np.abs(xyz(mapped) - world).max() < CLOSE_MM
    semicolons = tmp_path / "semicolons.csv"
    pd.DataFrame(tables["px"]).to_csv(semicolons, sep=";", index=False, encoding="utf-8-sig")
    assert (
        np.abs(xyz(carry(semicolons, "section:boxed", "mri", force=True)) - world).max() < CLOSE_MM
    )


def test_points_of_the_mri_in_every_file_of_slicer(truth, carry, tmp_path):
    px, world = on_section(truth, "both")
    table = pd.DataFrame(world, columns=["x_mm", "y_mm", "z_mm"]).assign(label=range(N))
    tables = {
        "ras": table.rename(columns={"x_mm": "r", "y_mm": "a", "z_mm": "s"}),
        "lps": (table * [-1, -1, 1, 1]).rename(columns={"x_mm": "l", "y_mm": "p", "z_mm": "s"}),
    }
    for given in (table, *tables.values()):
        back = carry(given, "mri", "section:both", force=True)
        assert np.abs(xyz(back, ("x_px", "y_px")) - px).max() / 6 < CLOSE_MM
    lps = world * [-1, -1, 1]
    points = [{"label": f"p{i}", "position": p.tolist()} for i, p in enumerate(lps)]
    markup = {"markups": [{"coordinateSystem": "LPS", "controlPoints": points}]}
    (tmp_path / "a.mrk.json").write_text(json.dumps(markup))
    back = carry(tmp_path / "a.mrk.json", "mri", "section:both", force=True)
    assert np.abs(xyz(back, ("x_px", "y_px")) - px).max() / 6 < CLOSE_MM
    assert back["label"][3] == "p3"
    # and out again
    apply.run(
        None, [tmp_path / "out.tsv"], results=truth.results, from_="section:both", to="mri",
        out=tmp_path / "b.mrk.json",
    )  # fmt: skip
    marks = read_world_marks(tmp_path / "b.mrk.json")
    assert [mark.name for mark in marks] == [f"p{i}" for i in range(N)]
    assert np.abs(np.array([mark.point for mark in marks]) - world).max() < CLOSE_MM


def test_cells_of_all_sections_in_one_table(truth, carry, tmp_path):
    parts, worlds = [], []
    for i, section in enumerate(SECTIONS):
        px, world = on_section(truth, section, seed=i)
        parts.append(pd.DataFrame({"section": section, "x_px": px[:, 0], "y_px": px[:, 1]}))
        worlds.append(world)
    order = np.random.default_rng(0).permutation(N * len(SECTIONS))
    cells = pd.concat(parts).iloc[order]
    there = carry(cells, "section", "mri", "mri.csv")
    assert np.abs(xyz(there) - np.vstack(worlds)[order]).max() < CLOSE_MM
    back = carry(tmp_path / "mri.csv", "mri", "section")
    assert back["section"].tolist() == cells["section"].tolist()
    sizes = np.array([truth.pixel_size_mm[section] for section in cells["section"]])
    apart_px = xyz(back, ("x_px", "y_px")) - cells[["x_px", "y_px"]].to_numpy()
    assert np.abs(apart_px * sizes[:, None]).max() < CLOSE_MM
    # a file named after its section needs no such column
    px, world = on_section(truth, "turned")
    named = tmp_path / "turned.cells.csv"
    pd.DataFrame({"x_px": px[:, 0], "y_px": px[:, 1]}).to_csv(named, index=False)
    assert np.abs(xyz(carry(named, "section", "mri", force=True)) - world).max() < CLOSE_MM


def test_planes_and_the_stack_are_spaces_too(truth, carry):
    plane_mm = tissue_points(N)
    px = truth.px("both", plane_mm)
    cells = pd.DataFrame({"x_px": px[:, 0], "y_px": px[:, 1]})
    on_plane = carry(cells, "section:both", "plane:both")
    assert np.abs(xyz(on_plane, ("x_mm", "y_mm")) - plane_mm).max() < CLOSE_MM
    assert np.allclose(
        xyz(on_plane, ("x_px", "y_px")) * GRID.spacing_mm, xyz(on_plane, ("x_mm", "y_mm"))
    )
    stack = carry(cells, "section:both", "stack", force=True)
    assert np.allclose(xyz(stack)[:, :2], xyz(on_plane, ("x_mm", "y_mm")))
    assert np.allclose(xyz(stack)[:, 2], 6.0)
    table = pd.DataFrame(xyz(stack), columns=["x_mm", "y_mm", "z_mm"])
    mri = carry(table, "stack", "mri", force=True)
    assert np.allclose(xyz(mri), through(np.linalg.inv(truth.stack_from_world), xyz(stack)))
    assert set(mri["in_tissue"]) == {"true"}
    far = carry(table.assign(x_mm=500.0), "stack", "mri", force=True)
    assert set(far["in_tissue"]) == {"false"}


def test_what_is_outside_is_marked_and_not_lost(truth, carry):
    px, world = on_section(truth, "plain")
    cells = pd.DataFrame({"x_px": [*px[:2, 0], -40.0], "y_px": [*px[:2, 1], 10.0]})
    there = carry(cells, "section:plain", "mri")
    assert there["in_tissue"].tolist() == ["true", "true", "false"]
    assert np.isfinite(xyz(there)).all()
    normal = np.linalg.inv(truth.stack_from_world)[:3, 2]
    deep = pd.DataFrame(
        world[:3] + normal * [[0.0], [0.9], [-5.0]], columns=["x_mm", "y_mm", "z_mm"]
    )
    back = carry(deep, "mri", "section:plain", force=True)
    assert np.allclose(xyz(back, ["distance_to_plane_mm"])[:, 0], [0.0, 0.9, 5.0])
    assert (back["x_px"] == "").tolist() == [False, False, True]
    assert back["in_tissue"].tolist() == ["true", "true", "false"]
    nearest = carry(deep, "mri", "section", force=True)
    assert nearest["section"].tolist() == ["plain", "plain", ""]
    near = carry(deep, "mri", "section:plain", force=True, within_mm=6.0)
    assert (near["x_px"] != "").all()


def test_many_files_and_folders(truth, tmp_path):
    folder = tmp_path / "cells"
    folder.mkdir()
    for section in ("plain", "both"):
        px, _ = on_section(truth, section)
        table = pd.DataFrame({"x_px": px[:, 0], "y_px": px[:, 1]})
        table.to_csv(folder / f"{section}.csv", index=False)
    (folder / "notes.docx").write_text("no table")
    (folder / "._plain.csv").write_bytes(b"\0\5")  # as macOS leaves it
    (folder / "old.csv").mkdir()
    out = tmp_path / "out"
    apply.run(None, [folder], results=truth.results, from_="section", to="mri", out=out)
    assert sorted(p.name for p in out.iterdir()) == ["both.csv", "plain.csv"]
    for section in ("plain", "both"):
        world = on_section(truth, section)[1]
        assert np.abs(xyz(pd.read_csv(out / f"{section}.csv")) - world).max() < CLOSE_MM


def test_parquet_keeps_the_types_of_its_columns(truth, carry, tmp_path):
    pytest.importorskip("pyarrow")
    px, world = on_section(truth, "plain")
    cells = pd.DataFrame({"x_px": px[:, 0], "y_px": px[:, 1], "n": np.arange(N, dtype=np.int16)})
    cells["kind"] = pd.Series(["a", "b"] * (N // 2), dtype="string")
    cells.to_parquet(tmp_path / "cells.parquet")
    there = carry(tmp_path / "cells.parquet", "section:plain", "mri", "out.parquet")
    assert np.abs(xyz(there) - world).max() < CLOSE_MM
    assert there.dtypes[["n", "in_tissue"]].tolist() == ["int16[pyarrow]", "bool"]
    assert there["kind"].tolist() == cells["kind"].tolist()


def test_an_index_of_pandas_is_a_column_of_parquet(truth, carry, tmp_path):
    pytest.importorskip("pyarrow")
    px, world = on_section(truth, "plain")
    cells = pd.DataFrame({"cell": [f"c{i}" for i in range(N)], "x_px": px[:, 0], "y_px": px[:, 1]})
    cells.set_index("cell").to_parquet(tmp_path / "cells.parquet")
    there = carry(tmp_path / "cells.parquet", "section:plain", "mri", "out.parquet")
    assert there["cell"].tolist() == cells["cell"].tolist()
    assert np.abs(xyz(there) - world).max() < CLOSE_MM


def test_columns_with_names_of_ours_are_kept(truth, carry):
    """The user's own z_mm beside x_px, y_px is no coordinate, and in_tissue is what he found."""
    px, world = on_section(truth, "plain")
    cells = pd.DataFrame({"x_px": px[:, 0], "y_px": px[:, 1], "z_mm": 7, "in_tissue": "perhaps"})
    cells["section"] = ["plain", "12"] * (N // 2)  # a number of his, of no section of the brain
    there = carry(cells, "section:plain", "mri")
    assert np.abs(xyz(there) - world).max() < CLOSE_MM
    assert set(there["from_z_mm"]) == {"7"} and set(there["from_in_tissue"]) == {"perhaps"}
    assert there["section"].tolist() == cells["section"].tolist()
    nearest = carry(cells, "section:plain", "section", force=True)
    assert set(nearest["section"]) == {"plain"}
    assert nearest["from_section"].tolist() == cells["section"].tolist()


def test_points_without_a_position_are_undefined_markups(tmp_path):
    table = pd.DataFrame({"label": ["a", "b"], "x_mm": [1.0, np.nan], "y_mm": [2.0, np.nan]})
    path = tmp_path / "a.mrk.json"
    write_point_table(path, [table.assign(z_mm=[3.0, np.nan])])
    assert "NaN" not in path.read_text()
    points = json.loads(path.read_text())["markups"][0]["controlPoints"]
    assert [p["positionStatus"] for p in points] == ["defined", "undefined"]
    assert [(mark.name, mark.point) for mark in read_world_marks(path)] == [("a", (1.0, 2.0, 3.0))]


def test_a_long_table_is_mapped_in_parts(truth, carry, monkeypatch):
    """As in one piece: the columns of the first part are those of all."""
    px, _ = on_section(truth, "flipped")
    cells = pd.DataFrame({"x_px": px[:, 0], "y_px": px[:, 1], "n": range(N)})
    whole = carry(cells, "section:flipped", "mri")
    monkeypatch.setattr("sbr_core.io.point_tables.ROWS_AT_ONCE", 7)
    assert whole.equals(carry(cells, "section:flipped", "mri", force=True))


GOOD = "x_px,y_px\n50,50\n"


@pytest.mark.parametrize(
    ("text", "from_", "to", "said"),
    [
        (GOOD, "section:nine", "mri", "no section 'nine' in"),
        (GOOD, "slide:plain", "mri", "--from: expected section:ID, plane:ID"),
        (GOOD, "section:plain", "MNI", "--to: expected section:ID, plane:ID, stack, mri or atlas"),
        (GOOD, "section:plain", "atlas", "the way to the atlas is not known: --atlas-xfm, or"),
        (GOOD, "section", "mri", "of which section? Expected --from section:ID, a column section"),
        (GOOD, "mri", "stack", "expected columns x_mm, y_mm, z_mm, found x_px, y_px"),
        ("x,y\n1,2\n", "section:plain", "mri", "columns x, y have no unit: name them x_px, y_px"),
        ("X,Y\n1,2\n", "section:plain", "mri", "columns x, y have no unit"),
        ("x,y,z\n1,2,3\n", "mri", "stack", "have no unit: name them x_mm, y_mm, z_mm"),
        ("x_px,y_px,x_um,y_um\n1,2,3,4\n", "section:plain", "mri", "in px and in um"),
        ("x_px,y_px,x_mm,y_mm\n1,2,0.5,1\n5,5,5,5\n", "section:plain", "mri", "row 2: x_px, y_px"),
        (
            "x_px,y_px\n1,2\n3,nan\n",
            "section:plain",
            "mri",
            "row 2: y_px: expected a number, found",
        ),
        ("x_px,y_px\n1,\n", "section:plain", "mri", "row 1: y_px: expected a number, found ''"),
        (
            "x_px;y_px\n1,5;2\n",
            "section:plain",
            "mri",
            "a number with a decimal point, found '1,5'",
        ),
        ("x_px,y_px\n1,5,2,5\n", "section:plain", "mri", "decimal commas between commas"),
        ("x_px,y_px\n1,5\n1,2,3\n", "section:plain", "mri", "decimal commas between commas"),
        ("x_px,y_px,x_px\n1,5,1\n", "section:plain", "mri", "the same column twice, 'x_px'"),
        ("x_px,y_px\n", "section:plain", "mri", "has no points"),
        ("", "section:plain", "mri", "is empty"),
        ("axis-0,axis-1,axis-2\n1,2,3\n", "section:plain", "mri", "found three axes"),
        ("section,x_px,y_px\nplain,1,2\nnone,1,2\n", "section", "mri", "row 2: no section 'none'"),
        (
            "section,x_px,y_px\nplain,1,2\nboth,1,2\n",
            "section:plain",
            "mri",
            "row 2: is of section 'both', not of section:plain; --from section",
        ),
        ("x_mm,y_mm,z_mm\n1,2,3\n", "section:plain", "mri", "z_mm are points in space"),
        ("x_um,y_um,z_um\n1,2,3\n", "plane:plain", "mri", "z_um are points in space"),
    ],
)
def test_what_cannot_be_mapped_is_told_in_one_line(truth, tmp_path, capfd, text, from_, to, said):
    given, out = tmp_path / "in.csv", tmp_path / "out" / "out.csv"
    given.write_text(text)
    flags = ["--results", str(truth.results), "--from", from_, "--to", to, "--out", str(out)]
    assert main(["apply", str(given), *flags]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0], lines
    assert not out.exists() and not [*tmp_path.glob("out/*")]


def test_outputs_that_are_there_or_cannot_be_are_refused(truth, tmp_path, capfd):
    given, out = tmp_path / "in.csv", tmp_path / "out.csv"
    given.write_text(GOOD)
    out.write_text("mine")

    def said(*arguments, to="mri"):
        where = ["--results", str(truth.results), "--from", "section:plain", "--to", to]
        assert main(["apply", *map(str, arguments), *where]) == 2
        assert out.read_text() == "mine"
        return capfd.readouterr().err

    assert "is there already; --force writes over it" in said(given, "--out", out)
    assert "expected .csv, .tsv" in said(given, "--out", tmp_path / "out.xlsx")
    assert "points in space" in said(given, "--out", tmp_path / "o.mrk.json", to="plane:plain")
    assert "is the input itself" in said(given, "--out", given, "--force")
    other = tmp_path / "other.csv"
    other.write_text(GOOD)
    assert "is a file, expected a folder for 2 results" in said(given, other, "--out", out)
    assert "two inputs would have this name" in said(given, given, "--out", tmp_path / "o")
    assert "no such file" in said(tmp_path / "none.csv", "--out", tmp_path / "o.csv")
    assert "expected points (.csv" in said(tmp_path / "a.doc", "--out", tmp_path / "o.csv")
    assert "a number above 0" in said(given, "--out", tmp_path / "o.csv", "--within-mm", "-1")
    assert said(given, "--out", tmp_path / "o.csv", "--method", "nmi").count("\n") == 1
    flags = ["--results", str(truth.results), "--from", "section:plain", "--to", "mri", "--force"]
    assert main(["apply", str(given), *flags, "--out", str(out)]) == 0
    assert out.read_text().startswith("from_x_px")


def test_a_brain_without_sbr_goes_by_what_is_finished(truth, tmp_path, capfd):
    """As after the preset `quick`; the log says which method, and one that is named counts."""
    import shutil

    folder, given = tmp_path / "b", tmp_path / "in.csv"
    shutil.copytree(truth.results, folder)
    (folder / "sbr").rename(folder / "mind")
    given.write_text(GOOD)
    flags = ["--results", str(folder), "--from", "section:plain", "--to", "mri"]
    for name in ("a.csv", "b.csv"):
        method = ["--method", "mind"] if name == "b.csv" else []
        assert main(["apply", str(given), *flags, "--out", str(tmp_path / name), *method]) == 0
        assert capfd.readouterr().err.splitlines()[-1] == "apply: method mind"
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()
    named = ["--out", str(tmp_path / "c.csv"), "--method", "sbr"]
    assert main(["apply", str(given), *flags, *named]) == 2
    assert "no finished results of the method 'sbr'; there are: mind" in capfd.readouterr().err


def test_a_prealigned_brain_has_no_mri_space(truth, tmp_path, capfd):
    import shutil

    folder = shutil.copytree(truth.results, tmp_path / "b")
    (folder / "align" / names.STACK_TRANSFORM).unlink()
    given = tmp_path / "in.csv"
    given.write_text(GOOD)
    flags = ["--results", str(folder), "--from", "section:plain", "--out", str(tmp_path / "o.csv")]
    assert main(["apply", str(given), *flags, "--to", "mri"]) == 2
    assert "a prealigned brain has no 3D MRI" in capfd.readouterr().err
    assert main(["apply", str(given), *flags, "--to", "stack"]) == 0
