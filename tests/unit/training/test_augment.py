"""Random deformations: drawn apart from being applied, reproducible, of the stated size."""

import math

import pytest
import torch

from sbr_core.config import AugmentOptions
from sbr_core.training import augment

NO_FIELD = {"field_sigma_px": (0.0, 0.0)}
STILL = AugmentOptions(rotation_deg=0, scale=0, translation_px=0, **NO_FIELD)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    return torch.rand(3, 1, 40, 56, generator=rng())


def test_the_same_seed_draws_the_same_and_the_next_draw_differs():
    options, generator = AugmentOptions(), rng(3)
    first, second = augment.draw(2, options, generator), augment.draw(2, options, generator)
    again = augment.draw(2, options, rng(3))
    torch.testing.assert_close(first.nodes_px, again.nodes_px)
    torch.testing.assert_close(first.angle_rad, again.angle_rad)
    assert not torch.equal(first.nodes_px, second.nodes_px)


def test_images_of_a_batch_are_deformed_independently(images):
    same = images[:1].expand(3, -1, -1, -1)
    out, _ = augment.apply(same, same, augment.draw(3, AugmentOptions(), rng()))
    assert (out[0] - out[1]).abs().max() > 0.1


def test_limits_of_zero_leave_the_image_alone(images):
    masks = (images > 0.5).float()
    out, out_masks = augment.apply(images, masks, augment.draw(3, STILL, rng()))
    torch.testing.assert_close(out, images, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out_masks, masks)


def test_parameters_stay_within_their_limits_and_reach_them():
    options = AugmentOptions()
    drawn = augment.draw(4000, options, rng())
    assert math.degrees(drawn.angle_rad.abs().max()) == pytest.approx(3, rel=0.01)
    assert float((drawn.scale - 1).abs().max()) == pytest.approx(0.05, rel=0.01)
    assert float(drawn.translation_px.abs().max()) == pytest.approx(2, rel=0.01)
    deviations = drawn.nodes_px.flatten(1).std(1)
    assert 2.5 < deviations.min() < 3.2
    assert 4.8 < deviations.max() < 6.0


def test_the_similarity_turns_about_the_centre():
    turn = AugmentOptions(rotation_deg=3, scale=0.05, translation_px=0, **NO_FIELD)
    disp = augment.displacement_px(augment.draw(5, turn, rng()), (41, 61))
    torch.testing.assert_close(disp[:, :, 20, 30], torch.zeros(5, 2), atol=1e-5, rtol=0)
    assert (disp[:, :, 0, 0].norm(dim=1) > 0.3).all()


def test_the_field_is_smooth():
    bend = AugmentOptions(rotation_deg=0, scale=0, translation_px=0)
    disp = augment.displacement_px(augment.draw(20, bend, rng()), (128, 160))
    assert 2.5 < disp.std() < 4.5
    second = disp[..., 2:] - 2 * disp[..., 1:-1] + disp[..., :-2]
    assert second.abs().max() < 0.4  # with creases at the nodes it would be 0.9


def test_masks_follow_their_images_and_stay_binary(images):
    masks = torch.zeros(3, 2, 40, 56)
    masks[:, 0, 10:30, 10:40] = 1
    masks[:, 1, 8:32, 8:42] = 1
    drawn = augment.draw(3, AugmentOptions(), rng())
    out, out_masks = augment.apply(masks[:, :1], masks, drawn)
    assert set(out_masks.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close((out >= 0.5).float(), out_masks[:, :1])
    assert (out_masks[:, 1] >= out_masks[:, 0]).all()


def test_nothing_given_is_changed(images):
    before = images.clone()
    augment.apply(images, (images > 0.5).float(), augment.draw(3, AugmentOptions(), rng()))
    torch.testing.assert_close(images, before)
