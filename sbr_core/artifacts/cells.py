"""How a field of a row is read from its cell in a table, and a matrix is written to six of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sbr_core.io.files import parse_json


def files_of_cell(cell: str) -> dict[str, str]:
    """The column ``files`` of a row: name -> sha256; ValueError where it is none."""
    files = parse_json(cell or "{}")
    if not isinstance(files, dict) or not all(isinstance(v, str) for v in files.values()):
        raise ValueError(f"expected names of files and their sha256, found {cell:.40}")
    return files


def numbers_of_cell(cell: str) -> dict[str, float]:
    """Numbers by name, as JSON; ValueError where it is none."""
    numbers = parse_json(cell or "{}")
    if not isinstance(numbers, dict):
        raise ValueError(f"expected names and numbers, found {cell:.40}")
    return {str(name): float(value) for name, value in numbers.items()}


def pairs_of_cell(cell: str) -> dict[str, tuple[float, ...]]:
    """Pairs of points by name, four numbers each, as JSON; ValueError where it is none."""
    pairs = parse_json(cell)
    if not isinstance(pairs, dict) or not all(len(xy) == 4 for xy in pairs.values()):
        raise ValueError(f"expected names and four numbers each, found {cell:.40}")
    return {name: tuple(float(v) for v in xy) for name, xy in pairs.items()}


CELLS: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: lambda cell: int(float(cell)),
    float: float,
    float | None: float,
    tuple[float, ...] | None: lambda cell: tuple(float(v) for v in parse_json(cell)),
    Mapping[str, str]: files_of_cell,
    Mapping[str, float]: numbers_of_cell,
    Mapping[str, tuple[float, ...]] | None: pairs_of_cell,
}
"""How a field of a type is read from its cell."""


def matrix_columns(matrix: np.ndarray, letter: str) -> dict[str, float]:
    """A (3, 3) affine as columns ``{letter}00`` … ``{letter}12``."""
    return {f"{letter}{i}{j}": float(matrix[i][j]) for i in range(2) for j in range(3)}


def finite(cell: str) -> float:
    """A cell as a number; ValueError where it is none, or none that is finite."""
    value = float(cell)
    if not np.isfinite(value):
        raise ValueError(f"expected a finite number, found {cell!r}")
    return value


def read_matrix(cells: Mapping[str, str], letter: str) -> np.ndarray:
    """The (3, 3) affine in the columns ``{letter}00`` … ``{letter}12`` of a table's line."""
    top = [[finite(cells[f"{letter}{i}{j}"]) for j in range(3)] for i in range(2)]
    matrix = np.array([*top, [0.0, 0.0, 1.0]])
    if not np.linalg.det(matrix):
        raise ValueError(f"its affine {letter}00 … {letter}12 has no inverse")
    return matrix
