"""The pages: what they name is there, and their links lead somewhere."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/*.md", "config/*.md", "benchmarks/*.md")
    for page in REPOSITORY.glob(pattern)
)
NAMED_PATH = re.compile(r"(?<![\w./-])((?:sbr_core|workflow|tests|docs|benchmarks)/[\w./*{}-]*)")
"""A path from the repository's root, wherever it is in a page."""
NAMED_CODE = re.compile(r"`([\w/.]+\.py):(\w+)(?:\.(\w+))?`")
"""``file.py:function`` or ``room/file.py:Class.method``; the path may begin at any folder."""
NAMED_TEST = re.compile(r"`(test_\w+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPOSITORY)))


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@cache
def anchors_of(page: Path) -> set[str]:
    """What headings are linked by, as GitHub makes it of their text."""
    headings = re.findall(r"^#+ +(.+?) *$", text_of(page), re.MULTILINE)
    titles = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@cache
def sources() -> dict[str, Path]:
    """Python files by their path."""
    folders = ("sbr_core", "tests", "benchmarks")
    files = [file for folder in folders for file in (REPOSITORY / folder).rglob("*.py")]
    return {f"/{file.relative_to(REPOSITORY)}": file for file in files}


@cache
def names_in(file: Path) -> set[str]:
    """Functions, classes, methods and constants of a file."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {t.id for target in targets for t in ast.walk(target) if hasattr(t, "id")}
    return names


@each_page
def test_every_path_that_is_named_exists(page):
    for found in NAMED_PATH.findall(text_of(page)):
        path = re.sub(r"\{[^}]*\}?", "*", found.rstrip("./"))
        assert any(REPOSITORY.glob(path)), f"{found} does not exist"


@each_page
def test_every_link_leads_somewhere(page):
    for link in LINK.findall(text_of(page)):
        if re.match(r"[a-z]+:", link):  # not ours to check
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors_of(target), f"{link}: no such heading"


@each_page
def test_every_function_and_test_that_is_named_exists(page):
    for path, *names in NAMED_CODE.findall(text_of(page)):
        files = [file for known, file in sources().items() if known.endswith(f"/{path}")]
        missing = set(filter(None, names))
        assert any(missing <= names_in(file) for file in files), f"{path} has no {names}"
    defined = {name for known, file in sources().items() if known.startswith("/tests/")
               for name in names_in(file)}  # fmt: skip
    assert set(NAMED_TEST.findall(text_of(page))) <= defined


def test_the_checks_see_what_is_wrong(tmp_path):
    """And the pages have something to see."""
    page = tmp_path / "page.md"
    page.write_text("# A `b`: c\n[x](#a-b-c) [y](gone.md) `sbr_core/gone.py` `cli.py:gone`\n")
    assert anchors_of(page) == {"a-b-c"}
    with pytest.raises(AssertionError, match=r"gone\.py"):
        test_every_path_that_is_named_exists(page)
    with pytest.raises(AssertionError, match=r"gone\.md"):
        test_every_link_leads_somewhere(page)
    with pytest.raises(AssertionError, match=r"cli\.py has no"):
        test_every_function_and_test_that_is_named_exists(page)
    assert sum(len(NAMED_PATH.findall(text_of(page))) for page in PAGES) > 100
