"""The error that is expected of a point goes with it, in every direction."""

import shutil

import numpy as np
import pandas as pd
import pytest
from mapped_brain import GRID, SECTIONS, SPACING_MM, tissue_points

import sbr_core
from sbr_core.artifacts import names
from sbr_core.artifacts.rows import Trusted, write_rows
from sbr_core.io.files import sha256_file
from sbr_core.io.volumes import write_plane
from sbr_core.tools import apply

SIZE_PX = 4
SIZE_MM = SIZE_PX * GRID.spacing_mm
ORIGIN_MM = (SIZE_PX - 1) / 2 * GRID.spacing_mm


@pytest.fixture(scope="module")
def results(truth, tmp_path_factory):
    """The brain with a map of errors: a cell's is a tenth of its column, plus its row; mm."""
    copied = tmp_path_factory.mktemp("trusted") / "b"
    shutil.copytree(truth.results, copied)
    folder = copied / "sbr" / names.TRUST
    rows, columns = np.indices((25, 30))
    errors = (0.1 * columns + rows + 0.05).astype(np.float32)
    lines = []
    for number, section in enumerate(SECTIONS[:-1]):
        path = names.section_file(folder, section, names.ERROR)
        write_plane(path, errors, SIZE_MM, (ORIGIN_MM, ORIGIN_MM))
        lines.append(
            Trusted(
                section=section,
                position_mm=number * SPACING_MM,
                expected_error_mm=1.0,
                likely_wrong=0.0,
                files={str(path.relative_to(folder)): sha256_file(path)},
            )
        )
    write_rows(folder / names.TABLE, lines)
    return copied


def expected(plane_mm):
    cells = np.round((plane_mm - ORIGIN_MM) / SIZE_MM)
    return 0.1 * cells[:, 0] + cells[:, 1] + 0.05


def test_a_point_has_the_error_of_the_cell_it_lies_in(truth, results):
    plane_mm = tissue_points(200)
    brain = sbr_core.Brain(results)
    found = brain.section("both").expected_error_mm(plane_mm)
    np.testing.assert_allclose(found, expected(plane_mm), atol=1e-5)
    outside = brain.section("both").expected_error_mm([[-50.0, 3.0], [np.nan, np.nan]])
    assert np.isnan(outside).all()
    assert np.isnan(brain.section(SECTIONS[-1]).expected_error_mm(plane_mm)).all(), "has no map"


def test_exported_points_have_it_both_ways_and_only_where_there_is_one(truth, results, tmp_path):
    plane_mm = tissue_points(20)

    def carried(table, **flags):
        table.to_csv(tmp_path / "in.csv", index=False)
        out = tmp_path / "out.csv"
        apply.run(None, [tmp_path / "in.csv"], results=results, out=out, force=True, **flags)
        return pd.read_csv(out)

    px = truth.px("both", plane_mm)
    there = carried(pd.DataFrame(px, columns=["x_px", "y_px"]), from_="section:both", to="mri")
    # a transform rounds, and a point near the edge of a cell may be on its other side
    same = np.isclose(there["expected_error_mm"], expected(plane_mm), atol=1e-4)
    assert same.mean() > 0.9
    world = pd.DataFrame(truth.world("both", plane_mm), columns=["x_mm", "y_mm", "z_mm"])
    back = carried(world, from_="mri", to="section")
    assert (back["section"] == "both").all()
    assert np.isclose(back["expected_error_mm"], expected(plane_mm), atol=1e-4).mean() > 0.9
    assert "expected_error_mm" not in carried(world, from_="mri", to="stack")
    px = truth.px(SECTIONS[-1], plane_mm)
    none = carried(pd.DataFrame(px, columns=["x_px", "y_px"]), from_="section:boxed", to="mri")
    assert none["expected_error_mm"].isna().all()
