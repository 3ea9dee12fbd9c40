"""A demo brain whose truth is known: an MRI and a stack of simulated histological sections.

The anatomy is the MNI152 average (T1, grey and white matter maps). Three frames are tied to it:
the world of the MRI, a left-handed stack that has shrunk and is turned against the MRI, and per
section a slide on which the tissue came to lie bent, turned, stretched and cut to its own canvas::

    section mm --affine--> flat mm --swirls--> plane mm --position--> stack mm --similarity--> world

The bending is a composition of *swirls*: each turns and stretches a disc about its centre and
leaves everything outside the disc alone,

    (r, angle) -> (r (1 + stretch * psi(r / R)), angle + twist * psi(r / R)),   psi(s) = (1 - s^2)^3

which is one-to-one for every twist and for -1 < stretch < 1.5, since d/ds [s psi(s)] lies between
-0.653 and 1. So a composition is a diffeomorphism by construction, and can be undone radius by
radius. Nothing here is shared with the random fields the networks are trained on.

The staining depends on where a point lies between the pial surface and the white matter, on smooth
random fields and on noise, never on the intensity of the MRI.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sbr_core import geometry
from sbr_core.errors import ConfigError

if TYPE_CHECKING:
    from sbr_core.config import DemoOptions

ORIENTATION = "LIA"
SHRINKAGE = 0.93
"""Millimetres of stack per millimetre of world."""
MAX_EXTENT_MM = 150.0
"""Length of the stack beyond which its end sections would hold too little tissue."""
WHITE, GREY = 2, 3
FAMILY = "composed swirls, psi(s) = (1 - s^2)^3; plane mm = swirls(flat mm), first one first"

_FIRST_POSITION_MM = 20.0
_PLANE_CENTRE_MM = (75.0, 70.0)
_STACK_ROTATION_DEG = (12.0, -11.0, 14.0)
_CUT_ROTATION_DEG = (4.0, -3.0, 5.0)
_WORLD_CENTRE_MM = (7.0, -24.0, 19.0)
_TEMPLATE_CENTRE_MM = (0.0, -17.0, 6.0)
_MRI_ORIENTATION = "PIR"
_MRI_ROTATION_DEG = (-5.0, 8.0, 6.0)
_LAYERS = (  # (depth from the pial surface 0 to the white matter 1, density of cell bodies)
    (0.00, 0.34),
    (0.12, 0.38),
    (0.22, 1.00),
    (0.34, 0.80),
    (0.46, 0.78),
    (0.55, 1.08),
    (0.67, 0.44),
    (0.76, 0.50),
    (0.88, 0.94),
    (1.00, 0.86),
)
_WHITE_DENSITY = 0.42
_FLUID_T1 = 0.56


# --------------------------------------------------------------------------------------------
# What the sections are, before any of them is made
# --------------------------------------------------------------------------------------------


def demo_rows(options: DemoOptions) -> list[dict[str, Any]]:
    """The rows of the demo's manifest, cheap and without making the demo.

    Returns
    -------
    One dict per section in order of position, with the manifest's columns; paths are relative to
    the demo's folder. One place in the series is empty, so one gap is twice as wide.

    Raises
    ------
    ConfigError
        If the sections reach beyond the brain.
    """
    n = options.n_sections
    extent_mm = n * options.section_spacing_mm
    if extent_mm > MAX_EXTENT_MM:
        raise ConfigError(
            f"config: demo: n_sections x section_spacing_mm is {extent_mm:g} mm, "
            f"expected at most {MAX_EXTENT_MM:g} mm, the length of the brain"
        )
    rng = np.random.default_rng([options.seed, 1])
    slots = np.arange(n + 1)
    jitter = rng.uniform(-0.1, 0.1, n + 1)
    positions = _FIRST_POSITION_MM + options.section_spacing_mm * (slots + jitter)
    missing = round(0.33 * n)
    kept = [int(slot) for slot in slots if slot != missing]
    notes = dict.fromkeys(kept, "")
    for share, note in (
        (0.15, "uneven staining"),
        (0.42, "tear"),
        (0.50, "uneven staining"),
        (0.72, "missing piece"),
        (0.80, "uneven staining"),
    ):
        notes[kept[round(share * n)]] = note
    rows = []
    for order, slot in enumerate(kept):
        section = f"s{slot + 1:03d}"
        rows.append(
            {
                "section": section,
                "image": f"images/{section}.png",
                "position_mm": round(float(positions[slot]), 3),
                "pixel_size_mm": options.pixel_size_mm,
                "labels": f"labels/{section}.png",
                "flip": "lr" if order == round(0.25 * n) else "none",
                "rotate_deg": 90.0 if order == round(0.62 * n) else 0.0,
                "stain": "simulated Nissl",
                "notes": notes[slot],
            }
        )
    return rows


# --------------------------------------------------------------------------------------------
# Swirls
# --------------------------------------------------------------------------------------------


def _psi(s: np.ndarray) -> np.ndarray:
    return np.clip(1.0 - s * s, 0.0, None) ** 3


def apply_swirls(points: np.ndarray, swirls: np.ndarray) -> np.ndarray:
    """Map points through swirls, the first one first.

    Parameters
    ----------
    points : (..., 2) x, y in mm.
    swirls : (n, 5) centre x, centre y, radius (mm), twist (rad), stretch (-1 < stretch < 1.5).
    """
    out = np.array(points, float)
    for cx, cy, radius, twist, stretch in np.asarray(swirls, float):
        dx, dy = out[..., 0] - cx, out[..., 1] - cy
        psi = _psi(np.sqrt(dx * dx + dy * dy) / radius)
        c, s = np.cos(twist * psi), np.sin(twist * psi)
        grow = 1.0 + stretch * psi
        out[..., 0] = cx + grow * (c * dx - s * dy)
        out[..., 1] = cy + grow * (s * dx + c * dy)
    return out


def undo_swirls(points: np.ndarray, swirls: np.ndarray) -> np.ndarray:
    """The inverse of `apply_swirls`, to about 1e-9 mm: each radius is found by bisection."""
    out = np.array(points, float)
    for cx, cy, radius, twist, stretch in np.asarray(swirls, float)[::-1]:
        dx, dy = out[..., 0] - cx, out[..., 1] - cy
        target = np.sqrt(dx * dx + dy * dy) / radius
        low, high = np.zeros_like(target), np.ones_like(target)
        for _ in range(40):  # r (1 + stretch psi(r)) grows with r, from 0 at 0 to 1 at 1
            middle = (low + high) / 2
            below = middle * (1.0 + stretch * _psi(middle)) < target
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        inside = target < 1.0
        psi = np.where(inside, _psi((low + high) / 2), 0.0)
        c, s = np.cos(twist * psi), np.sin(twist * psi)
        shrink = 1.0 / (1.0 + stretch * psi)
        out[..., 0] = cx + shrink * (c * dx + s * dy)
        out[..., 1] = cy + shrink * (-s * dx + c * dy)
    return out


def swirl_determinant(points: np.ndarray, swirls: np.ndarray) -> np.ndarray:
    """det of the Jacobian of `apply_swirls` at `points` (..., 2); analytic, returns (...)."""
    here = np.array(points, float)
    det = np.ones(here.shape[:-1])
    for swirl in np.asarray(swirls, float):
        cx, cy, radius, _, stretch = swirl
        s2 = ((here[..., 0] - cx) ** 2 + (here[..., 1] - cy) ** 2) / radius**2
        inside = np.clip(1.0 - s2, 0.0, None)
        # stretch along the circle times stretch along the radius; a twist changes no area
        det *= (1.0 + stretch * inside**3) * (1.0 + stretch * inside**2 * (1.0 - 7.0 * s2))
        here = apply_swirls(here, swirl[None])
    return det


def best_affine(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """3x3 least-squares affine from points (n, 2) to points (n, 2), n >= 3."""
    homogeneous = np.column_stack([source, np.ones(len(source))])
    solution, *_ = np.linalg.lstsq(homogeneous, target, rcond=None)
    return np.vstack([solution.T, [0.0, 0.0, 1.0]])


def affine_residual_mm(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(n,) distances that the best affine leaves between paired points (n, 2)."""
    fitted = geometry.apply(best_affine(source, target), source)
    return np.linalg.norm(fitted - target, axis=1)


# --------------------------------------------------------------------------------------------
# Truth: tracing points through the whole chain
# --------------------------------------------------------------------------------------------


def _section_truth(truth: dict[str, Any], section: str) -> tuple[np.ndarray, np.ndarray, float]:
    entry = truth["sections"][section]
    swirls = np.asarray(entry["swirls"], float).reshape(-1, 5)
    return np.asarray(entry["section_mm_from_flat_mm"], float), swirls, entry["position_mm"]


def true_plane_mm_from_section_mm(
    truth: dict[str, Any], section: str, xy: np.ndarray
) -> np.ndarray:
    """Where points of a section belong in its plane.

    Parameters
    ----------
    truth : the content of ``truth.json``.
    xy : (..., 2) section mm.

    Returns
    -------
    (..., 2) plane mm, exact.
    """
    section_from_flat, swirls, _ = _section_truth(truth, section)
    return apply_swirls(geometry.apply(np.linalg.inv(section_from_flat), xy), swirls)


def true_section_mm_from_plane_mm(
    truth: dict[str, Any], section: str, xy: np.ndarray
) -> np.ndarray:
    """The inverse of `true_plane_mm_from_section_mm`, to about 1e-9 mm."""
    section_from_flat, swirls, _ = _section_truth(truth, section)
    return geometry.apply(section_from_flat, undo_swirls(xy, swirls))


def true_world_from_section_mm(truth: dict[str, Any], section: str, xy: np.ndarray) -> np.ndarray:
    """World (RAS mm) of points (..., 2) in section mm; returns (..., 3)."""
    plane = true_plane_mm_from_section_mm(truth, section, xy)
    position = np.full((*plane.shape[:-1], 1), truth["sections"][section]["position_mm"])
    return geometry.apply(
        np.asarray(truth["world_from_stack"], float), np.concatenate([plane, position], axis=-1)
    )


def true_section_mm_from_world(
    truth: dict[str, Any], section: str, xyz: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Section mm (..., 2) of world points (..., 3), and their distance (...) from the plane, mm.

    The distance is measured along the stack, positive on the side of growing position.
    """
    stack = geometry.apply(np.linalg.inv(np.asarray(truth["world_from_stack"], float)), xyz)
    off_plane = stack[..., 2] - truth["sections"][section]["position_mm"]
    return true_section_mm_from_plane_mm(truth, section, stack[..., :2]), off_plane


# --------------------------------------------------------------------------------------------
# Anatomy
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Anatomy:
    """Maps of one brain on one grid, all (I, J, K) float32.

    Attributes
    ----------
    t1 : T1 contrast, 0 outside the skull-stripped brain, about 0.5 (fluid) to 1 (white matter).
    white : above 0 in white matter, below 0 in grey matter.
    tissue : above 0 in tissue, below 0 in fluid and outside.
    depth_pial_mm : distance from the nearest fluid or outside, within tissue.
    depth_white_mm : distance from the nearest white matter, outside it.
    template_from_voxel : (4, 4).
    """

    t1: np.ndarray
    white: np.ndarray
    tissue: np.ndarray
    depth_pial_mm: np.ndarray
    depth_white_mm: np.ndarray
    template_from_voxel: np.ndarray

    def sample(self, name: str, template_mm: np.ndarray, order: int = 1) -> np.ndarray:
        """Values of the map `name` at points (..., 3) in template mm; returns (...) float32."""
        from scipy.ndimage import map_coordinates

        voxels = geometry.apply(np.linalg.inv(self.template_from_voxel), template_mm)
        outside = {"t1": 0.0, "white": -1.0, "tissue": -1.0}.get(name, 0.0)
        return map_coordinates(
            getattr(self, name), np.moveaxis(voxels, -1, 0), order=order, cval=outside
        ).astype(np.float32)


def load_anatomy() -> Anatomy:
    """The MNI152 maps that ship inside nilearn (1 mm), with the depths of the cortex; seconds."""
    from nilearn.datasets import (
        load_mni152_gm_template,
        load_mni152_template,
        load_mni152_wm_template,
    )
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    image = load_mni152_template(resolution=1)
    t1 = image.get_fdata(dtype=np.float32)
    grey = load_mni152_gm_template(resolution=1).get_fdata(dtype=np.float32)
    white = load_mni152_wm_template(resolution=1).get_fdata(dtype=np.float32)

    inside = np.argwhere(t1 > 0)
    low, high = np.maximum(inside.min(0) - 3, 0), inside.max(0) + 4
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    t1, grey, white = t1[box], grey[box], white[box]
    template_from_voxel = np.array(image.affine, float)
    template_from_voxel[:3, 3] = geometry.apply(template_from_voxel, low.astype(float))

    # Sulci are closed in the average brain's tissue maps but still dark lines in its T1.
    tissue = np.minimum(grey + white - 0.5, (t1 - _FLUID_T1) * 4.0)
    more_white = white - grey

    def depth(region: np.ndarray) -> np.ndarray:
        """Smooth distance in mm into the region where a map is above 0, from its outline."""
        signed = distance_transform_edt(region > 0) - distance_transform_edt(region <= 0)
        return gaussian_filter(signed.astype(np.float32), 0.6)

    return Anatomy(
        t1=t1,
        white=np.where(grey + white > 0.05, more_white, -1.0).astype(np.float32),
        tissue=tissue.astype(np.float32),
        depth_pial_mm=depth(tissue),
        depth_white_mm=depth(-np.where(tissue > 0, more_white, -1.0)),
        template_from_voxel=template_from_voxel,
    )


def labels_at(anatomy: Anatomy, template_mm: np.ndarray) -> np.ndarray:
    """uint8 (...): 2 white, 3 grey matter, 0 neither, at points (..., 3) in template mm."""
    labels = np.where(anatomy.sample("white", template_mm) > 0, WHITE, GREY)
    return np.where(anatomy.sample("tissue", template_mm) > 0, labels, 0).astype(np.uint8)


# --------------------------------------------------------------------------------------------
# Frames
# --------------------------------------------------------------------------------------------


def _rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """(4, 4) turn about x, then y, then z."""
    from scipy.spatial.transform import Rotation

    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return matrix


def _shift(offset: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = offset
    return matrix


def frames(rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """How the stack and the template lie in the world of the MRI.

    Returns
    -------
    world_from_stack : (4, 4) a reflection times a similarity of scale 1 / SHRINKAGE.
    world_from_template : (4, 4) rigid; the cut is a few degrees off the template's coronal plane.
    """
    orientation = np.eye(4)
    orientation[:3, :3] = geometry.orientation_matrix(ORIENTATION) / SHRINKAGE
    turn = _rotation(_STACK_ROTATION_DEG)
    middle_mm = (rows[0]["position_mm"] + rows[-1]["position_mm"]) / 2
    stack_centre = (-_PLANE_CENTRE_MM[0], -_PLANE_CENTRE_MM[1], -middle_mm)
    to_world = _shift(_WORLD_CENTRE_MM) @ turn
    world_from_stack = to_world @ orientation @ _shift(stack_centre)
    template_centre = tuple(-c for c in _TEMPLATE_CENTRE_MM)
    return world_from_stack, to_world @ _rotation(_CUT_ROTATION_DEG) @ _shift(template_centre)


class Waves:
    """A smooth random field: a sum of plane waves, about unit variance, at points of any number.

    Parameters
    ----------
    rng : source of the directions and phases.
    dimensions : of the points.
    wavelength_mm : (shortest, longest).
    """

    def __init__(
        self,
        rng: np.random.Generator,
        dimensions: int,
        wavelength_mm: tuple[float, float],
        n_waves: int = 8,
    ) -> None:
        direction = rng.normal(size=(n_waves, dimensions))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        length = rng.uniform(*wavelength_mm, size=(n_waves, 1))
        self.wave_vectors = 2 * math.pi * direction / length
        self.phases = rng.uniform(0, 2 * math.pi, n_waves)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Values (...) float32 at points (..., dimensions) in mm."""
        total = np.zeros(points.shape[:-1], np.float32)
        for vector, phase in zip(self.wave_vectors, self.phases, strict=True):
            total += np.cos((points @ vector + phase).astype(np.float32))
        return total * math.sqrt(2 / len(self.phases))


# --------------------------------------------------------------------------------------------
# The MRI
# --------------------------------------------------------------------------------------------


def simulate_mri(
    anatomy: Anatomy, world_from_template: np.ndarray, options: DemoOptions
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The MRI on an oblique grid that is not in RAS order, with a bias field and noise.

    Returns
    -------
    mri : (I, J, K) float32, 0 outside the brain.
    mask : (I, J, K) uint8, the skull-stripped brain.
    labels : (I, J, K) uint8, 2 white and 3 grey matter.
    world_from_voxel : (4, 4).
    """
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng([options.seed, 2])
    axes = np.eye(4)
    axes[:3, :3] = geometry.orientation_matrix(_MRI_ORIENTATION) * options.mri_spacing_mm
    axes = _rotation(_MRI_ROTATION_DEG) @ axes
    brain = np.argwhere(anatomy.t1 > 0)[::7].astype(float)
    brain = geometry.apply(world_from_template @ anatomy.template_from_voxel, brain)
    brain_voxels = geometry.apply(np.linalg.inv(axes), brain)
    low = np.floor(brain_voxels.min(0)) - 5
    shape = (np.ceil(brain_voxels.max(0)) + 6 - low).astype(int)
    world_from_voxel = axes @ _shift(tuple(low))

    voxels = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    world = geometry.apply(world_from_voxel, voxels)
    template = geometry.apply(np.linalg.inv(world_from_template), world)
    mask = anatomy.sample("t1", template) > 0.25
    blur = 0.35 * options.mri_spacing_mm  # template voxels of 1 mm
    smooth = replace(anatomy, t1=gaussian_filter(anatomy.t1, blur))
    signal = np.clip(smooth.sample("t1", template) - 0.3, 0, None)  # widens the contrast
    bias = np.exp(0.12 * Waves(rng, 3, (140.0, 260.0))(world))
    noise = 0.015 * rng.normal(size=(2, *shape))
    signal = np.hypot(signal * bias + noise[0], noise[1])  # Rician, as of a magnitude image
    mri = np.where(mask, 1500.0 * signal, 0.0).astype(np.float32)
    return mri, mask.astype(np.uint8), labels_at(anatomy, template), world_from_voxel


# --------------------------------------------------------------------------------------------
# The sections
# --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slide:
    """How one section lies on its slide: everything but its staining.

    Attributes
    ----------
    section_mm_from_flat_mm : (3, 3); flat mm is the slide before the section's own affine.
    swirls : (n, 5) as `apply_swirls`; plane mm = swirls(flat mm).
    shape : (rows, columns) of the file.
    """

    section_mm_from_flat_mm: np.ndarray
    swirls: np.ndarray
    shape: tuple[int, int]


def tissue_points(
    anatomy: Anatomy, template_from_stack: np.ndarray, position_mm: float, step_mm: float = 2.0
) -> np.ndarray:
    """Plane mm (n, 2) of a coarse lattice's points in tissue."""
    x, y = np.meshgrid(np.arange(-20, 171, step_mm), np.arange(-20, 171, step_mm))
    plane = np.stack([x, y], axis=-1).reshape(-1, 2)
    stack = np.column_stack([plane, np.full(len(plane), position_mm)])
    return plane[anatomy.sample("tissue", geometry.apply(template_from_stack, stack)) > 0]


def lay_out_section(
    tissue_mm: np.ndarray, row: dict[str, Any], rng: np.random.Generator, options: DemoOptions
) -> Slide:
    """Draw how one section is bent, turned, stretched and cropped.

    The swirls are scaled until the best affine leaves the tissue about ``deformation_mm`` off (a
    little less where the section is small, more or less by chance).

    Parameters
    ----------
    tissue_mm : (n, 2) plane mm of points in tissue.
    row : the section's row of the manifest, for its flip and turn.
    """
    extent_mm = math.sqrt(np.ptp(tissue_mm[:, 0]) * np.ptp(tissue_mm[:, 1]))
    target_mm = options.deformation_mm * rng.uniform(0.75, 1.25) * min(1.0, extent_mm / 110) ** 0.5

    n_swirls = 12
    centres = tissue_mm[rng.integers(0, len(tissue_mm), n_swirls)] + rng.normal(0, 4, (n_swirls, 2))
    radii = rng.uniform(0.36, 0.58, n_swirls) * np.clip(extent_mm, 70, 115)
    twists = rng.choice([-1, 1], n_swirls) * rng.uniform(0.5, 1.0, n_swirls)
    stretches = rng.choice([-1, 1], n_swirls) * rng.uniform(0.2, 0.6, n_swirls)

    def swirls_of(strength: float) -> np.ndarray:
        return np.column_stack([centres, radii, strength * twists, strength * stretches])

    strength = 0.2
    for _ in range(4):  # what is left over grows nearly in proportion to the strength
        left_mm = affine_residual_mm(tissue_mm, undo_swirls(tissue_mm, swirls_of(strength))).mean()
        strength = min(strength * target_mm / left_mm, 0.6)
    swirls = swirls_of(strength)

    jitter = options.affine_jitter
    angle = math.radians(rng.uniform(-5, 5) * jitter)
    c, s = math.cos(angle), math.sin(angle)
    stretch = np.diag(1 + rng.uniform(-0.04, 0.04, 2) * jitter)
    shear = np.array([[1.0, rng.uniform(-0.03, 0.03) * jitter], [0.0, 1.0]])
    upright_from_file, _ = geometry.upright_from_file((1, 1), row["flip"], row["rotate_deg"])
    linear = np.eye(3)
    linear[:2, :2] = upright_from_file[:2, :2].T @ np.array([[c, -s], [s, c]]) @ stretch @ shear

    on_slide = geometry.apply(linear, undo_swirls(tissue_mm, swirls))
    before_mm, after_mm = rng.uniform(5, 14, 2), rng.uniform(5, 14, 2)
    size_mm = np.ptp(on_slide, axis=0) + before_mm + after_mm
    columns, rows = np.ceil(size_mm / row["pixel_size_mm"]).astype(int)
    offset = before_mm - on_slide.min(axis=0)
    return Slide(geometry.translation(*offset) @ linear, swirls, (int(rows), int(columns)))


def _lost(
    flat_mm: np.ndarray, note: str, tissue_flat_mm: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Where tissue is torn or missing, bool (...), at points of the slide (..., 2)."""
    centre = tissue_flat_mm.mean(axis=0)
    angle = {"tear": -0.6, "missing piece": 3.6}.get(note)
    if angle is None:
        return np.zeros(flat_mm.shape[:-1], bool)
    inward = -np.array([math.cos(angle), math.sin(angle)])
    sideways = np.array([-inward[1], inward[0]])
    spokes = tissue_flat_mm - centre
    near = spokes[np.abs(spokes @ sideways) < 6.0]
    rim = centre + inward * (near @ inward).min()
    along, across = (flat_mm - rim) @ inward, (flat_mm - rim) @ sideways
    if note == "tear":  # a winding cleft that narrows inwards
        middle = 2.5 * np.sin(along / 6.0)
        half_width = 2.2 * np.clip(1 - along / 38.0, 0, None)
        return np.abs(across - middle) < half_width
    ragged = 1.2 * Waves(rng, 2, (6.0, 20.0))(flat_mm)
    return np.hypot(along, across) < 18.0 + ragged


def cell_density(anatomy: Anatomy, template_mm: np.ndarray, seed: int) -> np.ndarray:
    """Staining of the tissue itself, about 0.3 to 1.2, 0 in fluid, at points (..., 3).

    Layers by relative depth between the pial surface and the white matter, whose strength
    differs from area to area; nuclei where grey matter is deep; pale, mottled white matter.
    """
    rng = np.random.default_rng([seed, 3])
    areas, nuclei, tracts = (Waves(rng, 3, w) for w in ((30, 80), (12, 40), (10, 60)))
    tissue = anatomy.sample("tissue", template_mm, order=3)
    white = anatomy.sample("white", template_mm, order=3)
    from_pial = np.clip(anatomy.sample("depth_pial_mm", template_mm), 0, None)
    from_white = np.clip(anatomy.sample("depth_white_mm", template_mm), 0, None)

    thickness = from_pial + from_white
    depth = from_pial / np.maximum(thickness, 0.5)
    at, value = np.array(_LAYERS).T
    layers = np.interp(depth, at, value)
    mean = float(np.trapezoid(value, at))
    layers = mean + (layers - mean) * (1 + 0.25 * areas(template_mm)) + 0.05 * areas(template_mm)
    deep = np.clip((thickness - 7.0) / 3.0, 0, 1)
    grey = (1 - deep) * layers + deep * (0.74 + 0.13 * nuclei(template_mm))
    pale = _WHITE_DENSITY + 0.05 * tracts(template_mm)
    share_white = 1 / (1 + np.exp(-np.clip(white / 0.06, -20, 20)))
    share_tissue = 1 / (1 + np.exp(-np.clip(tissue / 0.04, -20, 20)))
    return (share_tissue * ((1 - share_white) * grey + share_white * pale)).astype(np.float32)


def render_section(
    anatomy: Anatomy,
    template_from_stack: np.ndarray,
    slide: Slide,
    row: dict[str, Any],
    tissue_mm: np.ndarray,
    rng: np.random.Generator,
    options: DemoOptions,
) -> tuple[np.ndarray, np.ndarray]:
    """Photograph one section: transmitted light through stained tissue on glass.

    Returns
    -------
    image : (rows, columns) uint8, glass near white, more cell bodies darker (Beer-Lambert).
    labels : (rows, columns) uint8, 2 white and 3 grey matter; 0 where tissue is lost.
    """
    from scipy.ndimage import gaussian_filter

    rows, columns = slide.shape
    x, y = np.meshgrid(np.arange(columns), np.arange(rows))
    section_mm = np.stack([x, y], axis=-1) * row["pixel_size_mm"]
    flat_mm = geometry.apply(np.linalg.inv(slide.section_mm_from_flat_mm), section_mm)
    plane_mm = apply_swirls(flat_mm, slide.swirls)
    stack = np.concatenate([plane_mm, np.full((rows, columns, 1), row["position_mm"])], axis=-1)
    template = geometry.apply(template_from_stack, stack)

    density = cell_density(anatomy, template, options.seed)
    labels = labels_at(anatomy, template)
    lost = _lost(flat_mm, row["notes"], undo_swirls(tissue_mm, slide.swirls), rng)
    labels[lost] = 0
    present = gaussian_filter((~lost).astype(np.float32), 0.6)

    # staining: a gradient on every section, blotches on some
    centred = (flat_mm - flat_mm.mean(axis=(0, 1))) / 70.0
    slope = rng.uniform(-0.12, 0.12, 2)
    stain = rng.uniform(0.40, 0.52) * (1 + centred @ slope)
    if row["notes"] == "uneven staining":
        stain = stain * np.exp(0.22 * Waves(rng, 2, (40.0, 110.0), 5)(flat_mm))
    speckle = gaussian_filter(rng.gamma(1.2, 1 / 1.2, (rows, columns)), 0.45) - 1.0
    grain = gaussian_filter(rng.normal(size=(rows, columns)), 1.5) * 5.0
    cells = density * present * (1 + 0.18 * speckle + 0.05 * grain)
    glass = 248.0 - 4.0 * np.hypot(*np.moveaxis(centred - rng.uniform(-0.3, 0.3, 2), -1, 0))
    image = glass * np.exp(-np.clip(stain * cells, 0, None)) + rng.normal(0, 0.8, (rows, columns))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), labels


def pick_landmarks(
    labels: np.ndarray, pixel_size_mm: float, rng: np.random.Generator, count: int = 16
) -> np.ndarray:
    """Well-spread points on the boundary of grey and white matter.

    Parameters
    ----------
    labels : (rows, columns) of one section.

    Returns
    -------
    (n <= count, 2) section mm, at pixel centres, each far from the ones before it.
    """
    from scipy.ndimage import binary_dilation, binary_erosion

    inside = binary_erosion(labels > 0, iterations=max(1, round(1.0 / pixel_size_mm)))
    boundary = binary_dilation(labels == WHITE) & (labels == GREY) & inside
    rows, columns = np.nonzero(boundary)
    if rows.size == 0:
        return np.zeros((0, 2))
    points = np.column_stack([columns, rows]) * pixel_size_mm
    chosen = [points[rng.integers(len(points))]]
    distance = np.full(len(points), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, np.linalg.norm(points - chosen[-1], axis=1))
        if distance.max() < 3.0:
            break
        chosen.append(points[int(distance.argmax())])
    return np.array(chosen)
