"""The law from evidence to millimetres, and its numbers.

In each cell the square of the expected error is a sum of squares, ::

    e² = floor² + (a match)² + (b strain)² + (c disagreement)²

in shares of the tissue's extent. So the section's value, the root mean square over its tissue, is
the same law of what is known of the section as a whole. Where no other method deforms, there is no
disagreement, and the other terms have numbers of their own.

The numbers are fitted by ``benchmarks/trust.py`` to sections whose deformation is known
(benchmarks/2026-12-01_trust.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sbr_core.algorithms.trust.evidence import Evidence


@dataclass(frozen=True)
class Law:
    """Numbers of the law.

    Attributes
    ----------
    floor : what is expected of a section that nothing speaks against, a share of the extent.
    match, strain, disagreement : factors.
    """

    floor: float
    match: float
    strain: float
    disagreement: float = 0.0

    def of_numbers(self, numbers: Mapping[str, float]) -> float:
        """Expected error of a section, as a share of its extent."""
        square = self.floor**2
        for name in ("match", "strain", "disagreement"):
            square += (getattr(self, name) * numbers.get(name, 0.0)) ** 2
        return square**0.5


ALONE = Law(floor=0.0051, match=0.8288, strain=0.0286)
"""Where no other method deforms."""
AMONG_OTHERS = Law(floor=0.0049, match=0.753, strain=0.0247, disagreement=0.4235)


def law_for(evidence: Mapping[str, float]) -> Law:
    """The law for what is known of a section."""
    return AMONG_OTHERS if "disagreement" in evidence else ALONE


def expected_error_mm(evidence: Evidence) -> tuple[float, np.ndarray]:
    """Of a section, root mean square over its tissue, and of its cells (rows, columns)."""
    numbers = evidence.numbers()
    law, extent_mm = law_for(numbers), evidence.cells.extent_mm
    square = law.floor**2 + (law.match * evidence.match) ** 2 + (law.strain * evidence.strain) ** 2
    if evidence.disagreement is not None:
        square = square + (law.disagreement * evidence.disagreement) ** 2
    of_cells = np.where(evidence.cells.tissue > 0, np.sqrt(square) * extent_mm, 0.0)
    return law.of_numbers(numbers) * extent_mm, of_cells
