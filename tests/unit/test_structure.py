"""What keeps the code readable in pieces: short files and functions, few parameters.

What imports what is `lint-imports`'s (pyproject.toml).
"""

import ast
import re

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 80
"""Without its docstring."""
MAX_PARAMETERS = 8
"""Besides `run` of stages and tools, whose parameters are the flags of a command."""


def functions(package):
    """(name as ``room/file.py:function``, its node) of every function."""
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(package)}:{node.name}", node


def test_no_file_is_long(repository):
    package = repository / "sbr_core"
    lines = {
        str(path.relative_to(package)): path.read_text(encoding="utf-8").count("\n")
        for path in package.rglob("*.py")
    }
    assert {name: n for name, n in lines.items() if n > MAX_FILE_LINES} == {}


def test_no_function_is_long(repository):
    long = set()
    for name, node in functions(repository / "sbr_core"):
        first = node.body[0]
        docstring = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) else 0
        if node.end_lineno - node.lineno + 1 - docstring > MAX_FUNCTION_LINES:
            long.add(name)
    assert long == set()


def test_no_function_has_many_parameters(repository):
    many = set()
    for name, node in functions(repository / "sbr_core"):
        given = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        is_command = re.fullmatch(r"(stages|tools)/\w+\.py:run", name)
        if len(set(given) - {"self", "cls"}) > MAX_PARAMETERS and not is_command:
            many.add(name)
    assert many == set()


def test_rules_define_no_functions(repository):
    """They are planned by `sbr_core.planning`, which is checked and tested as Python."""
    files = [*(repository / "workflow").rglob("*.smk"), repository / "workflow" / "Snakefile"]
    assert len(files) > 1
    defined = {
        f"{path.name}:{name}"
        for path in files
        for name in re.findall(r"^\s*def (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert defined == set()
