"""Every message of the package, read from the text of its code, for the page docs/messages.md.

Nothing is imported. Collected are errors that end a command (`SbrError` and what is derived from
it), reasons that become part of such a line (`ValueError`), warnings of the log, and what
`sbr check` and `sbr doctor` find.
"""

import ast
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

PLACE = "<!-- all messages, from the code -->"
"""Where they come on the page."""
ADVICE = Path(__file__).with_name("messages_advice.yaml")
"""What to do, by hand: topic -> list of {says, do}."""

TOPICS: tuple[tuple[str, str], ...] = (
    (r"config/|methods\.py|planning/parameters", "The configuration"),
    (r"io/(manifest|columns|folders|name_numbers|tables)|tools/manifest|planning/sheet|"
     r"tools/apply_findings", "The manifest and the sheet of brains"),
    (r"io/(landmarks|correction)|tools/(import_landmarks|correct)|artifacts/constraints|"
     r"report/corrections", "Landmarks and corrections"),
    (r"io/(images|tiff|ome|channels|pixel_size|pictures|pyramids|windows|blocks|colour|frames|"
     r"scratch)|stages/prepare\.py|algorithms/(masks|sections|staining|background|pieces|appearance)|"
     r"stages/(registered|reassemble)|algorithms/reassembly|artifacts/section_(looks|signal)",
     "Images of sections"),
    (r"io/(nifti|mri_formats|volumes)|stages/prepare_mri|tools/half_mask|algorithms/planes",
     "The MRI and other volumes"),
    (r"stages/check|algorithms/plausibility|artifacts/brain_inputs",
     "`sbr check`: do the inputs belong together?"),
    (r"stages/doctor|algorithms/doctor", "`sbr doctor`: what seems wrong with a section"),
    (r"stages/(align|resample|cohere)|algorithms/(alignment|along_stack|right_angles)|"
     r"artifacts/(global_fit|coherence)", "Placing the stack and its sections"),
    (r"training/|stages/train|artifacts/(networks|predictors|training|label_pairs|split)|"
     r"io/weights|tools/train_shapes|nn/|functional/", "Training and networks"),
    (r"stages/(infer|trust)|algorithms/(trust|deformation|syn)|artifacts/joined|io/transforms|"
     r"geometry",
     "Deformations and transforms"),
    (r"stages/(evaluate|report|compare|collect|index)|report/|metrics|artifacts/accuracy",
     "Evaluation, report, comparison"),
    (r"stages/(demo|simulate)|algorithms/simulation", "The demo and simulated brains"),
    (r"mapping/|tools/(apply|count|export)|io/(atlas|geojson|label_tables|point)",
     "Carrying, counting, exporting"),
    (r"tools/(fetch|verify|clean)|io/(downloads|sums|files|detached|provenance)|planning/|"
     r"artifacts/(receipts|rows|cells|brain_folders)|cli\.py|errors\.py|commands\.py",
     "Files, downloads, runs and the command line"),
)  # fmt: skip
"""Patterns of the path of modules, and the topic of what they say; the first that fits counts."""
OTHER = "Others"
_WRITERS = re.compile(r"doubt|contradict|fault|why_|_why|start_from|length_of_brain|reason_of")
"""Functions whose strings are messages that others hand on."""

_KINDS = {
    "ends": "ends the command",
    "part": "part of such a line",
    "warning": "warning",
    "check": "`sbr check`",
    "doctor": "`sbr doctor`",
}
"""How a message is met with, in the words of the page."""


@dataclass(frozen=True)
class Message:
    """One message as the code contains it.

    Attributes
    ----------
    kind : a key of `_KINDS`.
    file, line : where in the repository.
    text : what it says; ‹name› stands for what is filled in.
    """

    kind: str
    file: str
    line: int
    text: str

    @property
    def topic(self) -> str:
        path = self.file.removeprefix("sbr_core/")
        return next((topic for pattern, topic in TOPICS if re.match(pattern, path)), OTHER)

    @property
    def says_something(self) -> bool:
        """Whether there is more to it than what is filled in, which is a message made elsewhere."""
        return bool(re.sub(r"‹[^›]*›|[ /:;,…]", "", self.text))


@cache
def collected(repository: Path) -> tuple[Message, ...]:
    """All messages of the package, in the order of its files."""
    package = repository / "sbr_core"
    trees = {
        str(file.relative_to(repository)): ast.parse(file.read_text(encoding="utf-8"))
        for file in sorted(package.rglob("*.py"))
    }
    errors = _error_classes(trees.values())
    return tuple(m for file, tree in trees.items() for m in _of_file(file, tree, errors))


def _error_classes(trees) -> set[str]:
    """Names of `SbrError` and of all classes derived from it."""
    bases = {
        node.name: {ast.unparse(base) for base in node.bases}
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    known = {"SbrError"}
    while more := {name for name, of in bases.items() if of & known} - known:
        known |= more
    return known


def _of_file(file: str, tree: ast.Module, errors: set[str]) -> Iterator[Message]:
    scope_of: dict[ast.AST, ast.AST] = {}
    for scope in ast.walk(tree):
        if isinstance(scope, ast.FunctionDef):
            scope_of.update((node, scope) for node in ast.walk(scope))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and _WRITERS.search(node.name):
            for text in _handed_on(node):
                yield Message("part", file, node.lineno, text)
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = ast.unparse(node.func)
        if name in errors:
            kind, said = "ends", node.args[0]
        elif name == "ValueError":
            kind, said = "part", node.args[0]
        elif name.endswith("logger.warning"):
            kind, said = "warning", node.args[0]
        elif name == "Finding" and len(node.args) == 3:
            if ast.unparse(node.args[1]) == "'fine'":
                continue
            kind, said = "check", node.args[2]
        elif name == "Finding" and len(node.args) > 4:
            kind, said = "doctor", node.args[4]
        else:
            continue
        text = " ".join(as_said(said, scope_of.get(node)).split())
        yield Message(kind, file, node.lineno, text)


def _handed_on(function: ast.FunctionDef) -> Iterator[str]:
    """Sentences that a function returns, yields or adds to a list; not those of its errors."""
    for node in ast.walk(function):
        match node:
            case ast.Return(value=ast.Tuple(elts=said)) | ast.Yield(value=ast.Tuple(elts=said)):
                pass
            case ast.Return(value=value) | ast.Yield(value=value) if value is not None:
                said = [value]
            case ast.Call(func=ast.Attribute(attr="append"), args=said):
                pass
            case _:
                continue
        for value in said:
            if isinstance(value, ast.JoinedStr | ast.Constant | ast.BinOp | ast.IfExp | ast.Name):
                text = " ".join(as_said(value, function).split())
                if len(re.findall(r"[a-z]{2,}", re.sub(r"‹[^›]*›", "", text))) >= 3:
                    yield text


def as_said(node: ast.expr, scope: ast.AST | None = None) -> str:
    """The text that an expression makes, with ‹name› for what only a run can fill in."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(as_said(part, scope) for part in parts)
        case ast.FormattedValue(value=ast.Constant() | ast.IfExp() as inner):
            return as_said(inner, scope)
        case ast.FormattedValue(value=inner):
            return _filled_in(inner)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return as_said(left, scope) + as_said(right, scope)
        case ast.IfExp(body=body, orelse=other):
            texts = [t for t in (as_said(body, scope), as_said(other, scope)) if t.strip()]
            return " / ".join(texts)
        case ast.Name(id=name) if scope is not None:
            made = [as_said(value) for value in _assigned(name, scope)]
            return " / ".join(made) or _filled_in(node)
    return _filled_in(node)


def _assigned(name: str, scope: ast.AST) -> Iterator[ast.expr]:
    """What a function assigns to a name, alone or beside others."""
    for node in ast.walk(scope):
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            match target, node.value:
                case ast.Name(id=known), value if known == name:
                    yield value
                case ast.Tuple(elts=targets), ast.Tuple(elts=values):
                    pairs = zip(targets, values, strict=False)
                    yield from (v for t, v in pairs if isinstance(t, ast.Name) and t.id == name)


def _filled_in(node: ast.expr) -> str:
    """A short name in place of a value."""
    names = re.findall(r"[A-Za-z_]\w*", ast.unparse(node))
    skip = {"str", "len", "repr", "some_of", "join", "self", "options", "sorted", "name", "shape"}
    chosen = [n for n in names if n not in skip] or names or ["value"]
    return f"‹{chosen[0].strip('_').lower()}›"


# --------------------------------------------------------------------------------------------
# The page


def advice() -> dict[str, list[dict[str, str]]]:
    """What to do about the most common ones, written by hand."""
    return yaml.safe_load(ADVICE.read_text(encoding="utf-8"))


def as_markdown(repository: Path) -> str:
    """A part for each topic: what to do about the common ones, then all there are."""
    by_hand = advice()
    topics = [topic for _, topic in TOPICS] + [OTHER]
    parts = []
    for topic in topics:
        of_topic = [m for m in collected(repository) if m.topic == topic and m.says_something]
        if of_topic:
            parts.append(_part(topic, by_hand.get(topic, []), of_topic))
    return "\n\n".join(parts)


def _part(topic: str, by_hand: list[dict[str, str]], messages: list[Message]) -> str:
    lines = [f"## {topic}", ""]
    if by_hand:
        lines += ["| it says | what to do |", "|---|---|"]
        lines += [f"| {_cell(row['says'])} | {' '.join(row['do'].split())} |" for row in by_hand]
        lines += [""]
    said: dict[tuple[str, str], Message] = {}
    for message in messages:
        said.setdefault((message.text, message.kind), message)
    lines += [
        f"### All of them: {len(said)}",
        "",
        "| message | how it comes | in |",
        "|---|---|---|",
    ]
    for message in sorted(said.values(), key=lambda m: (list(_KINDS).index(m.kind), m.text)):
        module = message.file.removeprefix("sbr_core/")
        lines.append(f"| {_cell(message.text)} | {_KINDS[message.kind]} | `{module}` |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    """A message as code in the cell of a table: only HTML keeps its blanks, bars and backticks."""
    safe = html.escape(text, quote=False)
    for sign in "|`*_[]\\$":
        safe = safe.replace(sign, f"&#{ord(sign)};")
    return f"<code>{safe}</code>"
