"""`sbr simulate`: pairs with a known deformation, from a brain's own sections and MRI planes.

Writes a prealigned brain below its folder: the manifest ``sections.tsv`` with ``images/``, ``mri/``
and ``mri_masks/``, ``labels/`` and ``mri_labels/`` where the brain's MRI has labels,
``landmarks.tsv`` and ``truth.json``. Each section is its MRI plane with the
look of the brain's own sections (see `algorithms.appearance`), torn, stained unevenly and bent
by a deformation that is known (see `algorithms.simulation.pairs`), and so are the labels of its
plane, but that its boundaries are not quite the plane's (`algorithms.simulation.variation`).
Equal options give equal files.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import gaussian_filter

from sbr_core.algorithms import appearance
from sbr_core.algorithms.sections import grid_px, labels_on_grid
from sbr_core.algorithms.simulation import damage as damages
from sbr_core.algorithms.simulation import pairs
from sbr_core.algorithms.simulation import variation as variations
from sbr_core.algorithms.simulation.swirls import FAMILY
from sbr_core.artifacts.joined import Joined, join
from sbr_core.artifacts.label_pairs import LabelPairs
from sbr_core.artifacts.names import (
    LANDMARKS,
    LINEAR,
    LINEAR_MASK,
    MRI,
    MRI_MASK,
    SIMULATION,
    TABLE,
    TRUTH,
)
from sbr_core.errors import ImageError
from sbr_core.io.files import write_json
from sbr_core.io.images import write_png
from sbr_core.io.manifests import SectionRow
from sbr_core.io.provenance import versions, write_provenance
from sbr_core.io.tables import write_tsv
from sbr_core.io.volumes import read_plane
from sbr_core.planning.sheet import simulated_rows
from sbr_core.revisions import REVISION

if TYPE_CHECKING:
    from sbr_core.config import SimulateOptions

logger = logging.getLogger(__name__)

_SAMPLES = 400_000
_DONORS = 24
_TILES = 8_000
_LATTICE_PX = 3
_PALEST = 0.05
_TORN_BLUR_PX = 0.6
"""Of the edges of clefts, which a pixel is half inside; as of other damage."""

_LANDMARK_COLUMNS = ("section", "x_section_mm", "y_section_mm", "x_plane_mm", "y_plane_mm")


def run(
    options: SimulateOptions,
    *,
    rows: list[SectionRow],
    prepared: Path,
    planes: Path,
    sections: Path,
    out_dir: Path,
    align_dir: Path | None = None,
    mri_labels: Path | None = None,
    strict: bool = False,
) -> None:
    """Make pairs with a known deformation, from a brain's own sections and MRI planes.

    Parameters
    ----------
    rows : the brain's manifest (.tsv), or its rows as a JSON list.
    prepared : table written by prepare.
    planes : table written by resample.
    sections : table written by align-sections.
    out_dir : folder the results go to; made if needed, files of the same names are replaced.
    align_dir : folder written by align; not of a prealigned brain.
    mri_labels : labels of the MRI, on its grid; those of a prealigned brain are in `rows`.
    strict : stop at the first label image that cannot be used, instead of leaving it empty.

    Raises
    ------
    ImageError
        Fewer than two sections lie on their MRI planes, too few of them show tissue there, labels
        of the MRI that cannot be read or, with `strict`, those of a plane.
    ConfigError
        A deformation that tissue of this size cannot be bent by.
    """
    out_dir = Path(out_dir)
    labels = LabelPairs(
        rows, align_dir=align_dir, mri_labels=mri_labels, stage="simulate", strict=strict
    )
    if "" in labels.unusable:  # the brain's rows promise them
        raise ImageError(labels.unusable[""])
    brain = _Brain(prepared, planes, sections, labels)
    labelled = labels.mri is not None
    made = simulated_rows(
        rows, options.n_sections, brain.grid.spacing_mm, out_dir, labelled=labelled
    )
    usable = [row.section for row in made if row.section in brain.pairs]
    if len(usable) < 2:
        raise ImageError(
            f"{sections}: {len(usable)} sections lie on their MRI planes, expected at least 2"
        )
    deformations = _draw_deformations(brain, usable, options)
    damage = damages.draw_damage(usable, options.tears, options.missing_pieces, options.seed)
    learnt = _learn(brain, usable, options.seed)

    truth = _truth_about(options, brain, learnt)
    landmarks: list[dict[str, Any]] = []
    notes: dict[str, str] = {}
    for number, row in enumerate(made, 1):
        section = row.section
        if section not in brain.pairs:
            notes[section] = "left blank: it does not lie on an MRI plane"
            _write_blank(row, brain.grid.shape)
        else:
            notes[section] = damage[section]
            truth["sections"][section], marks = _make_section(
                brain, row, usable.index(section), learnt, deformations[section],
                damage[section], options,
            )  # fmt: skip
            landmarks += marks
        note = f" {notes[section]}" if notes[section] else ""
        logger.info(f"simulate: {number}/{len(made)} section {section}{note}")

    errors = [e["in_plane_mm_of_linear"] for e in truth["sections"].values() if e["landmarks"]]
    truth["in_plane_mm_of_linear"] = float(np.mean(errors)) if errors else math.nan
    write_tsv(out_dir / LANDMARKS, landmarks, _LANDMARK_COLUMNS)
    write_json(out_dir / TRUTH, truth)
    write_provenance(
        out_dir / SIMULATION,
        stage="simulate",
        options=options.model_dump(mode="json"),
        inputs={"prepared": prepared, "planes": planes, "sections": sections}
        | ({"mri_labels": mri_labels} if labelled else {}),
        label_numbers={str(id_): number for id_, number in brain.numbers.items()},
    )
    # last: a manifest without its images is no brain
    write_tsv(out_dir / TABLE, [_manifest_row(r, out_dir, notes) for r in made])
    logger.info(
        f"simulate: the true deformation moves tissue by {truth['in_plane_mm_of_linear']:.2f} mm"
        " in the mean, which is what linear leaves"
    )


class _Brain:
    """The sections of a brain that lie on their MRI planes, read one at a time.

    Attributes
    ----------
    numbers : what stands for ids over 65535, which PNGs cannot hold, in the labels that are drawn.
    """

    def __init__(self, prepared: Path, planes: Path, sections: Path, labels: LabelPairs) -> None:
        self.sections, self._labels = Path(sections), labels
        self.numbers: dict[int, int] = {}
        rows = join(prepared, planes, sections, verify=False)
        self.pairs = {name: pair for name, pair in rows.items() if isinstance(pair, Joined)}
        grids = {pair.grid for pair in self.pairs.values()}
        if len(grids) != 1:
            raise ImageError(f"{planes}: {len(grids)} grids of MRI planes, expected one")
        self.grid = grids.pop()
        heights = [pair.prepared.position_mm for pair in self.pairs.values()]
        self._begin, self._reach = min(heights), max(np.ptp(heights), 1e-6)

    def pair(self, section: str) -> appearance.Pair:
        """A section on its plane."""
        pair = self.pairs[section]
        return appearance.Pair(
            mri=read_plane(pair.plane.intact(MRI))[0],
            mri_mask=read_plane(pair.plane.intact(MRI_MASK))[0] > 0,
            section=read_plane(pair.affine.intact(LINEAR))[0],
            section_mask=read_plane(pair.affine.intact(LINEAR_MASK))[0] > 0,
            height=(pair.prepared.position_mm - self._begin) / self._reach,
        )

    def plane_labels(self, section: str) -> np.ndarray:
        """Labels of its plane on the plane's grid, uint16; zeros where none can be used.

        Negative ids, which no section has, are left out. An id that a PNG cannot hold gets a number
        of its own, see `numbers`.
        """
        pair = self.pairs[section]
        of_plane = self._labels.of_plane(pair.prepared, pair.plane)
        if of_plane is None:
            return np.zeros(self.grid.shape, np.uint16)
        labels, grid = of_plane
        most = np.iinfo(np.uint16).max
        held = np.where((labels >= 0) & (labels <= most), labels, 0).astype(np.uint16)
        for id_ in np.unique(labels[labels > most]):
            # from the top, where atlases with small ids have none
            held[labels == id_] = self.numbers.setdefault(int(id_), most - len(self.numbers))
        return labels_on_grid(held, grid, self.grid)

    def extents_mm(self, sections: list[str]) -> dict[str, float]:
        """Size of the tissue of each section's plane."""
        return {section: damages.extent_of(self.tissue_mm(section)) for section in sections}

    def tissue_mm(self, section: str) -> np.ndarray:
        """(n, 2) plane mm of a lattice's points in the MRI's mask; of every point of a tiny one."""
        mask = read_plane(self.pairs[section].plane.intact(MRI_MASK))[0]
        for step in (_LATTICE_PX, 1):
            rows, columns = np.nonzero(mask[::step, ::step])
            if rows.size:
                break
        return np.column_stack([columns, rows]) * (step * self.grid.spacing_mm)


def _draw_deformations(
    brain: _Brain, sections: list[str], options: SimulateOptions
) -> dict[str, pairs.KnownDeformation]:
    """The known deformation of each section."""
    tissue_mm = {section: brain.tissue_mm(section) for section in sections}
    extents_mm = brain.extents_mm(sections)
    wanted_mm = pairs.displacements_mm(extents_mm, options.deformation_mm, options.seed)
    return {
        section: pairs.draw_deformation(
            tissue_mm[section],
            pairs.brain_extent(extents_mm),
            wanted_mm[section],
            options.affine_share,
            np.random.default_rng([options.seed, 3, order]),
        )
        for order, section in enumerate(sections)
    }


@dataclass(frozen=True)
class _Learnt:
    """What the sections of a brain have in common.

    Attributes
    ----------
    looks : one per fold, learnt from the sections of the other folds.
    bank : texture of some sections.
    unevenness : of the stain, the median of these sections.
    brain_extent_mm : of `pairs.brain_extent`.
    """

    looks: list[appearance.Look]
    bank: appearance.TextureBank
    unevenness: float
    brain_extent_mm: float


def _learn(brain: _Brain, sections: list[str], seed: int) -> _Learnt:
    """Learn the look in two rounds, then take texture from sections spread over the brain."""
    rng = np.random.default_rng([seed, 0])
    looks: list[appearance.Look] = []

    def pair_of(number: int) -> appearance.Pair:
        """A section on its plane, nearer to it where a look is known."""
        pair = brain.pair(sections[number])
        return appearance.pulled(pair, *looks[number % len(looks)].of(pair)) if looks else pair

    for learning in ("learning the look of", "learning it again, better aligned, from"):
        logger.info(f"simulate: {learning} {len(sections)} sections")
        samples = appearance.Samples()
        for number in range(len(sections)):
            fold = number % appearance.N_FOLDS
            samples.add(pair_of(number), fold, math.ceil(_SAMPLES / len(sections)), rng)
        for fold in range(appearance.N_FOLDS):
            if not samples.show_tissue(without_fold=fold):
                others = [s for n, s in enumerate(sections) if n % appearance.N_FOLDS != fold]
                more = " and others" if len(others) > 5 else ""
                raise ImageError(
                    f"{brain.sections}: sections {', '.join(others[:5])}{more} show no tissue on"
                    " their MRI planes, so there is no look to learn for the simulated pairs"
                )
        looks = [appearance.Look.fit(samples, fold, seed) for fold in range(appearance.N_FOLDS)]

    donors = np.unique(np.linspace(0, len(sections) - 1, _DONORS).round().astype(int))
    bank, unevenness = appearance.TextureBank(), []
    for donor in donors:
        pair = pair_of(donor)
        signal, _ = looks[donor % len(looks)].of(pair)
        unevenness.append(appearance.unevenness(pair, signal))
        bank.add(int(donor), pair, signal, rng, math.ceil(_TILES / len(donors)))
    logger.info(f"simulate: took texture from {len(donors)} sections")
    extent_mm = pairs.brain_extent(brain.extents_mm(sections))
    return _Learnt(looks, bank, float(np.median(unevenness)), extent_mm)


def _make_section(
    brain: _Brain,
    row: SectionRow,
    order: int,
    learnt: _Learnt,
    deformation: pairs.KnownDeformation,
    damage: str,
    options: SimulateOptions,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Write the files of one section; return what is known of it, and its landmarks.

    Parameters
    ----------
    order : number of the section, as in `_learn`.
    """
    rendered, varied = _simulate(brain, row, order, learnt, deformation, damage, options)
    _write_section(row, brain, rendered, varied, deformation)
    marks = rendered.landmarks_mm
    targets = deformation.plane_from_section(marks)
    known = {
        "position_mm": row.position_mm,
        "damage": damage,
        **_truth_of(deformation, brain.tissue_mm(row.section), marks, targets),
    }
    return known, [
        dict(zip(_LANDMARK_COLUMNS, (row.section, *mark, *target), strict=True))
        for mark, target in zip(marks.tolist(), targets.tolist(), strict=True)
    ]


def _simulate(
    brain: _Brain,
    row: SectionRow,
    order: int,
    learnt: _Learnt,
    deformation: pairs.KnownDeformation,
    damage: str,
    options: SimulateOptions,
) -> tuple[pairs.Rendered, variations.Varied]:
    """One section: the look of its plane with texture, damage and uneven staining, its boundaries
    shifted, and bent.

    Parameters
    ----------
    order : number of the section, as in `_learn`.
    """
    rng = np.random.default_rng([options.seed, 4, order])
    pair = brain.pair(row.section)
    guessed, cover = learnt.looks[order % len(learnt.looks)].of(pair)
    tissue = cover > 0.5
    signal = appearance.with_contrast_of(guessed, tissue, pair)
    signal = signal + options.texture * learnt.bank.texture(order, pair, guessed, tissue, rng)
    spacing_mm, tissue_mm = brain.grid.spacing_mm, brain.tissue_mm(row.section)
    signal, cover = damages.stained_and_damaged(
        np.maximum(signal, _PALEST),
        cover,
        spacing_mm,
        tissue_mm,
        damage,
        options.uneven_staining * learnt.unevenness,
        rng,
    )
    varied = _varied(
        signal, cover, row.position_mm, order, learnt.brain_extent_mm, spacing_mm, options
    )
    torn = damages.gyral_tears(
        grid_px(cover.shape) * spacing_mm, tissue_mm, learnt.brain_extent_mm, options.gyral_tears,
        np.random.default_rng([options.seed, 7, order]),
    )  # fmt: skip
    kept = varied.cover * gaussian_filter((~torn).astype(np.float32), _TORN_BLUR_PX)
    rendered = pairs.render(varied.signal, kept, cover, spacing_mm, deformation, options, rng)
    return rendered, varied


def _varied(
    signal: np.ndarray,
    cover: np.ndarray,
    position_mm: float,
    order: int,
    brain_extent_mm: float,
    spacing_mm: float,
    options: SimulateOptions,
) -> variations.Varied:
    """The look of a plane, its boundaries shifted as anatomy differs."""
    rms_mm = options.anatomy_mm
    if rms_mm is None:
        rms_mm = variations.ANATOMY_SHARE * brain_extent_mm
    height = np.full((*signal.shape, 1), position_mm)
    points_mm = np.concatenate([grid_px(signal.shape) * spacing_mm, height], axis=-1)
    shifts_mm = variations.boundary_shifts(points_mm, rms_mm, brain_extent_mm, options.seed, order)
    return variations.varied(signal, cover, spacing_mm, shifts_mm, rms_mm, brain_extent_mm)


def _truth_about(options: SimulateOptions, brain: _Brain, learnt: _Learnt) -> dict[str, Any]:
    """What is known of all sections, as JSON; `_truth_of` each is to be added."""
    return {
        "about": "Simulated from this brain's own MRI planes and the look of its sections."
        " section mm -> (inverse of section_mm_from_flat_mm) -> flat mm -> swirls -> plane mm.",
        "family": FAMILY,
        "seed": options.seed,
        "options": options.model_dump(mode="json"),
        "revision": REVISION["simulate"],
        "versions": versions(),
        "spacing_mm": brain.grid.spacing_mm,
        "unevenness_of_staining": learnt.unevenness,
        "sections": {},
    }


def _truth_of(
    deformation: pairs.KnownDeformation,
    tissue_mm: np.ndarray,
    marks_mm: np.ndarray,
    targets_mm: np.ndarray,
) -> dict[str, Any]:
    """What is known of one section, as JSON.

    Parameters
    ----------
    tissue_mm : (n, 2) plane mm of points all over the tissue.
    marks_mm, targets_mm : (m, 2) landmarks in section mm and where they belong, plane mm.
    """
    section_mm = deformation.section_from_plane(tissue_mm)
    off_mm = np.linalg.norm(marks_mm - targets_mm, axis=1)
    return {
        "section_mm_from_flat_mm": deformation.section_mm_from_flat_mm.tolist(),
        "swirls": deformation.swirls.tolist(),
        "least_determinant": float(deformation.determinant(section_mm).min()),
        "tissue_moved_mm": float(np.linalg.norm(section_mm - tissue_mm, axis=1).mean()),
        "landmarks": len(marks_mm),
        "in_plane_mm_of_linear": float(off_mm.mean()) if off_mm.size else None,
    }


def _write_section(
    row: SectionRow,
    brain: _Brain,
    rendered: pairs.Rendered,
    varied: variations.Varied,
    deformation: pairs.KnownDeformation,
) -> None:
    """The image as the brain's own are, bright or dark around, and the plane it belongs to."""
    prepared = brain.pairs[row.section].prepared
    pair = brain.pair(row.section)
    signal = rendered.signal * pair.level
    if prepared.polarity == "bright_background":
        signal = -signal
    image = prepared.background + signal
    # files of integers are in [0, 1] already; those of floats may be on any scale
    write_png(Path(row.image), _as_uint16(image / max(1.0, float(image.max()))))
    write_png(Path(row.mri_image), _as_uint16(pair.mri / max(float(pair.mri.max()), 1e-6)))
    write_png(Path(row.mri_mask), pair.mri_mask.astype(np.uint8))
    if row.mask:
        write_png(Path(row.mask), rendered.tissue.astype(np.uint8))
    if row.labels:
        labels = brain.plane_labels(row.section)
        write_png(Path(row.mri_labels), labels)
        own = variations.shifted(labels, varied.from_px, order=0)
        carried = pairs.carried_labels(own, rendered.tissue, brain.grid.spacing_mm, deformation)
        write_png(Path(row.labels), carried.astype(np.uint16))


def _write_blank(row: SectionRow, shape: tuple[int, int]) -> None:
    """Empty files of a section that cannot be made, which the stages after this leave out."""
    empty = np.zeros(shape, np.uint8)
    for path in row.files():
        write_png(Path(path), empty)


def _as_uint16(image: np.ndarray) -> np.ndarray:
    return np.rint(65535 * np.clip(image, 0, 1)).astype(np.uint16)


def _manifest_row(row: SectionRow, folder: Path, notes: Mapping[str, str]) -> dict[str, Any]:
    """A row as the manifest has it: paths relative to its folder."""
    values = {k: v for k, v in asdict(row).items() if v != ""}
    for key in ("image", "mask", "labels", "mri_image", "mri_mask", "mri_labels"):
        if key in values:
            values[key] = str(Path(values[key]).relative_to(folder))
    return {**values, "notes": notes[row.section]}
