"""The benchmarks' scripts, which nothing else runs: they fit the package that they measure."""

import ast
import importlib
import inspect
import subprocess
import sys

import pytest

from sbr_core.config import resolve


def imported(tree):
    """Name in the script -> what of the package it is, or None where that is gone."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sbr_core"):
            for alias in node.names:
                found[alias.asname or alias.name] = object_of(node.module, alias.name)
    return found


def object_of(module, name):
    """What ``from module import name`` imports; None where there is no such thing."""
    try:
        parent = importlib.import_module(module)
        return getattr(parent, name, None) or importlib.import_module(f"{module}.{name}")
    except ImportError:
        return None


def misfits(text):
    """What a script imports that is gone, and its calls that do not fit a signature."""
    tree = ast.parse(text)
    known = imported(tree)
    yield from (f"{name} is gone" for name, thing in known.items() if thing is None)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Name(name):
                called = known.get(name)
            case ast.Attribute(ast.Name(name), attribute) if known.get(name) is not None:
                called = getattr(known[name], attribute, None)
                if called is None:
                    yield f"{name}.{attribute} is gone"
            case _:
                called = None
        if called is not None and (why := misfit(called, node)):
            yield f"line {node.lineno}: {ast.unparse(node.func)}: {why}"


def misfit(called, node):
    """Why the arguments of a call do not fit; starred ones may be any."""
    by_place = [None for argument in node.args if not isinstance(argument, ast.Starred)]
    by_name = {keyword.arg: None for keyword in node.keywords if keyword.arg}
    is_whole = len(by_place) == len(node.args) and len(by_name) == len(node.keywords)
    signature = inspect.signature(called)
    try:
        (signature.bind if is_whole else signature.bind_partial)(*by_place, **by_name)
    except TypeError as error:
        return str(error)
    return ""


def test_benchmarks_fit_the_package(repository):
    scripts = sorted((repository / "benchmarks").glob("*.py"))
    found = {s.name: list(misfits(s.read_text(encoding="utf-8"))) for s in scripts}
    assert {name: faults for name, faults in found.items() if faults} == {}
    assert sum(len(imported(ast.parse(s.read_text(encoding="utf-8")))) for s in scripts) > 50


def test_on_card_needs_torch_and_numpy_alone(repository):
    script = (
        f"import sys; sys.path.insert(0, {str(repository / 'benchmarks')!r}); import on_card;"
        "print({'pydantic', 'yaml', 'scipy', 'pandas', 'nibabel', 'sbr_core.config'}"
        " & set(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert loaded.stdout == "set()\n", loaded.stderr


def test_on_card_has_the_options_of_the_presets(repository, monkeypatch):
    """It runs where the configuration cannot be read."""
    monkeypatch.syspath_prepend(repository / "benchmarks")
    on_card = importlib.import_module("on_card")
    for preset, values in on_card.PRESETS.items():
        found = resolve({"preset": preset}, repository / "sbr_core/config/presets")
        options = found.train_sbr.model_dump()
        augment = {**options["augment"]}
        expected = {key: options[key] for key in values} | {"augment": augment}
        assert values == expected, preset
        refining = found.infer.model_dump()
        if preset == "cpu":
            assert {key: refining[key] for key in on_card.REFINE} == on_card.REFINE


@pytest.mark.parametrize(
    "line, why",
    [
        ("from sbr_core.io import gone", "gone is gone"),
        ("from sbr_core.io import tables; tables.gone()", "tables.gone is gone"),
        ("from sbr_core.geometry import scaling; scaling(1, 2)", "too many positional arguments"),
        ("from sbr_core.geometry import scaling; scaling(by=1)", "missing a required argument"),
        ("from sbr_core.geometry import scaling; scaling(*a, by=1)", "unexpected keyword"),
    ],
)
def test_what_does_not_fit_is_seen(line, why):
    (found,) = misfits(line)
    assert why in found
