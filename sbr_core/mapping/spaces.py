"""Names of the spaces that `sbr apply` and `Brain` map between.

==============  ===================================================================================
``section:ID``  the stored image file of a section: px (pixel centres at integers), or px times
                ``pixel_size_mm``, from the centre of its first pixel; before ``flip`` and
                ``rotate_deg``
``plane:ID``    the MRI plane of a section: px of the working grid, or mm
``stack``       (x, y) of the planes and ``position_mm``, all in mm
``mri``         the MRI's RAS+ mm
``atlas``       the RAS+ mm of a template that the MRI is registered to
==============  ===================================================================================

``section`` or ``plane`` without an id stand for whichever section a row or a file belongs to, or,
as a target, for the nearest one.
"""

from __future__ import annotations

from dataclasses import dataclass

from sbr_core.errors import ConfigError

IN_PLANE, IN_SPACE = ("section", "plane"), ("stack", "mri", "atlas")
"""Kinds of spaces with points (x, y), and with points (x, y, z)."""


@dataclass(frozen=True)
class Space:
    """One space.

    Attributes
    ----------
    kind : of `IN_PLANE` or `IN_SPACE`.
    section : id; None of a kind in space, or where it is left open.
    """

    kind: str
    section: str | None = None

    @classmethod
    def of(cls, text: str, flag: str = "space") -> Space:
        """The space of a name; ConfigError where it is none.

        Parameters
        ----------
        flag : that it was given by, for the message.
        """
        kind, colon, section = text.partition(":")
        if kind in IN_PLANE and (section or not colon):
            return cls(kind, section or None)
        if kind in IN_SPACE and not colon:
            return cls(kind)
        raise ConfigError(
            f"{flag}: expected section:ID, plane:ID, stack, mri or atlas, found {text!r}"
        )

    @property
    def n_axes(self) -> int:
        """2 or 3."""
        return 2 if self.kind in IN_PLANE else 3

    @property
    def is_open(self) -> bool:
        """Whether it is that of a section without saying of which."""
        return self.kind in IN_PLANE and self.section is None

    def at(self, section: str) -> Space:
        """The space of this kind of a section; one that is not open stays as it is."""
        return Space(self.kind, section) if self.is_open else self

    def __str__(self) -> str:
        return self.kind if self.section is None else f"{self.kind}:{self.section}"
