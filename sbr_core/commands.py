"""What the subcommands are, read from the text of their modules.

A command is the function `run` of its module, ``stages/NAME.py`` or ``tools/NAME.py``. Its
signature and its docstring are parsed and nothing is imported, so that ``sbr --help`` does not wait
for torch:

- the docstring's first line is the line of the command in ``sbr --help``, and all text before its
  sections the description in ``sbr NAME --help``;
- `options` is what ``--options`` is parsed into: classes of `sbr_core.config`, or None;
- each further parameter is a flag: `out_dir` is ``--out-dir``. A trailing underscore is dropped
  (`from_` is ``--from``). The help is the entry in the docstring's Parameters section; a flag is
  required unless the parameter has a default;
- the annotation is what the flag takes (`KINDS`); ``Annotated[Path, "-o"]`` adds a short name;
- parameters before the ``*`` are given by their place instead of by a flag; one with a default may
  be left out.
"""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

COMMANDS = (
    "demo",
    "fetch",
    "manifest",
    "import-landmarks",
    "half-mask",
    "check-sections",
    "check",
    "prepare",
    "prepare-mri",
    "collect",
    "doctor",
    "apply-findings",
    "correct",
    "align",
    "resample",
    "align-sections",
    "train-registrar",
    "train-shapes",
    "train",
    "cohere",
    "infer",
    "registered",
    "reassemble",
    "reassemble-colour",
    "trust",
    "evaluate",
    "compare",
    "simulate",
    "report",
    "index",
    "cite",
    "apply",
    "count",
    "export",
    "verify",
    "clean",
)
"""In the order of ``sbr --help``, which is that of a run."""

KINDS: dict[str, dict[str, Any]] = {
    "Path": {"type": Path, "metavar": "PATH"},
    "Sequence[Path]": {"type": Path, "metavar": "PATH", "nargs": "+"},
    "float": {"type": float, "metavar": "X"},
    "int": {"type": int, "metavar": "N"},
    "bool": {"action": "store_true"},
    "Sequence[str]": {"metavar": "TEXTS", "nargs": "+"},
    "Sequence[SectionRow]": {"metavar": "ROWS"},
    "Sequence[Landmark]": {"metavar": "LANDMARKS"},
    "Mapping[str, Path]": {"metavar": "METHODS", "nargs": "+"},
}
"""Annotation of a parameter, without ``| None`` -> arguments of argparse for its flag. A list is a
sequence and a dict a mapping; everything else, such as ``str`` and names of literals, is text."""

_SECTIONS = {
    "check-sections": "prepare",
    "prepare-mri": "prepare",
    "train": "train_METHOD",
    "cohere": "coherent",
    "reassemble-colour": "reassemble",
}
"""Sections of the configuration that are not named like their command."""

_RUN = re.compile(r'^def run\(.*?^    """.*?"""$', re.MULTILINE | re.DOTALL)
"""Signature and docstring: a function that can be parsed without what follows."""

_ENTRY = re.compile(r"^(\w[\w, ]*) : (.*(?:\n +.*)*)", re.MULTILINE)
"""An entry of a docstring's section: its names, and its text whose further lines are indented."""


@dataclass(frozen=True)
class Flag:
    """One flag of a command, or one word that is given by its place.

    Attributes
    ----------
    keyword : the parameter of `run`.
    kind : its annotation, see `KINDS`.
    short : another name, such as ``-o``; or empty.
    """

    keyword: str
    kind: str
    help: str
    required: bool
    by_place: bool
    short: str


@dataclass(frozen=True)
class Command:
    """One subcommand.

    Attributes
    ----------
    module : whose `run` it is, dotted.
    summary : one line.
    options : classes of `sbr_core.config` that `run` accepts as its options, by name; or none.
    """

    name: str
    module: str
    summary: str
    description: str
    options: tuple[str, ...]
    flags: tuple[Flag, ...]

    @property
    def section(self) -> str:
        """Its section of the configuration; METHOD stands for what ``--method`` names."""
        return _SECTIONS.get(self.name, self.name.replace("-", "_"))


@cache
def command_of(name: str) -> Command:
    """The command of a name in `COMMANDS`."""
    stem = name.replace("-", "_")
    package = Path(__file__).parent
    room = next(r for r in ("stages", "tools") if (package / r / f"{stem}.py").is_file())
    text = (package / room / f"{stem}.py").read_text(encoding="utf-8")
    (run,) = ast.parse(_RUN.search(text)[0]).body
    description, _, sections = inspect.cleandoc(run.body[0].value.value).partition("\nParameters\n")
    helps = {
        keyword: _plain(entry[2]).removesuffix(".")
        for entry in _ENTRY.finditer(sections.partition("\n\n")[0])
        for keyword in entry[1].split(", ")
    }
    signature = run.args
    options, *by_place = signature.args
    # what has no default is required
    missing = len(by_place) - len(signature.defaults)
    defaults = [None] * missing + signature.defaults + signature.kw_defaults
    flags = []
    for i, parameter in enumerate([*by_place, *signature.kwonlyargs]):
        kind, short = _annotation(parameter.annotation)
        flags.append(
            Flag(
                keyword=parameter.arg,
                kind=kind,
                help=helps.get(parameter.arg, ""),
                required=defaults[i] is None,
                by_place=i < len(by_place),
                short=short,
            )
        )
    return Command(
        name=name,
        module=f"sbr_core.{room}.{stem}",
        summary=_plain(description.partition("\n\n")[0]).removesuffix("."),
        description=_plain(description),
        options=tuple(n for n in ast.unparse(options.annotation).split(" | ") if n != "None"),
        flags=tuple(flags),
    )


def _annotation(node: ast.expr) -> tuple[str, str]:
    """An annotation without ``| None``, and the short name beside it."""
    short = ""
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Annotated":
        node, name = node.slice.elts
        short = name.value
    kind = ast.unparse(node).removesuffix(" | None")
    return kind.replace("list[", "Sequence[").replace("dict[", "Mapping["), short


def _plain(text: str) -> str:
    """One line without reStructuredText's marks of code."""
    return " ".join(text.split()).replace("`", "")
