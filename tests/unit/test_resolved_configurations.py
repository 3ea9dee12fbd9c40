"""Configurations that were resolved once resolve to the same JSON, and so to the same results.

`resolved_configurations.json` was written before the sections of the methods were described as
data: the presets, the examples of the documentation, and made-up configurations that exercise what
sections inherit from each other. What is added since then is left out of what is compared.
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

WRITTEN = json.loads(
    Path(__file__).with_name("resolved_configurations.json").read_text(encoding="utf-8")
)
ADDED_METHODS: set[str] = set()
"""Methods that are newer than `resolved_configurations.json`."""
ADDED_OPTIONS: set[str] = set()
"""Options that are: ``key`` of every section that has it, or ``section.key`` of one."""
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


@pytest.mark.parametrize("name", WRITTEN["cases"])
def test_a_configuration_resolves_to_what_it_did(repository, name):
    case = WRITTEN["cases"][name]
    presets = repository / "config/presets"
    if "error" in case:
        with pytest.raises(ConfigError) as caught:
            resolve(case["values"], presets)
        known = [method for method in METHODS if method not in ADDED_METHODS]
        assert str(caught.value).replace(listed(METHODS), listed(known)) == case["error"]
        return
    config = resolve(case["values"], presets)
    for section, expected in case["sections"].items():
        assert section_digest(config, section) == expected, section
    above = {
        key: value
        for key, value in config.model_dump(mode="json").items()
        if not isinstance(getattr(config, key), Options)
    }
    assert digest(canonical_json(without_added(above, ""))) == case["top"]
    takers = [m for m in TRAINED_METHODS if config.takes_registrar(m) and m not in ADDED_METHODS]
    assert takers == case["registrar_for"]


@pytest.mark.parametrize("preset", WRITTEN["whole"])
def test_a_preset_resolves_to_the_same_sections_in_the_same_order(repository, preset):
    resolved = resolve({"preset": preset}, repository / "config/presets").model_dump(mode="json")
    added = {REGISTRY[method].section for method in ADDED_METHODS}
    found = {
        key: without_added(value, key) if isinstance(value, dict) else value
        for key, value in without_added(resolved, "").items()
        if key not in added
    }
    assert json.dumps(found) == json.dumps(WRITTEN["whole"][preset])
