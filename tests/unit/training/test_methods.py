"""The registrar and Synth-by-Reg as methods, and prediction with what they trained."""

import pytest
import torch
import torch.nn.functional as F
from small_training import OPTIONS, blobs, small_task

from sbr_core.config import SbrOptions
from sbr_core.functional.warp import compose, warp
from sbr_core.nn.registrar import UNetRegistrar
from sbr_core.training import augment
from sbr_core.training import predict as prediction
from sbr_core.training.checkpoints import open_checkpoints
from sbr_core.training.loop import train
from sbr_core.training.pairs import Pairs
from sbr_core.training.predict import (
    as_batch,
    crop,
    pad,
    padding_px,
    predict,
)
from sbr_core.training.registrar import neighbour_pairs
from sbr_core.training.sbr import SbrTask, draw_places, features_at

CPU = torch.device("cpu")


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def test_neighbours_are_neighbours_in_position_whatever_the_order_of_the_list():
    positions = [30.0, 0.0, 20.5, 10.0, 50.0]
    pairs = {tuple(sorted((positions[i], positions[j]))) for i, j in neighbour_pairs(positions, 1)}
    assert pairs == {(0.0, 10.0), (10.0, 20.5), (20.5, 30.0), (30.0, 50.0)}
    both_ways = neighbour_pairs(positions, 1)
    assert len(both_ways) == 8
    assert len(neighbour_pairs(positions, 10)) == 20  # all but each with itself


def test_without_neighbours_each_plane_is_paired_with_itself():
    assert neighbour_pairs([30.0, 0.0, 20.5], 0).tolist() == [[0, 0], [1, 1], [2, 2]]


def test_a_registrar_learns_to_undo_a_known_shift(recovered):
    registrar, planes, masks, rows = recovered
    assert rows[-1]["lncc"] > rows[0]["lncc"]
    shift = torch.tensor([1.2, -1.0]).view(1, 2, 1, 1).expand(1, 2, 32, 32)
    fixed, moving = planes[:1], warp(planes[:1], shift)
    # moving(p) = fixed(p + shift), so fixed p is found in moving at p - shift
    velocity, same = predict(registrar, None, fixed, moving)
    assert torch.equal(same, moving)
    disp = registrar.displacement(velocity, (32, 32))
    found = (disp * masks[:1]).sum((2, 3)) / masks[0].sum()
    left = (found[0] + torch.tensor([1.2, -1.0])).norm()
    assert left < 0.35 * torch.tensor([1.2, -1.0]).norm(), found
    # and the negative velocity is the way back
    back = registrar.displacement(-velocity, (32, 32))
    torch.testing.assert_close(
        (back * masks[:1]).sum((2, 3)) / masks[0].sum(), -found, atol=0.1, rtol=0.1
    )


def test_there_and_back_of_a_trained_registrar(recovered):
    registrar, planes, masks, _ = recovered
    fixed, moving = planes[:1], warp(planes[:1], torch.full((1, 2, 32, 32), 1.3))
    velocity, _ = predict(registrar, None, fixed, moving)
    there = registrar.displacement(velocity, (32, 32))
    back = registrar.displacement(-velocity, (32, 32))
    rest = compose(back, there).norm(dim=1)[masks[:1, 0] > 0]
    assert rest.mean() <= 0.02
    assert rest.quantile(0.99) <= 0.1


def test_a_symmetric_registration_of_swapped_images_is_the_inverse():
    torch.manual_seed(0)
    registrar = UNetRegistrar((4, 8), (8, 4))
    torch.nn.init.normal_(registrar.velocity.weight, std=0.1)
    one, other = torch.rand(2, 1, 1, 64, 64)
    there, _ = predict(registrar, None, one, other, symmetric=True)
    back, _ = predict(registrar, None, other, one, symmetric=True)
    assert there.abs().max() > 1e-3
    torch.testing.assert_close(there, -back)
    assert not torch.allclose(there, predict(registrar, None, one, other)[0])


def small_sbr(**changes):
    torch.manual_seed(0)
    options = SbrOptions(
        **({"steps": 3, "generator_channels": 4, "residual_blocks": 2, "n_samples": 32} | changes),
        projection_channels=16,
    )
    planes, masks = blobs(4)
    registrar = UNetRegistrar((4, 8), (8, 4))
    torch.nn.init.normal_(registrar.velocity.weight, std=0.1)
    return SbrTask(registrar, blob_pairs(planes, masks, options), options)


def blob_pairs(planes, masks, options):
    """Planes and sections of the opposite contrast."""
    sections = (1 - planes) * masks
    return Pairs(sections, masks, planes, masks, options=options)


@pytest.mark.parametrize("weight", [0.0, 0.02])
def test_training_the_generator_leaves_the_registrar_as_it_was(tmp_path, weight):
    task = small_sbr(contrastive_weight=weight)
    before = {k: v.clone() for k, v in task.registrar.state_dict().items()}
    generator = {k: v.clone() for k, v in task.generator.state_dict().items()}
    with open_checkpoints(tmp_path, "sbr") as folder:
        rows = train(task, task.options, folder, CPU)
    after = task.registrar.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert all(p.grad is None and not p.requires_grad for p in task.registrar.parameters())
    moved = [k for k, v in task.generator.state_dict().items() if not torch.equal(v, generator[k])]
    assert "stem.weight" in moved and "out.weight" in moved
    assert ("nce_plane" in rows[0]) == (weight > 0)


def test_the_gradient_reaches_the_generator_through_the_registration():
    task, seen = small_sbr(contrastive_weight=0.0), []

    def watch(module, inputs, velocity):
        velocity.register_hook(lambda gradient: seen.append(float(gradient.abs().sum())))

    task.registrar.register_forward_hook(watch)
    task.losses(rng())["loss"].backward()
    assert len(seen) == 1
    assert seen[0] > 0


def test_without_the_registrars_gradient_the_answer_of_r_is_taken_as_given():
    """The gradient is that of an L1 through a fixed deformation, not through R."""
    through, given = (
        small_sbr(contrastive_weight=0.0, registrar_gradient=flag) for flag in (True, False)
    )
    gradients = []
    for task in (through, given):
        losses = task.losses(rng())
        losses["loss"].backward()
        gradients.append(task.generator.stem.weight.grad)
        value = losses["l1"]
    fixed = small_sbr(contrastive_weight=0.0)
    network = fixed.registrar.forward
    fixed.registrar.forward = lambda a, b: network(a, b).detach()
    fixed.losses(rng())["loss"].backward()
    torch.testing.assert_close(gradients[1], fixed.generator.stem.weight.grad)
    assert not torch.allclose(gradients[0], gradients[1])
    torch.testing.assert_close(through.losses(rng())["l1"], value)


@pytest.mark.parametrize("start", ["affine", "section"])
def test_while_warming_up_the_registration_of_the_synthesis_takes_over(start):
    task = small_sbr(warmup_fraction=0.4, warmup_start=start)
    plane, section = task.pairs.images[1, :1], task.pairs.images[0, :1]
    made = section.flip(3)
    whole = task.registrar(plane, made)
    first = task.registrar(plane, section) * (start == "section")
    for done, share in ((0.0, 0.0), (0.2, 0.0), (0.3, 0.5), (0.4, 1.0), (0.9, 1.0)):
        task.done = done
        found = task.register(plane, made, section)
        torch.testing.assert_close(found, share * whole + (1 - share) * first)


def test_without_contrast_only_the_l1_is_left_and_the_encoder_is_not_run_again():
    task = small_sbr(contrastive_weight=0.0)
    calls = []
    task.generator.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    losses = task.losses(rng())
    assert set(losses) == {"loss", "l1"}
    assert torch.equal(losses["loss"], losses["l1"])
    assert len(calls) == 1


def test_boxes_have_sides_of_the_step_that_is_asked_for():
    planes, masks = (F.pad(t, (60,) * 4) for t in blobs(3))
    shapes = {}
    for step in (8, 32, 64):
        pairs = Pairs(planes, masks, planes, masks, options=SbrOptions(box_step_px=step))
        drawn = [pairs.draw(rng(seed)) for seed in range(6)]
        shapes[step] = {tuple(batch.section.shape[-2:]) for batch in drawn}
        assert all(n % step == 0 for shape in shapes[step] for n in shape)
        # the tissue that is seen does not depend on it
        shapes[step, "tissue"] = [int(batch.plane_tissue.sum()) for batch in drawn]
    assert len(shapes[64]) <= len(shapes[32]) <= len(shapes[8])
    assert shapes[8, "tissue"] == shapes[32, "tissue"] == shapes[64, "tissue"]


def test_the_encoder_runs_three_times_a_step_once_of_them_without_a_graph():
    task = small_sbr()
    graphs = []
    task.generator.blocks[0].register_forward_hook(
        lambda module, inputs, output: graphs.append((len(output), output.requires_grad))
    )
    task.losses(rng())
    assert graphs == [(1, True), (2, True), (1, False)]


def test_the_total_is_equation_7():
    losses = small_sbr(contrastive_weight=0.5).losses(rng())
    parts = losses["l1"] + 0.5 * (losses["nce_section"] + losses["nce_plane"])
    torch.testing.assert_close(losses["loss"], parts)


def test_descriptors_are_drawn_from_tissue_only_and_no_place_twice():
    tissue = torch.zeros(2, 1, 32, 48)
    tissue[0, :, 8:24, 8:40] = 1
    tissue[1, :, 4:28, 0:24] = 1
    for stride in (1, 2, 8):
        at = tissue[:, 0, ::stride, ::stride].flatten(1)
        places = draw_places(tissue, stride, 64, rng())
        assert places.shape[1] == min(64, int(at.sum(1).min()))
        assert (at.gather(1, places) == 1).all()
        assert all(len(set(row.tolist())) == len(row) for row in places)
    assert draw_places(torch.zeros(1, 1, 16, 16), 1, 64, rng()).shape == (1, 0)


def test_descriptors_are_taken_where_the_places_say():
    features = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    taken = features_at(features, torch.tensor([[7], [19]]))
    assert torch.equal(taken[0, 0], features[0, :, 1, 2])
    assert torch.equal(taken[1, 0], features[1, :, 3, 4])


def test_an_image_without_tissue_gives_finite_losses():
    task = small_sbr()
    task.pairs.masks.zero_()
    losses = task.losses(rng())
    losses["loss"].backward()
    assert all(torch.isfinite(v) for v in losses.values())


def test_prediction_uses_no_augmentation_and_nothing_random(monkeypatch):
    task = small_sbr()
    sections, planes = task.pairs.images
    masks = task.pairs.masks[0, :, :1]

    def forbidden(*_, **__):
        raise AssertionError("random at prediction time")

    for name in ("draw", "apply", "displacement_px"):
        monkeypatch.setattr(augment, name, forbidden)
    for name in ("rand", "randn", "randint", "randperm"):
        monkeypatch.setattr(torch, name, forbidden)
    state = torch.get_rng_state()
    first = predict(task.registrar, task.generator, planes, sections, masks)
    second = predict(task.registrar, task.generator, planes, sections, masks)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(state, torch.get_rng_state())
    assert not hasattr(prediction, "augment")


def test_prediction_does_not_depend_on_the_size_of_the_batch():
    task = small_sbr()
    sections, planes = task.pairs.images
    masks = task.pairs.masks[0, :, :1]
    images = planes, sections, masks
    whole = predict(task.registrar, task.generator, *images)
    for index, image in enumerate(zip(*(t.split(1) for t in images), strict=True)):
        alone = predict(task.registrar, task.generator, *image)
        for a, b in zip(alone, whole, strict=True):
            torch.testing.assert_close(a[0], b[index], atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="masks"):
        predict(task.registrar, task.generator, planes, sections)


def test_nothing_is_synthesised_outside_the_tissue():
    task = small_sbr()
    sections, planes = task.pairs.images
    masks = task.pairs.masks[0, :, :1]
    _, synthesised = predict(task.registrar, task.generator, planes, sections, masks)
    assert (synthesised[masks == 0] == 0).all()
    assert (synthesised[masks > 0] > 0).all()


def test_more_empty_background_changes_nothing():
    task = small_sbr()
    sections, planes = task.pairs.images
    inputs = [F.pad(t, (16,) * 4) for t in (planes, sections, task.pairs.masks[0, :, :1])]
    wide = [F.pad(t, (16, 8, 8, 32)) for t in inputs]
    few = predict(task.registrar, task.generator, *inputs)
    many = predict(task.registrar, task.generator, *wide)
    assert torch.equal(many[1][..., 8:72, 16:80], few[1])
    middle = slice(6, 26)  # the registrar sees an edge from near it
    torch.testing.assert_close(
        many[0][..., 4:36, 8:40][..., middle, middle],
        few[0][..., middle, middle],
        atol=1e-4,
        rtol=1e-4,
    )


@pytest.mark.parametrize("shape", [(30, 41), (64, 64), (1, 9)])
def test_padding_is_undone_by_cropping_and_keeps_the_half_grid_in_place(shape):
    image = torch.rand(2, 1, *shape)
    padded = pad(image, 8)
    assert all(n % 8 == 0 for n in padded.shape[-2:])
    top, bottom, left, right = padding_px(shape, 8)
    assert top % 2 == left % 2 == 0
    assert padded.shape[-2:] == (shape[0] + top + bottom, shape[1] + left + right)
    assert torch.equal(crop(padded, shape, 8), image)
    assert padded.sum() == pytest.approx(float(image.sum()), rel=1e-5)
    batch = as_batch([i[0].numpy() for i in image], 8)
    assert torch.equal(batch, padded)
    with pytest.raises(ValueError, match="even"):
        padding_px(shape, 9)


def test_a_step_draws_all_its_randomness_from_the_generator_it_is_given():
    for task in (small_task(OPTIONS), small_sbr()):
        torch.manual_seed(1)
        one = task.losses(rng(5))
        torch.manual_seed(2)
        two = task.losses(rng(5))
        other = task.losses(rng(6))
        assert torch.equal(one["loss"], two["loss"])
        assert not torch.equal(one["loss"], other["loss"])
