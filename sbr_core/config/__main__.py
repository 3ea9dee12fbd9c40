"""``python -m sbr_core.config``: write the JSON schema of the configuration to stdout."""

from __future__ import annotations

from sbr_core.config.schema import json_schema

if __name__ == "__main__":
    print(json_schema(), end="")
