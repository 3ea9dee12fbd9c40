"""How a stack lies in an MRI, from nothing: every rotation, both handednesses, any place.

Three steps, from many poses that are judged roughly to few that are judged well:

1. **Outlines, everywhere.** Rotations spread evenly over all there are (super-Fibonacci spirals;
   Alexa: *Super-Fibonacci spirals: fast, low-discrepancy sampling of SO(3)*, CVPR 2022), both
   handednesses and two scales. For each, the overlap of the two outlines is computed for all
   shifts at once by Fourier transforms.
2. **Intensity too, downhill.** The best of these are refined by damped Gauss-Newton steps on the
   correlation ratio (Roche, Malandain, Pennec, Ayache, MICCAI 1998): the share of the stack's
   variance, background included, that no function of the MRI's intensity explains. It asks
   nothing of how the two contrasts are related, and sees outlines and what lies inside them.
   First similarities at low resolution; of what is left, one pose of each basin, with
   stretch and shear too, since sections shrink.
3. **Basins.** Poses that put the tissue within `BASIN_MM` of one another are one basin. The
   best pose of each handedness and the best of its rivals are compared block by block
   (`preference`).

What is not known counts neither for nor against a pose: beyond the ends of the stack, and beyond
a flat face at which the MRI was cut off. Tissue that lies where the MRI is not known costs a
little, or the best place would be outside; it does not count in the steps downhill, or they
would draw the stack to where it is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.fft
from scipy.ndimage import binary_dilation, gaussian_filter, map_coordinates

from sbr_core.algorithms.planes import prefiltered_volume, sample_volume
from sbr_core.geometry import apply

BASIN_MM = 15.0
"""Mean distance between where two poses put the tissue, above which they are two."""

_N_ROTATIONS = 600
_SCALES = (0.93, 1.07)
_OUTLINE_MM = 9.0
_KEPT_BY_OUTLINE = 300
_KEPT_AFTER_THESE = 120
_KEPT_BY_INTENSITY = 40
_KEPT_TO_THE_END = 12
_LEVELS_MM = (8.0, 5.0, 3.5)
_FIRST_ITERATIONS = 4
_ITERATIONS = 12
_MARGIN_MM = 20.0
_KNOTS = 8
_SCALE_SD = 0.12
_STRAIN_SD = 0.10
_UNSEEN_SHARE = 0.5
_UNSEEN_COST = 0.25
_CUT_SHARE = 0.6
_CUT_LEAST = 0.05
_CUT_DEPTH_MM = 8.0
_LEAST_CHANCE = 0.05
_LEFT_OUT = 2
_LEAST_SEEN = 0.7
_BLOCK_MM = 22.0


@dataclass(frozen=True)
class Scene:
    """A volume, prepared once for all poses.

    Attributes
    ----------
    data : [i, j, k] float32, 0 outside tissue, its median there 1.
    tissue : the same shape, share of tissue.
    known : the same shape, bool: whether there is data at all. Of an MRI all of it.
    mm_from_index : (4, 4), stack mm, or the MRI's world.
    cuts : of an MRI, half spaces (4,) of index coordinates (a·x + d > 0) beyond which it was cut.
    """

    data: np.ndarray
    tissue: np.ndarray
    known: np.ndarray
    mm_from_index: np.ndarray
    cuts: tuple[np.ndarray, ...] = ()

    @property
    def spacing_mm(self) -> float:
        return float(np.abs(np.linalg.det(self.mm_from_index[:3, :3])) ** (1 / 3))


@dataclass(frozen=True)
class Pose:
    """One way the stack may lie.

    Attributes
    ----------
    world_from_stack : (4, 4) affine; of negative determinant where it mirrors.
    cost : share of the variance of what is seen of the stack that is left unexplained, and
        a quarter of the share of tissue that lies where the MRI is not known.
    left_over : (blocks,) the same, block by block of the stack; their sum is `cost`.
    """

    world_from_stack: np.ndarray
    cost: float
    left_over: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def mirrored(self) -> bool:
        return bool(np.linalg.det(self.world_from_stack[:3, :3]) < 0)


def mri_scene(
    data: np.ndarray, mask: np.ndarray, world_from_voxel: np.ndarray, spacing_mm: float
) -> Scene:
    """An MRI at `spacing_mm`, along its own axes.

    A face of the brain's bounding box towards which the brain hardly tapers is taken for one at
    which the MRI was cut off: near it the cross section is at least 0.6 times that 8 mm
    further in.
    """
    voxel_mm = np.linalg.norm(world_from_voxel[:3, :3], axis=0)
    unit = max(float(np.median(data[mask])), 1e-6)
    step = spacing_mm / voxel_mm
    where = np.argwhere(mask)
    low, high = where.min(axis=0), where.max(axis=0)
    start = low - np.ceil(_MARGIN_MM / voxel_mm)
    stop = high + np.ceil(_MARGIN_MM / voxel_mm)
    axes = [np.arange(a, b + s, s) for a, b, s in zip(start, stop, step, strict=True)]
    voxels = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    small = [
        sample_volume(prefiltered_volume(image, voxel_mm, spacing_mm), voxels)
        for image in (np.where(mask, data, 0) / unit, mask.astype(np.float32))
    ]
    voxel_from_index = np.diag([*step, 1.0])
    voxel_from_index[:3, 3] = start
    cuts = []
    for axis in range(3):
        area = mask.sum(axis=tuple(a for a in range(3) if a != axis))
        for side, face in ((-1, low[axis]), (1, high[axis])):
            # one slice in, for edges are ragged
            outer, deeper = (
                area[int(np.clip(face - side * n, low[axis], high[axis]))]
                for n in (1, 1 + round(_CUT_DEPTH_MM / voxel_mm[axis]))
            )
            if outer > max(_CUT_SHARE * deeper, _CUT_LEAST * area.max()):
                plane = np.zeros(4)
                plane[axis] = side * step[axis]
                plane[3] = side * (start[axis] - face) - 0.5
                cuts.append(plane)
    return Scene(
        np.clip(small[0], 0, 3),
        small[1],
        np.ones(small[1].shape, bool),
        world_from_voxel @ voxel_from_index,
        tuple(cuts),
    )


def rotations(n: int) -> np.ndarray:
    """(n, 3, 3) rotations, evenly spread over all."""
    from scipy.spatial.transform import Rotation

    phi, psi = np.sqrt(2.0), 1.533751168755204288118041
    s = np.arange(n) + 0.5
    t = s / n
    alpha, beta = 2 * np.pi * s / phi, 2 * np.pi * s / psi
    r, q = np.sqrt(t), np.sqrt(1 - t)
    quaternions = np.stack(
        [r * np.sin(alpha), r * np.cos(alpha), q * np.sin(beta), q * np.cos(beta)], axis=1
    )
    return Rotation.from_quat(quaternions).as_matrix()


def search(
    stack: Scene,
    mri: Scene,
    *,
    near: np.ndarray | None = None,
    max_rotation_deg: float = 180.0,
    progress: Callable[[str], None] = lambda line: None,
) -> list[Pose]:
    """The best pose of each basin, best first.

    Parameters
    ----------
    stack, mri : at about 3 mm.
    near : (3, 3) orthogonal, world from stack: only poses of its handedness, turned by at most
        `max_rotation_deg` from it; None searches everywhere.

    Returns
    -------
    Some ten poses or fewer; none where all end further than `max_rotation_deg` from `near`.
    """
    if near is None:
        every = rotations(_N_ROTATIONS)
        starts = [turn @ np.diag([1.0, 1.0, h]) for h in (1.0, -1.0) for turn in every]
    else:
        every = rotations(4 * _N_ROTATIONS)
        starts = [near, *(t @ near for t in every if _angle_deg(t) <= max_rotation_deg)]
    begun = _by_outline(stack, mri, np.array(starts))
    progress(f"{len(_SCALES) * len(starts)} poses by their outlines; {len(begun)} go on")
    levels = [_Level(stack, mri, spacing_mm) for spacing_mm in _LEVELS_MM]

    def allowed(poses: list[Pose]) -> list[Pose]:
        if near is None:
            return poses
        return [
            p for p in poses if _angle_deg(p.world_from_stack[:3, :3] @ near.T) <= max_rotation_deg
        ]

    # a few steps tell which are worth the others
    poses = levels[0].refine(np.array(begun), affine=False, iterations=_FIRST_ITERATIONS)
    poses = sorted(poses, key=lambda p: p.cost)[:_KEPT_AFTER_THESE]
    poses = levels[0].refine(np.array([p.world_from_stack for p in poses]), affine=False)
    poses = allowed(_basins(poses, stack))[:_KEPT_BY_INTENSITY]
    if not poses:
        return []
    progress(f"{len(poses)} basins, cost {poses[0].cost:.3f} to {poses[-1].cost:.3f}")
    if near is None:
        # what a brain is most easily mistaken for: itself, mirrored or turned about one axis
        centre = levels[0].centre
        alike = [
            p.world_from_stack @ _about(centre, change) for p in poses[:3] for change in _ALIKE
        ]
        poses += levels[0].refine(np.array(alike), affine=False)
        poses = _basins(poses, stack)[:_KEPT_BY_INTENSITY]
    for level, keep in zip(levels[1:], (_KEPT_TO_THE_END, None), strict=True):
        poses = level.refine(np.array([p.world_from_stack for p in poses]), affine=True)
        poses = allowed(_basins(poses, stack))[:keep]
        if not poses:
            return []
        progress(f"{len(poses)} basins, cost {poses[0].cost:.3f} to {poses[-1].cost:.3f}")
    return poses


def refine(stack: Scene, mri: Scene, pose: Pose) -> Pose:
    """One pose, taken downhill once more at the finest level, size and stretch free."""
    level = _Level(stack, mri, _LEVELS_MM[-1])
    level.prior = 0.02 * _PRIOR
    return level.refine(pose.world_from_stack[None], affine=True)[0]


def stretch_along(pose: Pose) -> float:
    """Logarithm of how much more the stack is stretched along z than in the mean of its axes."""
    return float(_strains(pose.world_from_stack[None])[0, 2])


@dataclass(frozen=True)
class Verdict:
    """What a search found, and how sure it is.

    Attributes
    ----------
    best : the pose of least cost.
    rival : the best pose of its handedness in another basin, or None.
    mirror : the best pose of the other handedness, or None where none was searched for.
    place_margin, handedness_margin : `preference` of the best over them; infinite without one.
    explained : share of the stack's variance that the best pose explains.
    """

    best: Pose
    rival: Pose | None
    mirror: Pose | None
    place_margin: float
    handedness_margin: float

    @property
    def explained(self) -> float:
        return 1.0 - self.best.cost


def judge(poses: list[Pose]) -> Verdict:
    """The best of some poses (at least one), against its rivals."""
    best = poses[0]
    rival = next((p for p in poses[1:] if p.mirrored == best.mirrored), None)
    mirror = next((p for p in poses if p.mirrored != best.mirrored), None)
    margins = [np.inf if p is None else preference(best, p) for p in (rival, mirror)]
    return Verdict(best, rival, mirror, *margins)


def _angle_deg(linear: np.ndarray) -> float:
    """Angle of the rotation in a (3, 3) of positive determinant."""
    u, _, vt = np.linalg.svd(linear)
    return float(np.rad2deg(np.arccos(np.clip((np.trace(u @ vt) - 1) / 2, -1, 1))))


def _about(centre: np.ndarray, linear: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = centre - linear @ centre
    return matrix


def preference(better: Pose, worse: Pose) -> float:
    """How sure the better of two poses is better: what speaks for it over what is chance.

    The sum of the differences of blocks of the stack, some 2 cm wide, over its standard error by
    chance. Were two poses as good, differences would scatter about 0 evenly; so their variance is
    judged by those that speak for the worse pose, counted twice. That some blocks speak for the
    better one strongly then does not make it less sure; but the two that do most are left out,
    for they may be one torn section. About 2 is chance, for one looked for the best.
    """
    difference = np.sort(worse.left_over - better.left_over)[:-_LEFT_OUT]
    against = difference[difference < 0]
    chance = np.sqrt(2 * np.sum(against**2) + _LEAST_CHANCE**2 * np.sum(difference**2))
    return float(difference.sum() / max(chance, 1e-12))


def distance_mm(a: np.ndarray, b: np.ndarray, stack: Scene) -> float:
    """Mean distance, world mm, between where two poses (4, 4) put the stack's tissue."""
    points = _tissue_mm(stack)
    return float(np.linalg.norm(apply(a, points) - apply(b, points), axis=1).mean())


def _tissue_mm(stack: Scene) -> np.ndarray:
    where = np.argwhere((stack.tissue > 0.5) & stack.known)
    return apply(stack.mm_from_index, where[:: max(1, len(where) // 300)])


def _basins(poses: list[Pose], stack: Scene) -> list[Pose]:
    """Best first, without those that lie within a basin of a better one."""
    points = _tissue_mm(stack)
    kept: list[Pose] = []
    places: list[np.ndarray] = []
    for pose in sorted(poses, key=lambda p: p.cost):
        place = apply(pose.world_from_stack, points)
        if all(np.linalg.norm(place - p, axis=1).mean() > BASIN_MM for p in places):
            kept.append(pose)
            places.append(place)
    return kept


# --------------------------------------------------------------------------------------------
# Outlines
# --------------------------------------------------------------------------------------------


def _by_outline(stack: Scene, mri: Scene, orientations: np.ndarray) -> list[np.ndarray]:
    """Of orientations (n, 3, 3), the poses (4, 4) that overlap best, each at its best shift."""
    grid = _OUTLINE_MM
    # the stack on its own axes at the coarse spacing
    extent = apply(stack.mm_from_index, np.array([[0, 0, 0], np.array(stack.tissue.shape) - 1]))
    shape = np.ceil((extent[1] - extent[0]) / grid).astype(int) + 1
    points = extent[0] + np.stack(np.indices(shape), axis=-1) * grid
    index = apply(np.linalg.inv(stack.mm_from_index), points)
    smooth = gaussian_filter(stack.tissue, 0.4 * grid / stack.spacing_mm)
    depth = np.any(stack.known, axis=(0, 1))
    nearest = np.clip(np.rint(index[0, 0, :, 2]).astype(int), 0, len(depth) - 1)
    known = depth[nearest]
    tissue = sample_volume(smooth, index) * known
    # the MRI as far around its centre as it reaches
    where = np.argwhere(mri.tissue > 0.5)
    world = apply(mri.mm_from_index, where)
    centre = world.mean(axis=0)
    radius = float(np.linalg.norm(world - centre, axis=1).max())
    outline = gaussian_filter(mri.tissue, 0.4 * grid / mri.spacing_mm)
    index_from_world = np.linalg.inv(mri.mm_from_index)

    found = []
    total = float(tissue.sum())
    for scale in _SCALES:
        half = int(np.ceil(radius / scale / grid)) + 1
        if mri.cuts:  # what is beyond a cut must be known to be beyond
            half += int(max(shape) // 2)
        axis = np.arange(-half, half + 1) * grid
        offsets = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
        size = [scipy.fft.next_fast_len(int(n) + 2 * half + 1, real=True) for n in shape]
        tissue_f = np.conj(scipy.fft.rfftn(tissue.astype(np.float32), size))
        depth_f = np.conj(scipy.fft.rfft(known.astype(np.float32), size[2]))
        for orientation in orientations:
            linear = scale * orientation
            x = offsets @ (index_from_world[:3, :3] @ linear).T + apply(index_from_world, centre)
            there = map_coordinates(outline, np.moveaxis(x, -1, 0), order=1, mode="constant")
            both = scipy.fft.irfftn(tissue_f * scipy.fft.rfftn(there, size), size)
            profile = scipy.fft.irfft(
                depth_f * scipy.fft.rfft(there.sum(axis=(0, 1)), size[2]), size[2]
            )
            seen = total
            if mri.cuts:
                inside = np.all([x @ cut[:3] + cut[3] <= 0 for cut in mri.cuts], axis=0).astype(
                    np.float32
                )
                seen = scipy.fft.irfftn(tissue_f * scipy.fft.rfftn(inside, size), size)
            score = 2 * both / (profile + _UNSEEN_SHARE * total + (1 - _UNSEEN_SHARE) * seen)
            best = int(np.argmax(score))
            shift = np.array(np.unravel_index(best, size))
            shift = np.where(shift > np.array(size) - shape, shift - size, shift)
            # stack point extent[0] + p * grid lies at MRI offset (p + shift - half) * grid
            pose = np.eye(4)
            pose[:3, :3] = linear
            pose[:3, 3] = centre + linear @ ((shift - half) * grid - extent[0])
            found.append((float(score.flat[best]), pose))
    found.sort(key=lambda pair: -pair[0])
    return [pose for _, pose in found[:_KEPT_BY_OUTLINE]]


# --------------------------------------------------------------------------------------------
# Intensity
# --------------------------------------------------------------------------------------------


class _Level:
    """Both volumes at one resolution, and poses refined at it, many at a time."""

    def __init__(self, stack: Scene, mri: Scene, spacing_mm: float) -> None:
        reach = max(1, int(np.ceil(_MARGIN_MM / stack.spacing_mm)))
        sigma = spacing_mm / 2.355
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
        self.values = np.minimum(self.values, 2.0)
        self.tissue = (stack.tissue > 0.5)[tuple(where.T)]
        self.centre = self.points[self.tissue].mean(axis=0)
        self.block = self._blocks()
        smooth = gaussian_filter(mri.data, sigma / mri.spacing_mm)
        self.images = [smooth, *np.gradient(smooth)]
        self.index_from_world = np.linalg.inv(mri.mm_from_index)
        self.cuts = mri.cuts
        self.prior = _PRIOR
        levels = np.quantile(smooth[mri.tissue > 0.5], np.linspace(0.1, 0.97, _KNOTS - 1))
        self.knots = np.unique(np.concatenate([[0.0], levels]))

    def _blocks(self) -> np.ndarray:
        cell = np.floor((self.points - self.points.min(axis=0)) / _BLOCK_MM).astype(int)
        return np.unique(cell, axis=0, return_inverse=True)[1].ravel()

    def evaluate(self, poses: np.ndarray) -> _Judged:
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
        return _Judged(
            left.sum(axis=1), fit, spread, tissue_seen, left, residual, seen, coordinates,
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

    def refine(self, starts: np.ndarray, affine: bool, iterations: int = _ITERATIONS) -> list[Pose]:
        """Damped Gauss-Newton steps of poses (h, 4, 4), each for itself."""
        at_once = max(1, int(400_000 / len(self.points)))
        out: list[Pose] = []
        for begin in range(0, len(starts), at_once):
            out += self._refine(starts[begin : begin + at_once].copy(), affine, iterations)
        return out

    def _refine(self, poses: np.ndarray, affine: bool, iterations: int) -> list[Pose]:
        strain = _strains(poses)
        at = self.evaluate(poses)
        cost = at.fit + self._strain_cost(strain)
        least_seen = _LEAST_SEEN * at.tissue_seen
        damping = np.full(len(poses), 1e-2)
        live = np.arange(len(poses))
        for _ in range(iterations):
            if not len(live):
                break
            gradient, hessian = self._equations(at, strain[live], affine)
            diagonal = np.einsum("hii->hi", hessian) + 1e-9
            damped = hessian + np.einsum("hi,ij->hij", damping[live, None] * diagonal, _EYE)
            step = -np.linalg.solve(damped, gradient[..., None])[..., 0]
            trial = self._moved(poses[live], step)
            trial_strain = _strains(trial)
            there = self.evaluate(trial)
            trial_cost = there.fit + self._strain_cost(trial_strain)
            better = (trial_cost < cost[live]) & (there.tissue_seen >= least_seen[live])
            gain = cost[live] - trial_cost
            poses[live[better]] = trial[better]
            strain[live[better]] = trial_strain[better]
            cost[live[better]] = trial_cost[better]
            damping[live] *= np.where(better, 0.3, 8.0)
            settled = (better & (gain < 1e-4)) | (damping[live] > 1e3)
            at = at.where(better, there).of(~settled)
            live = live[~settled]
        final = self.evaluate(poses)
        n = int(self.block.max()) + 1
        return [
            Pose(pose, float(c), np.bincount(self.block, left, minlength=n))
            for pose, c, left in zip(poses, final.cost, final.left, strict=True)
        ]

    def _equations(
        self, at: _Judged, strain: np.ndarray, affine: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gradient (h, 12) and Hessian (h, 12, 12) of half the cost in `_GENERATORS` and shifts."""
        slopes = np.diff(at.coefficients, axis=1) / np.diff(self.knots)
        slope = np.take_along_axis(slopes, at.bin_of.reshape(len(slopes), -1), axis=1) * at.seen
        by_index = np.stack(
            [map_coordinates(g, at.coordinates, order=1, mode="constant") for g in self.images[1:]],
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
        prior = self.prior if affine else np.where(_DEVIATORIC, 1e6, self.prior)
        gradient[:, 3:9] += prior * strain
        hessian[:, range(3, 9), range(3, 9)] += prior
        if not affine:
            gradient[:, 4:9] = 0.0
        return gradient, hessian

    def _strain_cost(self, strain: np.ndarray) -> np.ndarray:
        return (self.prior * strain**2).sum(axis=1)

    def _moved(self, poses: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Poses after a small motion about the centre of the tissue, in stack mm."""
        from scipy.spatial.transform import Rotation

        turn = np.linalg.norm(step[:, :3], axis=1)
        shrink = np.minimum(1.0, 0.35 / np.maximum(turn, 1e-9))
        shrink = np.minimum(shrink, 30.0 / np.maximum(np.linalg.norm(step[:, 9:], axis=1), 1e-9))
        shrink = np.minimum(shrink, 0.15 / np.maximum(np.abs(step[:, 3:9]).max(axis=1), 1e-9))
        step = step * shrink[:, None]
        linear = np.einsum("hk,kij->hij", step[:, 3:9], _GENERATORS[3:]) + np.eye(3)
        linear = Rotation.from_rotvec(step[:, :3]).as_matrix() @ linear
        motion = np.tile(np.eye(4), (len(poses), 1, 1))
        motion[:, :3, :3] = linear
        motion[:, :3, 3] = self.centre + step[:, 9:] - linear @ self.centre
        return poses @ motion


@dataclass(frozen=True)
class _Judged:
    """Poses as `_Level.evaluate` found them; h poses, n points, k knots."""

    cost: np.ndarray
    fit: np.ndarray
    spread: np.ndarray
    tissue_seen: np.ndarray
    left: np.ndarray
    residual: np.ndarray
    seen: np.ndarray
    coordinates: np.ndarray
    basis: np.ndarray
    bin_of: np.ndarray
    coefficients: np.ndarray
    normal: np.ndarray
    linear: np.ndarray

    def where(self, other: np.ndarray, there: _Judged) -> _Judged:
        """With those poses that `other` (h,) marks as `there` has them."""
        joined = {}
        for name, mine in vars(self).items():
            axis = 1 if name == "coordinates" else 0
            shape = np.ones(mine.ndim, int)
            shape[axis] = len(other)
            joined[name] = np.where(other.reshape(shape), getattr(there, name), mine)
        return _Judged(**joined)

    def of(self, chosen: np.ndarray) -> _Judged:
        """Of the poses that `chosen` (h,) marks."""
        return _Judged(
            **{
                name: mine[:, chosen] if name == "coordinates" else mine[chosen]
                for name, mine in vars(self).items()
            }
        )


# generators of a small linear motion: three rotations, size, two stretches, three shears
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
_EYE = np.eye(12)
_ALIKE = [
    np.diag(signs).astype(float)
    for signs in ((-1, 1, 1), (1, -1, 1), (1, 1, -1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))
]
_DEVIATORIC = np.array([False, True, True, True, True, True])
# a strain of its standard deviation costs as much as 1 % of the variance
_PRIOR = 0.01 / np.where(_DEVIATORIC, _STRAIN_SD, _SCALE_SD) ** 2


def _strains(poses: np.ndarray) -> np.ndarray:
    """(h, 6) logarithmic size, two stretches and three shears of poses (h, 4, 4)."""
    _, s, vt = np.linalg.svd(poses[:, :3, :3])
    log = np.einsum("hki,hk,hkj->hij", vt, np.log(s), vt)
    size = np.einsum("hii->h", log) / 3
    along = log[:, 2, 2] - size
    return np.stack(
        [
            size,
            (log[:, 0, 0] - log[:, 1, 1]) / 2,
            along,
            log[:, 0, 1],
            log[:, 0, 2],
            log[:, 1, 2],
        ],
        axis=1,
    )


def turned_world(scene: Scene, new_world_from_world: np.ndarray) -> Scene:
    """The same MRI in a world that was turned, mirrored, scaled or shifted."""
    return replace(scene, mm_from_index=new_world_from_world @ scene.mm_from_index)
