"""``python -m sbr_core.config``, in the repository's folder: make what is generated anew."""

from __future__ import annotations

from pathlib import Path

from sbr_core.config.generated import json_schema, with_tables

README = Path("config/README.md")
SCHEMA = Path("workflow/schemas/config.schema.json")

if __name__ == "__main__":
    SCHEMA.write_text(json_schema(), encoding="utf-8")
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
