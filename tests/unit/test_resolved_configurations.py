"""Configurations that were resolved once resolve to the same JSON, and so to the same results.

`resolved_configurations.json` was written before the sections of the methods were described as
data: the presets, the examples of the documentation, and made-up configurations that exercise what
sections inherit from each other. An option that is added since then is not in it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from sbr_core.config import Config, Options, canonical_json, resolve
from sbr_core.errors import ConfigError
from sbr_core.methods import TRAINED_METHODS

WRITTEN = json.loads(
    Path(__file__).with_name("resolved_configurations.json").read_text(encoding="utf-8")
)
TRAININGS = {"train_registrar", *(f"train_{method}" for method in TRAINED_METHODS)}


def digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def section_digest(config: Config, name: str) -> str:
    texts = [config.section_json(name)]
    if name in TRAININGS:
        texts += [
            config.training_json(name),
            config.training_json(name, start=True),
            config.compared_json(name),
        ]
    return digest(*texts)


@pytest.mark.parametrize("name", WRITTEN["cases"])
def test_a_configuration_resolves_to_what_it_did(repository, name):
    case = WRITTEN["cases"][name]
    presets = repository / "config/presets"
    if "error" in case:
        with pytest.raises(ConfigError) as caught:
            resolve(case["values"], presets)
        assert str(caught.value) == case["error"]
        return
    config = resolve(case["values"], presets)
    for section, expected in case["sections"].items():
        assert section_digest(config, section) == expected, section
    above = {
        key: value
        for key, value in config.model_dump(mode="json").items()
        if not isinstance(getattr(config, key), Options)
    }
    assert digest(canonical_json(above)) == case["top"]
    assert [m for m in TRAINED_METHODS if config.takes_registrar(m)] == case["registrar_for"]


@pytest.mark.parametrize("preset", WRITTEN["whole"])
def test_a_preset_resolves_to_the_same_sections_in_the_same_order(repository, preset):
    found = resolve({"preset": preset}, repository / "config/presets").model_dump(mode="json")
    assert json.dumps(found) == json.dumps(WRITTEN["whole"][preset])
