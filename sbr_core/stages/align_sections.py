"""`sbr align-sections`: one 2D affine per section to its MRI plane, which is the `linear` result.

`align` has seen most sections; its affine is start and prior. A section that it never saw, or that
was prepared anew since (flipped, scanned again), starts from the stretch and rotation of its
neighbours in position, with its tissue centred on the MRI's, and with its edges on the MRI's. One
whose manifest says so is placed like that without a fit, its tissue on that of the plane. Landmarks
of the user's corrections lay a section first, wherever it would lie without them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sbr_core.algorithms.alignment.brain_size import resized
from sbr_core.algorithms.alignment.edge_start import laid_on, plane_edges
from sbr_core.algorithms.alignment.landmark_fit import (
    LandmarkFit,
    fit_by_landmarks,
    fits_worse,
    laid_by,
)
from sbr_core.algorithms.alignment.motion import AffineLimits, LandmarkPull
from sbr_core.algorithms.alignment.section_affine import (
    MaskedImage,
    SectionFit,
    fit_section_affine,
)
from sbr_core.algorithms.alignment.section_fits import better_fit
from sbr_core.algorithms.alignment.stack import StackSection, tissue_centre_mm
from sbr_core.algorithms.alignment.stretch import stretch_of, with_stretch
from sbr_core.algorithms.alignment.trust import doubt, trust, usual_cost
from sbr_core.algorithms.sections import area_vote
from sbr_core.artifacts import names
from sbr_core.artifacts.constraints import Constraints, tolerance_mm
from sbr_core.artifacts.global_fit import InitialAffine, read_initial, read_plane_grid
from sbr_core.artifacts.receipts import SectionResult, run_sections
from sbr_core.artifacts.rows import (
    Affine,
    Plane,
    Prepared,
    Row,
    digest_of_file,
    fingerprint,
    read_rows,
)
from sbr_core.artifacts.section_signal import linear_image
from sbr_core.config import AlignSectionsOptions
from sbr_core.errors import ConfigError, ImageError
from sbr_core.geometry import PlaneGrid, scaling
from sbr_core.io.manifests import Landmark
from sbr_core.io.transforms import read_stack_from_world
from sbr_core.io.volumes import read_plane, write_plane
from sbr_core.revisions import REVISION

logger = logging.getLogger(__name__)

_SEEN_SIGMAS_PX = (4.0, 2.0, 1.0)
"""Blurs from coarse to fine, for a section whose affine `align` has found already."""
_UNSEEN_SIGMAS_PX = (10.0, 5.0, 2.0, 1.0)
"""Blurs for a section that starts from its neighbours, which is farther off."""
_SMALLEST_SIGMA_MM = 0.4
"""Anatomy that two contrasts share is no finer, in a human brain."""

_BESIDE_MM = 3.0
"""How far a landmark in the MRI may lie from its section's plane unremarked: about what sections of
a human brain are apart, of which another is then nearer."""

_Item = tuple[Prepared | Row, Plane | Row | None]
"""A section's rows of `prepare` and `resample`; a plain `Row` where the stage failed."""


def run(
    options: AlignSectionsOptions,
    *,
    prepared: Path,
    planes: Path,
    out_dir: Path,
    receipt: Path,
    align_dir: Path | None = None,
    prealigned: bool = False,
    landmarks: Sequence[Landmark] | None = None,
    strict: bool = False,
) -> None:
    """Fit one 2D affine per section: the linear result.

    Parameters
    ----------
    prepared : receipt of prepare.
    planes : receipt of resample, same chunk.
    out_dir : folder the results go to.
    receipt : table to write: each section, its files and their sha256.
    align_dir : folder written by align; not needed with `prealigned`, whose affines only undo what
        prepare did to the file's grid.
    prealigned : the sections lie on their MRI planes already.
    landmarks : pairs that sections are fitted with: a JSON list, or a table of corrections (.tsv).
    strict : stop at the first section that cannot be used.

    Raises
    ------
    ConfigError
        No `align_dir` for a brain that is not prealigned.
    ReceiptError
        A file is not what its receipt says.
    """
    if align_dir is None and not prealigned:
        raise ConfigError("align-sections: expected --align-dir, or --prealigned")
    seen: list[InitialAffine] = []
    enlargement = 1.0
    if not prealigned:
        seen = read_initial(align_dir / names.INITIAL_AFFINES)
        _, enlargement = read_plane_grid(align_dir / names.PLANE_GRID)
    plane_rows = {row.section: row for row in read_rows(planes, Plane, only_ok=False)}
    items = {
        row.section: (row, plane_rows.get(row.section))
        for row in read_rows(prepared, Prepared, only_ok=False)
    }
    for section in [section for section in plane_rows if section not in items]:
        lost = Row(section=section, status="failed", message=f"it is not in {prepared}")
        items[section] = lost, plane_rows[section]

    marks: dict[str, list[Landmark]] = {}
    for mark in landmarks or ():
        marks.setdefault(mark.section, []).append(mark)
    stack_from_world = None
    if marks and not prealigned:
        stack_from_world = read_stack_from_world(align_dir / names.STACK_TRANSFORM)
    fits = _Fits(options, out_dir, seen, enlargement, prealigned, marks, stack_from_world)
    run_sections(
        items,
        stage="align-sections",
        out_dir=out_dir,
        receipt=receipt,
        fingerprint=fits.fingerprint,
        process=fits.process,
        strict=strict,
    )


@dataclass(frozen=True)
class _Fits:
    """How the sections of a chunk are fitted.

    Attributes
    ----------
    seen : what `align` found, of a brain that is not prealigned.
    enlargement : what makes a millimetre one of a human brain (`brain_size`).
    landmarks : section -> pairs that it is to obey.
    stack_from_world : (4, 4), for the landmarks of a brain that is not prealigned.
    """

    options: AlignSectionsOptions
    out_dir: Path
    seen: Sequence[InitialAffine]
    enlargement: float
    prealigned: bool
    landmarks: Mapping[str, Sequence[Landmark]]
    stack_from_world: np.ndarray | None

    def constraints_of(self, row: Prepared) -> Constraints | None:
        """The landmarks of a section on its plane; None where there are none."""
        if not (marks := self.landmarks.get(row.section)):
            return None
        return Constraints.of(marks, self.stack_from_world, row.position_mm)

    def fingerprint(self, item: _Item) -> str:
        row, plane = item
        if not row.ok:
            return ""
        constraints = self.constraints_of(row)
        return fingerprint(
            REVISION["align_sections"],
            self.options,
            prepared={**row.files, "row": row.fingerprint},
            image=digest_of_file(row.image),
            plane=plane.files if plane else {},
            enlargement=self.enlargement,
            start=[a.tolist() for a in _neighbours(row, self.seen)[0]] if self.seen else [],
            # tables of before have no costs, and digests of before none either
            **({} if (usual := _usual_cost(row, self.seen)) is None else {"usual_cost": usual}),
            **({} if constraints is None else {"landmarks": constraints.digest}),
        )

    def process(self, item: _Item) -> SectionResult:
        row, plane = item
        for stage, of_stage in (("prepare", row), ("resample", plane)):
            if of_stage is None or not of_stage.ok:
                reason = of_stage.message if of_stage else "it is not in the receipt of its planes"
                raise ImageError(f"section {row.section!r}: {stage}: {reason}")
        mask = read_plane(row.file(names.MASK))[0] > 0
        constraints, doubts = self.constraints_of(row), []
        kept: Sequence[int] = range(len(constraints) if constraints is not None else 0)
        if self.prealigned:
            _check_same_grid(row, plane.grid)
            affine, figures = np.linalg.inv(row.section_mm_from_working_mm), {"moved_mm": 0.0}
        elif row.affine_from:
            on_plane = read_plane(plane.file(names.MRI_MASK))[0] > 0
            affine, figures = _start_of(row, plane, mask, on_plane, self.seen), {"moved_mm": 0.0}
            if constraints is not None:
                affine = laid_by(constraints.plane_mm, constraints.working_mm(row), affine)
        else:
            pair = _Pair.of(row, plane, mask, self.enlargement)
            fit = _fit(self.options, pair, self.seen)
            if constraints is not None:
                by_landmarks = _fit_by_landmarks(self.options, pair, self.seen, constraints)
                kept, doubts = by_landmarks.kept, _doubts(by_landmarks, fit, constraints, pair)
                fit = by_landmarks.fit
            affine, figures = pair.result(fit)
            usual, missing = _usual_cost(row, self.seen), figures["missing"]
            figures["trust"] = trust(figures["cost"], usual, missing)
            doubts = [*filter(None, [doubt(figures["cost"], usual, missing)]), *doubts]
        if constraints is not None:
            doubts += constraints.doubts(_BESIDE_MM / self.enlargement)
            asked_mm = self.options.landmark_tolerance_mm
            figures |= {
                "constraints": constraints.kept(kept) or None,
                "landmark_tolerance_mm": tolerance_mm(asked_mm, row.working_pixel_mm),
            }
        for why in doubts:
            logger.warning(f"align-sections: WARNING: section {row.section!r}: {why}")
        made = Affine(
            section=row.section,
            position_mm=row.position_mm,
            working_mm_from_plane_mm=affine,
            stain=row.stain,
            channel=row.channel,
            message="; ".join(doubts),
            **figures,
        )
        return SectionResult(made, _write_linear(self.out_dir, row, mask, affine, plane.grid))


def _write_linear(
    out_dir: Path, row: Prepared, mask: np.ndarray, affine: np.ndarray, grid: PlaneGrid
) -> list[Path]:
    """Write the section through its affine, and its mask; return their paths.

    Parameters
    ----------
    mask : of the tissue, working px.
    affine : (3, 3), working_mm_from_plane_mm.
    """
    both = names.LINEAR, names.LINEAR_MASK
    files = [names.section_file(out_dir, row.section, ending) for ending in both]
    linear = linear_image(row, row.section_mm_from_working_mm @ affine, grid)
    write_plane(files[0], linear, grid.spacing_mm)
    working_px_from_plane_px = scaling(1 / row.working_pixel_mm) @ affine @ grid.plane_mm_from_px
    linear_mask = area_vote(mask, working_px_from_plane_px, grid.shape)
    write_plane(files[1], linear_mask.astype(np.uint8), grid.spacing_mm)
    return files


def _check_same_grid(row: Prepared, grid: PlaneGrid) -> None:
    """ImageError when a prealigned section's image and MRI plane are of different shapes."""
    file = PlaneGrid(row.file_shape, row.pixel_size_mm)
    if file.at_spacing(grid.spacing_mm).shape != grid.shape:
        raise ImageError(
            f"{row.image}: section {row.section!r}: shape {file.shape}, but its mri_image has"
            " another; a prealigned section lies on the grid of its plane"
        )


def _neighbours(
    row: Prepared, seen: Sequence[InitialAffine]
) -> tuple[list[np.ndarray], list[float], bool]:
    """(affines, weights, own): the section's own affine, or those on either side in position."""
    for other in () if row.affine_from else seen:
        if other.section == row.section and other.prepared == row.pixels_digest:
            return [other.working_mm_from_plane_mm], [1.0], True
    others = [o for o in seen if o.section != row.section]
    if not others:
        raise ImageError(f"section {row.section!r}: align has seen no other section to start by")
    below = [o for o in others if o.position_mm <= row.position_mm][-1:]
    above = [o for o in others if o.position_mm > row.position_mm][:1]
    affines = [o.working_mm_from_plane_mm for o in (*below, *above)]
    if len(affines) == 1:
        return affines, [1.0], False
    z_mm, gap_mm = below[0].position_mm, above[0].position_mm - below[0].position_mm
    share = (row.position_mm - z_mm) / gap_mm
    return affines, [1 - share, share], False


def interpolated_start(
    affines: Sequence[np.ndarray],
    weights: Sequence[float],
    section_centre_mm: np.ndarray,
    plane_centre_mm: np.ndarray,
) -> np.ndarray:
    """(3, 3) with the mean rotation and stretch of `affines` that joins two centres of tissue.

    Parameters
    ----------
    affines, weights : working_from_plane_mm of neighbours; the weights sum to 1.
    section_centre_mm, plane_centre_mm : (2,) centroid of the tissue, working mm, and of the
        MRI's plane, plane mm.
    """
    parts = [stretch_of(a[:2, :2]) for a in affines]
    angles = np.unwrap([np.arctan2(r[1, 0], r[0, 0]) for r, _ in parts])
    angle = float(np.dot(weights, angles))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    log_stretch = np.tensordot(weights, np.array([log for _, log in parts]), axes=1)
    matrix = np.eye(3)
    matrix[:2, :2] = with_stretch(rotation, log_stretch)
    matrix[:2, 2] = section_centre_mm - matrix[:2, :2] @ plane_centre_mm
    return matrix


@dataclass(frozen=True, eq=False)
class _Pair:
    """A section and its MRI plane, in millimetres of a human brain.

    Attributes
    ----------
    enlargement : what makes a millimetre one of a human brain (`brain_size`).
    """

    row: Prepared
    plane: Plane
    section: MaskedImage
    on_plane: MaskedImage
    enlargement: float

    @classmethod
    def of(cls, row: Prepared, plane: Plane, mask: np.ndarray, enlargement: float) -> _Pair:
        """Read; `mask` is the tissue of the section, working px."""
        mri_mask = read_plane(plane.file(names.MRI_MASK))[0] > 0
        image, mri = (read_plane(r.file(f))[0] for r, f in ((row, names.IMAGE), (plane, names.MRI)))
        section = MaskedImage(image, mask, row.working_pixel_mm * enlargement)
        on_plane = MaskedImage(mri, mri_mask, plane.grid.spacing_mm * enlargement)
        return cls(row, plane, section, on_plane, enlargement)

    def prior(self, seen: Sequence[InitialAffine]) -> tuple[np.ndarray, bool]:
        """(3, 3) affine to start from, and whether `align` found it for this section."""
        affines, _, own = _neighbours(self.row, seen)
        if own:
            return resized(affines[0], self.enlargement), True
        masks = self.section.mask, self.on_plane.mask
        return resized(_start_of(self.row, self.plane, *masks, seen), self.enlargement), False

    def result(self, fit: SectionFit) -> tuple[np.ndarray, dict[str, Any]]:
        """The affine of a fit, and its figures, true mm."""
        figures = {
            "cost": fit.cost,
            "missing": fit.missing,
            "prior_cost": fit.prior_cost,
            "moved_mm": fit.moved_mm / self.enlargement,
        }
        return resized(fit.working_from_plane_mm, 1 / self.enlargement), figures


def _fit_from(
    options: AlignSectionsOptions,
    section: MaskedImage,
    plane: MaskedImage,
    start: np.ndarray,
    sigmas_px: tuple[float, ...],
    landmarks: LandmarkPull | None = None,
) -> SectionFit:
    """The fit of a section from one start (3, 3), lengths as those of a human brain."""
    return fit_section_affine(
        section,
        plane,
        start,
        limits=AffineLimits(options.max_scale_change, options.max_shear, options.prior_weight),
        sigmas_mm=tuple(max(s * plane.pixel_mm, _SMALLEST_SIGMA_MM) for s in sigmas_px),
        landmarks=landmarks,
    )


def _fit_unseen(
    options: AlignSectionsOptions, section: MaskedImage, plane: MaskedImage, start: np.ndarray
) -> SectionFit:
    """The better of two fits: from tissue centred on tissue, and from edges laid on edges.

    The centre of half a section is not that of the whole; its edges are where they were.
    """
    centred = _fit_from(options, section, plane, start, _UNSEEN_SIGMAS_PX)
    if section.too_small or plane.too_small:
        return centred
    rotation, log_stretch = stretch_of(start[:2, :2])
    by_edges = laid_on(
        StackSection("", section.data, section.tissue, 0.0),
        section.pixel_mm,
        plane_edges(plane),
        float(np.arctan2(rotation[1, 0], rotation[0, 0])),
        log_stretch,
        PlaneGrid(plane.data.shape, plane.pixel_mm),
    )
    laid = _fit_from(options, section, plane, by_edges, _SEEN_SIGMAS_PX)
    return better_fit(centred, laid, tissue_centre_mm(section.mask, section.pixel_mm))


def _start_of(
    row: Prepared,
    plane: Plane,
    mask: np.ndarray,
    mri_mask: np.ndarray,
    seen: Sequence[InitialAffine],
) -> np.ndarray:
    """(3, 3) working_mm_from_plane_mm of a section by its neighbours; see `interpolated_start`.

    Parameters
    ----------
    mask, mri_mask : tissue of the section, working px, and of its plane.
    """
    affines, weights, _ = _neighbours(row, seen)
    return interpolated_start(
        affines,
        weights,
        tissue_centre_mm(mask, row.working_pixel_mm),
        tissue_centre_mm(mri_mask, plane.grid.spacing_mm),
    )


def _usual_cost(row: Prepared, seen: Sequence[InitialAffine]) -> float | None:
    """The misfit that `align` left of the sections around, of its stain group if it saw any."""
    every = [o for o in seen if o.section != row.section]
    others = [o for o in every if o.stain_group == row.stain_group] or every
    return usual_cost(row.position_mm, [o.position_mm for o in others], [o.cost for o in others])


def _fit(options: AlignSectionsOptions, pair: _Pair, seen: Sequence[InitialAffine]) -> SectionFit:
    """The affine of one section by its image."""
    start, own = pair.prior(seen)
    if own:
        return _fit_from(options, pair.section, pair.on_plane, start, _SEEN_SIGMAS_PX)
    return _fit_unseen(options, pair.section, pair.on_plane, start)


def _fit_by_landmarks(
    options: AlignSectionsOptions,
    pair: _Pair,
    seen: Sequence[InitialAffine],
    constraints: Constraints,
) -> LandmarkFit:
    """The affine of one section by its landmarks and its image, wherever it would lie without."""

    def fit(start: np.ndarray, pull: LandmarkPull) -> SectionFit:
        fits = [
            _fit_from(options, pair.section, pair.on_plane, start, sigmas_px, pull)
            for sigmas_px in (_SEEN_SIGMAS_PX, _UNSEEN_SIGMAS_PX)
        ]
        return min(fits, key=lambda f: np.nan_to_num(f.cost) + pull.cost(f.working_from_plane_mm))

    points = constraints.plane_mm, constraints.working_mm(pair.row)
    plane_mm, section_mm = (pair.enlargement * mm for mm in points)
    return fit_by_landmarks(plane_mm, section_mm, pair.prior(seen)[0], fit)


def _doubts(
    found: LandmarkFit, alone: SectionFit, constraints: Constraints, pair: _Pair
) -> list[str]:
    """What speaks against the landmarks of a section, in words.

    Parameters
    ----------
    alone : the fit without them.
    """
    doubts = []
    for i, name in enumerate(constraints.names):
        if i not in found.kept:
            away_mm = found.apart_mm[i] / pair.enlargement
            doubts.append(
                f"landmark {name!r} is not obeyed: it contradicts the others and the image, which"
                f" put it {away_mm:.1f} mm away"
            )
    if fits_worse(found.fit.cost, alone.cost):
        doubts.append(
            f"its landmarks put it where it fits its plane {found.fit.cost / alone.cost:.1f} times"
            " as badly as without them: are they right?"
        )
    return doubts
