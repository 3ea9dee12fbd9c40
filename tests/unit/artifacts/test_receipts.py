"""Chunks of sections: what is kept, done again, swept, refused; checked on a toy stage."""

import json

import numpy as np
import pytest

from sbr_core.artifacts import receipts
from sbr_core.artifacts.receipts import (
    SectionResult,
    file_of,
    matrix_columns,
    matrix_of,
    read_table,
    run_sections,
    stage_dir,
    unfinished,
)
from sbr_core.errors import ImageError, ReceiptError
from sbr_core.io.files import write_text


class Toy:
    """A stage that writes each section's word to a file, and counts its work."""

    def __init__(self, tmp_path):
        self.out = tmp_path / "toy"
        self.receipt = self.out / "chunks" / "000.tsv"
        self.done = []

    def process(self, item):
        name, word = item
        self.done.append(name)
        if word == "bad":
            raise ImageError(f"{name}: cannot\nbe used")
        path = self.out / "sections" / f"{name}_word.txt"
        write_text(path, word)
        return SectionResult({"position_mm": 1.5, "length": len(word)}, [path])

    def run(self, words, **kwargs):
        self.done = []
        kwargs.setdefault("receipt", self.receipt)
        return run_sections(
            {name: (name, word) for name, word in words.items()},
            stage="toy",
            out_dir=self.out,
            fingerprint=lambda item: item[1],
            process=self.process,
            **kwargs,
        )


@pytest.fixture
def toy(tmp_path):
    return Toy(tmp_path)


WORDS = {"001": "one", "002": "two", "003": "three"}


def test_the_receipt_lists_sections_files_and_columns(toy):
    toy.run(WORDS)
    rows = read_table(toy.receipt)
    assert [r["section"] for r in rows] == ["001", "002", "003"]  # ids stay text
    assert [r["length"] for r in rows] == [3.0, 3.0, 5.0]
    assert file_of(toy.receipt, rows[2], "_word.txt").read_text() == "three"
    with pytest.raises(ReceiptError, match="lists no file"):
        file_of(toy.receipt, rows[2], "_image.nii.gz")


def test_nothing_changed_nothing_done_even_when_the_receipt_was_deleted(toy):
    toy.run(WORDS)
    before = toy.receipt.read_bytes()
    toy.receipt.unlink()  # as Snakemake does before a job
    toy.run(WORDS)
    assert toy.done == []
    assert toy.receipt.read_bytes() == before


def test_only_changed_deleted_or_damaged_sections_are_done_again(toy):
    toy.run(WORDS)
    toy.run(WORDS | {"002": "zwei"})
    assert toy.done == ["002"]
    (toy.out / "sections" / "001_word.txt").unlink()
    toy.run(WORDS | {"002": "zwei"})
    assert toy.done == ["001"]
    (toy.out / "sections" / "003_word.txt").write_text("tampered")
    (toy.out / "sections" / "002.json").write_text("{")
    words = {n: (n, w) for n, w in (WORDS | {"002": "zwei"}).items()}
    assert unfinished(words, out_dir=toy.out, fingerprint=lambda i: i[1]) == ["002", "003"]
    toy.run(WORDS | {"002": "zwei"})
    assert toy.done == ["002", "003"]


def test_a_failed_section_is_told_left_out_and_tried_again(toy, capsys):
    toy.run(WORDS)
    toy.run(WORDS | {"002": "bad"})
    assert "section 002 FAILED: 002: cannot be used" in capsys.readouterr().err
    assert not (toy.out / "sections" / "002_word.txt").exists()
    assert [r["section"] for r in read_table(toy.receipt)] == ["001", "003"]
    failed = read_table(toy.receipt, only_ok=False)[1]
    assert (failed["status"], failed["message"], failed["files"]) == (
        "failed",
        "002: cannot be used",
        {},
    )
    toy.run(WORDS | {"002": "bad"})
    assert toy.done == ["002"]


def test_a_section_whose_inputs_cannot_be_read_is_told_like_any_other(toy):
    def fingerprint(item):
        if item[0] == "002":
            raise ReceiptError("two.png: may not be read")
        return item[1]

    rows = run_sections(
        {name: (name, word) for name, word in WORDS.items()},
        stage="toy", out_dir=toy.out, receipt=toy.receipt, fingerprint=fingerprint,
        process=toy.process,
    )  # fmt: skip
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert rows[1]["message"] == "two.png: may not be read"


def test_strict_stops_without_a_receipt_but_keeps_finished_sections(toy):
    with pytest.raises(ImageError, match="002: cannot be used"):
        toy.run(WORDS | {"002": "bad"}, strict=True)
    assert not toy.receipt.exists()
    toy.run(WORDS)
    assert toy.done == ["002", "003"]


def test_sections_that_left_are_swept_but_not_those_of_another_chunk(toy):
    toy.run(WORDS)
    toy.run({"101": "x"}, receipt=toy.out / "chunks" / "001.tsv")
    toy.run({"001": "one"})
    left = {f.name for f in (toy.out / "sections").iterdir()}
    assert left == {"001.json", "001_word.txt", "101.json", "101_word.txt"}


def test_a_reader_refuses_files_that_are_not_the_receipts(toy):
    toy.run(WORDS)
    path = toy.out / "sections" / "002_word.txt"
    path.write_text("tampered")
    with pytest.raises(ReceiptError, match=r"002_word.txt: is not the file"):
        read_table(toy.receipt)
    path.unlink()
    with pytest.raises(ReceiptError, match=r"002_word.txt: missing"):
        read_table(toy.receipt, verify=["_word.txt"])
    assert len(read_table(toy.receipt, verify=["_other.txt"])) == 3
    assert len(read_table(toy.receipt, verify=False)) == 3


def test_the_sidecar_says_what_made_it(toy):
    toy.run(WORDS)
    sidecar = json.loads((toy.out / "sections" / "001.json").read_text())
    assert (sidecar["stage"], sidecar["chunk"]) == ("toy", "000")
    assert sidecar["row"]["fingerprint"] == "one"
    assert "sbr_core" in sidecar["versions"]


def test_a_table_knows_its_stages_folder(tmp_path):
    assert stage_dir(tmp_path / "prepare" / "chunks" / "000.tsv") == tmp_path / "prepare"
    assert stage_dir(tmp_path / "prepare" / "sections.tsv") == tmp_path / "prepare"


def test_matrices_are_kept_to_the_last_digit():
    matrix = [[1 / 3, 2.0, -3e-17], [0.1, 1e9, 7.0], [0.0, 0.0, 1.0]]
    columns = matrix_columns(matrix, "a")
    assert set(columns) == {"a00", "a01", "a02", "a10", "a11", "a12"}
    assert matrix_of({k: repr(v) for k, v in columns.items()}, "a") == matrix


def test_the_look_of_a_section_does_not_depend_on_its_metadata():
    row = {
        "files": {"sections/a_image.nii.gz": "1", "sections/a_mask.nii.gz": "2"},
        "stain": "nissl",
        "fingerprint": "x",
        **receipts.matrix_columns(np.eye(3), "g"),
    }
    same = receipts.pixels_digest(row)
    assert (
        receipts.pixels_digest({**row, "stain": "", "labels": "l.png", "fingerprint": "y"}) == same
    )
    assert receipts.pixels_digest({**row, "g02": 1.0}) != same
    other = {**row["files"], "sections/a_mask.nii.gz": "3"}
    assert receipts.pixels_digest({**row, "files": other}) != same
