"""`sbr compare`: all methods of one brain beside each other, in tables, tests and figures.

What each method was measured at comes from the tables of `evaluate`; here it is summed up, tested
and drawn. Tests are Wilcoxon's signed-rank test over sections, of each method against `linear` and
against `sbr`; p values are adjusted by Holm's procedure within the family of one metric and one
reference, over all methods and all classes. The example section is the one of median rank, so that
it shows no method at its best.

Files in the folder: ``summary.tsv``, ``tests.tsv``, ``figures/`` (PNG for the screen, PDF for
print) and ``index.html``, which holds all of it.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from sbr_core import metrics
from sbr_core.artifacts.accuracy import unit_of
from sbr_core.artifacts.label_pairs import LabelPairs, read_label_volume
from sbr_core.artifacts.receipts import file_of, read_table
from sbr_core.artifacts.rows import Plane, Prepared, read_rows
from sbr_core.artifacts.section_signal import registered
from sbr_core.config import CompareOptions
from sbr_core.errors import ConfigError, ReceiptError
from sbr_core.io.files import atomic_path, write_json
from sbr_core.io.manifests import SectionRow
from sbr_core.io.provenance import write_provenance
from sbr_core.io.tables import read_tsv, write_tsv
from sbr_core.io.transforms import (
    STACK_TRANSFORM,
    read_section_transform,
    read_stack_from_world,
    section_to_stack_path,
)
from sbr_core.io.volumes import read_plane
from sbr_core.methods import LABEL_METHODS
from sbr_core.report import figures, pictures
from sbr_core.report.page import (
    COMPARISON,
    PRINT_DPI,
    comparison_of,
    number,
    simulated_from,
    write_page,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REFERENCES = ("linear", "sbr")
LOWER_IS_BETTER = {
    "in_plane_mm": True,
    "dice": False,
    "surface_distance_mm": True,
    "surface_distance_p95_mm": True,
    "folding": True,
}
"""The metrics that are compared, and which way is better."""
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
# the longer side of the example section as it is drawn, px
_DRAWN_PX = 1600
# of the longer side of the tissue, the side of the piece of cortex that is drawn large
_CLOSE_UP = 0.3

# metric -> class -> method -> section -> value
Values = dict[str, dict[str, dict[str, dict[str, float]]]]


def run(
    options: CompareOptions,
    *,
    brain: str,
    methods: dict[str, Path],
    measured: Path,
    prepared: Path,
    planes: Path,
    out_dir: Path,
    registrar: Path | None = None,
    align_dir: Path | None = None,
    mri_labels: Path | None = None,
    rows: list[SectionRow] | None = None,
) -> None:
    """Compare all methods: tables, tests, figures.

    Parameters
    ----------
    brain : name of the brain.
    methods : one or more METHOD=FOLDER, the folders of their results; linear is among them.
    measured : sections.tsv written by evaluate, for these methods.
    prepared : table written by prepare.
    planes : table written by resample.
    out_dir : folder the results go to.
    registrar : loss.tsv written by train-registrar, for the time that training took.
    align_dir : folder written by align.
    mri_labels : labels of the MRI, on its grid, for outlines of anatomy.
    rows : manifest rows, for the mri_labels of a prealigned brain.

    Raises
    ------
    ConfigError
        `linear` is missing, or the example section that was asked for.
    ReceiptError
        A file that a table lists is missing.
    """
    if "linear" not in methods:
        raise ConfigError("compare: --methods: expected linear among them, as the one to beat")
    out_dir = Path(out_dir)
    methods = {method: Path(methods[method]) for method in figures.in_order(list(methods))}
    values = read_values(measured)
    tests = paired_tests(values, list(methods))
    trainings = {method: _training(folder / "loss.tsv") for method, folder in methods.items()}
    summary = _summary(values, tests, methods, trainings)
    write_tsv(out_dir / "tests.tsv", [{"brain": brain, **t} for t in tests], TEST_COLUMNS)
    write_tsv(out_dir / "summary.tsv", [{"brain": brain, **s} for s in summary], SUMMARY_COLUMNS)

    drawn = [
        _Drawing(f"box_{metric}", _boxes(values[metric], metric, tests, options), caption)
        for metric, caption in _box_captions(values, tests, options).items()
    ]
    example = _Example.read(
        options,
        values,
        methods,
        prepared=Path(prepared),
        planes=Path(planes),
        align_dir=align_dir,
        mri_labels=mri_labels,
        rows=rows,
    )
    drawn += [example.whole(brain), example.close_up(brain)]
    for drawing in drawn:
        drawing.save(out_dir / "figures")
        print(f"compare: {drawing.name}", file=sys.stderr)

    write_json(
        out_dir / COMPARISON,
        {
            "methods": [figures.name_of(method) for method in methods],
            "lines": _lines(summary, tests, list(methods), options),
            "tests": _test_lines(tests),
            "figures": [
                {"title": d.title, "file": f"figures/{d.name}.png", "caption": d.caption}
                for d in drawn
            ],
            "notes": _notes(options, methods, trainings, registrar),
            "alpha": options.alpha,
        },
    )
    write_page(
        out_dir / "index.html",
        "compare.html.j2",
        brain=brain,
        simulated=simulated_from(brain, out_dir.parent),
        comparison=comparison_of(out_dir),
    )
    write_provenance(
        out_dir / "compare.json",
        stage="compare",
        options=options.model_dump(mode="json"),
        inputs={"measured": measured, "prepared": prepared, "planes": planes}
        | {f"{method}_sections": folder / "sections.tsv" for method, folder in methods.items()},
        section=example.section,
    )


# --------------------------------------------------------------------------------------------
# Tables
# --------------------------------------------------------------------------------------------


def read_values(measured: Path) -> Values:
    """The compared metrics of a table of sections, those that are finite."""
    values: Values = {}
    for row in read_tsv(measured)[1]:
        value = float(row["value"] or "nan")
        if row["metric"] in LOWER_IS_BETTER and math.isfinite(value):
            of_class = values.setdefault(row["metric"], {}).setdefault(row["class"], {})
            of_class.setdefault(row["method"], {})[row["section"]] = value
    return {metric: values[metric] for metric in LOWER_IS_BETTER if metric in values}


def paired_tests(values: Values, methods: Sequence[str]) -> list[dict[str, Any]]:
    """Every method against every reference, metric by metric and class by class.

    Returns
    -------
    Rows of ``tests.tsv`` without the brain. ``better`` names whichever of the two has the better
    values by the signed ranks, whether or not the difference is significant.
    """
    found = []
    for metric, classes in values.items():
        for reference in (r for r in REFERENCES if r in methods):
            family = []
            for class_, by_method in sorted(classes.items()):
                for method in methods:
                    if method == reference or not {method, reference} <= set(by_method):
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
                            "n": test.n,
                            "median_difference": test.median_difference,
                            "unit": unit_of(metric),
                            "rank_biserial": test.rank_biserial,
                            "p": test.p,
                            "better": better,
                        }
                    )
            adjusted = metrics.holm([row["p"] for row in family])
            found += [row | {"p_holm": p} for row, p in zip(family, adjusted, strict=True)]
    return found


def _training(losses: Path) -> tuple[float, int] | None:
    """(minutes, steps) of a training by its table of losses; None where nothing was trained.

    The log that comes with the shipped registrar states no seconds: it was trained elsewhere. That
    of a training of 0 steps has no row.
    """
    rows = read_tsv(losses)[1] if losses.is_file() else []
    if not rows or not rows[-1].get("seconds"):
        return None
    return float(rows[-1]["seconds"]) / 60, int(float(rows[-1]["step"]))


def _summary(
    values: Values,
    tests: Sequence[Mapping[str, Any]],
    methods: Mapping[str, Path],
    trainings: Mapping[str, tuple[float, int] | None],
) -> list[dict[str, Any]]:
    """Rows of ``summary.tsv`` without the brain."""
    p_holm = {(t["metric"], t["class"], t["method"], t["reference"]): t["p_holm"] for t in tests}
    rows = []
    for metric, classes in values.items():
        for class_, by_method in sorted(classes.items()):
            for method in (m for m in methods if m in by_method):
                each = list(by_method[method].values())
                row = {
                    "method": method,
                    "metric": metric,
                    "class": class_,
                    "mean": statistics.fmean(each),
                    "median": statistics.median(each),
                    "n": len(each),
                    "unit": unit_of(metric),
                }
                for reference in REFERENCES:
                    p = p_holm.get((metric, class_, method, reference), "")
                    row[f"p_holm_vs_{reference}"] = p
                rows.append(row)
    for method, folder in methods.items():
        done = read_table(folder / "sections.tsv", verify=False)
        # the first section of a batch bears the time of the whole batch: only the mean tells
        seconds = [float(row["seconds"]) for row in done if row.get("seconds") not in (None, "")]
        once = [("seconds_per_section", statistics.fmean(seconds), "s", len(seconds))] * bool(
            seconds
        )
        if (training := trainings[method]) is not None:
            once += [
                ("training_minutes", training[0], "min", 1),
                ("training_steps", training[1], "1", 1),
            ]
        rows += [
            {"method": method, "metric": m, "class": "", "mean": v, "unit": unit, "n": n}
            for m, v, unit, n in once
        ]
    return rows


# --------------------------------------------------------------------------------------------
# Figures
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Drawing:
    """A figure, the name of its files and its caption."""

    name: str
    figure: Figure
    caption: str
    title: str = ""

    def save(self, folder: Path) -> None:
        """Write it for the screen and for print."""
        for suffix, facts in ((".png", {}), (".pdf", {"CreationDate": None})):
            with atomic_path(folder / f"{self.name}{suffix}") as temporary:
                self.figure.savefig(temporary, dpi=PRINT_DPI, metadata=facts)


def _panel_title(class_: str, n: Sequence[int]) -> str:
    """A panel's class and how many sections its boxes are of."""
    among = f"n = {n[0]}" if len(set(n)) == 1 else f"n = {min(n)} to {max(n)}"
    return f"class {class_} ({among})" if class_ else among


def _boxes(
    classes: Mapping[str, Mapping[str, Mapping[str, float]]],
    metric: str,
    tests: Sequence[Mapping[str, Any]],
    options: CompareOptions,
) -> Figure:
    panels, marks = {}, {}
    for class_, by_method in sorted(classes.items()):
        title = _panel_title(class_, [len(sections) for sections in by_method.values()])
        panels[title] = {m: np.array(list(v.values())) for m, v in by_method.items()}
        for test in tests:
            same = test["metric"] == metric and test["class"] == class_
            if same and test["p_holm"] < options.alpha:
                sign = "*" if test["reference"] == "linear" else "†"
                key = title, test["method"]
                marks[key] = marks.get(key, "") + sign
    return figures.box_plots(panels, TITLES[metric], marks)


def _box_captions(
    values: Values, tests: Sequence[Mapping[str, Any]], options: CompareOptions
) -> dict[str, str]:
    """Metric -> caption of its box plots; folding is in the tables only, mostly nought."""
    tested = {test["reference"] for test in tests}
    signs = [
        f"{sign} differs from {figures.name_of(reference)}"
        for sign, reference in (("*", "linear"), ("†", "sbr"))
        if reference in tested
    ]
    said = f" {', '.join(signs)} (Wilcoxon, Holm, p < {options.alpha:g})." if signs else ""
    return {
        metric: f"{TITLES[metric]}, a point per section. Boxes: quartiles and median; whiskers: to"
        f" 1.5 times the distance of the quartiles; diamond: mean.{said}"
        for metric in values
        if metric != "folding"
    }


def example_section(values: Values, methods: Sequence[str]) -> tuple[str, str] | None:
    """(section of median rank, the metric it was ranked by).

    The first metric of `LOWER_IS_BETTER` that was measured decides. Each method ranks the sections
    by their values (the mean over classes); of the sections that all methods have, the one whose
    mean rank over the methods is the median is typical of all of them and the best of none.
    """
    for metric, classes in values.items():
        if metric == "folding":
            continue
        by_method = {
            method: {
                section: statistics.fmean(c[method][section] for c in having)
                for section in {s for c in classes.values() for s in c.get(method, {})}
                if (having := [c for c in classes.values() if section in c.get(method, {})])
            }
            for method in methods
        }
        by_method = {method: found for method, found in by_method.items() if found}
        shared = sorted(set.intersection(*map(set, by_method.values()))) if by_method else []
        if shared:
            ranks = np.mean(
                [stats.rankdata([found[s] for s in shared]) for found in by_method.values()], axis=0
            )
            return shared[int(np.argsort(ranks, kind="stable")[(len(shared) - 1) // 2])], metric
    return None


@dataclass
class _Example:
    """One section as every method aligned it."""

    section: str
    why: str
    position_mm: float
    target: figures.Picture
    methods: dict[str, tuple[figures.Picture, figures.Picture | None]]
    outlines: figures.Outlines
    outlined_by: str
    view_mm: tuple[float, ...]
    cortex_mm: tuple[float, ...]

    @classmethod
    def read(
        cls,
        options: CompareOptions,
        values: Values,
        methods: Mapping[str, Path],
        *,
        prepared: Path,
        planes: Path,
        align_dir: Path | None,
        mri_labels: Path | None,
        rows: list[SectionRow] | None,
    ) -> _Example:
        """Choose the section and read or make its pictures."""
        prepared_rows = {r.section: r for r in read_rows(prepared, Prepared, verify=False)}
        plane_rows = {r.section: r for r in read_rows(planes, Plane, verify=("_mri.nii.gz",))}
        done = {
            method: {r["section"]: r for r in read_table(folder / "sections.tsv", verify=False)}
            for method, folder in methods.items()
        }
        everywhere = [
            s
            for s in plane_rows
            if s in prepared_rows and all(s in found for found in done.values())
        ]
        section, why = cls._choose(options, values, list(methods), everywhere)
        plane = plane_rows[section]
        grid = plane.grid
        mri, _ = read_plane(plane.file("_mri.nii.gz"))
        mask, _ = read_plane(plane.file("_mrimask.nii.gz"))
        # as fine as the section's file is, but no finer than can be seen
        pixel_mm = prepared_rows[section].pixel_size_mm
        drawn = grid.at_spacing(max(pixel_mm, max(grid.shape) * grid.spacing_mm / _DRAWN_PX))
        shown = {}
        for method, folder in methods.items():
            transform = read_section_transform(
                section_to_stack_path(folder / "transforms", section)
            )
            image = registered(prepared_rows[section], transform, drawn)
            synthesised = None
            row = done[method][section]
            if any(name.endswith("_synthesised.nii.gz") for name in row["files"]):
                made, _ = read_plane(file_of(folder / "sections.tsv", row, "_synthesised.nii.gz"))
                synthesised = figures.Picture(np.clip(made, 0, 1), grid.spacing_mm)
            shown[method] = (
                figures.Picture(pictures.window(image), drawn.spacing_mm),
                synthesised,
            )
        stack_from_world = None
        if align_dir is not None:
            stack_from_world = read_stack_from_world(Path(align_dir) / STACK_TRANSFORM)
        labelled_mri = None
        if mri_labels is not None and stack_from_world is not None:
            labelled_mri = read_label_volume(mri_labels)
        pairs = LabelPairs(labelled_mri, stack_from_world, rows, stage="compare")
        labels = pairs.of(prepared_rows[section], plane)
        # labels of deep grey matter can be ragged, so it is grey levels that find the cortex
        classes = figures.classes_of_grey(mri, mask)
        if labels is not None:
            by = "the MRI's labels"
            outlines = figures.Outlines(labels.plane_labels, labels.plane_grid.spacing_mm)
        else:
            by = "the MRI's grey levels, split in three by Otsu's method"
            names = {1: "from middle grey", 2: "bright"}
            outlines = figures.Outlines(classes, grid.spacing_mm, nested=True, names=names)
        return cls(
            section,
            why,
            plane.position_mm,
            figures.Picture(pictures.window(mri, mask), grid.spacing_mm),
            shown,
            outlines,
            by,
            figures.extent_of(mask, grid.spacing_mm),
            figures.busiest_view(classes, grid.spacing_mm, _CLOSE_UP),
        )

    @staticmethod
    def _choose(
        options: CompareOptions, values: Values, methods: Sequence[str], everywhere: Sequence[str]
    ) -> tuple[str, str]:
        if not everywhere:
            raise ReceiptError("compare: no section was aligned by every method")
        if options.section is not None:
            if options.section not in everywhere:
                raise ConfigError(
                    f"config: compare.section: '{options.section}' is no section that every"
                    " method aligned"
                )
            return options.section, "as asked for"
        shared: Values = {
            metric: {
                class_: {
                    method: {s: v for s, v in sections.items() if s in everywhere}
                    for method, sections in by_method.items()
                }
                for class_, by_method in classes.items()
            }
            for metric, classes in values.items()
        }
        if (chosen := example_section(shared, methods)) is not None:
            return chosen[0], f"of median rank by {TITLES[chosen[1]].split(' (')[0]}"
        return everywhere[len(everywhere) // 2], "in the middle of the stack"

    def _caption(self, brain: str) -> str:
        return (
            f"Brain {brain}, section {self.section} ({self.why}) at {self.position_mm:g} mm."
            f" Lines: boundaries of {self.outlined_by}."
        )

    def whole(self, brain: str) -> _Drawing:
        """The section, its MRI plane, and what each method made of it."""
        bands = [
            [
                figures.Panel("MRI (target)", self.target),
                figures.Panel("Section (source, Linear)", self.methods["linear"][0], True),
            ]
        ]
        for method, (aligned, synthesised) in self.methods.items():
            if method != "linear":
                name = figures.name_of(method)
                bands.append(
                    [
                        figures.Panel(
                            f"{name}, synthesised", synthesised, word="nothing\nsynthesised"
                        ),
                        figures.Panel(f"{name}, registered", aligned, True),
                    ]
                )
        figure = figures.picture_grid(bands, self.view_mm, self.outlines, linewidth=0.35)
        return _Drawing("example", figure, self._caption(brain), "Example section")

    def close_up(self, brain: str) -> _Drawing:
        """Its most folded piece of cortex, large."""
        bands = [[figures.Panel("MRI (target)", self.target, True)]]
        for method, (aligned, _) in self.methods.items():
            bands.append([figures.Panel(figures.name_of(method), aligned, True)])
        figure = figures.picture_grid(bands, self.cortex_mm, self.outlines, linewidth=0.8)
        caption = f"The piece with the most boundary of grey levels. {self._caption(brain)}"
        return _Drawing("close_up", figure, caption, "Close-up")


# --------------------------------------------------------------------------------------------
# What the page says
# --------------------------------------------------------------------------------------------


def _lines(
    summary: Sequence[Mapping[str, Any]],
    tests: Sequence[Mapping[str, Any]],
    methods: Sequence[str],
    options: CompareOptions,
) -> list[dict[str, Any]]:
    """Lines of the page's table: a metric and class, and a cell for every method."""
    verdict = {
        (t["metric"], t["class"], t["method"], t["reference"]): t["better"] == t["method"]
        for t in tests
        if t["p_holm"] < options.alpha
    }
    by_line: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for row in summary:
        by_line.setdefault((row["metric"], row["class"]), {})[row["method"]] = row
    lines = []
    for (metric, class_), by_method in by_line.items():
        cells = []
        for method in methods:
            row = by_method.get(method)
            grades = {True: "good", False: "bad", None: ""}
            cells.append(
                {
                    "text": number(row["mean"]) if row else "–",
                    "grade": grades[verdict.get((metric, class_, method, "linear"))],
                    "differs": (metric, class_, method, "sbr") in verdict,
                }
            )
        counts = {row["n"] for row in by_method.values()}
        n = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        lines.append({"metric": TITLES[metric], "class": class_, "cells": cells, "n": n})
    return lines


def _test_lines(tests: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
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


def _notes(
    options: CompareOptions,
    methods: Mapping[str, Path],
    trainings: Mapping[str, tuple[float, int] | None],
    registrar: Path | None,
) -> list[str]:
    """What a reader has to know to trust the figures."""
    notes = []
    if any(training is not None for training in trainings.values()):
        notes.append(
            f"Every trained method had {options.minutes:g} minutes of training on the machine it"
            " ran on, and as many steps as that allows."
        )
        if registrar is not None and (training := _training(Path(registrar))) is not None:
            notes.append(
                f"The registrar that methods share was trained beforehand, in"
                f" {number(training[0])} minutes ({training[1]} steps), which are not counted."
            )
        notes.append(
            "Methods that synthesise (SbR and its kin, cGAN, RoT) are refined after their networks"
            " where the options ask for it; NMI, NMIw and SyN-MI are not. SyN-MI works at the"
            " working pixel like every method; at a finer one it can do better."
        )
    asked = [method for method in options.methods if method in LABEL_METHODS]
    left_out = [figures.name_of(method) for method in asked if method not in methods]
    if left_out:
        notes.append(f"Left out, for want of labels to train with: {', '.join(left_out)}.")
    notes.append(
        "Seconds per section are those of one job: reading the section, networks or optimiser,"
        " refinement where the options ask for it, integration, resampling and writing; not"
        " Python's start and not the loading of networks."
    )
    return notes
