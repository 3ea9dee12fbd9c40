"""Tables of measurements: the values of `evaluate`, graded against those of linear.

Tables are pandas frames with one value per row. pandas is imported when a table is read: it takes
a third of a second, which no other command should spend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbr_core.artifacts.names import SUMMARY, TABLE
from sbr_core.io.label_tables import NO_NAMES, LabelTable
from sbr_core.io.sums import check_sum
from sbr_core.io.tables import read_tsv
from sbr_core.report import words
from sbr_core.report.page import number

if TYPE_CHECKING:
    import pandas as pd

LOWER_IS_BETTER = {
    "in_plane_mm": True,
    "dice": False,
    "surface_distance_mm": True,
    "surface_distance_p95_mm": True,
    "folding": True,
    "dice_volume": False,
}
"""The metrics that a registration of sections can improve, and which way is better; the others are
shown and not graded. `compare` lists them in this order and chooses its example by the first."""
SIMULATED_STATISTICS = ("mean", "rmse", "p95")
"""Statistics of the landmark error on simulated pairs that the page shows."""
_WORSE_BY = {"in_plane_mm": 0.05, "dice": -0.01}
"""How much worse than linear a section has to be for the page to list it: less is rounding or
chance. The sign is that of a change for the worse."""
_SAME_WITHIN = 0.01
"""Values closer than this to linear's, as a share of it, are neither better nor worse."""


def read_measurements(table: Path) -> pd.DataFrame:
    """A table of `evaluate`, ``sections.tsv`` or ``summary.tsv``, in the order of its rows.

    Returns
    -------
    Columns ``method``, ``metric``, ``class`` (empty for none), ``value`` (float, NaN for an empty
    cell) and ``unit``, beside ``section`` in the one table and ``statistic`` and ``n`` in the
    other; all others are text. No rows if there is no such file.
    """
    import pandas as pd

    rows = []
    if table.is_file():
        check_sum(table)
        rows = read_tsv(table)[1]
    columns = ("section", "method", "metric", "class", "statistic", "value", "unit", "n")
    frame = pd.DataFrame(rows, columns=columns)
    # by Python's float, which returns the very number that was written
    return frame.assign(value=[float(text or "nan") for text in frame["value"]])


class Measured:
    """The tables of `evaluate` for one brain, or none of them.

    Parameters
    ----------
    folder : of the evaluation.
    methods : in the order in which they are shown.
    labels : what the classes are called.
    """

    def __init__(self, folder: Path, methods: Sequence[str], labels: LabelTable = NO_NAMES) -> None:
        self.methods = methods
        self._labels = labels
        self.summary = read_measurements(folder / SUMMARY)
        self.sections = read_measurements(folder / TABLE)

    def table(self) -> list[dict[str, Any]]:
        """Lines of the summary, one cell per method, graded against linear."""
        lines = []
        key = ["metric", "class", "statistic"]
        for (metric, class_, statistic), rows in self.summary.groupby(key, sort=False):
            values = rows.set_index("method")["value"]
            linear = values.get("linear", math.nan)
            cells = [_cell(metric, linear, value) for value in values.reindex(self.methods)]
            line = self._words(metric, class_, rows["unit"].iloc[0]) | {
                "statistic": words.statistic(statistic),
                "cells": cells,
                "n": rows["n"].iloc[0],
            }
            lines.append(line)
        return lines

    def _words(self, metric: str, class_: str, unit: str) -> dict[str, str]:
        said = words.metric(metric, unit)
        name = words.class_name(class_, self._labels)
        return {"metric": said.name, "class": name, "unit": said.scale, "meaning": said.meaning}

    def headline(self, metric: str, method: str) -> float | None:
        """Mean of a metric over the brain and its classes; None if it was not measured."""
        rows = self.summary.query("metric == @metric and method == @method")
        values = rows[rows["statistic"].isin(("mean", "value"))]["value"].to_numpy()
        return float(np.mean(values)) if values.size else None

    def worse_than_linear(self) -> list[str]:
        """One line per section and method that linear did better in something."""
        import pandas as pd

        key = ["section", "metric", "class"]
        linear = self.sections.query("method == 'linear'").set_index(key)["value"]
        pairs = self.sections.join(linear.rename("linear"), on=key)
        margin = pairs["metric"].map(_WORSE_BY).astype(float)
        worse = pairs[(pairs["value"] - pairs["linear"]) * np.sign(margin) > margin.abs()]
        order = {name: self.sections[name].unique() for name in key} | {"metric": list(_WORSE_BY)}
        worse = worse.sort_values(
            key, key=lambda column: pd.Index(order[column.name]).get_indexer(column), kind="stable"
        )
        columns = ["metric", "class", "value", "linear"]
        return [
            f"section {section}: {method} is worse than linear in "
            + ", ".join(self._beside_linear(*row) for row in rows[columns].itertuples(index=False))
            for (section, method), rows in worse.groupby(["section", "method"], sort=False)
        ]

    def _beside_linear(self, metric: str, class_: str, value: float, linear: float) -> str:
        said = words.metric(metric)
        of_class = f" of {words.class_name(class_, self._labels)}" if class_ else ""
        unit = f" {said.unit}" if said.unit else ""
        return f"{said.name}{of_class} {number(value)}{unit} (linear {number(linear)})"

    def of_sections(self) -> dict[str, list[dict[str, Any]]]:
        """Section -> lines of what was measured of it, one cell per method, as `table` has them."""
        of_sections: dict[str, list[dict[str, Any]]] = {}
        key = ["section", "metric", "class"]
        for (section, metric, class_), rows in self.sections.groupby(key, sort=False):
            values = dict(zip(rows["method"], rows["value"], strict=True))
            linear = values.get("linear", math.nan)
            cells = [_cell(metric, linear, values.get(method, math.nan)) for method in self.methods]
            line = self._words(metric, class_, rows["unit"].iloc[0]) | {"cells": cells}
            of_sections.setdefault(section, []).append(line)
        return of_sections

    def by_section(self, metric: str, method: str) -> dict[str, float]:
        """Section -> a method's value of a metric, mean over its classes; none if not measured."""
        rows = self.sections.query("metric == @metric and method == @method")
        means = rows.dropna(subset=["value"]).groupby("section")["value"].mean()
        return {str(section): float(value) for section, value in means.items()}


def on_simulated_pairs(folder: Path) -> list[dict[str, Any]]:
    """Lines of what each method leaves on the brain's simulated pairs, where they were measured.

    Parameters
    ----------
    folder : evaluation of the simulated pairs.
    """
    errors = read_measurements(folder / SUMMARY).query("metric == 'in_plane_mm'")
    table = errors.pivot(index="method", columns="statistic", values="value")
    table = table.reindex(columns=SIMULATED_STATISTICS)
    linear = table.reindex(["linear"]).iloc[0]
    return [
        {
            "method": method,
            "cells": [
                _cell("in_plane_mm", *pair) for pair in zip(linear, table.loc[method], strict=True)
            ],
        }
        for method in errors["method"].unique()
    ]


def _cell(metric: str, linear: float, value: float) -> dict[str, str]:
    """A value as text, and its CSS class: better or worse than linear, or neither."""
    grade = ""
    if metric in LOWER_IS_BETTER and abs(value - linear) > _SAME_WITHIN * abs(linear):
        grade = "good" if (value < linear) == LOWER_IS_BETTER[metric] else "bad"
    return {"text": number(value), "grade": grade}
