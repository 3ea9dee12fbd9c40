"""Swirls: one-to-one, local, undone exactly; and what the best affine leaves of them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sbr_core import geometry
from sbr_core.algorithms.simulation.roughness import draw_swirls
from sbr_core.algorithms.simulation.swirls import (
    affine_residual_mm,
    apply_swirls,
    best_affine,
    swirl_determinant,
    undo_swirls,
)

SWIRLS = np.array([[40.0, 50.0, 35.0, 0.4, 0.15], [60.0, 45.0, 30.0, -0.5, -0.12]])


def _lattice(step: float = 3.0) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(0, 100, step), np.arange(0, 100, step)), -1)


@given(
    st.lists(
        st.tuples(
            st.floats(20, 80),
            st.floats(20, 80),
            st.floats(10, 50),
            st.floats(-0.6, 0.6),
            st.floats(-0.4, 0.4),
        ),
        max_size=6,
    )
)
@settings(max_examples=25, deadline=None)
def test_swirls_are_one_to_one(swirls):
    swirls = np.array(swirls).reshape(-1, 5)
    points = _lattice(9.0)
    there = apply_swirls(points, swirls)
    np.testing.assert_allclose(undo_swirls(there, swirls), points, atol=1e-7)
    assert (swirl_determinant(points, swirls) > 0).all()


def _lattices() -> np.ndarray:
    """Two lattices of disjoint discs, each as it is drawn, and a disc over both."""
    rng = np.random.default_rng(3)
    large = np.array([[50.0, 50.0, 90.0, 0.3, -0.1]])
    tissue = _lattice(4.0).reshape(-1, 2)
    return np.concatenate([large, draw_swirls(tissue, 79.0, rng)])


def test_discs_applied_at_once_are_discs_applied_one_by_one():
    swirls, points = _lattices(), _lattice(1.1) + 0.2
    assert len(swirls) > 200
    at_once = apply_swirls(points, swirls)
    one_by_one, determinant = points, np.ones(points.shape[:-1])
    for swirl in swirls:
        determinant = determinant * swirl_determinant(one_by_one, swirl[None])
        one_by_one = apply_swirls(one_by_one, swirl[None])
    np.testing.assert_allclose(at_once, one_by_one, atol=1e-10)
    np.testing.assert_allclose(swirl_determinant(points, swirls), determinant, atol=1e-10)


def test_discs_of_one_radius_that_meet_are_applied_in_order():
    meeting = np.array([[40.0, 50.0, 30.0, 0.5, 0.1], [55.0, 45.0, 30.0, -0.6, -0.2]])
    points = _lattice()
    in_order = apply_swirls(apply_swirls(points, meeting[:1]), meeting[1:])
    np.testing.assert_allclose(apply_swirls(points, meeting), in_order, atol=1e-12)
    assert np.abs(apply_swirls(points, meeting[::-1]) - in_order).max() > 0.1


def test_lattices_are_undone_exactly():
    swirls, points = _lattices(), _lattice(0.7)
    there = apply_swirls(points, swirls)
    assert np.abs(undo_swirls(there, swirls) - points).max() < 1e-9
    assert np.abs(apply_swirls(undo_swirls(points, swirls), swirls) - points).max() < 1e-9
    assert swirl_determinant(points, swirls).min() > 0


def test_a_swirl_leaves_everything_outside_its_disc_alone():
    points = _lattice()
    outside = np.linalg.norm(points - SWIRLS[0, :2], axis=-1) >= SWIRLS[0, 2]
    moved = np.linalg.norm(apply_swirls(points, SWIRLS[:1]) - points, axis=-1)
    assert moved[outside].max() < 1e-12
    assert moved[~outside].max() > 2.0


def test_determinant_agrees_with_finite_differences():
    points, h = _lattice() + 0.37, 1e-5
    columns = [
        (apply_swirls(points + d, SWIRLS) - apply_swirls(points - d, SWIRLS)) / (2 * h)
        for d in (np.array([h, 0]), np.array([0, h]))
    ]
    numeric = np.linalg.det(np.stack(columns, axis=-1))
    np.testing.assert_allclose(swirl_determinant(points, SWIRLS), numeric, atol=1e-6)


def test_best_affine_leaves_an_affine_nothing_and_swirls_something():
    points = _lattice().reshape(-1, 2)
    affine = np.array([[1.1, 0.2, 5.0], [-0.1, 0.9, -3.0], [0, 0, 1.0]])
    np.testing.assert_allclose(
        best_affine(points, geometry.apply(affine, points)), affine, atol=1e-9
    )
    left = affine_residual_mm(points, apply_swirls(points, SWIRLS))
    assert left.mean() > 0.5
