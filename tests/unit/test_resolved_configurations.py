"""Configurations that were resolved once resolve to the same JSON, and so to the same results.

`resolved_configurations.json` was written before the sections of the methods were described as
data: the presets, the examples of the documentation, and made-up configurations that exercise what
sections inherit from each other. What is added since then is left out of what is compared.
``python tests/unit/test_resolved_configurations.py`` resolves them anew and writes the file; then
`ADDED_METHODS` and `ADDED_OPTIONS` are to be emptied, and the values of new cases written by hand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from sbr_core.config import Config, Options, canonical_json, resolve
from sbr_core.errors import ConfigError
from sbr_core.methods import METHODS, REGISTRY, TRAINED_METHODS

FILE = Path(__file__).with_name("resolved_configurations.json")
WRITTEN = json.loads(FILE.read_text(encoding="utf-8"))
ADDED_METHODS: set[str] = {"coherent"}
"""Methods that are newer than `resolved_configurations.json`."""
ADDED_OPTIONS: set[str] = {
    "registered",
    "trust",
    "reassemble.colour",
    "reassemble.format",
    "reassemble.fill",
    "align_sections.landmark_tolerance_mm",
}
"""Options that are: ``key`` of every section, ``section.key`` of one, or a whole ``section``."""
TRAININGS = {"train_registrar", *(f"train_{method}" for method in TRAINED_METHODS)}


def digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def without_added(values: dict[str, Any], section: str) -> dict[str, Any]:
    """Values of a section, or of the keys above the sections (""), less what is newer."""
    kept = {k: v for k, v in values.items() if not {k, f"{section}.{k}"} & ADDED_OPTIONS}
    if "methods" in kept:
        kept["methods"] = [method for method in kept["methods"] if method not in ADDED_METHODS]
    return kept


def listed(methods: Iterable[str]) -> str:
    """Methods as a message lists them."""
    *first, last = (f"'{method}'" for method in methods)
    return f"{', '.join(first)} or {last}"


def section_digest(config: Config, name: str) -> str:
    texts = [config.section_json(name)]
    if name in TRAININGS:
        texts += [
            config.training_json(name),
            config.training_json(name, start=True),
            config.compared_json(name),
        ]
    return digest(*(canonical_json(without_added(json.loads(text), name)) for text in texts))


def resolved_case(values: dict[str, Any], presets: Path) -> dict[str, Any]:
    """What the file contains of a configuration."""
    try:
        config = resolve(values, presets)
    except ConfigError as error:
        known = [method for method in METHODS if method not in ADDED_METHODS]
        return {"values": values, "error": str(error).replace(listed(METHODS), listed(known))}
    written = config.model_dump(mode="json")
    of_sections = [key for key in written if isinstance(getattr(config, key), Options)]
    added = ADDED_OPTIONS | {REGISTRY[method].section for method in ADDED_METHODS}
    above = {key: value for key, value in written.items() if key not in of_sections}
    return {
        "values": values,
        "sections": {k: section_digest(config, k) for k in of_sections if k not in added},
        "registrar_for": [
            m for m in TRAINED_METHODS if config.takes_registrar(m) and m not in ADDED_METHODS
        ],
        "top": digest(canonical_json(without_added(above, ""))),
    }


def resolved_preset(preset: str, presets: Path) -> dict[str, Any]:
    """All values of a preset, in their order."""
    resolved = resolve({"preset": preset}, presets).model_dump(mode="json")
    added = {REGISTRY[method].section for method in ADDED_METHODS}
    return {
        key: without_added(value, key) if isinstance(value, dict) else value
        for key, value in without_added(resolved, "").items()
        if key not in added
    }


def as_text(written: dict[str, dict[str, Any]]) -> str:
    """JSON with a line for each preset and case."""
    parts = []
    for name, entries in written.items():
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in entries.items()]
        parts.append(f"{json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


@pytest.mark.parametrize("name", WRITTEN["cases"])
def test_a_configuration_resolves_to_what_it_did(repository, name):
    case = WRITTEN["cases"][name]
    assert resolved_case(case["values"], repository / "sbr_core/config/presets") == case


@pytest.mark.parametrize("preset", WRITTEN["whole"])
def test_a_preset_resolves_to_the_same_sections_in_the_same_order(repository, preset):
    resolved = resolved_preset(preset, repository / "sbr_core/config/presets")
    assert resolved == WRITTEN["whole"][preset]
    assert list(resolved) == list(WRITTEN["whole"][preset])


if __name__ == "__main__":
    PRESETS = Path("sbr_core/config/presets")
    cases = {name: resolved_case(c["values"], PRESETS) for name, c in WRITTEN["cases"].items()}
    whole = {preset: resolved_preset(preset, PRESETS) for preset in WRITTEN["whole"]}
    FILE.write_text(as_text({"whole": whole, "cases": cases}), encoding="utf-8")
