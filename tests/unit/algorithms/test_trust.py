"""What is expected of a registered section without truth, on textures whose truth is known."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, rotate

from sbr_core.algorithms.trust import calibration, suspects
from sbr_core.algorithms.trust.evidence import Seen, cells_of, find_evidence
from sbr_core.algorithms.trust.poses import better_pose

SPACING_MM = 0.5


@pytest.fixture(scope="module")
def plane():
    """An uneven blob of texture, 96 px across, and its mask."""
    texture = gaussian_filter(np.random.default_rng(0).normal(size=(120, 140)), 2.5)
    rows, columns = np.indices(texture.shape)
    radius = np.hypot((rows - 60) / 40, (columns - 70) / 48)
    mask = radius + 0.15 * np.sin(3 * np.arctan2(rows - 60, columns - 70)) < 1
    return (texture - texture.min()) * mask, mask


def seen(plane, shift=(0, 0), contrast=-1.0):
    """The plane against itself in another contrast, shifted by (rows, columns)."""
    image, mask = plane
    other = np.roll((contrast * image - min(0, contrast) * image.max()) * mask, shift, (0, 1))
    return Seen(other, np.roll(mask, shift, (0, 1)), image, mask, SPACING_MM)


def still(pair):
    return np.zeros((*pair.cells.tissue.shape, 2))


def test_a_shift_is_seen_as_long_as_it_is_in_whatever_contrast(plane):
    lengths = [0, 1, 2, 3]
    matches = []
    for px in lengths:
        pair = seen(plane, (0, px))
        evidence = find_evidence(pair, still(pair))
        matches.append(evidence.numbers()["match"] * evidence.cells.extent_mm / SPACING_MM)
    np.testing.assert_allclose(matches, lengths, atol=0.35)


def test_a_displaced_half_is_expected_to_be_wrong_there_and_not_elsewhere(plane):
    image, mask = plane
    pair = seen(plane)
    moved = np.where(np.arange(140) < 70, pair.registered, np.roll(pair.registered, 3, 0))
    pair = Seen(moved, pair.section_mask, image, mask, SPACING_MM)
    error_mm, of_cells = calibration.expected_error_mm(find_evidence(pair, still(pair)))
    cells = pair.cells
    left, right = np.split(np.arange(cells.tissue.shape[1]), [70 // cells.size_px])
    inside = cells.tissue > 0.5
    assert np.median(of_cells[:, right][inside[:, right]]) > 1.3 * np.median(
        of_cells[:, left][inside[:, left]]
    )
    assert error_mm == pytest.approx(cells.rms(of_cells)), "the map and the number are one law"


def test_methods_that_disagree_are_expected_to_be_wrong(plane):
    pair = seen(plane)
    here = still(pair)
    agreed, disagreed = (
        calibration.expected_error_mm(find_evidence(pair, here, [here + apart_mm]))[0]
        for apart_mm in (0.0, 2.0)
    )
    assert disagreed > agreed + 0.5
    alone = find_evidence(pair, here).numbers()
    assert "disagreement" not in alone and calibration.law_for(alone) is calibration.ALONE


def test_the_law_is_the_same_for_brains_of_all_sizes(plane):
    pair = seen(plane, (2, 0))
    larger = Seen(pair.registered, pair.section_mask, *plane, 10 * SPACING_MM)
    small, large = (
        calibration.expected_error_mm(find_evidence(p, still(p))) for p in (pair, larger)
    )
    assert large[0] == pytest.approx(10 * small[0], rel=1e-6)


def test_cells_cover_the_plane_and_lie_where_they_say(plane):
    _, mask = plane
    cells = cells_of(mask, SPACING_MM)
    assert cells.tissue.sum() * cells.size_px**2 == pytest.approx(mask.sum())
    centre_mm = np.argwhere(mask).mean(0)[::-1] * SPACING_MM
    weighted = (cells.centres_mm() * cells.tissue[..., None]).sum((0, 1)) / cells.tissue.sum()
    np.testing.assert_allclose(weighted, centre_mm, atol=0.05)


@pytest.mark.parametrize(
    ("spoil", "pose"), [(np.fliplr, "lr"), (np.flipud, "ud"), (lambda a: a[::-1, ::-1], "180")]
)
def test_a_mirrored_or_turned_section_is_told_how(plane, spoil, pose):
    pair = seen(plane)
    spoilt = Seen(spoil(pair.registered), spoil(pair.section_mask), *plane, SPACING_MM)
    assert better_pose(spoilt) == pose
    assert better_pose(pair) == ""


def test_a_section_that_was_laid_mirrored_is_told_though_it_then_lies_askew(plane):
    image, mask = plane
    laid = [rotate(np.fliplr(a).astype(float), 8, reshape=False, order=1) for a in (image, mask)]
    askew = Seen(laid[0], laid[1] > 0.5, *plane, SPACING_MM)
    assert better_pose(askew) == "lr"


def test_a_symmetric_section_fits_mirrored_as_well_and_nothing_is_said(plane):
    image, mask = plane
    both = [np.maximum(a, np.fliplr(a)) for a in (image, mask)]
    symmetric = Seen(*both, *both, SPACING_MM)
    assert better_pose(symmetric) == ""
    mirrored = Seen(*map(np.fliplr, both), *both, SPACING_MM)
    assert better_pose(mirrored) == ""


USUAL = {"overlap": 0.95, "moved": 0.02}


def evidence_of(n):
    rng = np.random.default_rng(1)
    return [
        {
            "extent_mm": 100.0,
            "match": 0.01 * factor,
            "strain": 0.1,
            "unlike": 0.1,
            "least_unlike": 0.09 * factor,
            "overlap": 0.95,
            "moved": 0.02,
        }
        for factor in rng.uniform(0.9, 1.1, n)
    ]


def test_what_stands_out_from_the_stack_is_a_suspect_and_nothing_else():
    stack = evidence_of(20)
    stack[7] |= {"match": 0.04, "least_unlike": 0.16, "overlap": 0.8}
    wrong = [suspects.likely_wrong(odd) for odd in suspects.oddness(stack)]
    assert np.argmax(wrong) == 7 and wrong[7] > 0.9 and sorted(wrong)[-2] < 0.4
    assert not suspects.oddness([])


def test_a_suspect_has_a_reason_and_a_next_step():
    (usual,) = evidence_of(1)
    known = suspects.Known(usual)
    assert suspects.reason_of(known, USUAL, "lr")[1] == suspects.FLIP
    assert suspects.reason_of(known, USUAL, "10")[1] == "turn by 10° counter-clockwise?"
    assert suspects.reason_of(known, USUAL, "-10")[1] == "turn by 350° counter-clockwise?"
    reason, step = suspects.reason_of(known, USUAL, "")
    assert "mm away" in reason and step == suspects.LANDMARKS
    torn = suspects.Known(usual, finding="damage", words="s1: half of it is missing")
    assert suspects.reason_of(torn, USUAL, "") == ("s1: half of it is missing", suspects.EXCLUDE)
    poor = suspects.Known(usual | {"overlap": 0.5})
    assert "outline" in suspects.reason_of(poor, USUAL, "")[0]
    far = suspects.Known(usual | {"moved": 0.08})
    assert "by 8.0 mm, usually 2.0" in suspects.reason_of(far, USUAL, "")[0]


@pytest.mark.parametrize(
    ("correction", "step"),
    [
        ((False, -176.0), "turn by 184° counter-clockwise"),
        ((False, 90.0), "turn by 90° counter-clockwise"),
        ((True, 0.0), "flip"),
        ((True, -170.0), "flip, then turn by 190° counter-clockwise"),
    ],
)
def test_what_the_doctor_would_turn_is_turned_next(correction, step):
    (usual,) = evidence_of(1)
    words = "s024: seems turned; 176° clockwise would set it right"
    known = suspects.Known(usual, finding="turn", words=words, correction=correction)
    assert suspects.reason_of(known, USUAL, "") == (words, step)
    assert suspects.reason_of(known, USUAL, "180") == (words, step), "the doctor's is finer"
