"""Names of files, stated once."""

from __future__ import annotations

from pathlib import Path

SHIPPED_REGISTRAR = Path(__file__).with_name("shipped_registrar.safetensors")
"""Trained by `sbr train-shapes` with its defaults; no image of any brain went into it."""
