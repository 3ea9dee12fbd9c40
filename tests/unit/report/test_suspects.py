"""The suspects at the top of the page: the worst first, ten of them, then the rest folded away."""

from pathlib import Path

import numpy as np
import pytest
from jinja2 import Environment, PackageLoader

from sbr_core.artifacts import names
from sbr_core.artifacts.rows import Trusted
from sbr_core.report.corrections import Corrected
from sbr_core.report.measures import Measured
from sbr_core.report.suspects import most_of_the_mean, suspects

NONE = Measured(Path("no such folder"), ["mind"])


def trusted(section, wrong, reason="matches better 4 mm away", next_step="set three landmarks"):
    return Trusted(
        section=section,
        position_mm=0.0,
        expected_error_mm=2.0,
        likely_wrong=wrong,
        reason=reason,
        next_step=next_step,
    )


@pytest.fixture
def measured(tmp_path):
    """Returns what was measured: metric -> section -> value, of the method ``mind``."""

    def of(**metrics):
        lines = [
            f"b\tmind\t{section}\t{metric}\t\t{value!r}\tmm"
            for metric, of_sections in metrics.items()
            for section, value in of_sections.items()
        ]
        header = "brain\tmethod\tsection\tmetric\tclass\tvalue\tunit"
        (tmp_path / names.TABLE).write_text("\n".join([header, *lines]) + "\n")
        return Measured(tmp_path, ["mind"])

    return of


def usual(middle, spread, n=40):
    """Sections whose values are lognormal, all of them right."""
    values = middle * np.exp(spread * np.random.default_rng(0).standard_normal(n))
    return {f"s{i:03d}": float(value) for i, value in enumerate(values)}


def test_the_worst_come_first_and_what_was_judged_or_is_no_suspect_not_at_all():
    rows = [trusted("a", 0.6), trusted("b", 0.9), trusted("c", 0.8), trusted("d", 0.1, "", "")]
    found = suspects(
        {row.section: row for row in rows}, Corrected(verdicts={"c": "reject"}), NONE, "mind"
    )
    assert [line["section"] for line in found] == ["b", "a"]
    assert found[0]["next_step"] == "set three landmarks" and "4 mm" in found[0]["reason"]


def test_a_page_shows_ten_and_folds_the_rest():
    rows = {f"s{i:02d}": trusted(f"s{i:02d}", 0.5 + i / 100) for i in range(14)}
    environment = Environment(loader=PackageLoader("sbr_core.report"), autoescape=True)
    template = environment.get_template("suspects.html.j2")
    html = template.render(suspects=suspects(rows, Corrected(), NONE, "mind"))
    shown, _, folded = html.partition("<details>")
    assert shown.count("<li>") == 10 and folded.count("<li>") == 4
    assert "and 4 more" in folded and "s13" in shown and "s00" in folded
    few = template.render(
        suspects=suspects(dict(list(rows.items())[:10]), Corrected(), NONE, "mind")
    )
    assert "<details>" not in few and few.count("<ol") == few.count("</ol>") == 1
    assert html.count("<ol") == html.count("</ol>") and html.count("<details>") == 1
    assert template.render(suspects=[]).strip() == ""


def test_what_was_measured_to_be_far_off_is_named_although_it_looks_right(measured):
    errors_mm = usual(0.8, 0.2) | {"s012": 54.24, "s024": 98.35}
    rows = {s: trusted(s, 0.1, "", "") for s in errors_mm} | {"s007": trusted("s007", 0.9)}
    rows["s024"] = trusted("s024", 0.7, "seems turned", "turn by 184°")
    found = suspects(rows, Corrected(), measured(in_plane_mm=errors_mm), "mind")
    assert [line["section"] for line in found] == ["s024", "s012", "s007"]
    turned, mirrored, _ = found
    median_mm = np.median(list(errors_mm.values()))
    assert f"landmark error 54.2 mm, {54.24 / median_mm:.0f} times the median" in mirrored["reason"]
    assert mirrored["next_step"].startswith("flip? turn? look at it")
    # both reasons, and the step of the one that knows more
    assert "landmark error 98.3" in turned["reason"] and "seems turned" in turned["reason"]
    assert turned["next_step"] == "turn by 184°"
    judged = Corrected(verdicts={"s012": "accept", "s024": "reject"})
    found = suspects(rows, judged, measured(in_plane_mm=errors_mm), "mind")
    assert [line["section"] for line in found] == ["s007"]


@pytest.mark.parametrize("spread", [0.1, 0.3, 0.6])
def test_sections_that_differ_as_sections_do_are_no_outliers(measured, spread):
    errors_mm = usual(1.0, spread, 200)
    assert not suspects({}, Corrected(), measured(in_plane_mm=errors_mm), "mind")
    assert not most_of_the_mean(measured(in_plane_mm=errors_mm), "mind")


def test_without_expected_errors_the_measured_still_count_and_zeros_do_no_harm(measured):
    errors_mm = {"a": 0.0, "b": 1.0, "c": 1.1, "d": 1.0, "e": 0.9, "f": 30.0}
    found = suspects({}, Corrected(), measured(in_plane_mm=errors_mm), "mind")
    assert [(line["section"], line["expected_error_mm"]) for line in found] == [("f", "")]
    for errors_mm in ({}, {"a": 1.0}, {"a": 1.0, "b": 90.0}, {"a": 0.0, "b": 0.0, "c": 3.0}):
        assert not suspects({}, Corrected(), measured(in_plane_mm=errors_mm), "mind")


def test_labels_tell_where_there_are_no_landmarks(measured):
    dice = {s: min(v, 1.0) for s, v in usual(0.88, 0.02).items()} | {"x": 0.35, "y": 0.7}
    (line,) = suspects({}, Corrected(), measured(dice=dice), "mind")
    assert line["section"] == "x" and "(Dice) 0.35" in line["reason"]
    assert line["next_step"].endswith("labels")
    assert not suspects({}, Corrected(), measured(dice=dice, in_plane_mm=usual(1, 0.2)), "mind")


def test_a_mean_that_few_sections_make_is_said_to_be_theirs(measured):
    errors_mm = usual(0.8, 0.2)
    bad = {"s012": 54.24, "s024": 98.35}
    said = most_of_the_mean(measured(in_plane_mm=errors_mm | bad), "mind")
    assert "Two sections make most of the mean" in said and "s024 98.3 mm, s012 54.2 mm" in said
    # what they are is not counted in what the others are
    others = {s: v for s, v in errors_mm.items() if s not in bad}
    assert f"Without them the mean is {np.mean(list(others.values())):.3f}"[:-1] in said
    one = most_of_the_mean(measured(in_plane_mm=errors_mm | {"s012": 54.24}), "mind")
    assert one.startswith("One section makes") and "Without it" in one
    # 8 mm among forty of .8 mm are no most
    assert not most_of_the_mean(measured(in_plane_mm=errors_mm | {"s012": 8.0}), "mind")
