"""The least-squares adversarial loss."""

import pytest
import torch

from sbr_core.training.adversaries import lsgan


def test_the_optimum_is_the_goal_and_the_loss_the_squared_distance_from_it():
    scores, tissue = torch.ones(2, 1, 4, 6), torch.ones(2, 1, 32, 48)
    assert float(lsgan(scores, 1.0, tissue)) == 0
    assert float(lsgan(scores, 0.0, tissue)) == pytest.approx(1)
    assert float(lsgan(scores - 3, 1.0, tissue)) == pytest.approx(9)  # not bounded


def test_a_discriminator_that_cannot_tell_does_best_by_one_half():
    """Half the images are real: the best constant score is the share of real ones."""
    tissue = torch.ones(1, 1, 8, 8)
    loss = [
        float(0.5 * (lsgan(c, 1.0, tissue) + lsgan(c, 0.0, tissue)))
        for c in (torch.full((1, 1, 1, 1), value) for value in (0.3, 0.4, 0.5, 0.6, 0.7))
    ]
    assert min(loss) == loss[2] == pytest.approx(0.25)


def test_patches_without_tissue_do_not_count():
    scores = torch.tensor([[[[1.0, 7.0], [0.0, 7.0]]]])
    tissue = torch.zeros(1, 1, 8, 8)
    tissue[..., :4] = 1
    assert float(lsgan(scores, 1.0, tissue)) == pytest.approx(0.5)
    assert float(lsgan(scores, 1.0, tissue * 0)) == 0
