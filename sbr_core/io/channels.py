"""Which channel of a picture with several is meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sbr_core.errors import ImageError


@dataclass(frozen=True)
class Channels:
    """The channels of a picture.

    Attributes
    ----------
    n : how many.
    names : what the file calls them, "" where it does not say; empty where it names none.
    """

    n: int
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, n: int, names: Sequence[str]) -> Channels:
        """Channels with these names, which count only where there is one for each of them."""
        return cls(n, tuple(names) if len(names) == n and any(names) else ())

    def index(self, path: Path, choice: str) -> int:
        """Which one is chosen, from 0.

        Parameters
        ----------
        choice : its number, from 1, or its name, whatever the case; "" where none was chosen.

        Raises
        ------
        ImageError
            None is chosen, one that is not there, or a name that several have.
        """
        if not choice:
            rgb = "; if they are red, green and blue, save it as RGB"
            raise ImageError(
                f"{path}: expected one 2D plane, found {self.n} channels: image_channel chooses one"
                f" ({self}){rgb if self.n == 3 and not self.names else ''}"
            )
        try:
            number = float(choice)  # tables that passed through other programs say 2.0
        except ValueError:
            number = 0.0
        if number in range(1, self.n + 1):
            return int(number) - 1
        called = [i for i, name in enumerate(self.names) if name.casefold() == choice.casefold()]
        if len(called) > 1:
            numbers = ", ".join(str(i + 1) for i in called)
            raise ImageError(
                f"{path}: image_channel: {len(called)} channels are called {choice!r}, expected"
                f" the number of one: {numbers}"
            )
        if not called:
            raise ImageError(f"{path}: image_channel: expected one of {self}, found {choice!r}")
        return called[0]

    def __str__(self) -> str:
        if self.names:
            return ", ".join(f"{i} {name}".rstrip() for i, name in enumerate(self.names, 1))
        return f"1 to {self.n}" if self.n > 1 else "1"


RGB = Channels(3, ("red", "green", "blue"))
