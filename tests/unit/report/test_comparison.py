"""Statistics of a comparison: what is tested against what, and which section is typical."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sbr_core.artifacts.rows import Inferred, write_rows
from sbr_core.config import CompareOptions
from sbr_core.geometry import PlaneGrid
from sbr_core.io.tables import write_tsv
from sbr_core.report import comparison

METHODS = ("linear", "nmi", "sbr")
SECTIONS = [f"{number:03d}" for number in range(12)]
# what each method adds to linear's landmark error and Dice
ERROR = {"linear": 0.0, "nmi": 0.05, "sbr": -0.5}
DICE = {"linear": 0.0, "nmi": 0.0, "sbr": 0.1}


@pytest.fixture
def values(tmp_path):
    """Values of every section: sbr is always better than linear, nmi's error always worse."""
    rng = np.random.default_rng(0)
    rows = []
    for number, section in enumerate(SECTIONS):
        noise = 1 + rng.uniform(0, 0.01)
        for method in METHODS:
            error_mm = 2 + 0.1 * number + ERROR[method] * noise
            dice = 0.7 + 0.01 * number + DICE[method] * noise
            common = {"brain": "b", "method": method, "section": section}
            for metric, class_, value, unit in (
                ("folding", "", 0.0, "1"),
                ("there_and_back_mm", "", 0.1, "mm"),
                ("dice", "3", dice, "1"),
                ("dice", "2", dice, "1"),
                ("in_plane_mm", "", error_mm, "mm"),
            ):
                rows.append(
                    {**common, "metric": metric, "class": class_, "value": value, "unit": unit}
                )
    unmeasured = {"metric": "in_plane_mm", "class": "", "value": "", "unit": "mm"}
    other = {"metric": "in_plane_mm", "class": "", "value": 9.0, "unit": "mm"}
    rows.append({"brain": "b", "method": "sbr", "section": "100", **unmeasured})
    rows.append({"brain": "b", "method": "syn_mi", "section": "000", **other})
    write_tsv(tmp_path / "measured.tsv", rows)
    return comparison.read_values(tmp_path / "measured.tsv", METHODS)


def frame(*rows):
    """Values as `read_values` returns them, of (metric, class, method, section, value)."""
    values = pd.DataFrame(rows, columns=("metric", "class", "method", "section", "value"))
    metrics = ["in_plane_mm", "dice", "folding"]
    return values.assign(
        metric=pd.Categorical(values["metric"], metrics),
        method=pd.Categorical(values["method"], METHODS),
    )


def row_of(rows, **where):
    (row,) = [row for row in rows if all(row[k] == v for k, v in where.items())]
    return row


def test_values_are_finite_and_of_the_methods_and_metrics_that_are_compared(values):
    assert len(values) == 12 * 3 * 4 and values["value"].max() < 9
    assert set(values["metric"]) == {"in_plane_mm", "dice", "folding"}


def test_tests_pair_each_method_with_each_reference_and_name_the_better(values):
    tests = comparison.paired_tests(values)
    assert list(dict.fromkeys(test["metric"] for test in tests)) == [
        "in_plane_mm",
        "dice",
        "folding",
    ]
    error = row_of(tests, metric="in_plane_mm", method="sbr", reference="linear")
    assert error["median_difference"] == pytest.approx(-0.5, abs=0.01)
    assert (error["rank_biserial"], error["better"], error["n"]) == (-1.0, "sbr", 12)
    assert error["unit"] == "mm"
    dice = row_of(tests, metric="dice", method="sbr", reference="linear", **{"class": "2"})
    assert (dice["rank_biserial"], dice["better"], dice["unit"]) == (1.0, "sbr", "1")
    worse = row_of(tests, metric="in_plane_mm", method="nmi", reference="linear")
    assert worse["better"] == "linear"
    assert row_of(tests, metric="in_plane_mm", method="nmi", reference="sbr")["better"] == "sbr"
    same = row_of(tests, metric="folding", method="sbr", reference="linear")
    assert (same["p"], same["better"]) == (1.0, "")
    # two methods against linear: Holm's smallest p counts twice, and nothing is made smaller
    assert all(test["p_holm"] >= test["p"] for test in tests)
    assert error["p_holm"] == pytest.approx(2 * error["p"])


def test_summary_has_a_row_for_each_method_metric_and_class(values, tmp_path):
    methods = {method: tmp_path / method for method in METHODS}
    for method, folder in methods.items():
        common = {"grid": PlaneGrid((4, 4), 1.0), "folding_percent": 0.0, "inverse_mean_px": 0.0}
        common |= {"disp_mean_mm": 0.0, "disp_max_mm": 0.0, "inverse_p99_px": 0.0}
        # a batch's time is that of its first section
        seconds = [8.0] + [1.0] * 11 if method == "nmi" else [None] * 12
        rows = [
            Inferred(section=section, position_mm=0.0, seconds=s, **common)
            for section, s in zip(SECTIONS, seconds, strict=True)
        ]
        write_rows(folder / "sections.tsv", rows)
    trainings = {"linear": None, "nmi": None, "sbr": (1.5, 8)}
    tests = comparison.paired_tests(values)
    summary = comparison.summary_rows(values, tests, methods, trainings)
    linear = row_of(summary, method="linear", metric="in_plane_mm")
    assert linear["mean"] == pytest.approx(2 + 0.1 * 5.5)
    assert linear["median"] == pytest.approx(2 + 0.1 * 5.5)
    assert (linear["n"], linear["unit"], linear["p_holm_vs_linear"]) == (12, "mm", "")
    sbr = row_of(summary, method="sbr", metric="dice", **{"class": "3"})
    # 12 sections, all better: 2/2^12, times the two methods and two classes of the family
    assert sbr["p_holm_vs_linear"] == pytest.approx(4 * 2 / 2**12)
    assert sbr["p_holm_vs_sbr"] == ""
    seconds = row_of(summary, metric="seconds_per_section")
    assert seconds["method"] == "nmi" and seconds["mean"] == pytest.approx((8 + 11) / 12)
    assert row_of(summary, metric="training_minutes")["mean"] == 1.5
    assert row_of(summary, metric="training_steps")["mean"] == 8

    lines = comparison.lines_of_summary(summary, tests, METHODS, alpha=0.05)
    by_line = {(line["metric"], line["class"]): line["cells"] for line in lines}
    assert list(by_line)[:3] == [("In-plane landmark error (mm)", ""), ("Dice", "2"), ("Dice", "3")]
    errors = by_line["In-plane landmark error (mm)", ""]
    assert [cell["grade"] for cell in errors] == ["", "bad", "good"]
    assert [cell["differs"] for cell in errors] == [True, True, False]
    times = by_line["Inference per section (s)", ""]
    assert [cell["text"] for cell in times] == ["–", "1.58", "–"]


@pytest.mark.parametrize(
    ("rows", "time"),
    [
        ([], None),  # of 0 steps
        ([{"step": 1, "loss": 2.0}], None),  # the shipped registrar's
        ([{"step": 7, "loss": 1, "seconds": 60}, {"step": 8, "loss": 1, "seconds": 90}], (1.5, 8)),
    ],
)
def test_a_training_that_took_no_step_or_no_time_here_has_none(tmp_path, rows, time):
    assert comparison.training_time(tmp_path / "loss.tsv") is None
    write_tsv(tmp_path / "loss.tsv", rows, ("step", "loss"))
    assert comparison.training_time(tmp_path / "loss.tsv") == time


def test_the_typical_section_is_that_of_all_methods_and_the_best_of_none():
    sections = list("abcdefg")
    ranks = {"linear": (1, 2, 3, 4, 5, 6, 7), "sbr": (1, 3, 2, 4, 6, 5, 7)}
    dice = [
        ("dice", "2", method, section, value)
        for method, values in ranks.items()
        for section, value in zip(sections, values, strict=True)
    ]
    assert comparison.typical_section(frame(*dice), sections) == ("d", "dice")
    # of the sections there are to choose from
    assert comparison.typical_section(frame(*dice), list("abc")) == ("b", "dice")
    # landmarks come first, folding never; a section that one method lacks is not shown
    errors = [("in_plane_mm", "", *row[2:]) for row in dice if row[2:4] != ("sbr", "d")]
    values = frame(("dice", "2", "linear", "a", 0.1), *errors)
    section, metric = comparison.typical_section(values, sections)
    assert metric == "in_plane_mm" and section in "ce"
    assert comparison.typical_section(frame(("folding", "", "linear", "a", 0.0)), ["a"]) is None


def test_boxes_are_signed_where_a_method_differs_from_a_reference(values):
    error, dice = comparison.box_figures(values, comparison.paired_tests(values), alpha=0.05)
    assert (error.name, dice.name) == ("box_in_plane_mm", "box_dice")  # folding has none
    assert "* differs from Linear, † differs from SbR (Wilcoxon, Holm, p < 0.05)" in error.caption
    (axes,) = error.figure.axes
    assert axes.get_title() == "n = 12" and axes.get_ylabel() == "In-plane landmark error (mm)"
    assert [text.get_text() for text in axes.texts] == ["†", "*†", "*"]
    assert [axes.get_title() for axes in dice.figure.axes] == [
        "class 2 (n = 12)",
        "class 3 (n = 12)",
    ]
    (untested, _) = comparison.box_figures(values, [], alpha=0.05)
    assert untested.caption.endswith("diamond: mean.")


def test_notes_name_methods_left_out_and_the_training_that_is_not_counted(tmp_path):
    methods = {"linear": tmp_path, "sbr": tmp_path}
    options = CompareOptions(minutes=3)
    notes = comparison.notes(options, methods, {"linear": None, "sbr": (3.0, 70)}, (12.0, 400))
    assert "Every trained method had 3 minutes" in notes[0]
    assert "trained beforehand, in 12.0 minutes (400 steps)" in notes[1]
    assert "Left out, for want of labels to train with: NMIw." in notes
    untrained = comparison.notes(options, {"linear": tmp_path}, {"linear": None}, None)
    assert len(untrained) == 2
