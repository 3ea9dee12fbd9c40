"""What the methods have in common: who learns what, and that each finds a known deformation."""

import copy

import pytest
import torch
from small_training import blobs

from sbr_core.config import AugmentOptions, Config, PairOptions, takes_registrar
from sbr_core.functional.losses import l1
from sbr_core.functional.warp import warp
from sbr_core.methods import OWN_REGISTRAR_METHODS, SHARED_REGISTRAR_METHODS, TRAINED_METHODS
from sbr_core.training.checkpoints import open_checkpoints
from sbr_core.training.loop import train
from sbr_core.training.pairs import Pairs
from sbr_core.training.predict import predict
from sbr_core.training.tasks import build_task

CPU = torch.device("cpu")
# of each section; none in the mean, which a generator could take for a part of the other contrast
SHIFTS_PX = torch.tensor([[1.2, -1.0], [-1.2, 1.0], [1.0, 1.2], [-1.0, -1.2]])
SMALL = {
    "augment": AugmentOptions(
        rotation_deg=0, scale=0, translation_px=1.5, field_sigma_px=(0, 0)
    ).model_dump(),
    "learning_rate": 3e-3,
    "encoder_channels": (8, 16, 16),
    "decoder_channels": (16, 16, 16),
    "generator_channels": 4,
    "residual_blocks": 1,
    "n_samples": 64,
    "projection_channels": 32,
    "discriminator_channels": 8,
    "registrar_rate_factor": 1.0,
}
ADVERSARIES = {
    "cgan": ("discriminator", "back_discriminator"),
    "rot": ("discriminator",),
    "sbr_g": ("discriminator",),
}


def small_options(method, **changes):
    model = Config.model_fields[f"train_{method}"].annotation
    values = SMALL | {"steps": 3} | changes
    if method in ("nmi", "nmiw"):  # shifts of a toy need less of it than brains do
        values = {"smoothness": 1.0} | values
    return model(**{key: value for key, value in values.items() if key in model.model_fields})


def shifted_pairs(options, labelled=True):
    """A plane, and sections of it in another contrast, shifted; only the first has labels."""
    planes, masks = blobs(len(SHIFTS_PX))
    shift = SHIFTS_PX[:, :, None, None].expand(-1, -1, 32, 32)
    moved, moved_masks = warp(planes, shift), (warp(masks, shift) >= 0.5).float()
    sections = (1 - 0.8 * moved) * moved_masks
    labels, n_classes = (), 0
    if labelled:
        labels, n_classes = ((moved > 0.6).float(), (planes > 0.6).float()), 1
        for one in labels:
            one[1:] = 0
    return Pairs(
        sections,
        moved_masks,
        planes,
        masks,
        *labels,
        options=options,
        n_classes=n_classes,
    )


def small_task(method, registrar, **changes):
    torch.manual_seed(0)
    options = small_options(method, **changes)
    pairs = shifted_pairs(options, labelled=method == "nmiw")
    shared = copy.deepcopy(registrar) if takes_registrar(method, options) else None
    return build_task(method, options, pairs, shared)


def run(task, folder):
    with open_checkpoints(folder, "task") as checkpoints:
        return train(task, task.options, checkpoints, CPU)


def state(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def moved(module, before):
    return any(not torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("method", TRAINED_METHODS)
def test_a_known_shift_is_found_and_only_those_learn_who_should(method, recovered, tmp_path):
    # a registrar that starts from nothing needs longer than a synthesis through a trained one
    steps = 60 if method in SHARED_REGISTRAR_METHODS else 120
    task = small_task(method, recovered[0], steps=steps)
    before = {name: state(module) for name, module in task.modules.items()}
    registrar_before = state(task.registrar)
    rows = run(task, tmp_path)
    watched = getattr(task, "watched", "loss")
    assert rows[-1][watched] < rows[0][watched]

    # without contrast, nothing is asked of the projection
    learners = set(task.modules) - ({"projection"} if method == "sbr_n" else set())
    assert {n for n, m in task.modules.items() if moved(m, before[n])} == learners
    assert set(ADVERSARIES.get(method, ())) <= set(task.modules)
    assert ("registrar" in task.modules) == (method in OWN_REGISTRAR_METHODS)
    assert moved(task.registrar, registrar_before) == (method in OWN_REGISTRAR_METHODS)

    (sections, planes), masks = task.pairs.images, task.pairs.masks
    shared = method in SHARED_REGISTRAR_METHODS
    velocity, _ = predict(
        task.registrar,
        task.modules.get("generator"),
        planes,
        sections,
        masks[0, :, :1],
        registers="synthesised" if shared else "section",
    )
    disp_px = task.registrar.displacement(velocity, (32, 32))
    tissue = masks[1, :, :1]
    found = (disp_px * tissue).sum((2, 3)) / tissue.sum((2, 3))
    # section(p) = plane(p + shift): plane point p is found in the section at p - shift
    left = (found + SHIFTS_PX).norm(dim=1) / SHIFTS_PX.norm(dim=1)
    assert float(left.mean()) < 0.7, left


@pytest.mark.parametrize("method", ["nmi", "nmiw", "rot"])
def test_a_registrar_that_starts_as_the_shared_one_answers_like_it_and_learns(
    method, recovered, tmp_path
):
    """The widths in its own section do not count: they would build another network."""
    start = {"registrar_start": "shared", "encoder_channels": (4, 4), "decoder_channels": (4, 4)}
    task = small_task(method, recovered[0], **start)
    (sections, planes) = task.pairs.images
    with torch.no_grad():
        assert torch.equal(task.registrar(planes, sections), recovered[0](planes, sections))
    before = state(task.registrar)
    run(task, tmp_path)
    assert all(not torch.equal(v, before[k]) for k, v in task.registrar.state_dict().items())


@pytest.mark.parametrize("method", TRAINED_METHODS)
def test_the_same_seed_gives_the_same_weights(method, recovered, tmp_path):
    ends = []
    for folder in ("a", "b"):
        task = small_task(method, recovered[0], steps=2)
        run(task, tmp_path / folder)
        ends.append({name: state(module) for name, module in task.modules.items()})
    for name, tensors in ends[0].items():
        for key, value in tensors.items():
            assert torch.equal(value, ends[1][name][key]), (name, key)


@pytest.mark.parametrize("method", TRAINED_METHODS)
def test_a_step_draws_all_its_randomness_from_the_generator_it_is_given(method, recovered):
    task = small_task(method, recovered[0])
    values = []
    for seed, elsewhere in ((5, 1), (5, 2), (6, 1)):
        torch.manual_seed(elsewhere)
        values.append(task.losses(torch.Generator().manual_seed(seed))["loss"])
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])


@pytest.mark.parametrize("method", ADVERSARIES)
def test_one_backward_gives_each_player_exactly_its_own_gradient(method, recovered):
    task = small_task(method, recovered[0])
    losses = task.losses(torch.Generator().manual_seed(0))
    judges = {name: task.modules[name] for name in ADVERSARIES[method]}
    makers = [p for n, m in task.modules.items() if n not in judges for p in m.parameters()]

    def gradient(loss, parameters):
        return torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)

    def same(found, expected):
        for a, b in zip(found, expected, strict=True):
            # the same terms, added in another order
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-8)

    of_makers = losses["loss"]
    for name, judge in judges.items():
        own = list(judge.parameters())
        same(gradient(losses["loss"], own), gradient(losses[name], own))
        assert any(float(g.abs().max()) > 0 for g in gradient(losses[name], own))
        assert all(g is None for g in gradient(losses["adversarial"], own))
        assert all(g is None for g in gradient(losses[name], makers))
        of_makers = of_makers - losses[name]
    with_adversary = gradient(losses["loss"], makers)
    same(
        [g for g in with_adversary if g is not None],
        [g for g in gradient(of_makers, makers) if g is not None],
    )
    assert any(g is not None and g.any() for g in gradient(losses["adversarial"], makers))


def test_both_discriminators_of_cgan_learn_their_own_domain(recovered, tmp_path):
    """Each ends by telling what is real in its domain from what is made."""
    task = small_task("cgan", recovered[0], steps=60, adversarial_weight=0.0)
    run(task, tmp_path)
    (section, plane), tissue = task.pairs.images[:, :1], task.pairs.masks[:, :1, :1]
    with torch.no_grad():
        made_plane = task.generator(section) * tissue[0]
        made_section = task.back_generator(plane) * tissue[1]
        for judge, real, made in (
            (task.discriminator, plane, made_plane),
            (task.back_discriminator, section, made_section),
        ):
            assert float(judge(real).mean()) > float(judge(made).mean()) + 0.1


@pytest.mark.parametrize("start", ["affine", "section"])
def test_cgan_warms_up_where_its_start_puts_the_section(recovered, start):
    """Until R takes over, the L1 is that of G(S) where it lies or where R puts the section."""
    task = small_task("cgan", recovered[0], warmup_fraction=0.5, warmup_start=start)
    batch = task.pairs.draw(torch.Generator().manual_seed(4))
    with torch.no_grad():
        made = task.generator(torch.cat((batch.section, batch.plane)))[:1] * batch.section_rim
        put = {
            "affine": torch.zeros_like(task.registrar(batch.plane, made)),
            "section": task.registrar(batch.plane, batch.section),
            "R": task.registrar(batch.plane, made),
        }
        expected = {}
        for name, velocity in put.items():
            disp_px = task.registrar.displacement(velocity, batch.plane.shape[-2:])
            expected[name] = l1(batch.plane, warp(made, disp_px), batch.plane_rim)
    assert len({round(float(value), 5) for value in expected.values()}) == 3
    for done, where in ((0.0, start), (0.25, start), (0.5, "R"), (0.9, "R")):
        task.done = done
        found = task.losses(torch.Generator().manual_seed(4))["l1"]
        torch.testing.assert_close(found.detach(), expected[where])


def test_cgan_without_the_registrars_gradient_takes_its_answer_as_given(recovered):
    gradients = []
    for flag in (True, False):
        task, seen = small_task("cgan", recovered[0], registrar_gradient=flag), []
        task.registrar.register_forward_hook(lambda *it, seen=seen: seen.append(it[2]))
        task.losses(torch.Generator().manual_seed(4))["loss"].backward()
        assert [velocity.requires_grad for velocity in seen] == [flag]
        gradients.append(task.generator.stem.weight.grad)
    assert not torch.allclose(*gradients)


def test_sbr_n_is_sbr_without_the_contrastive_weight(recovered, tmp_path):
    one = small_task("sbr_n", recovered[0])
    other = small_task("sbr", recovered[0], contrastive_weight=0.0)
    rows = run(one, tmp_path / "a"), run(other, tmp_path / "b")
    assert [r["loss"] for r in rows[0]] == [r["loss"] for r in rows[1]]
    before = state(other.generator)
    assert not moved(one.generator, before)
    # and the projection, which nothing is asked of, stays what it was
    assert set(rows[0][0]) == {"step", "learning_rate", "seconds", "loss", "l1"}


def test_the_registrar_of_sbr_r_learns_at_the_end_only(recovered, tmp_path):
    changed_at, smoothness = [], []
    task = small_task("sbr_r", recovered[0], steps=8, finetune_fraction=0.25)
    before, losses_of = state(task.registrar), task.losses_of

    def watch(batch, rng):
        changed_at.append(moved(task.registrar, before))
        losses, made = losses_of(batch, rng)
        contrast = losses["nce_section"] + losses["nce_plane"]
        rest = losses["loss"] - losses["l1"] - task.options.contrastive_weight * contrast
        smoothness.append(float(rest.detach()) > 1e-7)
        return losses, made

    task.losses_of = watch
    run(task, tmp_path)
    # it learns in steps 7 and 8; what step 7 changed is seen in step 8
    assert changed_at == [False] * 7 + [True]
    assert smoothness == [False] * 6 + [True] * 2
    assert moved(task.registrar, before)


def test_pairs_without_labels_add_nothing_to_nmi(recovered):
    task = small_task("nmiw", recovered[0], batch_size=1, label_weight=100.0)
    seen = {n: set() for n in range(len(SHIFTS_PX))}
    for seed in range(12):
        chosen = int(torch.randint(len(seen), (1,), generator=torch.Generator().manual_seed(seed)))
        losses = task.losses(torch.Generator().manual_seed(seed))
        of_images = task.options.smoothness * losses["roughness"] - losses["nmi"]
        seen[chosen].add(float(losses["dice"].detach()))
        torch.testing.assert_close(losses["loss"], of_images + 100 * losses["dice"])
    assert seen[1] | seen[2] | seen[3] == {0.0}  # only the first has some
    assert min(seen[0]) > 0


def test_labels_are_deformed_with_their_images():
    options = PairOptions(
        batch_size=8,
        augment=AugmentOptions(rotation_deg=3, translation_px=2, field_sigma_px=(1, 1)),
    )
    batch = shifted_pairs(options).draw(torch.Generator().manual_seed(1))
    labelled = batch.plane_labels.sum((1, 2, 3)) > 0
    assert 0 < labelled.sum() < 8
    assert torch.equal(labelled, batch.section_labels.sum((1, 2, 3)) > 0)
    there = batch.plane_labels[labelled] > 0
    assert float((batch.plane[labelled][there] > 0.5).float().mean()) > 0.95
    assert float(batch.plane[labelled][~there].max()) < 0.75
    assert set(batch.plane_labels.unique().tolist()) == {0.0, 1.0}
    assert (batch.section_labels * (1 - batch.section_tissue)).sum() == 0


@pytest.mark.parametrize("together", [True, False])
def test_section_and_plane_are_deformed_alike_only_when_asked_to(together):
    planes, masks = blobs(2)
    options = PairOptions(batch_size=2, augment_together=together, mask_dilation_px=0)
    pairs = Pairs(planes, masks, planes, masks, options=options)
    batch = pairs.draw(torch.Generator().manual_seed(3))
    assert torch.equal(batch.section, batch.plane) == together
