"""The Dice loss: its value for overlaps that are known, and for classes that are not there."""

import pytest
import torch

from sbr_core.functional.losses import dice_loss
from sbr_core.functional.warp import warp


def squares(*boxes, size=12):
    """One-hot maps (1, K, size, size), float64, of one box (rows, columns) per class or None."""
    out = torch.zeros(1, len(boxes), size, size, dtype=torch.float64)
    for channel, box in enumerate(boxes):
        if box is not None:
            out[0, channel][box] = 1
    return out


A = slice(2, 8), slice(2, 6)
B = slice(2, 8), slice(4, 8)  # half of it lies in A
FAR = slice(9, 12), slice(9, 12)


def test_the_loss_is_one_minus_dice_of_each_class():
    assert float(dice_loss(squares(A), squares(A))) == 0
    assert float(dice_loss(squares(A), squares(B))) == pytest.approx(0.5)
    assert float(dice_loss(squares(A), squares(FAR))) == 1
    assert float(dice_loss(squares(A, B), squares(A, A))) == pytest.approx((0 + 0.5) / 2)
    assert float(dice_loss(squares(A, B), squares(B, A))) == pytest.approx(0.5)


def test_a_class_that_neither_image_has_is_left_out():
    with_more = dice_loss(squares(A, None, None), squares(B, None, None))
    torch.testing.assert_close(with_more, dice_loss(squares(A), squares(B)))
    # in a batch, each image has its own classes
    fixed = torch.cat((squares(A, None), squares(A, B), squares(None, None)))
    moving = torch.cat((squares(B, None), squares(A, B), squares(None, None)))
    torch.testing.assert_close(dice_loss(fixed, moving), torch.tensor(0.5 / 3, dtype=torch.float64))


def test_nothing_there_is_no_loss_and_no_nan():
    fixed = squares(None, None).requires_grad_(True)
    loss = dice_loss(fixed, squares(None, None))
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.isfinite(fixed.grad).all()
    assert float(dice_loss(fixed.detach()[:, :0], fixed.detach()[:, :0])) == 0


def test_a_class_on_one_side_only_counts_as_no_overlap():
    assert float(dice_loss(squares(A, FAR), squares(A, None))) == pytest.approx(0.5)


def test_gradient_where_a_class_is_absent():
    generator = torch.Generator().manual_seed(0)
    fixed = torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    moving = torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    there = torch.ones(2, 3, 1, 1, dtype=torch.float64)
    there[0, 1] = 0
    assert torch.autograd.gradcheck(
        lambda f, m: dice_loss(f * there, m * there),
        (fixed.requires_grad_(True), moving.requires_grad_(True)),
    )


def test_its_gradient_moves_a_label_towards_its_partner():
    shift = torch.zeros(1, 2, 12, 12, dtype=torch.float64, requires_grad=True)
    moving = squares(B)
    dice_loss(squares(A), warp(moving, shift + 0.25)).backward()
    # A lies to the left of B: B is to be looked up further right
    assert float(shift.grad[0, 0].sum()) < 0
    assert abs(float(shift.grad[0, 1].sum())) < abs(float(shift.grad[0, 0].sum()))


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="one shape"):
        dice_loss(squares(A), squares(A, B))
