"""Keys and values that somebody wrote, as YAML or JSON, within bounds.

A few lines of YAML can stand for more than any memory holds, when aliases name lists of aliases,
and brackets within brackets exhaust the stack. So a text is looked at before a value is made of
it, and a value that Snakemake made of one before anything else is done with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sbr_core.errors import ConfigError

_LARGEST_BYTES = 1 << 20
"""Of a file: 1 MiB, a hundred times a configuration that names every key."""
_DEEPEST = 32
"""Levels; a configuration has four."""
_MOST = 100_000
"""Values, with those that aliases repeat; a configuration has some hundreds."""


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; ConfigError with the file and line when it is none."""
    import yaml

    try:
        with open(path, "rb") as stream:
            data = stream.read(_LARGEST_BYTES + 1)
        if len(data) > _LARGEST_BYTES:
            raise ValueError(f"larger than {_LARGEST_BYTES >> 20} MiB")
        value = _parsed(data.decode("utf-8")) or {}
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(value).__name__}")
    return value


def _parsed(text: str) -> Any:
    """As `yaml.safe_load`; ValueError for a text beyond the bounds."""
    import yaml

    level = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        level += isinstance(event, yaml.CollectionStartEvent)
        level -= isinstance(event, yaml.CollectionEndEvent)
        if level > _DEEPEST:
            raise ValueError(f"nested more than {_DEEPEST} levels deep")
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _check_size(root, _parts_of_node)
        return loader.construct_document(root)
    except AttributeError as error:  # yaml's own: !!int and !!timestamp of what is none
        raise ValueError(f"a value that is not what its tag says: {error}") from None
    finally:
        loader.dispose()


def _parts_of_node(node: Any) -> Iterable[Any]:
    """What a node of YAML contains."""
    if isinstance(node.value, str):
        return ()
    return (part for item in node.value for part in (item if isinstance(item, tuple) else (item,)))


def load_json(text: str, where: str) -> Any:
    """A JSON value; ConfigError that begins with `where` when it is none, or beyond the bounds."""
    try:
        value = json.loads(text)
        _check_size(value, _parts_of_value)
    except RecursionError:
        raise ConfigError(f"{where}: nested more than {_DEEPEST} levels deep") from None
    except ValueError as error:
        raise ConfigError(f"{where}: not readable as JSON: {error}") from None
    return value


def check_values(values: Any) -> None:
    """Refuse values beyond the bounds, which Snakemake read; ConfigError."""
    try:
        _check_size(values, _parts_of_value)
    except ValueError as error:
        raise ConfigError(f"config: {error}") from None


def _parts_of_value(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _check_size(root: Any, parts: Callable[[Any], Iterable[Any]]) -> None:
    """ValueError where a value contains itself, or too much, each repetition counted."""
    known: dict[int, tuple[int, int]] = {}

    def measure(value: Any, level: int) -> tuple[int, int]:
        """(values, levels) of a value, itself among them."""
        if level > _DEEPEST:
            raise ValueError(f"nested more than {_DEEPEST} levels deep")
        if id(value) not in known:
            known[id(value)] = _MOST + 1, 1  # of one that contains itself
            inner = [measure(part, level + 1) for part in parts(value)]
            levels = 1 + max((levels for _, levels in inner), default=0)
            known[id(value)] = 1 + sum(n for n, _ in inner), levels
        return known[id(value)]

    n_values, n_levels = measure(root, 0)
    if n_values > _MOST:
        raise ValueError(
            f"stands for more than {_MOST} values: do aliases repeat aliases, or themselves?"
        )
    if n_levels > _DEEPEST:
        raise ValueError(f"nested more than {_DEEPEST} levels deep")
