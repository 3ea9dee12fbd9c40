"""What may go of finished results, what stays, and that nothing goes unasked."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from sbr_core.errors import ConfigError, ReceiptError, StorageError
from sbr_core.io.tables import write_tsv
from sbr_core.tools import clean

DEAD = 2**22 + 1
"""Number of no process: above the most that Linux gives."""


def _write(path: Path, text: str = "bytes") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _receipt(path: Path, *sections: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tsv(path, [{"section": s, "status": "ok", "files": {}} for s in sections])


@pytest.fixture
def brain(tmp_path, monkeypatch) -> Path:
    """Folder of a finished brain of two sections in one chunk, by linear and sbr."""
    monkeypatch.chdir(tmp_path)
    folder = Path("results", "one")
    _write(folder / "plan" / "collect.json", json.dumps({"chunks": ["1of1"]}))
    inputs = {"linear_sections": {}, "sbr_sections": {}}
    _write(folder / "evaluation" / "evaluation.json", json.dumps({"inputs": inputs}))
    for stage in ("prepare", "linear", "sbr"):
        _receipt(folder / stage / "chunks" / "1of1.tsv", "a", "b")
        for section in "ab":
            _write(folder / stage / "sections" / f"{section}_image.nii.gz")
            _write(folder / stage / "sections" / f"{section}.json", "{}")
    _write(folder / "sbr" / "weights.safetensors")
    _write(folder / "logs" / "prepare" / "1of1.log")
    _write(folder / "benchmarks" / "prepare" / "1of1.tsv", "s\tcpu_time\n1.0\t1.0\n")
    return folder


@pytest.fixture
def needless(brain) -> list[Path]:
    """What nothing needs, one of each kind that goes without being named."""
    paths = [
        _write(Path("results/.checkpoints/one/sbr/key/step.pt")).parents[1],
        _write(brain / "sbr" / f".tmp-{DEAD}-weights.safetensors"),
        _write(brain / "prepare" / f".old-{DEAD}-x.zarr" / "zarr.json").parent,
        _write(brain / "logs" / "prepare" / "1of2.log"),
        _write(brain / "benchmarks" / "prepare" / "2of2.tsv"),
        _write(brain / "plan" / "resample.1of2.json"),
        _write(brain / "prepare" / "chunks" / "1of2.rows.json"),
        _write(brain / "sbr" / "sections" / "gone_registered.nii.gz"),
        _write(brain / "sbr" / "sections" / "gone.json"),
        _write(brain / "sbr" / "transforms" / "gone_from-section_to-stack_mode-image_xfm.h5", "x"),
    ]
    for path in paths:
        os.utime(path, (1, 1))
    return paths


def _files() -> set[Path]:
    return {path for path in Path("results").rglob("*") if path.is_file()}


def test_what_nothing_needs_goes_and_everything_else_stays(brain, needless, caplog):
    caplog.set_level(logging.INFO)
    before = _files()
    clean.run(None, Path("results"))
    assert _files() == before and "can be freed: --yes removes it" in caplog.text
    clean.run(None, Path("results"), yes=True)
    assert not any(path.exists() for path in needless)
    kept = {path for path in before if not any(n in (path, *path.parents) for n in needless)}
    assert _files() == kept
    caplog.clear()
    clean.run(None, Path("results"))
    assert caplog.messages[-1].startswith("clean: logs:")  # named, and left
    assert "0 kB can be freed" in caplog.text


def test_what_is_freed_is_what_is_said(brain, needless, caplog):
    caplog.set_level(logging.INFO)

    def taken() -> int:
        return sum(path.stat().st_size for path in _files())

    _write(needless[1], "x" * 3_000_000)
    os.utime(needless[1], (1, 1))
    before = taken()
    clean.run(None, Path("results"), ["leftovers"], yes=True)
    assert f"clean: {(before - taken()) / 1e6:.3g} MB freed" in caplog.messages


def test_a_chunk_that_is_not_done_keeps_the_sections_of_its_stage(brain):
    """A killed run goes on from its sidecars, which no receipt names yet."""
    (brain / "sbr" / "chunks" / "1of1.tsv").unlink()
    kept = _write(brain / "sbr" / "sections" / "new_registered.nii.gz")
    clean.run(None, Path("results"), yes=True)
    assert kept.is_file() and (brain / "sbr" / "sections" / "a.json").is_file()


def test_a_training_that_did_not_end_goes_on_unless_it_is_named(brain, caplog):
    caplog.set_level(logging.INFO)
    step = _write(Path("results/.checkpoints/one/nmi/key/step.pt"))
    clean.run(None, Path("results"), yes=True)
    assert step.is_file() and "these trainings from step 0" in caplog.text
    clean.run(None, Path("results"), ["unfinished"], yes=True)
    assert not step.exists()


def test_what_a_living_process_writes_stays(brain):
    old = _write(brain / "sbr" / f".tmp-{os.getpid()}-x")
    os.utime(old, (1, 1))
    young = _write(brain / "sbr" / f".tmp-{DEAD}-x")
    clean.run(None, Path("results"), yes=True)
    assert old.is_file() and young.is_file()


def test_methods_of_no_table_go_by_name_and_say_what_they_took(brain, caplog):
    caplog.set_level(logging.INFO)
    _write(brain / "nmi" / "weights.safetensors")
    _write(brain / "benchmarks" / "train" / "nmi.tsv", "s\tcpu_time\n600.0\t1.0\n")
    clean.run(None, Path("results"), yes=True)
    assert (brain / "nmi").is_dir() and "which took 10 min" in caplog.text
    clean.run(None, Path("results"), ["methods"], yes=True)
    assert not (brain / "nmi").exists() and (brain / "sbr").is_dir()


def test_brains_that_the_sheet_does_not_name_go_by_name(brain):
    _write(Path("results/gone/plan/collect.json"), "{}")
    _write(Path("results/one-simulated/plan/collect.json"), "{}")
    _write(Path("sheet.tsv"), "brain\tsections\tmri\torientation\none\ts.tsv\tm.nii\tLIA\n")
    with pytest.raises(ConfigError, match="--sheet"):
        clean.run(None, Path("results"), ["brains"])
    clean.run(None, Path("results"), ["brains"], sheet=Path("sheet.tsv"), yes=True)
    assert sorted(os.listdir("results")) == ["one", "one-simulated"]


def test_links_are_not_followed(brain, tmp_path):
    outside = _write(tmp_path / "outside" / f".tmp-{DEAD}-x")
    os.utime(outside, (1, 1))
    (brain / "sbr" / "linked").symlink_to(outside.parent)
    clean.run(None, Path("results"), yes=True)
    assert outside.is_file()


def test_nothing_goes_while_a_run_goes_on(brain, needless):
    lock = _write(Path(".snakemake/locks/0.output.lock"))
    with pytest.raises(StorageError, match="a run is going on"):
        clean.run(None, Path("results"), yes=True)
    assert all(path.exists() for path in needless)
    lock.unlink()
    clean.run(None, Path("results"), yes=True)


def test_what_is_no_folder_of_results_is_refused(brain, tmp_path):
    with pytest.raises(ReceiptError, match="no results of a brain"):
        clean.run(None, tmp_path / "results" / "one" / "plan", yes=True)
    with pytest.raises(ConfigError, match="one brain"):
        clean.run(None, brain, yes=True)
    with pytest.raises(ConfigError, match="unknown kind 'everything'"):
        clean.run(None, Path("results"), ["everything"])
