"""The JSON beside a result that states where it came from."""

from __future__ import annotations

import platform
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from sbr_core import __version__
from sbr_core.io.files import sha256_file
from sbr_core.io.sums import write_summed_json

_LIBRARIES = ("torch", "numpy", "antspyx", "SimpleITK", "nibabel", "scikit-image", "snakemake")


@cache
def versions() -> dict[str, str]:
    """Versions of this package, Python and the libraries that decide results."""
    installed = {"sbr_core": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def write_provenance(
    path: Path, *, stage: str, options: dict[str, Any], inputs: dict[str, Path], **facts: Any
) -> None:
    """Write the provenance JSON of a result.

    Parameters
    ----------
    path : the JSON file, beside the result.
    options : the stage's options, as they took effect (seed included).
    inputs : name -> file; its sha256 is recorded.
    facts : anything else worth keeping, JSON-able.
    """
    write_summed_json(
        path,
        {
            "stage": stage,
            "versions": versions(),
            "options": options,
            "inputs": {
                name: {"path": str(file), "sha256": sha256_file(file)}
                for name, file in sorted(inputs.items())
            },
            **facts,
        },
    )
