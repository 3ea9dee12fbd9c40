"""The site: all pages are in its navigation, all messages on its page, its code would run."""

import ast
import importlib.util
import re
import shlex
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from sbr_core import config
from sbr_core.cli import build_parser
from sbr_core.commands import COMMANDS, command_of

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/*.md", "config/*.md", "benchmarks/README.md")
    for page in REPOSITORY.glob(pattern)
)
FENCE = re.compile(r"^( *)```(\S*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPOSITORY)))


def loaded(name: str) -> ModuleType:
    """A script of docs/, which is no package."""
    if name not in sys.modules:
        specification = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(sys.modules[name])
    return sys.modules[name]


# --------------------------------------------------------------------------------------------
# Navigation


def in_navigation() -> set[Path]:
    """Every page that a toctree of a page names."""
    named = set()
    for page in PAGES:
        for _, language, inside in FENCE.findall(page.read_text(encoding="utf-8")):
            if language == "{toctree}":
                for line in filter(lambda text: text and text[0] != ":", inside.splitlines()):
                    path = re.sub(r".*<(.*)>", r"\1", line)  # Title <path>
                    named |= {file.resolve() for file in page.parent.glob(f"{path}.md")}
    return named


def test_every_page_is_in_the_navigation():
    pages = set(PAGES) | set((REPOSITORY / "benchmarks").glob("*.md"))
    missing = pages - in_navigation() - {DOCS / "index.md"}
    assert not missing, "put them into a toctree of docs/index.md, by the reader's question"


# --------------------------------------------------------------------------------------------
# Messages


@cache
def messages() -> tuple:
    return loaded("messages").collected(REPOSITORY)


def test_no_error_of_the_package_is_left_out():
    """Counted another way: by the names of all classes that are errors of the user's."""
    from sbr_core import errors

    names = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.SbrError)
    }
    raised = re.compile(rf"\b(?:{'|'.join(names)})\((?!\))")
    for file in sorted((REPOSITORY / "sbr_core").rglob("*.py")):
        code = ast.unparse(ast.parse(file.read_text(encoding="utf-8")))  # without comments
        path = str(file.relative_to(REPOSITORY))
        calls = [c for c in raised.finditer(code) if not code[: c.start()].endswith("class ")]
        found = [m for m in messages() if m.file == path and m.kind == "ends"]
        assert len(found) >= len(calls), f"{path}: a message is not collected"


def test_each_message_says_something_and_has_a_topic():
    page = loaded("messages")
    bare = [m for m in messages() if not m.says_something]
    assert len(bare) <= 40, (
        "texts that are made elsewhere: have docs/messages.py collect them there"
    )
    others = {m.file for m in messages() if m.topic == page.OTHER}
    assert not others, "their modules belong to a topic of docs/messages.py"
    unused = [topic for _, topic in page.TOPICS if topic not in {m.topic for m in messages()}]
    assert not unused


def test_advice_is_about_messages_that_there_are():
    page = loaded("messages")
    for topic, rows in page.advice().items():
        texts = [m.text for m in messages() if m.topic == topic]
        assert texts, f"{topic}: no such topic"
        for row in rows:
            assert any(row["says"] in text for text in texts), f"{row['says']}: nothing says so"


def test_a_message_is_read_as_it_is_said():
    said = loaded("messages").as_said
    tree = ast.parse("f'{row.source}: {n} of {chr(2) if n else text}' + ' x'", mode="eval")
    assert said(tree.body) == "‹row›: ‹n› of ‹chr› / ‹text› x"


# --------------------------------------------------------------------------------------------
# Code


def shell_lines(page: Path) -> list[str]:
    """Commands in blocks of a page, whole, without what stands behind `#`."""
    lines = []
    for _, language, inside in FENCE.findall(page.read_text(encoding="utf-8")):
        if language in ("", "bash", "sh"):
            whole = re.sub(r" *\\\n\s*", " ", inside)
            lines += [re.sub(r"\s+#.*", "", line).strip() for line in whole.splitlines()]
    return [line for line in lines if re.match(r"(sbr|snakemake|make) ", line)]


@cache
def flags_of_snakemake() -> set[str]:
    from snakemake.cli import get_argument_parser

    return set(get_argument_parser()._option_string_actions)


@cache
def parser():
    return build_parser()


def check_sbr(words: list[str]) -> None:
    """Raises SystemExit, as the command line does, where it would not be understood."""
    parser().parse_args(words[1:])


def check_snakemake(words: list[str]) -> None:
    plugins = ("--slurm", "--apptainer", "--kubernetes")
    for word in words[1:]:
        flag = word.partition("=")[0]
        if flag.startswith("--") and flag != "--" and not flag.startswith(plugins):
            assert flag in flags_of_snakemake(), f"snakemake has no {flag}"
        if re.match(r"[a-z_]+=[\[{\w]", word):  # what --config is given
            key, _, value = word.partition("=")
            assert config.resolve({key: yaml.safe_load(value)})


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert {w for w in words[1:] if "=" not in w} <= set(targets)


@each_page
def test_commands_would_be_understood(page):
    for line in shell_lines(page):
        words = shlex.split(line)
        try:
            {"sbr": check_sbr, "snakemake": check_snakemake, "make": check_make}[words[0]](words)
        except SystemExit as ended:
            if ended.code == 0:  # --help
                continue
            pytest.fail(f"sbr does not understand: {line}")


@each_page
def test_commands_within_text_exist(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for name, rest in re.findall(r"`sbr ([a-z][\w-]*)([^`]*)`", text):
        assert name in COMMANDS, f"there is no sbr {name}"
        known = {
            f"--{flag.keyword.rstrip('_').replace('_', '-')}" for flag in command_of(name).flags
        }
        given = set(re.findall(r"(?<=\s)--[a-z][\w-]*", rest))
        assert given <= known | {"--help", "--options", "--debug"}, (
            f"sbr {name} has no {given - known}"
        )


@each_page
def test_configurations_and_python_are_valid(page):
    text = page.read_text(encoding="utf-8")
    for indent, language, inside in FENCE.findall(text):
        code = re.sub(rf"^{indent}", "", inside, flags=re.MULTILINE)
        if language == "yaml":
            assert config.resolve(yaml.safe_load(code))
        if language == "python" and "configfile:" not in code:  # which is a Snakefile
            ast.parse(code)
    for code in re.findall(r"`([a-z_]+: \{[^`…]*\})`", FENCE.sub("", text)):
        settings = yaml.safe_load(code)
        if set(settings) <= set(config.Config.model_fields):
            assert config.resolve(settings)


def test_pictures_are_small():
    sizes = [file.stat().st_size for file in (DOCS / "pictures").iterdir()]
    assert max(sizes) < 150_000 and sum(sizes) < 1_000_000


# --------------------------------------------------------------------------------------------
# What is built


def test_what_is_built_is_checked(tmp_path):
    """`make docs` refuses links that lead nowhere, and whatever is not within the site."""
    (tmp_path / "a.html").write_text(
        '<a id="here" href="#here">x</a><a href="b.html#gone">x</a><a href="gone.html">x</a>'
        '<a href="https://example.org">x</a><script src="https://example.org/x.js"></script>'
    )
    (tmp_path / "b.html").write_text('<img src="data:image/png;base64,AA==">')
    assert loaded("check_site").faults_of(tmp_path) == [
        "a.html: asks for https://example.org/x.js",
        "a.html: b.html#gone: no such place in the page",
        "a.html: gone.html leads nowhere",
    ]
