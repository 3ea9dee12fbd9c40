"""`sbr check-sections` tells a picture of several sections, and looks at a row's box alone."""

import numpy as np
import pytest

from sbr_core.algorithms.pieces import doubt_of_pictures
from sbr_core.artifacts.section_looks import look_at_section
from sbr_core.config import PrepareOptions
from sbr_core.io.images import write_png
from sbr_core.io.manifests import SectionRow


def _slide(n_sections):
    rows, columns = np.mgrid[:90, :90] - 45
    tissue = (rows / 28) ** 2 + (columns / 36) ** 2 < 1 + 0.2 * np.sin(
        3 * np.arctan2(rows, columns)
    )
    section = np.where(tissue, 150 - columns, 248)
    noise = np.random.default_rng(0).integers(-2, 3, (90, n_sections * 90))
    return (np.hstack([section] * n_sections) + noise).astype(np.uint8)


@pytest.mark.parametrize(("n_sections", "box"), [(1, ""), (3, ""), (3, "90 0 90 90")])
def test_a_picture_of_several_sections_is_told(tmp_path, n_sections, box):
    write_png(tmp_path / "a.png", _slide(n_sections))
    row = SectionRow("a", str(tmp_path / "a.png"), 0.0, 0.2, box_px=box)
    looked = look_at_section(row, PrepareOptions(working_pixel_mm=0.4, min_tissue_mm2=5))
    assert ("pictures" in looked.doubts) == (n_sections > 1 and not box)
    assert looked.width_mm == pytest.approx(15, abs=2) or (n_sections > 1 and not box)
    if "pictures" in looked.doubts:
        assert "shows 3 pieces" in looked.doubts["pictures"]


def test_a_stack_is_doubted_where_many_pictures_show_several():
    one, three = _slide(1) < 200, _slide(3) < 200
    assert "3 of 5 pictures show several" in doubt_of_pictures([one, three, three, one, three])
    assert doubt_of_pictures([one] * 5 + [three]) == ""
