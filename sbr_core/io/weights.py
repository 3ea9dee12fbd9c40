"""Network weights as safetensors with a JSON header; pickles are refused, never opened."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbr_core.errors import WeightsError
from sbr_core.io.files import parse_json
from sbr_core.io.sums import check_sum, summed_path

if TYPE_CHECKING:
    import torch

_KEY = "sbr_core"
"""Key of the header in the metadata of safetensors, which are texts."""


def save_weights(path: Path, tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    """Write tensors and their header, whole or not at all.

    Parameters
    ----------
    header : JSON-able facts: kind, architecture, options, preprocessing, stain, fingerprint.
    """
    from safetensors.torch import save_file

    contiguous = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    with summed_path(path) as temporary:
        save_file(contiguous, temporary, metadata={_KEY: json.dumps(header, sort_keys=True)})
        # safetensors writes for the owner alone; colleagues should read weights like any result
        os.umask(umask := os.umask(0))
        temporary.chmod(0o666 & ~umask)


def read_header(path: Path) -> dict[str, Any]:
    """The header alone, without reading the tensors.

    Raises
    ------
    WeightsError
        Missing, not safetensors (a pickle, say), or not written by this package.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    check_sum(path)
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path}: expected a .safetensors file, found something else ({error});"
            " pickled weights are never opened"
        ) from None
    if _KEY not in metadata:
        raise WeightsError(f"{path}: safetensors without an sbr_core header")
    try:
        header = parse_json(metadata[_KEY])
    except ValueError as error:
        raise WeightsError(f"{path}: header not readable as JSON: {error}") from None
    if not isinstance(header, dict):
        raise WeightsError(f"{path}: expected a header of keys and values, found {header!r:.40}")
    return header


def load_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(tensors on the CPU, header); raises as `read_header`, and where a value is not finite."""
    from safetensors.torch import load_file

    header = read_header(path)
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if not tensor.float().isfinite().all():
            raise WeightsError(f"{path}: damaged: {name} has values that are not finite")
    return tensors, header
