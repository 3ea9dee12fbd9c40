"""What is said of an input, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["fine", "doubtful", "refused"]
VERDICTS: tuple[Verdict, ...] = ("fine", "doubtful", "refused")
"""From the mildest; ``doubtful`` is a warning, ``refused`` cannot be right."""


@dataclass(frozen=True)
class Finding:
    """One line of the table of `sbr check`.

    Attributes
    ----------
    subject : what was looked at: ``sections``, ``MRI``, ``landmarks``.
    words : what was found and, unless it is fine, the likely reason and what to do.
    """

    subject: str
    verdict: Verdict
    words: str


def worst(findings: Iterable[Finding]) -> Verdict:
    """The gravest verdict of some findings; ``fine`` of none."""
    return max((f.verdict for f in findings), key=VERDICTS.index, default="fine")


def refusal(findings: Iterable[Finding]) -> str:
    """What is refused, as one line; "" where nothing is."""
    return "; ".join(f"{f.subject}: {f.words}" for f in findings if f.verdict == "refused")
