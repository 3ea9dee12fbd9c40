"""One table out of the receipts of the chunks."""

import pytest

from sbr_core.cli import main
from sbr_core.io.tables import read_tsv, write_tsv


@pytest.fixture
def collect(tmp_path):
    """`collect(rows, rows, …)`: exit code and table of one receipt for each list of rows."""

    def run(*receipts):
        paths = [tmp_path / "chunks" / f"{i}.tsv" for i in range(len(receipts))]
        for path, rows in zip(paths, receipts, strict=True):
            write_tsv(path, rows, ("section", "status", "message", "position_mm"))
        table = tmp_path / "sections.tsv"
        code = main(["collect", "--receipts", *map(str, paths), "--table", str(table)])
        return code, table

    return run


def ok(section, position_mm):
    return {"section": section, "status": "ok", "position_mm": position_mm}


BROKEN = {"section": "x", "status": "failed", "message": "x.png: not readable"}


def test_rows_of_all_chunks_by_position_and_failed_ones_last(collect):
    code, table = collect([ok("b", 10.0), BROKEN], [ok("c", 9.5), ok("a", -1.0)])
    assert code == 0
    assert [row["section"] for row in read_tsv(table)[1]] == ["a", "c", "b", "x"]


@pytest.mark.parametrize("receipts", [[[ok("a", 1.0)], [BROKEN]], [[BROKEN]]])
def test_fewer_than_two_good_sections_are_no_stack(collect, capsys, receipts):
    code, table = collect(*receipts)
    assert code == 2 and not table.exists()
    (line,) = capsys.readouterr().err.splitlines()
    assert "sections can be used, expected at least 2; x.png: not readable" in line


def test_a_section_in_two_chunks_is_refused(collect, capsys):
    code, _ = collect([ok("a", 1.0), ok("b", 2.0)], [ok("a", 1.0)])
    assert code == 2 and "section 'a' stands in" in capsys.readouterr().err
