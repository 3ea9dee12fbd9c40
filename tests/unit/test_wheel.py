"""The wheel has what the package has, and works without the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import sbr_core


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, repository) -> Path:
    """Built from a copy, since setuptools leaves a folder behind; nothing is downloaded."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(
        repository / "sbr_core", source / "sbr_core", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(source)], check=True)
    (built,) = folder.glob("*.whl")
    return built


def test_every_file_of_the_package_is_in_it(wheel, repository):
    package = repository / "sbr_core"
    files = {
        path.relative_to(repository).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.startswith("sbr_core/")}
    assert inside == files


def test_it_works_without_the_repository(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    code = (
        "import sbr_core, sbr_core.cli, sbr_core.config as config\n"
        "from sbr_core.artifacts.names import SHIPPED_REGISTRAR\n"
        "print(sbr_core.__file__, SHIPPED_REGISTRAR.is_file())\n"
        "print(config.resolve({'preset': 'cpu'}).methods)\n"
        "sbr_core.cli.main(['--version'])\n"
    )
    said = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    where, methods, version = said.stdout.splitlines()
    assert where.startswith(str(tmp_path)) and where.endswith("True")
    assert "coherent" in methods
    assert version == f"sbr {sbr_core.__version__}"


def test_the_version_is_told_once(repository):
    version = sbr_core.__version__
    with (repository / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)
    assert "version" in project["project"]["dynamic"]
    assert f"\nversion: {version}\n" in (repository / "CITATION.cff").read_text(encoding="utf-8")
    newest = (repository / "CHANGELOG.md").read_text(encoding="utf-8").split("\n## ")[1]
    assert newest.startswith(f"{version} (")


def test_the_conda_recipe_needs_what_the_package_needs(repository):
    recipe = yaml.safe_load((repository / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["context"]["version"] == sbr_core.__version__
    with (repository / "pyproject.toml").open("rb") as file:
        needed = {_bare(text) for text in tomllib.load(file)["project"]["dependencies"]}
    names = {"torch": "pytorch", "matplotlib": "matplotlib-base", "snakemake": "snakemake-minimal"}
    run = {_bare(text) for text in recipe["requirements"]["run"]} - {"python"}
    assert run == {names.get(name, name) for name in needed}


def _bare(requirement: str) -> str:
    """Without the limits of its version."""
    return re.split(r"[ <>=]", requirement)[0]
