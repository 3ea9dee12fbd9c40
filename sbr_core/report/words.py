"""Metrics, statistics and classes in plain words, for readers of pages."""

from __future__ import annotations

from dataclasses import dataclass

from sbr_core.io.label_tables import NO_NAMES, LabelTable


@dataclass(frozen=True)
class Metric:
    """What a reader is told of a metric.

    Attributes
    ----------
    name : begins in lower case, so that it can stand within a sentence.
    unit : as it is written behind a number; empty where the number needs none.
    scale : what the numbers can be, for the column of units.
    meaning : one sentence.
    """

    name: str
    unit: str
    scale: str
    meaning: str


_SHARE = "0 to 1"
METRICS = {
    "expected_error_mm": Metric(
        "expected error",
        "mm",
        "mm",
        "How far off the section probably is within its plane, where no truth is known: lower is"
        " better.",
    ),
    "in_plane_mm": Metric(
        "landmark error in the plane",
        "mm",
        "mm",
        "Distance, within the plane of the section, of landmarks carried by the registration from"
        " where they belong: lower is better.",
    ),
    "through_plane_mm": Metric(
        "landmark distance from the plane",
        "mm",
        "mm",
        "Distance of the MRI's landmarks from the plane of their section: it tells how well the"
        " stack lies in the MRI, and no method that works section by section can change it.",
    ),
    "dice": Metric(
        "overlap of labels (Dice)",
        "",
        _SHARE,
        "Overlap of the section's labels, carried by the registration, with those of its MRI"
        " plane: 1 is perfect, 0 none.",
    ),
    "dice_volume": Metric(
        "overlap of labels in the volume (Dice)",
        "",
        _SHARE,
        "The same overlap in the reassembled volume, wherever sections cover it: 1 is perfect.",
    ),
    "surface_distance_mm": Metric(
        "distance of outlines, mean",
        "mm",
        "mm",
        "Mean distance between the outlines of the labels of section and MRI plane, both ways:"
        " lower is better.",
    ),
    "surface_distance_p95_mm": Metric(
        "distance of outlines, 95 %",
        "mm",
        "mm",
        "Ninety-five per cent of the outlines lie closer than this (95 % Hausdorff distance):"
        " lower is better.",
    ),
    "folding": Metric(
        "folded tissue",
        "",
        _SHARE,
        "Share of the tissue where the deformation folds over itself: anything but 0 is"
        " impossible in real tissue.",
    ),
    "there_and_back_mm": Metric(
        "there and back",
        "mm",
        "mm",
        "How far from where it started a point ends that is carried to the section and back:"
        " lower is better, and far below a pixel is good.",
    ),
}
"""By name in the tables of `evaluate`."""

_STATISTICS = {"rmse": "root mean square", "p50": "median", "value": "", "min": "lowest"}
_STATISTICS |= {"max": "highest"}


def metric(name: str, unit: str = "") -> Metric:
    """The words for a metric; one that is not known keeps its name and unit."""
    own = "" if unit == "1" else unit
    return METRICS.get(name) or Metric(name.replace("_", " "), own, own, "")


def statistic(name: str) -> str:
    """A statistic of the summary in words."""
    if name in _STATISTICS:
        return _STATISTICS[name]
    percent = name.removeprefix("p")
    return f"{percent} % are below" if percent != name and percent[:1].isdigit() else name


def class_name(label: str, labels: LabelTable = NO_NAMES) -> str:
    """What a class is called: by the table of labels, else by its number; empty for none.

    Parameters
    ----------
    label : the column ``class`` of a table of `evaluate`.
    """
    if not label.isdigit():
        return label
    known = labels.labels.get(int(label))
    return known.name if known else f"label {label}"
