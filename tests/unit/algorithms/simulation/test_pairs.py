"""Known deformations, damage and staining of simulated pairs."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import binary_erosion, gaussian_filter, map_coordinates

from sbr_core.algorithms.simulation import damage, pairs
from sbr_core.algorithms.simulation.roughness import REAL_EXTENT_MM, REAL_MEAN_MM
from sbr_core.algorithms.simulation.swirls import affine_residual_mm
from sbr_core.config import SimulateOptions
from sbr_core.errors import ConfigError

SHAPE, SPACING_MM = (150, 180), 0.5
EXTENT_MM = 66.0
"""Of the tissue, an ellipse of 60 by 72 mm."""


def _disc() -> np.ndarray:
    """Tissue of an off-centre ellipse, (rows, columns) bool."""
    y, x = np.indices(SHAPE)
    return ((y - 72) / 60) ** 2 + ((x - 95) / 72) ** 2 < 1


def _tissue_mm() -> np.ndarray:
    rows, columns = np.nonzero(_disc())
    return np.column_stack([columns, rows])[::5] * SPACING_MM


def _lattice_mm() -> np.ndarray:
    y, x = np.indices(SHAPE)
    return np.stack([x, y], axis=-1) * SPACING_MM


@pytest.fixture(scope="module", params=range(4))
def deformation(request) -> pairs.KnownDeformation:
    return pairs.draw_deformation(
        _tissue_mm(), EXTENT_MM, 1.2, 0.2, np.random.default_rng(request.param)
    )


def test_truth_is_exact_both_ways(deformation):
    points = _lattice_mm()[::3, ::3]
    there = deformation.plane_from_section(points)
    np.testing.assert_allclose(deformation.section_from_plane(there), points, atol=1e-7)
    back = deformation.section_from_plane(points)
    np.testing.assert_allclose(deformation.plane_from_section(back), points, atol=1e-7)


def test_it_folds_nowhere_and_its_determinant_is_that_of_finite_differences(deformation):
    points, h = _lattice_mm(), 1e-5
    determinant = deformation.determinant(points)
    assert determinant.min() > 0.2
    columns = [
        (deformation.plane_from_section(points + d) - deformation.plane_from_section(points - d))
        / (2 * h)
        for d in (np.array([h, 0]), np.array([0, h]))
    ]
    np.testing.assert_allclose(determinant, np.linalg.det(np.stack(columns, -1)), atol=1e-6)


def test_tissue_moves_as_far_as_asked_for_and_the_affine_has_its_share(deformation):
    tissue = _tissue_mm()
    section = deformation.section_from_plane(tissue)
    moved = np.linalg.norm(section - tissue, axis=1)
    assert moved.mean() == pytest.approx(1.2, rel=0.01)
    # the best affine would do better than the identity, but not by much
    rms, left = (np.sqrt(np.mean(d**2)) for d in (moved, affine_residual_mm(section, tissue)))
    assert 0.7 * rms < left < rms


def test_the_family_is_not_that_of_the_augmentation(deformation):
    """No similarity and 9 x 9 nodes of the augmentation come near, fitted by least squares."""
    lattice, disc = _lattice_mm()[::2, ::2], _disc()[::2, ::2]
    moved = deformation.section_from_plane(lattice) - lattice
    nodes = torch.eye(81).reshape(81, 1, 9, 9)
    basis = F.interpolate(nodes, size=SHAPE, mode="bicubic", align_corners=True)
    ones, x, y = np.ones(disc.shape), *np.moveaxis(lattice, -1, 0)
    columns = np.stack([*basis[:, 0, ::2, ::2].numpy(), ones, x, y], axis=-1)[disc]
    target = moved[disc] / SPACING_MM
    fitted = columns @ np.linalg.lstsq(columns, target, rcond=None)[0]
    left = np.linalg.norm(fitted - target, axis=1)
    assert left.max() > 0.25 and left.mean() > 0.05


def test_displacements_average_to_what_was_asked_for():
    extents = {f"s{i}": extent for i, extent in enumerate((20, 40, 60, 80, 80, 80))}
    wanted = pairs.displacements_mm(extents, 1.5, seed=3)
    assert np.mean(list(wanted.values())) == pytest.approx(1.5)
    assert wanted["s0"] < wanted["s5"] and len(set(wanted.values())) == 6
    assert pairs.displacements_mm(extents, 1.5, seed=4) != wanted
    # where none is asked for it follows the brain's size
    default = pairs.displacements_mm(extents, None, seed=3)
    mouse = pairs.displacements_mm({k: v / 10 for k, v in extents.items()}, None, seed=3)
    np.testing.assert_allclose(10 * np.array([*mouse.values()]), [*default.values()])
    assert np.mean(list(default.values())) == pytest.approx(REAL_MEAN_MM * 80 / REAL_EXTENT_MM)


def test_a_deformation_tissue_cannot_take_is_refused():
    with pytest.raises(ConfigError, match="simulate.deformation_mm: 30 mm is too much .* at most"):
        pairs.draw_deformation(_tissue_mm(), EXTENT_MM, 30.0, 0.1, np.random.default_rng(0))


def test_damage_has_its_share_of_the_sections():
    sections = [f"s{i}" for i in range(20)]
    kinds = list(damage.draw_damage(sections, 0.2, 0.1, seed=0).values())
    assert (kinds.count("tear"), kinds.count("missing piece"), kinds.count("")) == (4, 2, 14)
    assert set(damage.draw_damage(sections, 0, 0, seed=0).values()) == {""}


@pytest.mark.parametrize(("kind", "most"), [("tear", 0.05), ("missing piece", 0.1), ("", 0.0)])
def test_damage_takes_some_tissue_and_leaves_most(kind, most):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        lost = damage.lost_tissue(_lattice_mm(), _tissue_mm(), kind, rng)[_disc()].mean()
        assert (0.001 < lost < most) if kind else lost == 0


def test_gyral_tears_are_narrow_many_as_asked_for_and_start_at_the_rim():
    def torn(number: float, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return damage.gyral_tears(_lattice_mm(), _tissue_mm(), EXTENT_MM, number, rng) & _disc()

    assert not torn(0, 0).any()
    many = [torn(4, seed) for seed in range(8)]
    assert 0.0005 < np.mean(many) < 0.02
    deep = binary_erosion(_disc(), iterations=round(0.16 * EXTENT_MM / SPACING_MM))
    assert not np.any(many, axis=0)[deep].any()


def test_uneven_staining_spreads_as_asked_for():
    spreads = [
        np.log(
            damage.staining_field(_lattice_mm(), _tissue_mm(), 0.1, np.random.default_rng(s))
        ).std()
        for s in range(20)
    ]
    assert 0.05 < np.mean(spreads) < 0.15
    assert (
        damage.staining_field(_lattice_mm(), _tissue_mm(), 0, np.random.default_rng(0)).std() == 0
    )


def _flat() -> tuple[np.ndarray, np.ndarray]:
    """A smooth look and its cover."""
    rng = np.random.default_rng(5)
    signal = 1 + gaussian_filter(rng.normal(size=SHAPE), 5) * 5
    return signal.astype(np.float32), gaussian_filter(_disc().astype(np.float32), 1.5)


def test_a_section_undone_by_its_truth_is_the_look_again(deformation):
    signal, cover = _flat()
    options = SimulateOptions(noise=0, blur_px=0)
    made = pairs.render(
        signal, cover, cover, SPACING_MM, deformation, options, np.random.default_rng(0)
    ).signal
    at = deformation.section_from_plane(_lattice_mm()) / SPACING_MM
    undone = map_coordinates(made, np.moveaxis(at[..., ::-1], -1, 0), order=3)
    inside = gaussian_filter(_disc().astype(float), 4) > 0.99
    error = np.abs(undone - signal * cover)[inside]
    # half a pixel's slip of this look would be ten times as much
    slip = np.abs(np.diff(signal, axis=1))[inside[:, 1:]].mean() / 2
    assert error.mean() < 0.1 * slip
    assert np.abs(made - signal * cover)[inside].mean() > 2 * slip


def test_landmarks_lie_in_tissue_all_over_it():
    signal, cover = _flat()
    still = pairs.KnownDeformation(np.eye(3), np.zeros((0, 5)))
    made = pairs.render(
        signal, cover, cover, SPACING_MM, still, SimulateOptions(), np.random.default_rng(0)
    )
    assert len(made.landmarks_mm) == 150
    column, row = np.rint(made.landmarks_mm / SPACING_MM).astype(int).T
    assert made.tissue[row, column].all()
    # no hole larger than a few cells
    rows, columns = np.nonzero(made.tissue)
    points = np.column_stack([columns, rows]) * SPACING_MM
    apart = np.linalg.norm(points[::11, None] - made.landmarks_mm[None], axis=-1).min(1)
    assert apart.max() < 3 * np.sqrt(made.tissue.sum() / 150) * SPACING_MM
    assert pairs.scattered_points(np.zeros((4, 4), bool), 9, np.random.default_rng(0)).size == 0
