"""Chunks: every section in one, stable when rows come and go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbr_core.planning.chunks import MOST_CHUNKS, chunk_of, chunks_of, number_of_chunks

ids = st.lists(st.from_regex(r"[a-z0-9]{1,6}", fullmatch=True), min_size=1, unique=True)


@given(ids, st.integers(1, 50))
def test_every_section_is_in_exactly_one_chunk(sections, size):
    members = chunks_of(sections, len(sections), size)
    assert sorted(s for chunk in members.values() for s in chunk) == sorted(sections)
    assert all(
        chunk_of(s, int(name.split("of")[1])) == name for name in members for s in members[name]
    )
    assert all(members.values())


@given(st.integers(1, 100_000), st.integers(1, 200))
def test_number_of_chunks_is_the_least_power_of_two_that_holds_all_within_bounds(rows, size):
    n = number_of_chunks(rows, size)
    assert n & (n - 1) == 0 and n <= MOST_CHUNKS and (n == 1 or n // 2 * size < rows)
    assert n * size >= rows or n == MOST_CHUNKS


def test_added_row_leaves_the_others_where_they_are():
    sections = [f"s{i:03d}" for i in range(40)]
    before = chunks_of(sections, 40, 16)
    after = chunks_of([*sections, "new"], 41, 16)
    assert {k: [s for s in v if s != "new"] for k, v in after.items()} == before


def test_the_hash_is_the_same_everywhere():
    # a value that must never change: receipts of finished runs are named by it
    assert [chunk_of(s, 8) for s in ("s001", "s002", "042")] == ["3of8", "7of8", "2of8"]


def test_refuses_nothing_to_split():
    with pytest.raises(ValueError, match="at least 1"):
        number_of_chunks(0, 16)
