"""Figures that compare methods, fit for a paper; matplotlib is imported when a figure is drawn.

Every method has one name, one place and one colour in all of them (`sbr_core.methods`). Each
function returns a matplotlib figure; `Drawing` writes the files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbr_core.io.files import atomic_path
from sbr_core.methods import REGISTRY
from sbr_core.report.page import PRINT_DPI

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLASS_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00")
"""Of outlines of anatomy: those of Okabe and Ito's that are bright enough to lie over grey."""
_PAGE_INCH = 7.1
"""A page's width of text; figures are no wider, so that their letters keep their size."""
_COLUMNS = 6
"""Panels side by side: more would be less than 1.2 inches wide, too small to see the cortex in."""
_PANEL_INCH = 1.7
"""Width of a panel where there are few: a section need not fill the page."""
_FONT = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,  # text stays text
}


@dataclass(frozen=True)
class Drawing:
    """A figure, the name of its files and its caption."""

    name: str
    figure: Figure
    caption: str
    title: str = ""

    def save(self, folder: Path) -> None:
        """Write it as PNG for the screen and as PDF for print."""
        for suffix, facts in ((".png", {}), (".pdf", {"CreationDate": None})):
            with atomic_path(folder / f"{self.name}{suffix}") as temporary:
                self.figure.savefig(temporary, dpi=PRINT_DPI, metadata=facts)


def in_order(methods: Sequence[str]) -> list[str]:
    """Methods as they are shown: known ones first, in the order of `REGISTRY`."""
    known = [method for method in REGISTRY if method in methods]
    return known + [method for method in methods if method not in REGISTRY]


def name_of(method: str) -> str:
    """A method's name in text and figures."""
    return REGISTRY[method].title if method in REGISTRY else method


def colour_of(method: str) -> str:
    """A method's colour in figures; white for one that is not known."""
    return REGISTRY[method].colour if method in REGISTRY else "#FFFFFF"


def box_plots(
    panels: Mapping[str, Mapping[str, np.ndarray]],
    label: str,
    marks: Mapping[tuple[str, str], str] | None = None,
) -> Figure:
    """A panel of boxes per class, a box per method, every section as a point beside it.

    Boxes reach from the first to the third quartile with the median across, whiskers to the last
    value within 1.5 times that distance; the diamond is the mean.

    Parameters
    ----------
    panels : title -> method -> (n,) values of its sections.
    label : of the value axis, with its unit.
    marks : (title, method) -> sign above its box.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    methods = in_order(list(dict.fromkeys(m for values in panels.values() for m in values)))
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    with mpl.rc_context(_FONT):
        width = columns * (0.7 + 0.285 * max(len(methods), 6))
        figure = Figure(figsize=(min(width, _PAGE_INCH), 2.3 * rows), layout="constrained")
        for number, (title, values) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(rows, columns, number)
            for place, method in enumerate(methods):
                if np.size(values.get(method, ())):
                    _box(axes, place, values[method], colour_of(method))
                axes.annotate(
                    (marks or {}).get((title, method), ""),
                    (place, 1.0),
                    xycoords=("data", "axes fraction"),
                    ha="center",
                    va="bottom",
                )
            axes.set_xticks(range(len(methods)), [name_of(m) for m in methods])
            axes.tick_params(axis="x", rotation=45, length=0)
            for tick in axes.get_xticklabels():
                tick.set(ha="right", rotation_mode="anchor")
            axes.set_xlim(-0.6, len(methods) - 0.4)
            axes.set_title(title, pad=12)
            axes.set_ylabel(label)
            axes.grid(axis="y", linewidth=0.4, color="0.9")
            axes.set_axisbelow(True)
    return figure


def _box(axes: Axes, place: float, values: np.ndarray, colour: str) -> None:
    box = axes.boxplot(
        [values],
        positions=[place],
        widths=0.62,
        showfliers=False,
        showmeans=True,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": colour, "alpha": 0.55, "linewidth": 0.6},
        medianprops={"color": "black", "linewidth": 1.2},
        whiskerprops={"linewidth": 0.6},
        capprops={"linewidth": 0.6},
        meanprops={
            "marker": "D",
            "markersize": 3,
            "markerfacecolor": "white",
            "markeredgecolor": "black",
            "markeredgewidth": 0.6,
        },
    )
    box["means"][0].set_zorder(4)
    # apart from each other by chance, but by the same chance in every figure
    aside = np.random.default_rng(0).uniform(-0.22, 0.22, np.size(values))
    axes.plot(place + aside, values, ".", color="black", alpha=0.3, markersize=2.2, zorder=3)


@dataclass(frozen=True)
class Picture:
    """Grey levels (rows, columns) in [0, 1] on a grid of the plane."""

    grey: np.ndarray
    spacing_mm: float

    def extent_mm(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of the outermost pixels, plane mm, rows downwards."""
        half, (rows, columns) = self.spacing_mm / 2, self.grey.shape
        return -half, columns * self.spacing_mm - half, rows * self.spacing_mm - half, -half


@dataclass(frozen=True)
class Panel:
    """One picture of a grid of pictures; without a picture, a word that says why."""

    title: str
    picture: Picture | None
    outlined: bool = False
    word: str = ""


@dataclass(frozen=True)
class Outlines:
    """Classes (rows, columns), 0 for none, whose boundaries are drawn over pictures.

    Attributes
    ----------
    nested : draw around each class and all above it, not around each class alone.
    smooth_px : standard deviation by which each class is smoothed before its boundary is drawn,
        so that lines do not show the steps of the pixels.
    """

    classes: np.ndarray
    spacing_mm: float
    nested: bool = False
    smooth_px: float = 0.8
    names: Mapping[int, str] = field(default_factory=dict)

    def values(self) -> list[int]:
        """The classes there are."""
        return [int(v) for v in np.unique(self.classes) if v]

    def draw(self, axes: Any, linewidth: float) -> None:
        from scipy import ndimage

        y_mm, x_mm = (np.arange(n) * self.spacing_mm for n in self.classes.shape)
        for place, value in enumerate(self.values()):
            alone = self.classes >= value if self.nested else self.classes == value
            inside = ndimage.gaussian_filter(alone * 1.0, self.smooth_px)
            if inside.max() > 0.5:
                colour = CLASS_COLOURS[place % len(CLASS_COLOURS)]
                axes.contour(x_mm, y_mm, inside, [0.5], colors=[colour], linewidths=linewidth)


def picture_grid(
    bands: Sequence[Sequence[Panel]],
    view_mm: tuple[float, float, float, float],
    outlines: Outlines,
    *,
    linewidth: float = 0.6,
) -> Figure:
    """Pictures of one view side by side, several rows of them where there are many.

    Parameters
    ----------
    bands : the panels from left to right, each with the pictures that stand below one another;
        all equally many.
    view_mm : left, right, bottom and top of what is shown, plane mm, rows downwards.
    outlines : over the pictures that are `outlined`.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    left, right, bottom, top = view_mm
    high = len(bands[0])
    blocks = math.ceil(len(bands) / _COLUMNS)
    columns = math.ceil(len(bands) / blocks)
    panel_width = min(_PANEL_INCH, _PAGE_INCH / columns)
    panel_height = min(panel_width * (bottom - top) / (right - left), 2 * panel_width)
    with mpl.rc_context(_FONT):
        figure = Figure(
            figsize=(columns * panel_width, blocks * high * (panel_height + 0.2) + 0.25),
            layout="constrained",
        )
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
        axes = figure.subplots(blocks * high, columns, squeeze=False)
        for every in axes.flat:
            every.set_axis_off()
        for number, panels in enumerate(bands):
            block, column = divmod(number, columns)
            for below, panel in enumerate(panels):
                here = axes[block * high + below, column]
                here.set_title(panel.title, pad=2)
                here.set_aspect("equal")
                if panel.picture is None:
                    middle = (left + right) / 2, (bottom + top) / 2
                    here.text(*middle, panel.word, ha="center", va="center", color="0.5")
                else:
                    here.imshow(
                        panel.picture.grey,
                        cmap="gray",
                        vmin=0,
                        vmax=1,
                        extent=panel.picture.extent_mm(),
                        interpolation="bicubic",
                    )
                    if panel.outlined:
                        outlines.draw(here, linewidth)
                here.set_xlim(left, right)
                here.set_ylim(bottom, top)
        _scale_bar(axes[0, 0], view_mm)
        names = [outlines.names.get(v, f"class {v}") for v in outlines.values()]
        lines = [
            Line2D([], [], color=CLASS_COLOURS[place % len(CLASS_COLOURS)], label=name)
            for place, name in enumerate(names)
        ]
        figure.legend(
            handles=lines, loc="outside lower center", ncols=len(lines) or 1, frameon=False
        )
    return figure


def _scale_bar(axes: Axes, view_mm: tuple[float, float, float, float]) -> None:
    """A round length of at most a quarter of the width, in the lower left corner."""
    from matplotlib.patheffects import withStroke

    left, right, bottom, top = view_mm
    quarter = (right - left) / 4
    decade = 10.0 ** math.floor(math.log10(quarter))
    length_mm = decade * max(step for step in (1, 2, 5) if step * decade <= quarter)
    x_mm, y_mm = left + 0.05 * (right - left), bottom + 0.05 * (top - bottom)
    rim = [withStroke(linewidth=2, foreground="black")]
    axes.plot([x_mm, x_mm + length_mm], [y_mm, y_mm], color="white", linewidth=2)
    axes.text(
        x_mm,
        y_mm + 0.03 * (top - bottom),
        f"{length_mm:g} mm",
        color="white",
        ha="left",
        va="bottom",
        fontsize=7,
        path_effects=rim,
    )


def classes_of_grey(grey: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Classes of an image without labels: its grey levels within a mask, split by Otsu (1979).

    Parameters
    ----------
    grey : (rows, columns).
    mask : (rows, columns); elsewhere the class is 0.

    Returns
    -------
    (rows, columns) uint8: 0 the darkest third of the classes, 1 the middle one, 2 the brightest;
    1 everywhere in the mask where there are too few grey levels to be split.
    """
    from scipy import ndimage
    from skimage.filters import threshold_multiotsu

    smooth = ndimage.gaussian_filter(np.asarray(grey, np.float32), 1.0)
    inside = np.asarray(mask) > 0
    try:
        classes = np.digitize(smooth, threshold_multiotsu(smooth[inside], 3))
    except ValueError:  # a flat image
        return inside.astype(np.uint8)
    return np.where(inside, classes, 0).astype(np.uint8)


def extent_of(mask: np.ndarray, spacing_mm: float, margin: float = 0.04) -> tuple[float, ...]:
    """Left, right, bottom and top of a mask's tissue and a little around it, plane mm."""
    rows, columns = (np.flatnonzero(np.asarray(mask).any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return Picture(np.asarray(mask, float), spacing_mm).extent_mm()
    around = margin * max(np.ptp(rows), np.ptp(columns), 1) * spacing_mm
    return (
        columns[0] * spacing_mm - around,
        columns[-1] * spacing_mm + around,
        rows[-1] * spacing_mm + around,
        rows[0] * spacing_mm - around,
    )


def busiest_view(classes: np.ndarray, spacing_mm: float, share: float) -> tuple[float, ...]:
    """The square that holds the most boundary of classes: the most folded piece of cortex.

    Boundaries deeper in the tissue than half the square's side do not count, for they are not of
    cortex.

    Parameters
    ----------
    classes : (rows, columns).
    share : its side, as a share of the longer side of what is not 0.

    Returns
    -------
    Left, right, bottom and top, plane mm, rows downwards.
    """
    from scipy import ndimage

    held = [np.flatnonzero((classes > 0).any(axis=axis)) for axis in (0, 1)]
    longest = max([np.ptp(indices) + 1 for indices in held if indices.size] or [max(classes.shape)])
    side = int(np.clip(round(share * longest), 2, min(classes.shape)))
    boundary = np.zeros(classes.shape)
    boundary[:, 1:] += classes[:, 1:] != classes[:, :-1]
    boundary[1:] += classes[1:] != classes[:-1]
    tissue = np.pad(ndimage.binary_fill_holes(classes > 0), 1)  # the edge of the image is outside
    boundary[ndimage.distance_transform_edt(tissue)[1:-1, 1:-1] > side / 2] = 0
    # sums over squares whose first pixel is (row, column)
    sums = np.pad(boundary.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    amount = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    row, column = np.unravel_index(np.argmax(amount), amount.shape)
    return (
        (column - 0.5) * spacing_mm,
        (column + side - 0.5) * spacing_mm,
        (row + side - 0.5) * spacing_mm,
        (row - 0.5) * spacing_mm,
    )
