"""Measurements against those of linear."""

from __future__ import annotations

import pytest

from sbr_core.io.label_tables import Label, LabelTable
from sbr_core.io.tables import write_tsv
from sbr_core.report import words
from sbr_core.report.measures import Measured, on_simulated_pairs, read_measurements

METHODS = ("linear", "sbr")


def write_sections(folder, *rows):
    """A table of sections of (method, section, metric, class, value)."""
    columns = ("method", "section", "metric", "class", "value")
    write_tsv(folder / "sections.tsv", [dict(zip(columns, row, strict=True)) for row in rows])


def write_summary(folder, *rows):
    """A table of statistics of (method, metric, class, statistic, value)."""
    columns = ("method", "metric", "class", "statistic", "value")
    rows = [dict(zip(columns, row, strict=True)) | {"unit": "u", "n": 7} for row in rows]
    write_tsv(folder / "summary.tsv", rows)


def test_values_are_read_as_they_were_written_and_none_where_there_is_no_table(tmp_path):
    write_sections(tmp_path, ("sbr", "s1", "dice", "2", 0.1 + 0.2), ("sbr", "s2", "dice", "2", ""))
    values = read_measurements(tmp_path / "sections.tsv")["value"]
    assert values[0] == 0.1 + 0.2 and values.isna().tolist() == [False, True]
    nothing = Measured(tmp_path / "nowhere", METHODS)
    assert nothing.table() == nothing.worse_than_linear() == [] and nothing.of_sections() == {}
    assert nothing.by_section("dice", "sbr") == {}
    assert nothing.headline("dice", "sbr") is None
    assert on_simulated_pairs(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("metric", "linear", "value", "grade"),
    [
        ("in_plane_mm", 2.0, 1.9, "good"),
        ("in_plane_mm", 2.0, 2.1, "bad"),
        ("in_plane_mm", 2.0, 1.99, ""),  # within one per cent
        ("dice", 0.8, 0.9, "good"),
        ("dice_volume", 0.8, 0.7, "bad"),
        ("folding", 0.0, 0.001, "bad"),
        ("folding", 0.0, 0.0, ""),
        ("through_plane_mm", 2.0, 1.0, ""),  # no method of sections changes it
    ],
)
def test_a_value_is_graded_against_linear_by_what_is_better(tmp_path, metric, linear, value, grade):
    write_summary(
        tmp_path, ("linear", metric, "", "mean", linear), ("sbr", metric, "", "mean", value)
    )
    (line,) = Measured(tmp_path, METHODS).table()
    assert [cell["grade"] for cell in line["cells"]] == ["", grade]
    said = words.METRICS[metric]
    assert (line["metric"], line["unit"], line["n"]) == (said.name, said.scale, "7")
    assert line["meaning"] == said.meaning


def test_a_method_that_was_not_measured_has_a_dash_and_without_linear_there_is_no_grade(tmp_path):
    write_summary(tmp_path, ("sbr", "dice", "3", "mean", 0.5), ("nmi", "dice", "3", "max", 0.5))
    mean, highest = Measured(tmp_path, METHODS).table()
    assert [cell["text"] for cell in mean["cells"]] == ["–", "0.500"]
    assert [cell["text"] for cell in highest["cells"]] == ["–", "–"]
    assert not any(cell["grade"] for line in (mean, highest) for cell in line["cells"])


def test_the_headline_is_the_mean_over_classes_of_means_alone(tmp_path):
    write_summary(
        tmp_path,
        ("sbr", "dice", "2", "mean", 0.6),
        ("sbr", "dice", "3", "mean", 0.8),
        ("sbr", "dice", "3", "min", 0.1),
        ("sbr", "dice_volume", "3", "value", 0.9),
    )
    measured = Measured(tmp_path, METHODS)
    assert measured.headline("dice", "sbr") == pytest.approx(0.7)
    assert measured.headline("dice_volume", "sbr") == 0.9
    assert measured.headline("dice", "linear") is None


def test_sections_that_got_worse_are_listed_in_the_order_of_the_stack(tmp_path):
    write_sections(
        tmp_path,
        ("linear", "s9", "dice", "2", 0.8),
        ("linear", "s9", "dice", "3", 0.8),
        ("linear", "s9", "in_plane_mm", "", 2.0),
        ("linear", "s1", "in_plane_mm", "", 2.0),
        ("linear", "s1", "dice", "2", 0.8),
        ("linear", "s1", "folding", "", 0.0),
        ("sbr", "s9", "dice", "2", 0.7),
        ("sbr", "s9", "dice", "3", 0.795),  # rounding
        ("sbr", "s9", "in_plane_mm", "", 2.5),
        ("sbr", "s1", "in_plane_mm", "", 2.04),
        ("sbr", "s1", "dice", "2", 0.9),
        ("sbr", "s1", "folding", "", 1.0),  # an alarm of its own
        ("nmi", "s1", "in_plane_mm", "", 2.06),
        ("nmi", "s2", "in_plane_mm", "", 9.0),  # linear was not measured
    )
    assert Measured(tmp_path, METHODS).worse_than_linear() == [
        "section s9: sbr is worse than linear in landmark error in the plane 2.50 mm"
        " (linear 2.00), overlap of labels (Dice) of label 2 0.700 (linear 0.800)",
        "section s1: nmi is worse than linear in landmark error in the plane 2.06 mm (linear 2.00)",
    ]


def test_a_section_s_values_are_told_class_by_class_and_as_means(tmp_path):
    write_sections(
        tmp_path,
        ("sbr", "s1", "dice", "2", 0.6),
        ("sbr", "s1", "dice", "3", 0.8),
        ("linear", "s1", "dice", "2", 0.5),
        ("sbr", "s1", "in_plane_mm", "", 1.0),
    )
    labels = LabelTable(None, {2: Label(2, "cortex")})
    measured = Measured(tmp_path, METHODS, labels)
    told = [
        (line["metric"], line["class"], line["unit"], [cell["text"] for cell in line["cells"]])
        for line in measured.of_sections()["s1"]
    ]
    assert told == [
        ("overlap of labels (Dice)", "cortex", "0 to 1", ["0.500", "0.600"]),
        ("overlap of labels (Dice)", "label 3", "0 to 1", ["–", "0.800"]),
        ("landmark error in the plane", "", "mm", ["–", "1.00"]),
    ]
    assert measured.by_section("dice", "sbr") == pytest.approx({"s1": 0.7})
    assert "s2" not in measured.of_sections()


def test_simulated_pairs_have_a_line_for_each_method_that_was_measured(tmp_path):
    for_method = {"sbr": (0.44, 0.61, 1.3), "linear": (1.4, 1.7, 3.1)}
    write_summary(
        tmp_path,
        *(
            (method, metric, "", statistic, value)
            for metric in ("in_plane_mm", "there_and_back_mm")
            for method, values in for_method.items()
            for statistic, value in zip(("mean", "rmse", "p95"), values, strict=True)
        ),
    )
    sbr, linear = on_simulated_pairs(tmp_path)
    assert (sbr["method"], linear["method"]) == ("sbr", "linear")
    assert [cell["text"] for cell in sbr["cells"]] == ["0.440", "0.610", "1.30"]
    assert [cell["grade"] for cell in sbr["cells"]] == ["good"] * 3
    assert [cell["grade"] for cell in linear["cells"]] == [""] * 3
