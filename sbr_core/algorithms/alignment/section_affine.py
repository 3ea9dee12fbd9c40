"""One section's 2D affine to its MRI plane, across contrasts, without running away.

Similarity across contrasts is the correlation ratio (Roche, Malandain, Pennec, Ayache: *The
correlation ratio as a new similarity measure for multimodal image registration*, MICCAI 1998,
eq. 3): the section is predicted from the MRI by a free function of intensity, here piecewise
linear and allowed to change linearly across the section, since staining does. What the prediction
leaves is minimised over the affine by Gauss-Newton steps, the function being solved for anew at
each step. The residuals pass a bounded loss, so that a tear, ink or a missing piece counts as
"does not fit" however badly it does not fit. Where a tenth of the plane or more is missing in the
section (`missing_tissue`), nothing is compared, nor at the cut edge, which is no edge of anatomy;
the stretch is then held to the prior's, since half a section stretches to any size.

The affine is the prior followed by p -> c + M (p - c) + t, with M = rotation · stretch. Rotation
and translation are free; the stretch is drawn to the prior and has hard limits. Common scale and
shear of the stack come in through the prior.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.ndimage import (
    binary_dilation,
    distance_transform_edt,
    gaussian_filter,
    map_coordinates,
)

from sbr_core.algorithms.alignment.missing_tissue import PIXEL_MM, missing_tissue
from sbr_core.algorithms.alignment.motion import (
    GENERATORS,
    STILL,
    AffineLimits,
    LandmarkPull,
    Motion,
)

_KNOTS = 9
"""Of the function of the MRI's intensity, background included: fluid, grey and white matter and
nuclei are a few levels each; with many more, noise of a small plane would be fitted too."""
_ITERATIONS = 15
"""Gauss-Newton steps of a level at most; they end where one gains less than `_LEAST_GAIN`."""
_LEAST_GAIN = 1e-4
"""Share of the cost; with a tenth of it `align` took a seventh longer, and its error on BigBrain
was the same to 0.002 mm."""
_FIRST_DAMPING, _DAMPING_UP, _DAMPING_DOWN, _DAMPING_TRIALS = 1e-3, 10, 5, 5
"""Levenberg-Marquardt: damping relative to the Hessian's diagonal, raised where a step does not
help (so often, then the fit has ended), lowered where it does."""
_DOMAIN_MARGIN_MM = 4.0
"""Around the tissue of section and plane that is compared too: a section must leave background
where the MRI has some. A wide margin would let the easy background outweigh the tissue."""
_CUT_EDGE_SIGMAS, _CUT_EDGE_MM = 2.0, 8.0
"""Blurs around missing tissue that are not compared either, and that in millimetres at most."""
_LEAST_THERE = 0.2
"""Of what is compared otherwise; a smaller rest would be compared with little but itself."""
_HELD = 30.0
"""How much more a stretch costs where tissue is missing."""
_CUT_OUT_PX = 2
"""Kept around a mask, see `_cut_out`."""
_LEAST_TISSUE_PX = 30
"""Of section and plane, below which there is nothing to compare: six unknowns and a function of
intensity are to be determined."""
_RAMP_MM = 50.0
"""Unit of the coordinates by which the function may change across a section: about a third of a
human section's width, so that coefficients of the ramp are of the size of the others."""
_RIDGE, _RIDGE_OF_LEVELS = 1e-3, 1e-3
"""What a coefficient of the ramp costs, in units of all points; a level costs a thousandth of it,
only enough to be solvable. The ramp explains staining and must not explain displaced tissue."""
_LEAST_SCALE = 0.05
"""Of residuals, in medians of the tissue: a section of no contrast at all has one too."""
_REWEIGHTINGS = 3
"""Passes in which the intensity function and the residuals' weights follow each other."""


@dataclass(frozen=True)
class MaskedImage:
    """A section, or a plane of the MRI.

    Attributes
    ----------
    data : (rows, columns), background 0, any positive scale.
    mask : the same shape; above 0 in tissue, or brain.
    pixel_mm : side of a pixel.
    """

    data: np.ndarray
    mask: np.ndarray
    pixel_mm: float

    @cached_property
    def tissue(self) -> np.ndarray:
        """The mask as bool."""
        return self.mask > 0

    @property
    def too_small(self) -> bool:
        """Whether there is too little tissue to compare."""
        return bool(self.tissue.sum() < _LEAST_TISSUE_PX)

    def normalised(self) -> tuple[np.ndarray, float]:
        """The image cut out (`_cut_out`), and the median of its tissue, by which it is divided."""
        image = _cut_out(self.data, self.tissue)
        unit = max(np.median(image[self.tissue]), 1e-6)
        return image / unit, unit


@dataclass(frozen=True)
class SectionFit:
    """Result of `fit_section_affine`.

    Attributes
    ----------
    working_from_plane_mm : (3, 3).
    cost, prior_cost : share of the misfit that remains, in [0, 1], after the fit and at the
        prior; NaN where section or plane is empty.
    moved_mm : mean distance over the plane's tissue that the fit moved points from the prior, in
        section mm.
    missing : share of the plane's tissue that the section has lost, see `missing_tissue`.
    """

    working_from_plane_mm: np.ndarray
    cost: float
    prior_cost: float
    moved_mm: float
    missing: float = 0.0


def fit_section_affine(
    section: MaskedImage,
    plane: MaskedImage,
    prior: np.ndarray,
    *,
    limits: AffineLimits,
    sigmas_mm: tuple[float, ...],
    landmarks: LandmarkPull | None = None,
) -> SectionFit:
    """Refine a section's affine from coarse to fine.

    Parameters
    ----------
    section, plane : the section at the working pixel, and the MRI where it should lie.
    prior : (3, 3) working_from_plane_mm to start from and stay near.
    sigmas_mm : Gaussian smoothing of each level, coarse to fine.
    landmarks : points that it is to bring together besides; their share is in no cost returned.

    Returns
    -------
    SectionFit; the prior itself where the cost does not improve, or where there is too little
    tissue to compare.
    """
    if section.too_small or plane.too_small:
        return SectionFit(prior, np.nan, np.nan, 0.0)
    misfit = _Misfit(section, plane, prior, limits, landmarks)
    motion = STILL
    for sigma_mm in sigmas_mm:
        misfit.set_level(sigma_mm, motion)
        motion = misfit.descend(motion)
    # both judged by the last level's scale of residuals
    end, start = misfit.evaluate(motion), misfit.evaluate(STILL)
    prior_cost = start.cost - start.pull
    if not end.cost < start.cost:
        return SectionFit(prior, prior_cost, prior_cost, 0.0, misfit.missing)
    fitted = prior @ motion.matrix(misfit.centre_mm)
    tissue = np.argwhere(plane.tissue)[:, ::-1] * plane.pixel_mm
    shift = tissue @ (fitted - prior)[:2, :2].T + (fitted - prior)[:2, 2]
    moved_mm = float(np.linalg.norm(shift, axis=1).mean())
    return SectionFit(fitted, end.cost - end.pull, prior_cost, moved_mm, misfit.missing)


def plane_equations(
    section: MaskedImage,
    plane: MaskedImage,
    sides: tuple[np.ndarray, np.ndarray],
    distance_mm: float,
    working_from_plane_mm: np.ndarray,
    *,
    limits: AffineLimits,
    sigma_mm: float,
) -> tuple[np.ndarray, np.ndarray] | None:
    """How a section's misfit changes when its MRI plane moves out of itself.

    The plane's point (x, y) moves along z by q0 + q1 x + q2 y mm, and the section's affine
    follows as it would if it were fitted again (Schur complement of the joint Gauss-Newton step).

    Parameters
    ----------
    section, plane : as in `fit_section_affine`.
    sides : (rows, columns) the MRI `distance_mm` / 2 below the plane and as far above it.
    distance_mm : between both, stack mm.
    working_from_plane_mm : the fitted affine.

    Returns
    -------
    hessian, gradient : (3, 3), (3,) of the cost in (q0, q1, q2); None where section or plane is
        empty.
    """
    if section.too_small or plane.too_small:
        return None
    misfit = _Misfit(section, plane, working_from_plane_mm, limits)
    # tissue that only a neighbouring plane has is part of how the plane changes: no mask on it
    return misfit.plane_equations(sigma_mm, *sides, distance_mm)


def _cut_out(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image on its mask and two pixels around, 0 elsewhere.

    Cut at the mask itself, edges would lose the outer half of their blur, and a section would
    seem smaller (1 % for a brain of 60 pixels).
    """
    return image * binary_dilation(mask, iterations=_CUT_OUT_PX)


@dataclass(frozen=True)
class _Evaluation:
    """Cost at a motion, and what a Gauss-Newton step from it needs."""

    cost: float
    loss: float
    pull: float
    residual: np.ndarray
    weight: np.ndarray
    points_section_px: np.ndarray
    coefficients: np.ndarray


def _add_size(gradient: np.ndarray, hessian: np.ndarray, loss: float) -> None:
    """What drawing the section smaller adds to half the derivatives: loss ~ exp(scale)."""
    gradient[1] += loss / 2
    hessian[1, 1] += loss / 2


class _Misfit:
    """What a plane of the MRI leaves unexplained of a section, at one level of smoothing."""

    def __init__(
        self,
        section: MaskedImage,
        plane: MaskedImage,
        prior: np.ndarray,
        limits: AffineLimits,
        landmarks: LandmarkPull | None = None,
    ) -> None:
        # the median of tissue becomes 1, so that costs compare between sections
        self.section = np.minimum(section.normalised()[0], 3.0)
        self.mri, self.mri_unit = plane.normalised()
        self.section_mask, self.mri_mask = section.tissue, plane.tissue
        self.section_px_mm, self.plane_px_mm = section.pixel_mm, plane.pixel_mm
        self.prior, self.limits, self.landmarks = prior, limits, landmarks
        self.centre_mm = np.argwhere(plane.tissue)[:, ::-1].mean(axis=0) * plane.pixel_mm
        self.missing = 0.0

    def set_level(self, sigma_mm: float, motion: Motion) -> None:
        """Smooth both images, choose the points, and fix the scale of residuals."""
        smooth = gaussian_filter(self.section, sigma_mm / self.section_px_mm, truncate=3.0)
        self.smooth = smooth
        self.gradient = np.gradient(smooth) if min(smooth.shape) > 1 else None
        stride = max(1, int(sigma_mm / self.plane_px_mm))
        # where either has tissue, and a margin: judged at this level's start, then held
        points, tissue = self._tissue_on_plane(stride, motion)
        tissue |= self.mri_mask[::stride, ::stride]
        reach = max(1, round(_DOMAIN_MARGIN_MM / (stride * self.plane_px_mm)))
        domain = binary_dilation(tissue, iterations=reach).ravel()
        margin_mm = min(_CUT_EDGE_SIGMAS * sigma_mm, _CUT_EDGE_MM)
        there = domain & ~self._lost(points, motion, margin_mm)
        if there.sum() >= _LEAST_THERE * domain.sum():
            domain = there
        self.points = points[domain]
        self.stride, self.domain = stride, domain
        # Between the background and the darker tissue the function is a straight line, as partial
        # volume is in both images. Were it free there, it could take a rim of tissue for
        # background, and a section would fit while it is too small.
        levels = np.quantile(self.mri[self.mri_mask], np.linspace(0.15, 0.98, _KNOTS - 1))
        self.knots = np.unique(np.concatenate([[0.0], levels]))
        self.basis = self._basis_of(self.mri, sigma_mm)
        # the ramp is held back, so that it explains staining and not displaced tissue
        self.ridge = (
            _RIDGE * len(self.points) * np.repeat([_RIDGE_OF_LEVELS, 1.0, 1.0], len(self.knots))
        )
        # half the contrast of the tissue itself, so that costs compare between planes and poses
        self.scale = max(0.5 * float(np.std(smooth[self.section_mask])), _LEAST_SCALE)

    def _tissue_on_plane(self, stride: int, motion: Motion) -> tuple[np.ndarray, np.ndarray]:
        """(n, 2) points of every `stride`-th pixel of the plane, mm; the section's tissue there."""
        rows, columns = np.mgrid[0 : self.mri.shape[0] : stride, 0 : self.mri.shape[1] : stride]
        points = np.stack([columns.ravel(), rows.ravel()], axis=1) * self.plane_px_mm
        section_px = self._section_px(points, motion)
        mask = self.section_mask.astype(np.float32)
        tissue = map_coordinates(mask, section_px.T[::-1], order=1) > 0.5
        return points, tissue.reshape(rows.shape)

    def _lost(self, points: np.ndarray, motion: Motion, margin_mm: float) -> np.ndarray:
        """Which points (n, 2) of the plane lie where the section has lost tissue, or near by."""
        step = max(1, int(PIXEL_MM / self.plane_px_mm))
        pixel_mm = step * self.plane_px_mm
        brain = self.mri_mask[::step, ::step]
        missing = missing_tissue(self._tissue_on_plane(step, motion)[1], brain, pixel_mm)
        self.missing = np.count_nonzero(missing) / max(np.count_nonzero(brain), 1)
        if not missing.any():
            return np.zeros(len(points), bool)
        lost = distance_transform_edt(~missing) * pixel_mm <= margin_mm
        last = np.array(lost.shape) - 1
        row, column = np.minimum(np.round(points.T[::-1] / pixel_mm).astype(int), last[:, None])
        return lost[row, column]

    def _basis_of(self, mri: np.ndarray, sigma_mm: float) -> np.ndarray:
        """Hat functions over a plane's intensity, smoothed, times 1, x and y, at the points.

        Smoothed after the hats and not before: a section is a function of the MRI first and
        blurred then. The other way round, edges of a smooth section would lie where the function
        of a smooth MRI is half way, which is elsewhere, and sections would seem 1 to 3 % smaller.
        """
        sigma_px = sigma_mm / self.plane_px_mm
        hats = np.stack(
            [
                gaussian_filter(
                    np.interp(mri, self.knots, row).astype(np.float32), sigma_px, truncate=3.0
                )[:: self.stride, :: self.stride].ravel()[self.domain]
                for row in np.eye(len(self.knots))
            ],
            axis=1,
        ).astype(float)
        xy = (self.points - self.centre_mm) / _RAMP_MM
        return np.concatenate([hats, hats * xy[:, :1], hats * xy[:, 1:]], axis=1)

    def _section_px(self, points_mm: np.ndarray, motion: Motion) -> np.ndarray:
        matrix = self.prior @ motion.matrix(self.centre_mm)
        return (points_mm @ matrix[:2, :2].T + matrix[:2, 2]) / self.section_px_mm

    def evaluate(self, motion: Motion) -> _Evaluation:
        """Predict the section from the MRI, and what that leaves.

        The loss of a residual r is r²/(r² + scale²) (Geman and McClure), in [0, 1).
        """
        px = self._section_px(self.points, motion)
        values = map_coordinates(self.smooth, px.T[::-1], order=1)
        weight = np.ones(len(values))
        for _ in range(_REWEIGHTINGS):
            weighted = self.basis * weight[:, None]
            normal = weighted.T @ self.basis
            normal[np.diag_indices_from(normal)] += self.ridge
            coefficients = np.linalg.solve(normal, weighted.T @ values)
            residual = values - self.basis @ coefficients
            weight = 1.0 / (1.0 + (residual / self.scale) ** 2) ** 2
        # Counted per geometric mean of both areas. Per area of the plane alone, a section would
        # leave the less unexplained the smaller it is drawn, per area of the section alone the
        # larger; those that fit badly ran away, and the common stretch of the stack with them.
        loss = float(np.mean(residual**2 / (residual**2 + self.scale**2)))
        loss *= float(np.sqrt(np.linalg.det(motion.linear)))
        cost = loss + float(self._prior_weights() @ motion.stretch() ** 2)
        pull = 0.0
        if self.landmarks is not None:
            pull = self.landmarks.cost(self.prior @ motion.matrix(self.centre_mm))
        return _Evaluation(cost + pull, loss, pull, residual, weight, px, coefficients)

    def _prior_weights(self) -> np.ndarray:
        size = np.array([np.log1p(self.limits.max_scale_change), *[self.limits.max_shear] * 2])
        weight = self.limits.prior_weight * (_HELD if self.missing else 1.0)
        return weight / np.maximum(size, 1e-6) ** 2

    def descend(self, motion: Motion) -> Motion:
        """Damped Gauss-Newton steps while the cost falls."""
        current = self.evaluate(motion)
        damping = _FIRST_DAMPING
        for _ in range(_ITERATIONS):
            gradient, hessian = self._linearise(motion, current)
            for _ in range(_DAMPING_TRIALS):
                damped = hessian + damping * np.diag(np.diag(hessian) + 1e-12)
                trial = motion.step(-np.linalg.solve(damped, gradient), self.limits)
                there = self.evaluate(trial)
                if there.cost < current.cost:
                    break
                damping *= _DAMPING_UP
            else:
                return motion
            gain = current.cost - there.cost
            motion, current, damping = trial, there, damping / _DAMPING_DOWN
            if gain < _LEAST_GAIN * current.cost:
                break
        return motion

    def _linearise(self, motion: Motion, at: _Evaluation) -> tuple[np.ndarray, np.ndarray]:
        """Gradient (6,) and Gauss-Newton Hessian (6, 6) of the cost in a small motion."""
        gradient, hessian = self._normal_equations(self._jacobian(motion, at), at)
        per_area = float(np.sqrt(np.linalg.det(motion.linear)))
        gradient, hessian = per_area * gradient, per_area * hessian
        _add_size(gradient, hessian, at.loss)
        prior = self._prior_weights()
        gradient[1:4] += prior * motion.stretch()
        hessian[np.arange(1, 4), np.arange(1, 4)] += prior
        if self.landmarks is not None:
            matrix = self.prior @ motion.matrix(self.centre_mm)
            pulled = self.landmarks.equations(matrix, self.centre_mm)
            gradient, hessian = gradient + pulled[0], hessian + pulled[1]
        return gradient, hessian

    def _jacobian(self, motion: Motion, at: _Evaluation) -> np.ndarray:
        """(n, 6): change of the residuals with a small motion."""
        matrix = (self.prior @ motion.matrix(self.centre_mm))[:2, :2]
        rows_columns = at.points_section_px.T[::-1]
        by_row, by_column = (map_coordinates(g, rows_columns, order=1) for g in self.gradient)
        slope = np.stack([by_column, by_row], axis=1) / self.section_px_mm @ matrix
        offset = self.points - self.centre_mm
        small = np.einsum("ni,kij,nj->nk", slope, GENERATORS, offset, optimize=True)
        return np.concatenate([small, slope], axis=1)

    def _normal_equations(
        self, jacobian: np.ndarray, at: _Evaluation
    ) -> tuple[np.ndarray, np.ndarray]:
        # the part of a step that the intensity function would take up is no misfit
        weighted = self.basis * at.weight[:, None]
        normal = weighted.T @ self.basis
        normal[np.diag_indices_from(normal)] += self.ridge
        jacobian = jacobian - self.basis @ np.linalg.solve(normal, weighted.T @ jacobian)
        per_point = at.weight / (len(at.weight) * self.scale**2)
        return jacobian.T @ (per_point * at.residual), (jacobian * per_point[:, None]).T @ jacobian

    def plane_equations(
        self, sigma_mm: float, below: np.ndarray, above: np.ndarray, distance_mm: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """What `plane_equations` returns, at the prior."""
        self.set_level(sigma_mm, STILL)
        at = self.evaluate(STILL)
        sides = [self._basis_of(m / self.mri_unit, sigma_mm) for m in (below, above)]
        # a plane further up predicts another section
        per_mm = -(sides[1] - sides[0]) @ at.coefficients / distance_mm
        plane = per_mm[:, None] * np.column_stack([np.ones(len(per_mm)), self.points])
        jacobian = np.concatenate([self._jacobian(STILL, at), plane], axis=1)
        gradient, hessian = self._normal_equations(jacobian, at)
        _add_size(gradient, hessian, at.loss)
        own, shared = slice(0, 6), slice(6, 9)
        held = hessian[own, own] + np.diag([0, *self._prior_weights(), 0, 0]) + 1e-9 * np.eye(6)
        # the section's own best answer to each step of the plane is taken for granted
        through = np.linalg.solve(held, np.column_stack([hessian[own, shared], gradient[own]]))
        return (
            hessian[shared, shared] - hessian[shared, own] @ through[:, :3],
            gradient[shared] - hessian[shared, own] @ through[:, 3],
        )
