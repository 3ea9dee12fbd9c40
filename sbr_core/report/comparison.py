"""Statistics and tables of a comparison of methods.

Tests are Wilcoxon's signed-rank test over sections, of each method against every reference; p
values are adjusted by Holm's procedure within the family of one metric and one reference, over all
methods and all classes.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbr_core import metrics
from sbr_core.artifacts.names import TABLE
from sbr_core.artifacts.rows import Inferred, read_rows
from sbr_core.io.sums import check_sum
from sbr_core.io.tables import read_tsv
from sbr_core.methods import LABEL_METHODS
from sbr_core.report import figures
from sbr_core.report.measures import LOWER_IS_BETTER, read_measurements
from sbr_core.report.page import number

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from sbr_core.config import CompareOptions

REFERENCES = {"linear": "*", "sbr": "†"}
"""Methods that every other one is tested against, and the sign of a difference in figures: the
baseline, and the method that the package is named after."""
TITLES = {
    "in_plane_mm": "In-plane landmark error (mm)",
    "dice": "Dice",
    "surface_distance_mm": "Surface distance, mean (mm)",
    "surface_distance_p95_mm": "Surface distance, 95 % (mm)",
    "folding": "Folding (share of tissue)",
    "seconds_per_section": "Inference per section (s)",
    "training_minutes": "Training (minutes)",
    "training_steps": "Training (steps)",
}
SUMMARY_COLUMNS = (
    *("brain", "method", "metric", "class", "mean", "median", "n", "unit"),
    *(f"p_holm_vs_{reference}" for reference in REFERENCES),
)
TEST_COLUMNS = (
    *("brain", "metric", "class", "method", "reference", "n", "median_difference", "unit"),
    *("rank_biserial", "p", "p_holm", "better"),
)


def read_values(measured: Path, methods: Sequence[str]) -> pd.DataFrame:
    """The values of sections that are compared: those that are finite, of metrics with a better.

    Parameters
    ----------
    measured : ``sections.tsv`` of `evaluate`.
    methods : in the order in which they are shown; values of others are left out.

    Returns
    -------
    Columns as of `read_measurements`; ``metric`` and ``method`` sort as `LOWER_IS_BETTER` and
    `methods` do.
    """
    import pandas as pd

    values = read_measurements(measured)
    values = values.assign(
        metric=pd.Categorical(values["metric"], list(LOWER_IS_BETTER)),
        method=pd.Categorical(values["method"], methods),
    )
    return values[np.isfinite(values["value"])].dropna(subset=["metric", "method"])


def paired_tests(values: pd.DataFrame) -> list[dict[str, Any]]:
    """Every method against every reference, metric by metric and class by class.

    Parameters
    ----------
    values : of `read_values`.

    Returns
    -------
    Rows of ``tests.tsv`` without the brain. ``better`` is whichever of the two has the better
    values by the signed ranks, whether or not the difference is significant.
    """
    tests = []
    for metric, of_metric in values.groupby("metric", observed=True):
        # class -> method -> section -> value
        classes = {
            class_: {
                method: rows.set_index("section")["value"].to_dict()
                for method, rows in of_class.groupby("method", observed=True)
            }
            for class_, of_class in of_metric.groupby("class")
        }
        for reference in REFERENCES:
            family = []
            for class_, by_method in classes.items():
                for method in by_method:
                    if method == reference or reference not in by_method:
                        continue
                    test = metrics.paired_wilcoxon(by_method[method], by_method[reference])
                    if test is None:
                        continue
                    better = ""
                    if test.rank_biserial:
                        lower = test.rank_biserial < 0
                        better = method if lower == LOWER_IS_BETTER[metric] else reference
                    family.append(
                        {
                            "metric": metric,
                            "class": class_,
                            "method": method,
                            "reference": reference,
                            "unit": of_metric["unit"].iloc[0],
                            "better": better,
                            **vars(test),
                        }
                    )
            adjusted = metrics.holm([test["p"] for test in family])
            tests += [test | {"p_holm": p} for test, p in zip(family, adjusted, strict=True)]
    return tests


def training_time(losses: Path) -> tuple[float, int] | None:
    """(minutes, steps) of a training by its table of losses; None where nothing was trained.

    The log that comes with the shipped registrar states no seconds: it was trained elsewhere. That
    of a training of 0 steps has no row.
    """
    rows = []
    if losses.is_file():
        check_sum(losses)
        rows = read_tsv(losses)[1]
    if not rows or not rows[-1].get("seconds"):
        return None
    return float(rows[-1]["seconds"]) / 60, int(float(rows[-1]["step"]))


def summary_rows(
    values: pd.DataFrame,
    tests: Sequence[Mapping[str, Any]],
    methods: Mapping[str, Path],
    trainings: Mapping[str, tuple[float, int] | None],
) -> list[dict[str, Any]]:
    """Rows of ``summary.tsv`` without the brain.

    Parameters
    ----------
    values, tests : of `read_values` and `paired_tests`.
    methods : method -> its folder of results.
    trainings : method -> (minutes, steps) of its training, if it had one.
    """
    p_holm = {(t["metric"], t["class"], t["method"], t["reference"]): t["p_holm"] for t in tests}
    rows = []
    key = ["metric", "class", "method"]
    for (metric, class_, method), of_method in values.groupby(key, observed=True):
        each = of_method["value"].tolist()
        p_values = {r: p_holm.get((metric, class_, method, r), "") for r in REFERENCES}
        row = {
            "method": method,
            "metric": metric,
            "class": class_,
            "mean": statistics.fmean(each),
            "median": statistics.median(each),
            "n": len(each),
            "unit": of_method["unit"].iloc[0],
        }
        rows.append(row | {f"p_holm_vs_{reference}": p for reference, p in p_values.items()})
    for method, folder in methods.items():
        inferred = read_rows(folder / TABLE, Inferred, verify=False)
        # the first section of a batch bears the time of the whole batch: only the mean counts
        seconds = [row.seconds for row in inferred if row.seconds is not None]
        costs = []
        if seconds:
            costs.append(("seconds_per_section", statistics.fmean(seconds), "s", len(seconds)))
        if (training := trainings[method]) is not None:
            costs.append(("training_minutes", training[0], "min", 1))
            costs.append(("training_steps", training[1], "1", 1))
        rows += [
            {"method": method, "metric": m, "class": "", "mean": v, "unit": unit, "n": n}
            for m, v, unit, n in costs
        ]
    return rows


def typical_section(values: pd.DataFrame, sections: Sequence[str]) -> tuple[str, str] | None:
    """(section of median rank, the metric it was ranked by); None where none was measured.

    The first metric of `LOWER_IS_BETTER` that was measured decides. Each method ranks the sections
    by their values (the mean over classes); of the sections that all methods have, the one whose
    mean rank over the methods is the median is typical of all of them and the best of none.

    Parameters
    ----------
    values : of `read_values`.
    sections : to choose from.
    """
    candidates = values[values["section"].isin(sections) & (values["metric"] != "folding")]
    for metric, of_metric in candidates.groupby("metric", observed=True):
        by_section = of_metric.groupby(["section", "method"], observed=True)["value"]
        means = by_section.agg(statistics.fmean).unstack("method").dropna()
        if len(means):
            ranks = means.rank().mean(axis="columns").sort_values(kind="stable")
            return str(ranks.index[(len(ranks) - 1) // 2]), str(metric)
    return None


# --------------------------------------------------------------------------------------------
# Box plots
# --------------------------------------------------------------------------------------------


def box_figures(
    values: pd.DataFrame, tests: Sequence[Mapping[str, Any]], alpha: float
) -> list[figures.Drawing]:
    """Box plots of every metric but folding, which is mostly nought and in the tables only."""
    tested = {test["reference"] for test in tests}
    signs = [
        f"{sign} differs from {figures.name_of(reference)}"
        for reference, sign in REFERENCES.items()
        if reference in tested
    ]
    key = f" {', '.join(signs)} (Wilcoxon, Holm, p < {alpha:g})." if signs else ""
    significant = [test for test in tests if test["p_holm"] < alpha]
    return [
        figures.Drawing(
            f"box_{metric}",
            _boxes(of_metric, [test for test in significant if test["metric"] == metric]),
            f"{TITLES[metric]}, a point per section. Boxes: quartiles and median; whiskers: to"
            f" 1.5 times the distance of the quartiles; diamond: mean.{key}",
        )
        for metric, of_metric in values[values["metric"] != "folding"].groupby(
            "metric", observed=True
        )
    ]


def _boxes(of_metric: pd.DataFrame, significant: Sequence[Mapping[str, Any]]) -> Figure:
    """One metric's box plots, a panel per class, with signs of significant differences."""
    panels: dict[str, dict[str, np.ndarray]] = {}
    marks: dict[tuple[str, str], str] = {}
    for class_, of_class in of_metric.groupby("class"):
        boxes = {
            method: rows["value"].to_numpy()
            for method, rows in of_class.groupby("method", observed=True)
        }
        n = _range([each.size for each in boxes.values()])
        title = f"class {class_} (n = {n})" if class_ else f"n = {n}"
        panels[title] = boxes
        for test in significant:
            if test["class"] == class_:
                key = title, test["method"]
                marks[key] = marks.get(key, "") + REFERENCES[test["reference"]]
    return figures.box_plots(panels, TITLES[of_metric["metric"].iloc[0]], marks)


def _range(counts: Sequence[int]) -> str:
    """Counts as text: the one that all are, or the smallest and the largest."""
    low, high = min(counts), max(counts)
    return f"{low}" if low == high else f"{low} to {high}"


# --------------------------------------------------------------------------------------------
# The page
# --------------------------------------------------------------------------------------------


def lines_of_summary(
    summary: Sequence[Mapping[str, Any]],
    tests: Sequence[Mapping[str, Any]],
    methods: Sequence[str],
    alpha: float,
) -> list[dict[str, Any]]:
    """Lines of the page's table: a metric and class, and a cell for every method."""
    better = {
        (t["metric"], t["class"], t["method"], t["reference"]): t["better"] == t["method"]
        for t in tests
        if t["p_holm"] < alpha
    }
    grades = {True: "good", False: "bad", None: ""}
    by_line: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for row in summary:
        by_line.setdefault((row["metric"], row["class"]), {})[row["method"]] = row
    return [
        {
            "metric": TITLES[metric],
            "class": class_,
            "cells": [
                {
                    "text": number(by_method[method]["mean"]) if method in by_method else "–",
                    "grade": grades[better.get((metric, class_, method, "linear"))],
                    "differs": (metric, class_, method, "sbr") in better,
                }
                for method in methods
            ],
            "n": _range([row["n"] for row in by_method.values()]),
        }
        for (metric, class_), by_method in by_line.items()
    ]


def lines_of_tests(tests: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Lines of the page's table of tests."""
    return [
        {
            "metric": TITLES[t["metric"]],
            "class": t["class"],
            "pair": f"{figures.name_of(t['method'])} − {figures.name_of(t['reference'])}",
            "n": f"{t['n']}",
            "difference": number(t["median_difference"]),
            "effect": number(t["rank_biserial"]),
            "p": f"{t['p']:.2g}",
            "p_holm": f"{t['p_holm']:.2g}",
            "better": figures.name_of(t["better"]) if t["better"] else "–",
        }
        for t in tests
    ]


def notes(
    options: CompareOptions,
    methods: Mapping[str, Path],
    trainings: Mapping[str, tuple[float, int] | None],
    registrar: tuple[float, int] | None,
) -> list[str]:
    """What a reader has to know to trust the figures.

    Parameters
    ----------
    methods, trainings : as of `summary_rows`.
    registrar : (minutes, steps) of the training of the registrar that methods share.
    """
    lines = []
    if any(training is not None for training in trainings.values()):
        lines.append(
            f"Every trained method had {options.minutes:g} minutes of training on the machine it"
            " ran on, and as many steps as that allows."
        )
        if registrar is not None:
            lines.append(
                f"The registrar that methods share was trained beforehand, in"
                f" {number(registrar[0])} minutes ({registrar[1]} steps), which are not counted."
            )
        lines.append(
            "Networks' answers are refined where the options ask for it: those of methods that"
            " synthesise (SbR and its kin, cGAN, RoT) by likeness, all of them by self-similarity"
            " if that has a weight. MIND is refined by its own options, SyN-MI not at all. SyN-MI"
            " works at the working pixel like every method; at a finer one it can do better."
        )
    asked = [method for method in options.methods if method in LABEL_METHODS]
    left_out = [figures.name_of(method) for method in asked if method not in methods]
    if left_out:
        lines.append(f"Left out, for want of labels to train with: {', '.join(left_out)}.")
    lines.append(
        "Seconds per section are those of one job: reading the section, networks or optimiser,"
        " refinement where the options ask for it, integration, resampling and writing; not"
        " Python's start and not the loading of networks."
    )
    return lines
