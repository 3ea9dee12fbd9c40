"""Command lines that the page of a brain prints for what its user does next.

They work as they are written in the folder where the workflow runs: paths are relative to it, and
one that lies elsewhere is shortened, since a page may be handed on.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from sbr_core.artifacts import names

_MENDED = re.compile(r"mended(\d*)")


@dataclass(frozen=True)
class BrainPaths:
    """Where a brain has its files.

    Attributes
    ----------
    manifest : None where it is not known.
    corrections : its table of corrections; None where it has none yet.
    """

    results: Path
    manifest: Path | None = None
    corrections: Path | None = None

    @property
    def correct(self) -> str:
        """`sbr correct` of what the page saves."""
        table = self.corrections or self._manifest.with_name("corrections.tsv")
        return _line(
            *("sbr", "correct", "corrections.json", "--manifest", self._manifest),
            *("--results", self.results, "-o", self._mended, "--out-corrections", table),
        )

    @property
    def apply_findings(self) -> str:
        """`sbr apply-findings` of what the doctor found."""
        findings = self.results / "doctor" / names.FINDINGS
        return _line(
            *("sbr", "apply-findings", findings),
            *("--manifest", self._manifest, "-o", self._mended),
        )

    @property
    def _manifest(self) -> Path:
        return self.manifest or Path("sections.tsv")

    @property
    def _mended(self) -> Path:
        """A manifest to write beside the one that is used; another one in every round."""
        earlier = _MENDED.fullmatch(self._manifest.stem)
        number = int(earlier[1] or 1) + 1 if earlier else ""
        return self._manifest.with_name(f"mended{number}.tsv")


def _line(*words: str | Path) -> str:
    return " ".join(shlex.quote(_shown(w) if isinstance(w, Path) else w) for w in words)


def _shown(path: Path) -> str:
    if not path.is_absolute():
        return path.as_posix()
    here = Path.cwd()
    inside = path.is_relative_to(here)
    return path.relative_to(here).as_posix() if inside else f"…/{path.name}"
