"""One section's affine: recovered across contrasts, and held when the section is damaged."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from sbr_core.algorithms.alignment import section_affine
from sbr_core.algorithms.alignment.edge_start import laid_on, plane_edges
from sbr_core.algorithms.alignment.landmark_fit import fit_by_landmarks, fits_worse, laid_by
from sbr_core.algorithms.alignment.motion import STILL, LandmarkPull
from sbr_core.algorithms.alignment.section_affine import (
    AffineLimits,
    MaskedImage,
    SectionFit,
    fit_section_affine,
)
from sbr_core.algorithms.alignment.section_fits import better_fit
from sbr_core.algorithms.alignment.stack import StackSection, tissue_centre_mm
from sbr_core.algorithms.alignment.stretch import stretch_of, with_stretch
from sbr_core.geometry import PlaneGrid, apply

PIXEL_MM = 1.0
SHAPE = (90, 110)
LIMITS = AffineLimits(max_scale_change=0.2, max_shear=0.2, prior_weight=1.0)
SIGMAS_MM = (6.0, 3.0, 1.5)


def _labels(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """0 none, 1 grey, 2 white, 3 nucleus: a brain-like slice, defined at any point, mm."""
    x, y = x - 55.0, y - 45.0
    angle = np.arctan2(y, x)
    radius = np.hypot(x / 40, y / 32)
    outer = radius < 1 + 0.08 * np.sin(5 * angle + 0.4)
    inner = radius < 0.72 + 0.14 * np.sin(9 * angle) + 0.05 * np.cos(4 * angle)
    nucleus = np.hypot(x - 12, y + 4) < 7
    return np.where(nucleus, 3, np.where(inner, 2, np.where(outer, 1, 0))) * outer


def _render(contrast: tuple[float, ...], working_from_plane: np.ndarray) -> np.ndarray:
    fine = 4
    rows, columns = np.mgrid[: SHAPE[0] * fine, : SHAPE[1] * fine]
    points = (np.stack([columns, rows], axis=-1) + 0.5) / fine - 0.5
    plane = apply(np.linalg.inv(working_from_plane), points * PIXEL_MM)
    image = np.array(contrast)[_labels(plane[..., 0], plane[..., 1])]
    image = image.reshape(SHAPE[0], fine, SHAPE[1], fine).mean(axis=(1, 3))
    return gaussian_filter(image, 0.6).astype(np.float32)


MRI = _render((0, 0.6, 1.0, 0.8), np.eye(3))
MRI_MASK = MRI > 0.2


def _true_affine(angle_deg: float, log_stretch: np.ndarray, shift: tuple) -> np.ndarray:
    angle = np.deg2rad(angle_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.eye(3)
    matrix[:2, :2] = with_stretch(turn, log_stretch)
    centre = np.array([55.0, 45.0])
    matrix[:2, 2] = centre + shift - matrix[:2, :2] @ centre
    return matrix


TRUE = _true_affine(6.0, np.array([[0.04, 0.02], [0.02, -0.03]]), (4.0, -3.0))


def _error_mm(found: np.ndarray, true: np.ndarray) -> float:
    """Mean distance in the section over the plane's tissue."""
    points = np.argwhere(MRI_MASK)[:, ::-1] * PIXEL_MM
    return float(np.linalg.norm(apply(found, points) - apply(true, points), axis=1).mean())


def _masked(section: np.ndarray) -> MaskedImage:
    return MaskedImage(section, section > 0.1, PIXEL_MM)


PLANE = MaskedImage(MRI, MRI_MASK, PIXEL_MM)


def _fit(section: np.ndarray, limits: AffineLimits = LIMITS) -> SectionFit:
    return fit_section_affine(
        _masked(section), PLANE, np.eye(3), limits=limits, sigmas_mm=SIGMAS_MM
    )


def test_an_affine_is_recovered_although_the_contrast_is_another():
    section = _render((0, 0.9, 0.4, 0.7), TRUE)  # white dark, grey bright
    fit = _fit(section, limits=AffineLimits(0.2, 0.2, prior_weight=0.05))
    assert _error_mm(np.eye(3), TRUE) > 5
    assert _error_mm(fit.working_from_plane_mm, TRUE) < 0.3
    assert fit.cost < fit.prior_cost


def test_uneven_staining_does_not_move_a_section():
    section = _render((0, 0.9, 0.4, 0.7), TRUE)
    ramp = np.linspace(0.7, 1.3, SHAPE[1], dtype=np.float32)
    fit = _fit(section * ramp, limits=AffineLimits(0.2, 0.2, prior_weight=0.05))
    assert _error_mm(fit.working_from_plane_mm, TRUE) < 0.4


def test_the_scale_of_intensity_does_not_matter():
    section = _render((0, 0.9, 0.4, 0.7), TRUE)
    one, other = (
        _fit(section),
        fit_section_affine(
            MaskedImage(250 * section, section > 0.1, PIXEL_MM),
            MaskedImage(1000 * MRI, MRI_MASK, PIXEL_MM),
            np.eye(3),
            limits=LIMITS,
            sigmas_mm=SIGMAS_MM,
        ),
    )
    assert np.allclose(one.working_from_plane_mm, other.working_from_plane_mm, atol=1e-3)


def test_a_torn_section_does_not_run_away():
    section = _render((0, 0.9, 0.4, 0.7), TRUE)
    section[:, 75:] = 0  # a third is gone
    section[55:70, 20:40] = 2.0  # and a blot of ink
    fit = _fit(section)
    stretch = stretch_of(fit.working_from_plane_mm[:2, :2])[1]
    assert np.abs(np.linalg.eigvalsh(stretch)).max() < 0.08
    assert _error_mm(fit.working_from_plane_mm, TRUE) < 2.5  # from 5.6 before


def _stretch_known() -> np.ndarray:
    """A prior of the true stretch, as neighbours give it, without turn and shift."""
    return _true_affine(0.0, np.array([[0.04, 0.02], [0.02, -0.03]]), (0.0, 0.0))


@pytest.mark.parametrize("angle_deg", [0, 70, 140, 220, 290])
def test_half_a_section_lies_where_the_whole_does_and_is_not_stretched(angle_deg):
    section = _render((0, 0.9, 0.4, 0.7), TRUE)
    rows, columns = np.indices(SHAPE)
    angle = np.deg2rad(angle_deg)
    along = columns * np.cos(angle) + rows * np.sin(angle)
    section[along > np.median(along[section > 0.1])] = 0
    fit = fit_section_affine(
        _masked(section), PLANE, _stretch_known(), limits=LIMITS, sigmas_mm=SIGMAS_MM
    )
    assert _error_mm(_stretch_known(), TRUE) > 5
    assert _error_mm(fit.working_from_plane_mm, TRUE) < 1.0
    assert 0.3 < fit.missing < 0.6
    apart = stretch_of(fit.working_from_plane_mm[:2, :2])[1] - stretch_of(TRUE[:2, :2])[1]
    assert np.abs(apart).max() < 0.01


def test_half_a_section_is_found_by_its_edges_although_its_centre_is_elsewhere():
    section = _render((0, 0.9, 0.4, 0.7), TRUE)
    section[:, :55] = 0
    by_edges = laid_on(
        StackSection("", section, section > 0.1, 0.0),
        PIXEL_MM,
        plane_edges(PLANE),
        0.0,
        np.array([[0.04, 0.02], [0.02, -0.03]]),
        PlaneGrid(SHAPE, PIXEL_MM),
    )
    assert _error_mm(by_edges, TRUE) < 3
    fit = fit_section_affine(_masked(section), PLANE, by_edges, limits=LIMITS, sigmas_mm=SIGMAS_MM)
    assert _error_mm(fit.working_from_plane_mm, TRUE) < 1
    # from centre on centre it lies elsewhere, and may leave as little unexplained there
    centres = tissue_centre_mm(section > 0.1, PIXEL_MM), tissue_centre_mm(MRI_MASK, PIXEL_MM)
    centred = _stretch_known()
    centred[:2, 2] = centres[0] - centred[:2, :2] @ centres[1]
    first = fit_section_affine(_masked(section), PLANE, centred, limits=LIMITS, sigmas_mm=SIGMAS_MM)
    assert better_fit(first, fit, centres[0]) is fit


def test_the_larger_of_two_pieces_is_laid_by_and_the_other_left():
    section, whole = np.zeros(SHAPE, np.float32), _render((0, 0.9, 0.4, 0.7), TRUE)
    moved = _render((0, 0.9, 0.4, 0.7), _true_affine(12.0, np.zeros((2, 2)), (9.0, 3.0)) @ TRUE)
    section[:, :66], section[:, 76:] = whole[:, :66], moved[:, 76:]
    fit = fit_section_affine(
        _masked(section), PLANE, _stretch_known(), limits=LIMITS, sigmas_mm=SIGMAS_MM
    )
    assert _error_mm(fit.working_from_plane_mm, TRUE) < 1.5


def test_nothing_is_missing_in_a_whole_section():
    assert _fit(_render((0, 0.9, 0.4, 0.7), TRUE)).missing == 0


def test_steps_go_down_the_cost_that_is_reported():
    """Slopes along the six small motions, of the size among them, against differences of costs."""
    section = _render((0, 0.9, 0.4, 0.7), TRUE)
    misfit = section_affine._Misfit(_masked(section), PLANE, TRUE, LIMITS)
    off = np.array([-0.02, -0.03, -0.03, 0.03, 1.0, -1.0])
    at = STILL.step(off, LIMITS)
    misfit.set_level(1.5, at)
    slopes = 2 * misfit._linearise(at, misfit.evaluate(at))[0]
    measured = np.empty(6)
    for which, size in enumerate([5e-4] * 4 + [0.02] * 2):
        step = size * np.eye(6)[which]
        there, back = (misfit.evaluate(at.step(s, LIMITS)).cost for s in (step, -step))
        measured[which] = (there - back) / (2 * size)
    # nearly: the intensity function is solved for in a few passes
    for part in (slice(0, 4), slice(4, 6)):
        wrong = np.linalg.norm(slopes[part] - measured[part])
        assert wrong < 0.15 * np.linalg.norm(measured[part])


def test_the_limits_hold_even_where_the_truth_is_beyond():
    far = _true_affine(0.0, np.diag([0.35, 0.35]), (0.0, 0.0))
    fit = _fit(_render((0, 0.9, 0.4, 0.7), far), limits=AffineLimits(0.1, 0.05, 0.0))
    log = stretch_of(fit.working_from_plane_mm[:2, :2])[1]
    assert abs(np.trace(log) / 2) <= np.log(1.1) + 1e-9
    assert np.hypot((log[0, 0] - log[1, 1]) / 2, log[0, 1]) <= 0.05 + 1e-9


@pytest.mark.parametrize("empty", ["section", "plane"])
def test_the_prior_is_kept_where_there_is_nothing_to_compare(empty):
    section = _render((0, 0.9, 0.4, 0.7), TRUE)
    prior = _true_affine(2.0, np.zeros((2, 2)), (1.0, 1.0))
    fit = fit_section_affine(
        MaskedImage(section, (section > 0.1) & (empty != "section"), PIXEL_MM),
        MaskedImage(MRI, MRI_MASK & (empty != "plane"), PIXEL_MM),
        prior,
        limits=LIMITS,
        sigmas_mm=SIGMAS_MM,
    )
    assert np.array_equal(fit.working_from_plane_mm, prior)
    assert np.isnan(fit.cost)


# --------------------------------------------------------------------------------------------
# By landmarks
# --------------------------------------------------------------------------------------------

FAR = _true_affine(35.0, np.array([[0.04, 0.02], [0.02, -0.03]]), (8.0, -6.0))
"""Turned farther than a fit from no turn finds back."""
FAR_SECTION = _masked(_render((0, 0.9, 0.45, 0.7), FAR))
POINTS = np.array([[30.0, 40.0], [75.0, 52.0], [52.0, 25.0], [60.0, 68.0]])


def _fit_far(start, pull=None):
    return fit_section_affine(
        FAR_SECTION, PLANE, start, limits=LIMITS, sigmas_mm=SIGMAS_MM, landmarks=pull
    )


def _by_landmarks(plane_mm, section_mm):
    return fit_by_landmarks(plane_mm, section_mm, np.eye(3), _fit_far)


@pytest.fixture(scope="module")
def alone():
    """The fit without landmarks."""
    return _fit_far(np.eye(3))


def test_two_landmarks_lay_a_section_that_its_image_alone_does_not(alone):
    assert _error_mm(alone.working_from_plane_mm, FAR) > 5
    plane_mm = POINTS[:2]
    noise = np.array([[0.8, -0.5], [-0.4, 0.9]])  # as people set them
    found = _by_landmarks(plane_mm, apply(FAR, plane_mm) + noise)
    assert found.kept == (0, 1) and found.apart_mm.max() < 1.0
    assert _error_mm(found.fit.working_from_plane_mm, FAR) < 1.0
    assert found.fit.cost < alone.cost and not fits_worse(found.fit.cost, alone.cost)


def test_one_landmark_shifts_and_the_image_turns():
    near = _true_affine(4.0, np.zeros((2, 2)), (21.0, 3.0))
    section = _masked(_render((0, 0.9, 0.45, 0.7), near))

    def fit(start, pull):
        return fit_section_affine(
            section, PLANE, start, limits=LIMITS, sigmas_mm=SIGMAS_MM, landmarks=pull
        )

    found = fit_by_landmarks(POINTS[:1], apply(near, POINTS[:1]), np.eye(3), fit)
    assert _error_mm(found.fit.working_from_plane_mm, near) < 0.6 and found.kept == (0,)


def test_of_two_landmarks_that_contradict_each_other_the_image_believes_one():
    section = _masked(_render((0, 0.9, 0.45, 0.7), TRUE))

    def fit(start, pull):
        return fit_section_affine(
            section, PLANE, start, limits=LIMITS, sigmas_mm=SIGMAS_MM, landmarks=pull
        )

    for wrong in ([-13.0, 16.0], [16.0, 3.0]):  # too near to the other, and as far from it
        section_mm = apply(TRUE, POINTS[:2])
        section_mm[1] += wrong
        found = fit_by_landmarks(POINTS[:2], section_mm, np.eye(3), fit)
        assert found.kept == (0,) and found.apart_mm[1] > 12
        assert _error_mm(found.fit.working_from_plane_mm, TRUE) < 0.6


@pytest.mark.parametrize("number", [3, 4])
def test_a_landmark_on_the_wrong_place_is_told_and_not_obeyed(number):
    plane_mm = POINTS[:number]
    section_mm = apply(FAR, plane_mm)
    section_mm[1] += [-13.0, 16.0]
    found = _by_landmarks(plane_mm, section_mm)
    assert found.kept == tuple(i for i in range(number) if i != 1)
    assert found.apart_mm[1] > 12 and found.apart_mm[list(found.kept)].max() < 1.0
    assert _error_mm(found.fit.working_from_plane_mm, FAR) < 1.0


def test_landmarks_without_any_image_lay_a_section_by_themselves():
    empty = np.zeros_like(FAR_SECTION.data)

    def fit(start, pull):
        return fit_section_affine(
            _masked(empty), PLANE, start, limits=LIMITS, sigmas_mm=SIGMAS_MM, landmarks=pull
        )

    found = fit_by_landmarks(POINTS, apply(FAR, POINTS), np.eye(3), fit)
    assert found.kept == (0, 1, 2, 3) and found.apart_mm.max() < 2.5
    # nearly no turn is read from landmarks that lie together
    close = POINTS[:1] + np.array([[0.0, 0.0], [0.5, 0.0]])
    swapped = laid_by(close, close[::-1], np.eye(3))
    np.testing.assert_allclose(swapped, np.eye(3), atol=0.02 * 60)
    assert abs(swapped[1, 0]) < 0.02


def test_the_equations_of_the_pull_are_its_derivatives():
    pull = LandmarkPull(POINTS, apply(FAR, POINTS) + np.array([1.0, -2.0]))
    centre, prior = np.array([50.0, 45.0]), _true_affine(10.0, np.zeros((2, 2)), (1.0, 2.0))

    def cost(delta):
        return pull.cost(prior @ STILL.step(delta, LIMITS).matrix(centre))

    step = 1e-5
    numeric = [(cost(step * e) - cost(-step * e)) / (2 * step) for e in np.eye(6)]
    gradient, hessian = pull.equations(prior, centre)
    np.testing.assert_allclose(2 * gradient, numeric, rtol=1e-5)
    assert (np.linalg.eigvalsh(hessian) > 0).all()
