"""Histology sections and an MRI of the same brain, registered in 3D by Synth-by-Reg.

`Brain` maps points between the sections, the planes, the stack and the MRI of a finished result.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sbr_core.mapping.brain import Brain as Brain

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """`Brain`, imported when it is first asked for: the help of the command line needs no numpy.

    By name, since no room may depend on those above it, as all of them depend on this module.
    """
    if name == "Brain":
        return import_module("sbr_core.mapping.brain").Brain
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "Brain"])
