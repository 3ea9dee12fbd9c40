"""Commands that the page prints: the program takes them as they are written."""

import shlex
from pathlib import Path

import pytest

from sbr_core.cli import build_parser
from sbr_core.report.next_commands import BrainPaths


def parsed(line):
    program, *words = shlex.split(line)
    assert program == "sbr"
    return build_parser().parse_args(words)


@pytest.mark.parametrize(
    ("manifest", "mended"),
    [
        ("my brain/sections.tsv", "my brain/mended.tsv"),
        ("mine/mended.tsv", "mine/mended2.tsv"),
        ("mine/mended9.tsv", "mine/mended10.tsv"),
    ],
)
def test_a_command_has_all_its_paths_and_another_manifest_to_write(manifest, mended):
    paths = BrainPaths(Path("results/b"), Path(manifest))
    said = parsed(paths.correct)
    assert (said.manifest, said.results, said.out) == (
        Path(manifest),
        Path("results/b"),
        Path(mended),
    )
    assert said.out_corrections == Path(manifest).with_name("corrections.tsv")
    said = parsed(paths.apply_findings)
    assert said.findings == Path("results/b/doctor/findings.tsv")
    assert (said.manifest, said.out) == (Path(manifest), Path(mended))


def test_the_table_that_is_there_is_written_to_and_nothing_private_is_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inside, elsewhere = tmp_path / "data" / "s.tsv", tmp_path.parent / "private" / "c.tsv"
    line = BrainPaths(tmp_path / "results" / "b", inside, elsewhere).correct
    assert "--manifest data/s.tsv --results results/b -o data/mended.tsv" in line
    assert line.endswith("'…/c.tsv'") and str(tmp_path.parent) not in line
