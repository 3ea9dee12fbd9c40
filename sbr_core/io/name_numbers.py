"""The number in each name of a set of files: which section it is, or where it lies.

It is the one that differs from name to name. Dates and times differ too, and are none; a sign and
decimals count where something tells that they are meant, since a dash mostly separates words and a
full stop mostly separates two numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_Y, _M, _D = r"(?:19|20)\d\d", r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
_SHORT_M, _SHORT_D = r"(?:0?[1-9]|1[0-2])", r"(?:0?[1-9]|[12]\d|3[01])"
_CLOCK = r"(?:[01]\d|2[0-3])"
_TIME = rf"{_CLOCK}(?P<colon>[-:.h]?)[0-5]\d(?:(?P=colon)|m)[0-5]\d(?!\d)"
_DATES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?<!\d){_Y}{_M}{_D}t?{_CLOCK}[0-5]\d[0-5]\d(?!\d)",
        rf"(?<!\d){_Y}([-.]){_SHORT_M}\1{_SHORT_D}(?!\d)(?:[t_ -]{_TIME})?",
        rf"(?<!\d){_Y}{_M}{_D}(?!\d)(?:[t_ -](?!00){_TIME})?",
        rf"(?<![a-z\d]){_SHORT_D}([-._]){_SHORT_D}\1{_Y}(?!\d)",
        rf"(?<![a-z\d])\d{{1,2}}[-_. ]?{_MONTH}[-_. ]?(?:{_Y}|\d\d)(?!\d)",
        rf"(?<![a-z]){_MONTH}[-_. ]?\d{{1,2}}[-_., ]+{_Y}(?!\d)",
    )
)
"""Dates, with the time that may follow, which nothing else looks like."""
_PERHAPS_DATES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?<!\d){_Y}_{_M}_{_D}(?!\d)",
        rf"(?<!\d)\d\d([-._]){_M}\1\d\d(?!\d)",
        rf"(?<!\d){_M}([-._]){_D}\1\d\d(?!\d)",
        rf"(?<!\d)\d\d{_M}{_D}(?!\d)",
        rf"(?<!\d){_D}{_M}\d\d(?!\d)",
    )
)
"""What may be a date or a number of several parts: a date where another number differs too."""
_SECTION_WORD = re.compile(
    r"(?:^|[^a-z])(?:s|sec|sect|section|slice|slide|sl|nr|no|n|z|bregma)[-_ .#]*$"
)
"""What stands before the number of a section."""
_PLACE_WORD = re.compile(
    r"(?:^|[^a-z])(?:bregma|interaural|lateral|ap|ml|dv|z|pos|position)[-_ =]*$"
)
"""What stands before a place in mm, which may have decimals."""
_SIGNED_WORD = re.compile(r"(?:^|[^a-z])(?:bregma|interaural|lateral|ap|ml|dv)$")
"""What a dash behind is a sign: coordinates of an atlas, half of which are negative."""
_DECIMAL = re.compile(r"\d+(?:[.,]\d+)?")
_SIGNS = {"-": -1, "+": 1, "\N{MINUS SIGN}": -1, "\N{EN DASH}": -1}


@dataclass(frozen=True)
class Numbers:
    """One number in each name, no two of them the same.

    Attributes
    ----------
    values : of the names, in their order.
    texts : as they are written in them.
    are_decimal : whether a sign or decimals count.
    have_dates : whether the names have dates, which do not count.
    """

    values: tuple[Fraction, ...]
    texts: tuple[str, ...]
    are_decimal: bool
    have_dates: bool


def numbers_in(stems: Sequence[str]) -> Numbers | None:
    """The number of each name; None where no place in them differs in all.

    Of several such places it is the last after a word like ``s`` or ``slice``, otherwise the last.

    Parameters
    ----------
    stems : names without their endings.
    """
    bare = [_without(stem.casefold(), _DATES) for stem in stems]
    if len(stems) < 2:
        return None
    have_dates = bare != [stem.casefold() for stem in stems]
    for patterns in (_PERHAPS_DATES, ()):
        without = [_without(stem, patterns) for stem in bare]
        if patterns and without == bare:
            continue
        found = _decimals(without) or _whole_numbers(without)
        if found is not None:
            have_dates = have_dates or without != bare
            return Numbers(found[0], found[1], found[2], have_dates)
    return None


def have_dates(stems: Sequence[str]) -> bool:
    """Whether names have something that nothing but a date looks like."""
    return any(pattern.search(stem.casefold()) for stem in stems for pattern in _DATES)


def _without(stem: str, patterns: Sequence[re.Pattern[str]]) -> str:
    """A name in small letters with a sign for each letter of what matches."""
    for pattern in patterns:
        stem = pattern.sub(lambda found: "~" * len(found[0]), stem)
    return stem


_Found = tuple[tuple[Fraction, ...], tuple[str, ...], bool]


def _whole_numbers(stems: Sequence[str]) -> _Found | None:
    places = _places(stems, re.compile(r"\d+"))
    different = [place for place in places if len({int(m[0]) for m in place}) == len(stems)]
    if not different:
        return None
    after_word = [
        place
        for place in different
        if all(_SECTION_WORD.search(s[: m.start()]) for s, m in zip(stems, place, strict=True))
    ]
    chosen = (after_word or different)[-1]
    return tuple(Fraction(int(m[0])) for m in chosen), tuple(m[0] for m in chosen), False


def _decimals(stems: Sequence[str]) -> _Found | None:
    """Numbers with a sign or decimals, where something tells that these are meant."""
    for place in reversed(_places(stems, _DECIMAL)):
        before = [stem[: found.start()] for stem, found in zip(stems, place, strict=True)]
        after = [stem[found.end() :] for stem, found in zip(stems, place, strict=True)]
        fractions = [re.split("[.,]", found[0])[1:] for found in place]
        signs = [text[-1:] if text[-1:] in _SIGNS else "" for text in before]
        # a dash after a letter or a number separates, unless other names have none there
        are_apart = [not text[-2:-1].isalnum() for text in before]
        is_mixed = len({_SIGNS.get(sign, 1) for sign in signs}) > 1
        bare = [text.rstrip("".join(_SIGNS)) for text in before]
        is_place = all(_PLACE_WORD.search(text) for text in bare) or all(
            re.match(r"[-_ ]?mm(?![a-z])", text) for text in after
        )
        with_sign = (is_mixed and not any(text[-1:].isdigit() for text in bare)) or (
            all(signs)
            and (all(are_apart) or all(_SIGNED_WORD.search(text) for text in bare))
            and (is_place or any(fractions))
        )
        has_zero = any(set(digits[0]) == {"0"} for digits in fractions if digits)
        if not (with_sign or (any(fractions) and (is_place or has_zero))):
            continue
        texts = [
            (sign if with_sign else "") + found[0] for sign, found in zip(signs, place, strict=True)
        ]
        values = [
            Fraction(found[0].replace(",", ".")) * (_SIGNS.get(sign, 1) if with_sign else 1)
            for sign, found in zip(signs, place, strict=True)
        ]
        if len(set(values)) == len(values):
            return tuple(values), tuple(texts), True
    return None


def _places(stems: Sequence[str], pattern: re.Pattern[str]) -> list[list[re.Match[str]]]:
    """The numbers at each place of the names; none where the names have not equally many."""
    found = [list(pattern.finditer(stem)) for stem in stems]
    if len({len(some) for some in found}) != 1:
        return []
    return [list(place) for place in zip(*found, strict=True)]
