"""What is generated from the options: the JSON schema, and the tables of ``config/README.md``.

Between ``<!-- options: CLASS -->`` and ``<!-- end -->`` is a table of the keys that an option class
declares itself, with their descriptions; the keys of its parents are in tables of their own.
"""

from __future__ import annotations

import inspect
import json
import re

from pydantic.fields import FieldInfo

from sbr_core import config
from sbr_core.config.base import Options
from sbr_core.config.whole import Config

_BLOCK = re.compile(r"(?<=<!-- options: )(\w+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """A Markdown text with each table between its markers made anew."""
    return _BLOCK.sub(lambda match: f"{match[1]}{match[2]}{table(getattr(config, match[1]))}", text)


def table(model: type[Options]) -> str:
    """Markdown: the sections that have the keys of an option class, then a row for each key."""
    sections = [
        f"`{name}`"
        for name, field in Config.model_fields.items()
        if inspect.isclass(field.annotation) and issubclass(field.annotation, model)
    ]
    rows = ["| key | default | meaning |", "|---|---|---|", *_rows(model, "")]
    if len(sections) > 1:
        rows = [f"In {', '.join(sections)}:", "", *rows]
    return "\n" + "\n".join(rows) + "\n\n"


def _rows(model: type[Options], prefix: str) -> list[str]:
    """Rows of the keys of a class; a group of keys gives a row each, ``group.key``."""
    rows = []
    for key in inspect.get_annotations(model):
        field = model.model_fields[key]
        if isinstance(field.default, Options):
            rows += _rows(type(field.default), f"{prefix}{key}.")
        else:
            meaning = re.sub(r"`(docs/[\w./]+)(#\w+)?`", r"[\1](../\1\2)", field.description or "")
            rows.append(f"| `{prefix}{key}` | {_default(field)} | {meaning.removesuffix('.')} |")
    return rows


def _default(field: FieldInfo) -> str:
    """A default as it is written in YAML."""
    if field.is_required():
        return "below"
    value = field.default
    if value is None:
        return "none"
    if isinstance(value, str):
        return f"`{value}`"
    written = json.dumps(value).replace('"', "")
    return f"`{written}`" if isinstance(value, bool) else re.sub(r"\.0\b", "", written)


def json_schema() -> str:
    """JSON schema of the configuration, as it is in ``workflow/schemas``."""
    return json.dumps(Config.model_json_schema(), indent=2, sort_keys=True) + "\n"
