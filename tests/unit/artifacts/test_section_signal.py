"""What `prepare` decided about a section's picture, through its table."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sbr_core.algorithms.evenness import SmoothField
from sbr_core.algorithms.staining import Channel
from sbr_core.artifacts.rows import Prepared, read_rows, write_rows
from sbr_core.artifacts.section_signal import Source
from sbr_core.errors import ReceiptError
from sbr_core.io.tables import read_tsv, write_tsv

FIELD = SmoothField(((0.1, 0.2), (-0.3, 0.0)), -0.5, 0.5)
PLAIN = Source(Channel("grey", "bright_background", 0.9))


def _row(source: Source) -> Prepared:
    return Prepared(
        section="a",
        position_mm=0.0,
        pixel_size_mm=0.1,
        working_pixel_mm=0.2,
        file_rows=40,
        file_columns=50,
        section_mm_from_working_mm=np.eye(3),
        tissue_mm2=9.0,
        image="a.png",
        **source.fields(),
    )


@pytest.mark.parametrize(
    "source",
    [
        PLAIN,
        Source(Channel("grey", "dark_background", 0.0, padding=0.0), staining=FIELD),
        Source(Channel("h&e", "dark_background", 1 / 3, (0.9, 0.8, 1 / 7), 0.25), FIELD, FIELD),
    ],
)
def test_a_source_survives_a_table(tmp_path, source):
    write_rows(tmp_path / "sections.tsv", [_row(source)])
    (row,) = read_rows(tmp_path / "sections.tsv", Prepared)
    assert Source.of(row) == source


def test_before_there_were_channels_there_was_luminance(tmp_path):
    write_rows(tmp_path / "new.tsv", [_row(PLAIN)])
    columns, rows = read_tsv(tmp_path / "new.tsv")
    later = {"channel", "white", "padding", "light", "staining"}
    write_tsv(tmp_path / "old.tsv", rows, [c for c in columns if c not in later])
    assert Source.of(read_rows(tmp_path / "old.tsv", Prepared)[0]) == PLAIN


@pytest.mark.parametrize("cell", ["5", "[]", "[1, 2, 3]", "{", "[" * 9999, '[[["x"]], 0, 1]'])
def test_a_damaged_field_of_light_is_told_in_one_line(cell):
    row = SimpleNamespace(
        table="sections.tsv", section="001", channel="grey", polarity="bright_background",
        background=0.1, white=None, padding=None, light=cell, staining="",
    )  # fmt: skip
    with pytest.raises(ReceiptError, match="sections.tsv: section '001': light or staining"):
        Source.of(row)
