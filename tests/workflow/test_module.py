"""The workflow as a module of another one, from a folder that has nothing but a configuration."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MODULE = """
configfile: "config/config.yaml"


module sbr:
    snakefile:
        "{snakefile}"
    config:
        config


use rule * from sbr{prefix}
"""


@pytest.fixture
def foreign(empty_lab):
    """Puts a Snakefile of one's own in place of the workflow's, with its rules as a module."""

    def make(prefix: str = ""):
        for name in ("workflow", "envs"):
            shutil.rmtree(empty_lab.folder / name)
        (empty_lab.folder / "workflow").mkdir()
        snakefile = (REPOSITORY / "workflow" / "Snakefile").as_posix()
        text = MODULE.format(snakefile=snakefile, prefix=prefix and f" as {prefix}*")
        (empty_lab.folder / "workflow" / "Snakefile").write_text(text)
        empty_lab.write_sheet(empty_lab.add_brain("one", ["s01", "s02", "s03"]))
        return empty_lab

    return make


def test_a_module_makes_what_the_workflow_does_and_then_has_nothing_to_do(foreign):
    lab = foreign()
    lab.snakemake()
    assert (lab.folder / "results" / "one" / "report" / "index.html").is_file()
    assert (lab.folder / "results" / "one" / "sbr" / "weights.safetensors").is_file()
    assert lab.planned() == []


def test_rules_of_a_module_may_have_a_prefix(foreign):
    lab = foreign("sbr_")
    planned = lab.rules("sbr_all")
    assert planned["sbr_train"] == 1 and planned["sbr_report"] == 1


def test_it_is_deployed_by_snakedeploy(empty_lab, tmp_path):
    """Snakefile and configuration are those it writes, but for where the repository is.

    Of a repository on this machine it writes no path that Snakemake finds.
    """
    program = shutil.which("snakedeploy")
    if program is None:
        pytest.skip("snakedeploy is not installed")
    there = tmp_path / "deployed"
    subprocess.run(
        [program, "deploy-workflow", str(REPOSITORY), str(there), "--branch", "main"], check=True
    )
    for name in ("workflow", "envs", "config"):
        shutil.rmtree(empty_lab.folder / name)
        if (there / name).is_dir():
            shutil.copytree(there / name, empty_lab.folder / name)
    assert (empty_lab.folder / "config" / "README.md").is_file()
    snakefile = (REPOSITORY / "workflow" / "Snakefile").as_posix()
    empty_lab.edit("workflow/Snakefile", '"workflow/Snakefile"', f'"{snakefile}"')
    empty_lab.write_sheet(empty_lab.add_brain("one", ["s01", "s02", "s03"]))
    empty_lab.snakemake("--config", "methods=[linear]")
    assert (empty_lab.folder / "results" / "one" / "report" / "index.html").is_file()
