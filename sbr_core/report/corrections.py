"""What the page of a brain says of its user's corrections."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from sbr_core.artifacts import names
from sbr_core.io.files import read_json


class Corrected(BaseModel):
    """What `evaluate` recorded of the corrections.

    Attributes
    ----------
    verdicts : section -> ``accept`` or ``reject``.
    correction_notes : section -> the user's own words.
    """

    verdicts: dict[str, str] = {}
    correction_notes: dict[str, str] = {}

    @classmethod
    def of(cls, evaluation: Path) -> Corrected:
        """Those of a folder of `evaluate`; none where there is no such folder."""
        facts = evaluation / names.EVALUATION
        return read_json(facts, cls) if facts.is_file() else cls()

    @property
    def alarms(self) -> list[str]:
        """A line for each section that is kept out of volumes."""
        return [
            f"section {section} was rejected and is in no volume"
            for section, verdict in self.verdicts.items()
            if verdict == "reject"
        ]

    def facts(self, section: str) -> list[str]:
        """What is shown with a section."""
        words = {"accept": "accepted", "reject": "rejected: in no volume"}
        said = [words[self.verdicts[section]]] if section in self.verdicts else []
        if note := self.correction_notes.get(section):
            said.append(f"“{note}”")
        return said
