"""`sbr verify` on small made-up results: it names what was changed, and nothing else."""

import json
import os

import numpy as np
import pytest

from sbr_core.artifacts.global_fit import write_plane_grid
from sbr_core.artifacts.receipts import SectionResult, run_sections
from sbr_core.artifacts.rows import Row
from sbr_core.errors import ReceiptError
from sbr_core.geometry import PlaneGrid
from sbr_core.io.files import sha256_file, write_json
from sbr_core.io.images import write_png
from sbr_core.io.volumes import write_plane
from sbr_core.stages import collect
from sbr_core.tools import verify


@pytest.fixture
def results(tmp_path):
    brain = tmp_path / "results" / "b"
    folder = brain / "prepare"

    def process(section):
        path = folder / "sections" / f"{section}_image.nii.gz"
        write_plane(path, np.full((5, 6), float(section)), 0.5)
        return SectionResult(Row(section=section), [path])

    receipt = folder / "chunks" / "1of1.tsv"
    run_sections(
        {"1": "1", "2": "2", "3": "3"}, stage="prepare", out_dir=folder, receipt=receipt,
        fingerprint=str, process=process,
    )  # fmt: skip
    collect.run(None, receipts=[receipt], table=folder / "sections.tsv")
    write_plane_grid(brain / "align" / "plane_grid.json", PlaneGrid((5, 6), 0.5), 1.0)
    write_png(brain / "align" / "overview.png", np.zeros((50, 50), np.uint8))
    return tmp_path / "results"


def test_results_as_they_were_written_are_right(results, caplog):
    caplog.set_level("INFO", "sbr_core")
    verify.run(None, results)
    assert "all is as it was written; 6 of 10 files compared" in caplog.messages[-1]


def flip(path):
    damaged = bytearray(path.read_bytes())
    damaged[-6] ^= 4
    path.write_bytes(damaged)


def cut_with_its_sum(path):
    """As a stranger can do it."""
    path.write_text("".join(path.read_text().splitlines(True)[:3]))
    record = path.parent / ".sums" / f"{path.name}.json"
    content = json.loads(record.read_text()) | {"sha256": sha256_file(path), "sections": None}
    record.write_text(json.dumps(content))


def link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def lists(name):
    """A sidecar that lists what no disk can have."""

    def change(path):
        content = json.loads(path.read_text())
        content["row"]["files"] = {name: "0"}
        del content["row_sha256"]
        path.write_text(json.dumps(content))

    return change


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (flip, "prepare/sections/2_image.nii.gz"),
        (flip, "prepare/sections/2.json"),
        (flip, "prepare/chunks/1of1.tsv"),
        (flip, "prepare/sections.tsv"),
        (flip, "align/plane_grid.json"),
        (flip, "align/overview.png"),
        (flip, "align/.sums/plane_grid.json.json"),
        (lambda path: path.unlink(), "prepare/sections/2_image.nii.gz"),
        (lambda path: path.unlink(), "align/plane_grid.json"),
        (cut_with_its_sum, "prepare/chunks/1of1.tsv"),
        (link, "align/overview.png"),
        (pipe, "align/plane_grid.json"),
        (pipe, "prepare/sections/2_image.nii.gz"),
        (pipe, "prepare/sections/2.json"),
        (lists("a\0b"), "prepare/sections/2.json"),
        (lists("\ud800"), "prepare/sections/2.json"),
        (lists("x" * 300), "prepare/sections/2.json"),
    ],
)
def test_what_was_changed_is_named(results, caplog, fault, name):
    fault(results / "b" / name)
    with pytest.raises(ReceiptError, match=r"[1-5] faults, named above"):
        verify.run(None, results / "b" if "align" in name else results)
    assert name.removesuffix(".json").replace("/.sums", "") in "\n".join(caplog.messages)


def test_what_a_split_or_a_killed_run_left_behind_is_no_fault(results, caplog):
    """Receipts of chunks that there are no more list files as they were then."""
    folder = results / "b" / "prepare"
    receipt = folder / "chunks" / "1of1.tsv"
    write_json(results / "b" / "plan" / "collect.json", {"chunks": ["1of2"]})
    receipt.with_name("1of2.tsv").write_bytes(receipt.read_bytes())
    listed = receipt.read_text()
    receipt.write_text(listed.replace('gz"": ""', 'gz"": ""0'))
    receipt.with_name(".sums").joinpath("1of1.tsv.json").unlink()
    (folder / "chunks" / ".sums" / ".tmp-1-1of1.tsv.json").write_text("{")
    assert receipt.read_text() != listed
    verify.run(None, results)
    write_json(results / "b" / "plan" / "collect.json", {"chunks": ["1of1"]})
    verify._chunks_of.cache_clear()
    with pytest.raises(ReceiptError, match="faults"):
        verify.run(None, results)
