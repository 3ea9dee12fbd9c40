"""How large the code is: lines of code by room, the longest file and function, imports of stages.

    python benchmarks/code_size.py [CHECKOUT …]

Lines of code are those with anything but comments, docstrings and descriptions of options. Given
several checkouts, one column each.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import tokenize
from collections import Counter
from pathlib import Path

_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def lines_of(node: ast.AST) -> set[int]:
    """The lines that a node of the syntax tree is on."""
    return set(range(node.lineno, node.end_lineno + 1))


def docstrings(tree: ast.AST) -> set[int]:
    """Lines of docstrings, of texts below constants, and of descriptions of options."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            value = getattr(statement, "value", None)
            if isinstance(statement, ast.Expr) and isinstance(value, ast.Constant):
                lines |= lines_of(statement)
        if isinstance(node, ast.AnnAssign) and any(
            keyword.arg == "description" for keyword in getattr(node.value, "keywords", ())
        ):
            lines |= lines_of(node) - {node.lineno}
    return lines


def code_lines(text: str) -> int:
    """Lines of code of a module."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings(ast.parse(text)))


def import_lines(tree: ast.AST) -> int:
    """Lines of import statements."""
    imports = (n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom))
    return len(set().union(*map(lines_of, imports), set()))


def functions(tree: ast.AST) -> list[tuple[int, int, str]]:
    """(lines without the docstring, parameters, name) of each function."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            given = node.args
            names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            documented = ast.get_docstring(node) is not None
            text = len(lines_of(node.body[0])) if documented else 0
            found.append((len(lines_of(node)) - text, len(set(names) - {"self", "cls"}), node.name))
    return found


def measured(checkout: Path) -> dict[str, str]:
    """What is counted of a checkout, by what it is."""
    package = checkout / "sbr_core"
    texts = {path: path.read_text() for path in sorted(package.rglob("*.py"))}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    rooms = Counter()
    for path, text in texts.items():
        rooms[path.relative_to(package).parts[0]] += code_lines(text)
    rules = [checkout / "workflow" / "Snakefile", *(checkout / "workflow" / "rules").glob("*.smk")]
    rule_lines = [line.strip() for path in rules for line in path.read_text().splitlines()]
    every = [function for tree in trees.values() for function in functions(tree)]
    longest = max(texts, key=lambda path: texts[path].count("\n"))
    arrows = sum(
        len(re.findall(r"^\s*from sbr_core\.stages\.\w+ import", text, re.MULTILINE))
        for path, text in texts.items()
        if path.parent.name == "stages"
    )
    facts = {
        "lines of code, package": sum(rooms.values()),
        "of these import lines": sum(map(import_lines, trees.values())),
        "lines of code, rules": sum(bool(line) and line[0] != "#" for line in rule_lines),
        "functions in rules": sum(line.startswith("def ") for line in rule_lines),
        "modules": len(texts),
        "longest file": f"{texts[longest].count(chr(10))} ({longest.relative_to(checkout)})",
        "files over 500 lines": sum(text.count("\n") > 500 for text in texts.values()),
        "longest function": "{0} ({2})".format(*max(every)),
        "functions over 80 lines": sum(lines > 80 for lines, _, _ in every),
        "functions with more than 8 parameters": sum(
            count > 8 for _, count, name in every if name != "run"
        ),
        "imports of a stage by a stage": arrows,
    }
    return {name: str(value) for name, value in facts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", nargs="*", type=Path, default=[Path()])
    checkouts = parser.parse_args().checkouts
    columns = [measured(checkout) for checkout in checkouts]
    print("| | " + " | ".join(str(path) for path in checkouts) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name in columns[0]:
        print(f"| {name} | " + " | ".join(column[name] for column in columns) + " |")


if __name__ == "__main__":
    main()
