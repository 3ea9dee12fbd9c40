"""Synthetic shapes: their truth is true, they depend on nothing but the seed, they teach."""

import pytest
import torch

from sbr_core.config import ShapesOptions
from sbr_core.functional.losses import nmi
from sbr_core.functional.warp import exponentiate, jacobian_determinant, upsample_velocity, warp
from sbr_core.nn.registrar import PyramidRegistrar
from sbr_core.training import shapes
from sbr_core.training.checkpoints import open_checkpoints
from sbr_core.training.loop import train
from sbr_core.training.shapes import N_LABELS, ShapesTask, draw_label_map, draw_pairs, smooth_noise

SHAPE = (96, 128)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_stated_velocity_takes_the_fixed_image_into_the_moving_one():
    """Outline and structure agree along it, better than without and than against it."""
    pairs = draw_pairs(12, SHAPE, rng(1))
    fields = [
        upsample_velocity(exponentiate(sign * pairs.velocity_half_px, 7), SHAPE)
        for sign in (1, 0, -1)
    ]
    outline, structure = [], []
    for moved in (warp(pairs.moving, field) for field in fields):
        wrong = ((moved > 0.02).float() - pairs.masks).abs().sum((1, 2, 3))
        outline.append(float((wrong / pairs.masks.sum((1, 2, 3))).median()))
        structure.append(float(nmi(pairs.fixed, moved, pairs.masks)))
    along, without, against = outline
    assert along < 0.6 * without < 0.6 * against
    along, without, against = structure
    assert along > 1.4 * without > 1.4 * against


def test_equal_seeds_draw_equal_pairs_and_others_do_not():
    one, same, other = (draw_pairs(2, SHAPE, rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(one.fixed, same.fixed) and torch.equal(one.moving, same.moving)
    assert not torch.equal(one.fixed, other.fixed)


def test_pairs_are_what_a_registrar_is_given():
    pairs = draw_pairs(8, SHAPE, rng(2))
    for image in (pairs.fixed, pairs.moving):
        assert image.shape == (8, 1, *SHAPE)
        assert image.min() >= 0 and image.max() <= 1
        assert image.isfinite().all()
    disp = upsample_velocity(exponentiate(pairs.velocity_half_px, 7), SHAPE)
    assert (jacobian_determinant(disp) > 0).all()


def test_label_maps_have_white_matter_inside_cortex():
    generator = rng(7)
    found = 0
    for _ in range(12):
        labels = draw_label_map(SHAPE, generator)
        assert labels.min() >= 0 and labels.max() < N_LABELS
        white = labels == 1
        if (labels == 2).any() and white.sum() > 100 and (labels == 0).any():
            found += 1
            ring = torch.nn.functional.max_pool2d(white.float(), 3, 1, 1).bool() & ~white
            # hardly any of it lies bare
            assert (labels[ring] == 0).float().mean() < 0.2
    assert found >= 6


def test_the_task_teaches_a_registrar_the_deformation_of_its_pairs(tmp_path, monkeypatch):
    pairs = draw_pairs(2, (64, 64), rng(11))
    monkeypatch.setattr(shapes, "draw_pairs", lambda *_: pairs)
    options = ShapesOptions(
        steps=80,
        learning_rate=3e-3,
        encoder_channels=(8, 12, 16),
        estimator_channels=(8, 12, 16),
        sizes_px=((64, 64),),
    )
    torch.manual_seed(0)
    registrar = PyramidRegistrar(options.encoder_channels, options.estimator_channels)
    cpu = torch.device("cpu")
    with open_checkpoints(tmp_path, "shapes") as folder:
        train(ShapesTask(registrar, options, cpu), options, folder, cpu)
    true = registrar.displacement(pairs.velocity_half_px, (64, 64))
    with torch.no_grad():
        found = registrar.displacement(registrar(pairs.fixed, pairs.moving), (64, 64))
    moved, left = ((d.norm(dim=1) * pairs.masks[:, 0]).sum() for d in (true, found - true))
    assert left < 0.5 * moved


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_as_smooth_as_asked_for(seed):
    coarse, fine = (smooth_noise((64, 64), wavelength, rng(seed)) for wavelength in (24, 6))
    assert coarse.diff(dim=3).std() < 0.5 * fine.diff(dim=3).std()
    assert 0.3 < fine.std() < 2
