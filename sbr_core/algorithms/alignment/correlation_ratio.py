"""The correlation ratio between a stack and an MRI, and poses that go downhill on it.

The correlation ratio (Roche, Malandain, Pennec, Ayache: *The correlation ratio as a new similarity
measure for multimodal image registration*, MICCAI 1998, eq. 3) is here the share of the stack's
variance, background included, that no function of the MRI's intensity explains. It asks nothing of
how the two contrasts are related, and sees outlines and what lies inside them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from sbr_core.algorithms.alignment.poses import MARGIN_MM, Pose, Scene, strains
from sbr_core.algorithms.sections import FWHM_PER_SIGMA
from sbr_core.geometry import apply

_KNOTS = 8
"""Of the function of the MRI's intensity, background included: a few tissues of different levels.
With many more it would explain noise, and time and memory grow with it."""
_BRIGHTEST = 2.0
"""Of the stack, in medians of its tissue: ink or a fold must not make up the variance."""
_BLOCK_MM = 22.0
"""Side of the blocks that `start.preference` compares: a brain has some hundred, and what speaks
for a pose in one is nearly independent of the next."""
_UNSEEN_COST = 0.25
"""Cost of a pose all of whose tissue lies where the MRI is not known; between 0 (the best place
would be outside) and 1 (a stack could not reach beyond a cut)."""
_LEAST_SEEN = 0.7
"""Share of the tissue seen at first that a step must keep in sight: what is not seen does not
count in the steps, which could otherwise end beyond a cut."""
_STEPS = 12
"""Of each pose and level at most; most end earlier, by `_LEAST_GAIN`."""
_LEAST_GAIN = 1e-4
"""Share of the stack's variance; poses that are worth keeping differ by a hundred times that."""
_FIRST_DAMPING, _DAMPING_DOWN, _DAMPING_UP, _LARGEST_DAMPING = 1e-2, 0.3, 8.0, 1e3
"""Levenberg-Marquardt: damping relative to the Hessian's diagonal, lowered where a step helps,
raised where it does not, until the pose is given up as settled."""
_LARGEST_TURN, _LARGEST_SHIFT_MM, _LARGEST_STRAIN = 0.35, 30.0, 0.15
"""Of one step: radians (20 degrees, about the distance of the rotations that were tried), mm, and
logarithm. Beyond these the linear step means little."""
_POINTS_AT_ONCE = 400_000
"""Poses times points of one batch: about 100 MB of hat functions and Jacobian."""
_SIZE_SD, _STRAIN_SD = 0.12, 0.10
"""Standard deviations of the logarithm of a stack's size and of its stretches and shears. Tissue
shrinks by some such amount when it is fixed and embedded (the demo's stack by 0.07)."""
_PRIOR_COST = 0.01
"""A strain of its standard deviation costs as much as this share of the variance."""
_RIGID = 1e6
"""Cost that leaves stretch and shear no freedom where only similarities are fitted."""
_DEVIATORIC = np.array([False, True, True, True, True, True])
"""Which of `poses.strains` are stretches and shears; the first is size."""
_PRIOR = _PRIOR_COST / np.where(_DEVIATORIC, _STRAIN_SD, _SIZE_SD) ** 2
_GENERATORS = np.array(
    [
        [[0, 0, 0], [0, 0, -1], [0, 1, 0]],
        [[0, 0, 1], [0, 0, 0], [-1, 0, 0]],
        [[0, -1, 0], [1, 0, 0], [0, 0, 0]],
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[1, 0, 0], [0, -1, 0], [0, 0, 0]],
        [[-0.5, 0, 0], [0, -0.5, 0], [0, 0, 1]],
        [[0, 1, 0], [1, 0, 0], [0, 0, 0]],
        [[0, 0, 1], [0, 0, 0], [1, 0, 0]],
        [[0, 0, 0], [0, 0, 1], [0, 1, 0]],
    ],
    float,
)
"""Of a small linear motion: three rotations, size, two stretches, three shears."""


@dataclass(frozen=True)
class _Evaluation:
    """What `Level.evaluate` returns of h poses; n points, k knots.

    Attributes
    ----------
    cost : (h,) as `Pose.cost`.
    fit : (h,) the part of it that is minimised: without the cost of unseen tissue.
    spread : (h,) sum of squares of what is seen of the stack, about its mean.
    tissue_seen : (h,) number of points of tissue where the MRI is known.
    left : (h, n) each point's part of `cost`.
    residual : (h, n) of the intensity function, 0 where the MRI is not known.
    seen : (h, n) bool.
    index : (h, n, 3) of the points in the MRI.
    basis : (h, n, k) hat functions of the MRI's intensity at the points.
    bin_of : (h, n) the interval between knots that it lies in.
    coefficients : (h, k) of the intensity function.
    normal : (h, k, k) normal matrix that they solve.
    linear : (h, 3, 3) index in the MRI from stack mm.
    """

    cost: np.ndarray
    fit: np.ndarray
    spread: np.ndarray
    tissue_seen: np.ndarray
    left: np.ndarray
    residual: np.ndarray
    seen: np.ndarray
    index: np.ndarray
    basis: np.ndarray
    bin_of: np.ndarray
    coefficients: np.ndarray
    normal: np.ndarray
    linear: np.ndarray

    def updated(self, chosen: np.ndarray, other: _Evaluation) -> _Evaluation:
        """With the poses that `chosen` (h,) marks as `other` has them."""
        joined = {}
        for name, value in vars(self).items():
            where = chosen.reshape(-1, *[1] * (value.ndim - 1))
            joined[name] = np.where(where, getattr(other, name), value)
        return _Evaluation(**joined)

    def subset(self, chosen: np.ndarray) -> _Evaluation:
        """Only the poses that `chosen` (h,) marks."""
        return _Evaluation(**{name: value[chosen] for name, value in vars(self).items()})


class Level:
    """Both volumes at one resolution, and poses refined at it, many at a time."""

    def __init__(
        self, stack: Scene, mri: Scene, spacing_mm: float, prior_share: float = 1.0
    ) -> None:
        """Smooth both to `spacing_mm` and choose the stack's points that are compared.

        Parameters
        ----------
        prior_share : of the usual cost of strain.
        """
        reach = max(1, int(np.ceil(MARGIN_MM / stack.spacing_mm)))
        sigma = spacing_mm / FWHM_PER_SIGMA
        # slices without sections hold nothing to blur in: the weights leave them out
        weight = gaussian_filter(stack.known.astype(np.float32), sigma / stack.spacing_mm)
        data = gaussian_filter(
            np.where(stack.known, stack.data, 0).astype(np.float32), sigma / stack.spacing_mm
        ) / np.maximum(weight, 1e-3)
        stride = max(1, round(spacing_mm / stack.spacing_mm))
        near = binary_dilation(stack.tissue > 0.5, iterations=reach) & stack.known
        chosen = np.zeros(near.shape, bool)
        chosen[::stride, ::stride, ::stride] = True
        where = np.argwhere(near & chosen)
        self.points = apply(stack.mm_from_index, where)
        self.values = data[tuple(where.T)].astype(float)
        self.values = np.minimum(self.values, _BRIGHTEST)
        self.tissue = (stack.tissue > 0.5)[tuple(where.T)]
        self.centre = self.points[self.tissue].mean(axis=0)
        self.block = self._blocks()
        smooth = gaussian_filter(mri.data, sigma / mri.spacing_mm)
        self.images = [smooth, *np.gradient(smooth)]
        self.index_from_world = np.linalg.inv(mri.mm_from_index)
        self.cuts = mri.cuts
        self.prior = prior_share * _PRIOR
        levels = np.quantile(smooth[mri.tissue > 0.5], np.linspace(0.1, 0.97, _KNOTS - 1))
        self.knots = np.unique(np.concatenate([[0.0], levels]))

    def _blocks(self) -> np.ndarray:
        cell = np.floor((self.points - self.points.min(axis=0)) / _BLOCK_MM).astype(int)
        return np.unique(cell, axis=0, return_inverse=True)[1].ravel()

    def evaluate(self, poses: np.ndarray) -> _Evaluation:
        """Cost of poses (h, 4, 4) and what a step from them needs."""
        index_from_stack = self.index_from_world @ poses
        x = np.einsum("hij,nj->hni", index_from_stack[:, :3, :3], self.points)
        x += index_from_stack[:, None, :3, 3]
        coordinates = np.moveaxis(x, -1, 0)
        seen = np.ones(x.shape[:2], bool)
        for cut in self.cuts:
            seen &= x @ cut[:3] + cut[3] <= 0
        value = map_coordinates(self.images[0], coordinates, order=1, mode="constant")
        basis, bin_of = self._basis(value)
        weighted = np.swapaxes(basis * seen[..., None], 1, 2)
        normal = weighted @ basis
        normal += 1e-3 * len(self.points) * 1e-2 * np.eye(len(self.knots))
        coefficients = np.linalg.solve(normal, weighted @ self.values[:, None])[..., 0]
        residual = (self.values - np.einsum("hnk,hk->hn", basis, coefficients)) * seen
        # shares of the variance of what is seen, which draws the stack nowhere
        spread = np.where(seen, self.values, 0)
        n_seen = np.maximum(seen.sum(axis=1), 1)
        spread = (spread**2).sum(axis=1) - spread.sum(axis=1) ** 2 / n_seen
        spread = np.maximum(spread, 1e-9)
        left = residual**2 / spread[:, None]
        fit = left.sum(axis=1)
        left += _UNSEEN_COST * (~seen & self.tissue) / self.tissue.sum()
        tissue_seen = (seen & self.tissue).sum(axis=1)
        return _Evaluation(
            left.sum(axis=1), fit, spread, tissue_seen, left, residual, seen, x,
            basis, bin_of, coefficients, normal, index_from_stack[:, :3, :3],
        )  # fmt: skip

    def _basis(self, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hat functions (h, n, knots) of the MRI's intensity, and the interval it lies in."""
        knots = self.knots
        bin_of = np.clip(np.searchsorted(knots, value, side="right") - 1, 0, len(knots) - 2)
        share = np.clip((value - knots[bin_of]) / np.diff(knots)[bin_of], 0, 1)
        basis = np.zeros((*value.shape, len(knots)))
        np.put_along_axis(basis, bin_of[..., None], (1 - share)[..., None], axis=-1)
        np.put_along_axis(basis, bin_of[..., None] + 1, share[..., None], axis=-1)
        return basis, bin_of

    def refine(self, starts: np.ndarray, affine: bool, iterations: int = _STEPS) -> list[Pose]:
        """Damped Gauss-Newton steps of poses (h, 4, 4), each for itself."""
        at_once = max(1, int(_POINTS_AT_ONCE / len(self.points)))
        out: list[Pose] = []
        for begin in range(0, len(starts), at_once):
            out += self._refine(starts[begin : begin + at_once].copy(), affine, iterations)
        return out

    def _refine(self, poses: np.ndarray, affine: bool, iterations: int) -> list[Pose]:
        strain = strains(poses)
        at = self.evaluate(poses)
        cost = at.fit + self._strain_cost(strain)
        least_seen = _LEAST_SEEN * at.tissue_seen
        damping = np.full(len(poses), _FIRST_DAMPING)
        live = np.arange(len(poses))
        for _ in range(iterations):
            if not len(live):
                break
            gradient, hessian = self._equations(at, strain[live], affine)
            diagonal = np.einsum("hii->hi", hessian) + 1e-9
            damped = hessian + np.einsum("hi,ij->hij", damping[live, None] * diagonal, np.eye(12))
            step = -np.linalg.solve(damped, gradient[..., None])[..., 0]
            trial = self._moved(poses[live], step)
            trial_strain = strains(trial)
            there = self.evaluate(trial)
            trial_cost = there.fit + self._strain_cost(trial_strain)
            better = (trial_cost < cost[live]) & (there.tissue_seen >= least_seen[live])
            gain = cost[live] - trial_cost
            poses[live[better]] = trial[better]
            strain[live[better]] = trial_strain[better]
            cost[live[better]] = trial_cost[better]
            damping[live] *= np.where(better, _DAMPING_DOWN, _DAMPING_UP)
            settled = (better & (gain < _LEAST_GAIN)) | (damping[live] > _LARGEST_DAMPING)
            at = at.updated(better, there).subset(~settled)
            live = live[~settled]
        final = self.evaluate(poses)
        n = int(self.block.max()) + 1
        return [
            Pose(pose, float(c), np.bincount(self.block, left, minlength=n))
            for pose, c, left in zip(poses, final.cost, final.left, strict=True)
        ]

    def _equations(
        self, at: _Evaluation, strain: np.ndarray, affine: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gradient (h, 12) and Hessian (h, 12, 12) of half the cost in `_GENERATORS` and shifts."""
        slopes = np.diff(at.coefficients, axis=1) / np.diff(self.knots)
        slope = np.take_along_axis(slopes, at.bin_of.reshape(len(slopes), -1), axis=1) * at.seen
        coordinates = np.moveaxis(at.index, -1, 0)
        by_index = np.stack(
            [map_coordinates(g, coordinates, order=1, mode="constant") for g in self.images[1:]],
            axis=-1,
        )
        by_stack = by_index @ at.linear
        offset = self.points - self.centre
        outer = np.einsum("hni,nj->hnij", by_stack, offset).reshape(*by_stack.shape[:2], 9)
        jacobian = np.concatenate([outer @ _GENERATORS.reshape(9, 9).T, by_stack], axis=-1)
        jacobian *= -slope[..., None]
        weighted = np.swapaxes(at.basis * at.seen[..., None], 1, 2)
        jacobian -= at.basis @ np.linalg.solve(at.normal, weighted @ jacobian)
        jacobian *= at.seen[..., None]
        transposed = np.swapaxes(jacobian, 1, 2)
        gradient = (transposed @ at.residual[..., None])[..., 0] / at.spread[:, None]
        hessian = transposed @ jacobian / at.spread[:, None, None]
        prior = self.prior if affine else np.where(_DEVIATORIC, _RIGID, self.prior)
        gradient[:, 3:9] += prior * strain
        hessian[:, range(3, 9), range(3, 9)] += prior
        if not affine:
            gradient[:, 4:9] = 0.0
        return gradient, hessian

    def _strain_cost(self, strain: np.ndarray) -> np.ndarray:
        return (self.prior * strain**2).sum(axis=1)

    def _moved(self, poses: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Poses after a small motion about the centre of the tissue, in stack mm."""
        shrink = np.ones(len(step))
        for size, largest in (
            (np.linalg.norm(step[:, :3], axis=1), _LARGEST_TURN),
            (np.linalg.norm(step[:, 9:], axis=1), _LARGEST_SHIFT_MM),
            (np.abs(step[:, 3:9]).max(axis=1), _LARGEST_STRAIN),
        ):
            shrink = np.minimum(shrink, largest / np.maximum(size, 1e-9))
        step = step * shrink[:, None]
        linear = np.einsum("hk,kij->hij", step[:, 3:9], _GENERATORS[3:]) + np.eye(3)
        linear = Rotation.from_rotvec(step[:, :3]).as_matrix() @ linear
        motion = np.tile(np.eye(4), (len(poses), 1, 1))
        motion[:, :3, :3] = linear
        motion[:, :3, 3] = self.centre + step[:, 9:] - linear @ self.centre
        return poses @ motion
