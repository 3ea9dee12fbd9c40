"""What metrics, statistics and classes are called."""

from __future__ import annotations

import pytest

from sbr_core.io.label_tables import Label, LabelTable
from sbr_core.report import words
from sbr_core.report.measures import LOWER_IS_BETTER


def test_every_metric_that_is_graded_has_words():
    assert set(LOWER_IS_BETTER) <= set(words.METRICS)
    for said in words.METRICS.values():
        assert "_" not in said.name and said.meaning.endswith(".")


def test_an_unknown_metric_keeps_its_name_and_unit():
    assert words.metric("cell_count", "1/mm²").scale == "1/mm²"
    assert words.metric("cell_count").name == "cell count"


@pytest.mark.parametrize(
    ("statistic", "text"),
    [
        ("mean", "mean"),
        ("p50", "median"),
        ("p95", "95 % are below"),
        ("value", ""),
        ("plain", "plain"),
    ],
)
def test_statistics(statistic, text):
    assert words.statistic(statistic) == text


def test_a_class_is_called_by_its_table_and_else_by_its_number():
    labels = LabelTable(None, {2: Label(2, "cortex")})
    names = [words.class_name(label, labels) for label in ("2", "3", "", "grey matter")]
    assert names == ["cortex", "label 3", "", "grey matter"]
