"""The JSON schema of the configuration."""

from __future__ import annotations

import json

from sbr_core.config.whole import Config


def json_schema() -> str:
    """JSON schema of the configuration, as it is in ``workflow/schemas``."""
    return json.dumps(Config.model_json_schema(), indent=2, sort_keys=True) + "\n"
