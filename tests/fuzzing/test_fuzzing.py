"""Damaged files of every kind end in a result or in one clear line; `benchmarks/fuzz.py` goes on.

What was found once is kept in `KEPT` and read first. The files are the same in every run.
"""

from __future__ import annotations

import pytest
from fuzzing.kept import KEPT
from fuzzing.kinds import KINDS, read_damaged, warm_up
from hypothesis import HealthCheck, Phase, given, settings

EXAMPLES = 12
"""Of each kind: with what is kept about a minute."""


@pytest.fixture(scope="module", autouse=True)
def imported():
    warm_up()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_end_in_a_result_or_one_line(tmp_path_factory, kind):
    for number, data in enumerate(KEPT.get(kind, ())):
        read_damaged(kind, data, tmp_path_factory.mktemp(f"kept{number}"))

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(KINDS[kind].damaged)
    def read(data):
        read_damaged(kind, data, tmp_path_factory.mktemp("fuzzed"))

    read()
