"""Chunks of sections: what is kept, done again, swept, refused; checked on a toy stage."""

import json
import os
import threading
from dataclasses import dataclass

import pytest

from sbr_core.artifacts.receipts import SectionResult, check_chunks, run_sections, unfinished
from sbr_core.artifacts.rows import Row, read_rows
from sbr_core.errors import ImageError, ReceiptError, StorageError
from sbr_core.io.files import sha256_file, write_text


@dataclass(frozen=True, kw_only=True, eq=False)
class Word(Row):
    position_mm: float
    length: int


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
        path = self.out / "sections" / f"{name}_image.nii.gz"
        write_text(path, word)
        return SectionResult(Word(section=name, position_mm=1.5, length=len(word)), [path])

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
    rows = read_rows(toy.receipt, Word)
    assert [r.section for r in rows] == ["001", "002", "003"]  # ids stay text
    assert [r.length for r in rows] == [3, 3, 5]
    assert rows[2].file("_image.nii.gz").read_text() == "three"


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
    (toy.out / "sections" / "001_image.nii.gz").unlink()
    toy.run(WORDS | {"002": "zwei"})
    assert toy.done == ["001"]
    (toy.out / "sections" / "003_image.nii.gz").write_text("tampered")
    (toy.out / "sections" / "002.json").write_text("{")
    words = {n: (n, w) for n, w in (WORDS | {"002": "zwei"}).items()}
    assert unfinished(words, out_dir=toy.out, fingerprint=lambda i: i[1]) == ["002", "003"]
    toy.run(WORDS | {"002": "zwei"})
    assert toy.done == ["002", "003"]


def test_a_failed_section_is_reported_left_out_and_tried_again(toy, caplog):
    caplog.set_level("INFO", "sbr_core")
    toy.run(WORDS)
    toy.run(WORDS | {"002": "bad"})
    assert "section 002 FAILED: 002: cannot be used" in caplog.text
    assert not (toy.out / "sections" / "002_image.nii.gz").exists()
    assert [r.section for r in read_rows(toy.receipt, Word)] == ["001", "003"]
    failed = read_rows(toy.receipt, Word, only_ok=False)[1]
    assert (failed.status, failed.message, failed.files) == ("failed", "002: cannot be used", {})
    toy.run(WORDS | {"002": "bad"})
    assert toy.done == ["002"]


def test_a_section_whose_inputs_cannot_be_read_is_reported_like_any_other(toy):
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


def test_what_is_left_of_a_section_is_done_beside_the_next_ones(tmp_path):
    """Begun in order while threads finish; a row is its section's, whichever is done first."""
    toy, words = Toy(tmp_path), {f"{n:03d}": str(n) for n in range(12)}
    here, both_begun = threading.get_ident(), threading.Event()
    names, where = [], []

    def begin(item):
        names.append(item[0])
        if len(names) == 2:
            both_begun.set()

        def rest():
            where.append(threading.get_ident())
            assert both_begun.wait(20)  # the first waits for the second to be begun
            return toy.process(item)

        return rest

    common = {"stage": "toy", "out_dir": toy.out, "fingerprint": lambda item: item[1]}
    sections = {name: (name, word) for name, word in words.items()}
    rows = run_sections(sections, receipt=toy.receipt, process=begin, **common)
    assert names == list(words) and here not in where
    assert [row["section"] for row in rows] == list(words)
    assert [r.length for r in read_rows(toy.receipt, Word)] == [len(w) for w in words.values()]
    assert unfinished(sections, out_dir=toy.out, fingerprint=lambda item: item[1]) == []


@pytest.mark.parametrize("error", [ImageError("002: cannot be read"), StorageError("disk full")])
def test_a_fault_in_a_thread_is_that_of_its_section_or_of_the_run(tmp_path, error):
    toy = Toy(tmp_path)

    def fail():
        raise error

    def begin(item):
        return fail if item[0] == "002" else lambda: toy.process(item)

    def run(**more):
        sections = {name: (name, word) for name, word in WORDS.items()}
        return run_sections(
            sections, stage="toy", out_dir=toy.out, receipt=toy.receipt,
            fingerprint=lambda item: item[1], process=begin, **more,
        )  # fmt: skip

    if isinstance(error, ImageError):
        rows = run()
        assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
        assert rows[1]["message"] == str(error)
        toy.receipt.unlink()
    with pytest.raises(type(error), match=str(error)):
        run(strict=True)
    assert not toy.receipt.exists()
    assert (toy.out / "sections" / "001.json").exists()  # what was finished is kept


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
    assert left == {"001.json", "001_image.nii.gz", "101.json", "101_image.nii.gz"}


def test_the_sidecar_contains_what_made_it(toy):
    toy.run(WORDS)
    sidecar = json.loads((toy.out / "sections" / "001.json").read_text())
    assert (sidecar["stage"], sidecar["chunk"]) == ("toy", "000")
    assert sidecar["row"]["fingerprint"] == "one"
    assert "sbr_core" in sidecar["versions"]


@pytest.mark.parametrize("listed", ["{elsewhere}", "../../kept.txt", "link/kept.txt", "kept.txt"])
def test_the_sweep_removes_nothing_but_the_section_s_own_files(toy, listed):
    """Whatever a sidecar of somebody else's lists."""
    toy.run(WORDS)
    others = [folder / "kept.txt" for folder in (toy.out, *toy.out.parents[:2])]
    for path in others:
        path.write_text("kept")
    (toy.out / "link").symlink_to(toy.out.parent)
    sidecar = toy.out / "sections" / "001.json"
    content = json.loads(sidecar.read_text())
    name = listed.format(elsewhere=toy.out.parent / "kept.txt")
    del content["row_sha256"]  # as before it was recorded
    content["row"]["files"] |= {name: "0", "sections/003_image.nii.gz": "0"}
    sidecar.write_text(json.dumps(content))
    toy.run({"003": "three"})
    assert all(path.is_file() for path in others)
    assert (toy.out / "sections" / "003_image.nii.gz").is_file()
    assert not (toy.out / "sections" / "001_image.nii.gz").exists()
    assert not sidecar.exists()


@pytest.mark.parametrize(
    "text", ["5", "[]", "[" * 9999, '{"row": {}}', '{"chunk": "000", "row": {"files": 1}}', '"']
)
def test_a_section_with_a_damaged_sidecar_is_done_again(toy, text):
    toy.run(WORDS)
    (toy.out / "sections" / "002.json").write_text(text)
    toy.run(WORDS)
    assert toy.done == ["002"]
    (toy.out / "sections" / "002.json").write_text(text)
    toy.run({"001": "one"})  # swept, where it can be read


@pytest.mark.parametrize("name", ["sections", "pipe", "a\0b", "\ud800", "x" * 300])
@pytest.mark.parametrize("key", ["row_sha256", "versions"])
def test_a_section_whose_sidecar_lists_what_is_no_file_is_done_again(toy, name, key):
    toy.run(WORDS)
    os.mkfifo(toy.out / "pipe")
    sidecar = toy.out / "sections" / "002.json"
    content = json.loads(sidecar.read_text())
    content["row"]["files"] = {name: "0"}
    del content[key]
    sidecar.write_text(json.dumps(content))
    toy.run(WORDS)
    assert toy.done == ["002"]


def test_a_changed_digit_in_a_sidecar_computes_its_section_again(toy):
    toy.run(WORDS)
    sidecar = toy.out / "sections" / "002.json"
    sidecar.write_text(sidecar.read_text().replace('"position_mm": 1.5', '"position_mm": 1.7'))
    toy.run(WORDS)
    assert toy.done == ["002"]
    content = json.loads(sidecar.read_text())
    del content["row_sha256"]  # a sidecar of before it was recorded
    sidecar.write_text(json.dumps(content))
    toy.run(WORDS)
    assert toy.done == []


def test_a_receipt_that_is_cut_or_changed_is_refused(toy):
    toy.run(WORDS)
    whole = toy.receipt.read_text()
    for damaged in ("".join(whole.splitlines(True)[:3]), whole.replace("1.5", "1.7", 1)):
        toy.receipt.write_text(damaged)
        with pytest.raises(ReceiptError, match="000.tsv: is not the file that was written"):
            read_rows(toy.receipt, Word)
    # a sum that fits, as a stranger can write it, but fewer sections than the record names
    toy.receipt.write_text("".join(whole.splitlines(True)[:3]))
    record = toy.out / "chunks" / ".sums" / "000.tsv.json"
    content = json.loads(record.read_text()) | {"sha256": sha256_file(toy.receipt)}
    record.write_text(json.dumps(content))
    with pytest.raises(ReceiptError, match="has 2 sections, of the 3 that .* lacks 003"):
        read_rows(toy.receipt, Word)
    record.unlink()
    assert len(read_rows(toy.receipt, Word)) == 2


def test_an_old_receipt_that_lacks_a_section_does_not_agree_with_the_sidecars(toy):
    toy.run(WORDS)
    check_chunks({toy.receipt: set(WORDS)})
    with pytest.raises(ReceiptError, match="000.tsv: lacks section '002', which .*002.json says"):
        check_chunks({toy.receipt: {"001", "003"}})
    check_chunks({toy.out / "chunks" / "001.tsv": set()})


@pytest.mark.parametrize("section", ["../../victim", "/tmp/victim", "a/b", "", ".."])
def test_a_section_whose_id_is_a_path_stops_the_stage_before_it_writes_or_removes(
    toy, tmp_path, section
):
    toy.run(WORDS)
    victim = tmp_path / "victim.json"
    victim.write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    for word in ("one", "bad"):
        with pytest.raises(ReceiptError, match="letters, digits"):
            toy.run({**WORDS, section: word})
        assert toy.done == []
    assert sorted(tmp_path.rglob("*")) == before and victim.read_text() == "{}"
