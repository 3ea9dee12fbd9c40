"""From what was judged to words and to cells of the manifest."""

from __future__ import annotations

import numpy as np
import pytest

from sbr_core import geometry
from sbr_core.algorithms.doctor.findings import (
    Section,
    corrected,
    correction_to,
    examine,
    pose_of,
    unusable,
)

UPRIGHT = np.eye(3)
ORDINARY = {"neighbours": 3, "expected_share": 0.05, "min_turn_deg": 12.0}


def _matrix(flip: str, rotate_deg: float) -> np.ndarray:
    """Section mm from working mm of a section that the manifest flips and turns so."""
    file_from_working, _ = geometry.file_px_from_working_px((40, 50), 0.5, 0.5, flip, rotate_deg)
    return geometry.section_mm_from_working_mm(file_from_working, 0.5, 0.5)


def _linear(flip: str, rotate_deg: float) -> np.ndarray:
    return geometry.upright_from_file((40, 50), flip, rotate_deg)[0][:2, :2]


def _sections(images, spacing_mm=1.5, matrix=UPRIGHT):
    return [
        Section(f"s{i:02d}", spacing_mm * i, matrix, image, image > 0.2)
        for i, image in enumerate(images)
    ]


NOW = [("none", 0.0), ("lr", 35.0), ("ud", -80.0), ("none", 170.0)]


@pytest.mark.parametrize("now", NOW)
@pytest.mark.parametrize("correction", [(False, 50.0), (True, 0.0), (True, 180.0), (True, -65.0)])
def test_corrected_is_the_one_map_after_the_other(now, correction):
    flip, rotate_deg = corrected(pose_of(_matrix(*now)), correction)
    wanted = _linear("lr" if correction[0] else "none", correction[1]) @ _linear(*now)
    np.testing.assert_allclose(_linear(flip, rotate_deg), wanted, atol=1e-9)
    assert abs(rotate_deg) <= 90 or flip == "none"


@pytest.mark.parametrize("now", NOW)
@pytest.mark.parametrize("correction", [(False, 50.0), (True, 0.0), (True, 180.0), (True, -65.0)])
def test_a_suggestion_tells_what_is_still_to_be_done(now, correction):
    flip, rotate_deg = corrected(pose_of(_matrix(*now)), correction)
    mirrored, angle = correction_to(
        pose_of(_matrix(*now)), f"flip={flip} rotate_deg={rotate_deg:g}"
    )
    assert mirrored == correction[0]
    assert (angle - correction[1] + 180) % 360 - 180 == pytest.approx(0, abs=1e-6)
    assert correction_to(pose_of(_matrix(*now)), "exclude=true") is None
    assert correction_to(pose_of(_matrix(*now)), "") is None


@pytest.mark.parametrize("now", NOW)
def test_no_correction_leaves_the_manifest_as_it_is(now):
    np.testing.assert_allclose(
        _linear(*corrected(pose_of(_matrix(*now)), (False, 0.0))), _linear(*now), atol=1e-9
    )


@pytest.mark.parametrize("pose", [(False, 50.0), (True, 20.0), (True, -130.0), (False, 180.0)])
def test_a_pose_and_its_inverse_cancel(pose):
    inverse = pose if pose[0] else (False, -pose[1])
    assert corrected(pose, inverse) == ("none", 0.0)


@pytest.mark.parametrize("pose", [(False, 50.0), (True, 20.0), (True, -130.0), (False, 180.0)])
def test_pose_of_is_the_pose_of_the_manifest(pose):
    mirrored, angle = pose_of(_matrix("lr" if pose[0] else "none", pose[1]))
    assert mirrored == pose[0]
    assert (angle - pose[1] + 180) % 360 - 180 == pytest.approx(0, abs=1e-9)


def test_whole_stack_raises_nothing(whole):
    findings = examine(_sections(whole.sections), **ORDINARY)
    assert [f for f in findings if f.confidence >= 0.5] == []


def test_harm_is_worded_with_the_cells_that_undo_it(harmed):
    sections = _sections(harmed.sections, matrix=_matrix("none", 0))
    found = {f.section: f for f in examine(sections, **ORDINARY) if f.confidence >= 0.5}
    assert {name: f.kind for name, f in found.items()} == {
        f"s{harmed.flipped:02d}": "flip",
        f"s{harmed.turned:02d}": "turn",
        f"s{harmed.cut:02d}": "damage",
    }
    flip, turn, damage = found.values()
    assert flip.words.endswith("seems flipped left to right")
    assert flip.suggestion == "flip=lr rotate_deg=0" and flip.correction == (True, 0.0)
    assert "clockwise would set it right" in turn.words
    assert turn.correction[1] == pytest.approx(-harmed.turn_deg, abs=8)
    assert damage.suggestion == "exclude=true" and "of its tissue is missing" in damage.words


def test_a_prealigned_stack_gets_no_pose_and_lines_are_in_order(stack):
    sections = stack(7)
    sections[3] = sections[3][:, ::-1]
    findings = examine(_sections(sections), prealigned=True, **ORDINARY)
    assert sorted(f.section for f in findings) == [f.section for f in findings]
    assert {f.suggestion for f in findings} == {"", "exclude=true"}
    (flip,) = (f for f in findings if f.kind == "flip" and f.confidence > 0.5)
    assert flip.section == "s03"
    assert flip.words.endswith("left to right (or its MRI plane is another one)")


def test_how_sections_are_stained_is_judged_within_their_stain_group(stack):
    """Every third is of a stain half as dark; one of these is a third as dark as its like."""
    images = [image / 2 if i % 3 == 1 else image for i, image in enumerate(stack(18))]
    masks = [image > 0 for image in images]
    images[7] = images[7] / 3

    def found(groups):
        sections = [
            Section(f"s{i:02d}", 1.5 * i, UPRIGHT, image, mask, group)
            for i, (image, mask, group) in enumerate(zip(images, masks, groups, strict=True))
        ]
        findings = examine(sections, **ORDINARY)
        return [f for f in findings if f.kind == "staining" and f.confidence >= 0.5]

    assert {"s01", "s04", "s10", "s13", "s16"} < {f.section for f in found([""] * 18)}
    (pale,) = found(["CB" if i % 3 == 1 else "" for i in range(18)])
    assert pale.section == "s07"
    assert pale.words.endswith("times weaker than its neighbours of stain group CB")


def test_few_sections_have_no_findings_of_consequence(stack):
    assert not [f for f in examine(_sections(stack(3)), **ORDINARY) if f.confidence > 0]


def test_a_section_that_could_not_be_prepared_is_left_out():
    finding = unusable("s07", "no tissue")
    assert (finding.confidence, finding.suggestion) == (1.0, "exclude=true")
    assert finding.words == "section s07: could not be used: no tissue"
