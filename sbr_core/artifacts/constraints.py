"""Landmarks of corrections, which a registration obeys, and which are never scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sbr_core.artifacts.rows import Affine, Prepared
from sbr_core.errors import ManifestError
from sbr_core.geometry import apply
from sbr_core.io.manifests import Landmark

_SAME_WORKING_PX = 0.5
"""Two landmarks nearer than this on a section are one: people set a point no more exactly on a
picture of that pixel."""


def refuse_scored(
    scored: Iterable[Landmark],
    constraints: Mapping[str, Sequence[Landmark]],
    prepared: Mapping[str, Prepared],
) -> None:
    """ManifestError where a landmark to measure by is one that the registration obeys.

    Parameters
    ----------
    constraints, prepared : by section; sections that failed are not in the latter.
    """
    for mark in scored:
        row = prepared.get(mark.section)
        if not isinstance(row, Prepared):
            continue
        for other in constraints.get(mark.section, ()):
            apart_mm = float(np.hypot(*np.subtract(mark.section_mm, other.section_mm)))
            if apart_mm <= _SAME_WORKING_PX * row.working_pixel_mm:
                at = ", ".join(f"{value:g}" for value in mark.section_mm)
                raise ManifestError(
                    f"section {mark.section!r}: landmark {mark.name or at!r} at ({at}) mm stands in"
                    f" the landmarks and, as {other.name!r}, in the corrections: what the"
                    " registration obeys says nothing of its error; remove it from one of them"
                )


@dataclass(frozen=True, eq=False)
class Constraints:
    """Landmarks of one section that its registration is to obey.

    Attributes
    ----------
    names : of the landmarks.
    plane_mm, section_mm : (n, 2), on its MRI plane, and in its file.
    beside_mm : (n,) how far from that plane the MRI's point lies, stack mm; 0 of a prealigned
        brain.
    """

    names: tuple[str, ...]
    plane_mm: np.ndarray
    section_mm: np.ndarray
    beside_mm: np.ndarray

    @classmethod
    def of(
        cls, marks: Sequence[Landmark], stack_from_world: np.ndarray | None, position_mm: float
    ) -> Constraints:
        """Those of landmarks.

        Parameters
        ----------
        stack_from_world : (4, 4); None where the landmarks are in plane mm.
        position_mm : of the section.
        """
        section_mm = np.array([mark.section_mm for mark in marks], float)
        if stack_from_world is None:
            plane_mm = np.array([mark.plane_mm for mark in marks], float)
            beside_mm = np.zeros(len(marks))
        else:
            stack_mm = apply(stack_from_world, np.array([mark.mri_mm for mark in marks], float))
            plane_mm, beside_mm = stack_mm[:, :2], np.abs(stack_mm[:, 2] - position_mm)
        return cls(tuple(mark.name for mark in marks), plane_mm, section_mm, beside_mm)

    @classmethod
    def of_row(cls, row: Affine) -> Constraints | None:
        """Those that `align-sections` found to be obeyed; None where there are none."""
        if not row.constraints:
            return None
        points = np.array([*row.constraints.values()], float)
        return cls(tuple(row.constraints), points[:, :2], points[:, 2:], np.zeros(len(points)))

    def kept(self, indices: Sequence[int]) -> dict[str, tuple[float, ...]]:
        """Some of them as a row's field `constraints`: name -> plane and section x, y."""
        both = np.concatenate([self.plane_mm, self.section_mm], axis=1).tolist()
        return {self.names[i]: tuple(both[i]) for i in indices}

    def working_mm(self, row: Prepared) -> np.ndarray:
        """(n, 2) of the section, working mm."""
        return apply(np.linalg.inv(row.section_mm_from_working_mm), self.section_mm)

    @property
    def digest(self) -> dict[str, tuple[float, ...]]:
        """What a fingerprint has of them, to a micrometre.

        The way through the MRI rounds, and may round otherwise on another machine.
        """
        every = self.kept(range(len(self)))
        return {name: tuple(round(v, 3) for v in xy) for name, xy in every.items()}

    def __len__(self) -> int:
        return len(self.names)

    def doubts(self, far_mm: float) -> list[str]:
        """A sentence for each point of the MRI farther from the section's plane than `far_mm`."""
        return [
            f"landmark {name!r} lies {mm:.1f} mm from its plane in the MRI: it is taken to the"
            " nearest point of the plane"
            for name, mm in zip(self.names, self.beside_mm, strict=True)
            if mm > far_mm
        ]


TOLERANCE_PX = 0.4
"""How near landmarks are held where nothing else is asked for: 0.5 mm at the usual working pixel,
1.25 mm, about as exactly as a point is set on a picture of that pixel."""


def tolerance_mm(asked_mm: float | None, working_pixel_mm: float) -> float:
    """How near landmarks are held, mm."""
    return TOLERANCE_PX * working_pixel_mm if asked_mm is None else asked_mm
