"""The registry of methods: whole, and in agreement with the options and tasks it names."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest

from sbr_core.config import Config, inherited_keys
from sbr_core.methods import METHODS, TRAINED_METHODS, WITH_OPTIONS, imported
from sbr_core.revisions import REVISION


def test_methods_are_listed_from_the_baseline_to_synth_by_reg():
    assert METHODS[:3] == ("linear", "syn_mi", "mind")
    first = METHODS.index("sbr")
    assert METHODS[first:-1] == tuple(name for name in METHODS if name.startswith("sbr"))
    assert METHODS[-1] == "coherent"
    assert set(TRAINED_METHODS) == set(METHODS[3:-1])


def test_a_section_comes_after_those_it_inherits_from():
    order = list(Config.model_fields)
    for method in WITH_OPTIONS:
        for inheritance in method.inherits:
            assert order.index(inheritance.section) < order.index(method.section), method.name


def test_the_readme_lists_what_sections_take_from_each_other(repository):
    readme = (repository / "config/README.md").read_text(encoding="utf-8")
    table = readme.partition("| section | takes from |")[2].partition("\n\n")[0]
    listed = {}
    for sections, sources in re.findall(r"^\| (`train_.*) \| (.*) \|$", table, re.MULTILINE):
        for section in re.findall(r"`(\w+)`", sections):
            listed[section] = re.findall(r"`(\w+)`", sources)
    assert listed == {
        m.section: [i.section for i in m.inherits] for m in WITH_OPTIONS if m.inherits
    }


@pytest.mark.parametrize("method", WITH_OPTIONS, ids=lambda method: method.name)
def test_what_a_method_names_is_there(method):
    assert type(getattr(Config(), method.section)) is imported(method.options)
    assert REVISION[method.section] == method.revision
    if method.trained:
        assert callable(imported(method.task))
    elif not method.follows:
        assert callable(imported(method.predictor))


@pytest.mark.parametrize("method", WITH_OPTIONS, ids=lambda method: method.name)
def test_a_default_of_a_methods_own_is_not_overruled_by_another_section(method):
    """A key that the method's class declares itself has its own default, so none is inherited."""
    for inheritance in method.inherits:
        keys = inherited_keys(inheritance)
        assert keys <= set(imported(method.options).model_fields)
        assert not keys & set(inspect.get_annotations(imported(method.options)))


def test_the_registry_imports_neither_torch_nor_the_configuration():
    code = (
        "import sys, sbr_core.methods;"
        "assert not {'torch', 'pydantic', 'sbr_core.config'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
