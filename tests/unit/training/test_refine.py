"""Refinement of a velocity: towards the truth, for each image by itself."""

import subprocess
import sys

import pytest
import torch

from sbr_core.config import InferOptions
from sbr_core.functional.masks import dilate
from sbr_core.functional.warp import warp
from sbr_core.nn.registrar import UNetRegistrar
from sbr_core.training import refine as refine_module
from sbr_core.training.refine import Views, refine, widened

SHAPE = (64, 64)


def blobs(seed):
    """Smooth random structure inside a disc, (1, 1, H, W), and the disc."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 1, 12, 12, generator=rng)
    image = torch.nn.functional.interpolate(coarse, SHAPE, mode="bicubic", align_corners=True)
    y, x = torch.meshgrid(*(torch.arange(n) - (n - 1) / 2 for n in SHAPE), indexing="ij")
    disc = ((x**2 + y**2).sqrt() < 26).float()[None, None]
    return image.clamp(0, 1) * disc, disc


def shifted(image, pixels):
    disp = torch.zeros(1, 2, *SHAPE)
    disp[:, 0] = pixels
    return warp(image, disp)


def refined(registrar, fixed, moving, masks, steps=60, start=None, synthesised=True, **options):
    if start is None:
        start = torch.zeros(len(fixed), 2, SHAPE[0] // 2, SHAPE[1] // 2)
    views = Views(fixed, moving, moving if synthesised else None, masks, masks)
    options = {"refine_smoothness": 1.0, "refine_window_px": 9, **options}
    return refine(registrar, start, views, InferOptions(refine_steps=steps, **options))


BY = {
    "lncc": {},
    "l1": {"refine_l1_weight": 10.0},
    "coarse to fine": {"refine_levels": (2, 1)},
    "mind": {"refine_mind_weight": 10.0, "synthesised": False},
    "all": {"refine_mind_weight": 10.0, "refine_l1_weight": 10.0, "refine_levels": (2, 1)},
}


@pytest.mark.parametrize("terms", BY.values(), ids=BY)
def test_a_shift_is_found_from_nothing(terms):
    image, disc = blobs(0)
    registrar = UNetRegistrar()
    velocity = refined(registrar, shifted(image, 2.0), image, disc, **terms)
    disp = registrar.displacement(velocity, SHAPE)
    inside = disc[0, 0] > 0
    # other terms than LNCC look beyond the mask, where a shifted disc is not the disc
    within = 0.3 if terms else 0.2
    assert abs(float(disp[0, 0][inside].mean()) - 2.0) < within
    assert abs(float(disp[0, 1][inside].mean())) < within


def test_self_similarity_finds_a_shift_between_opposite_contrasts():
    image, disc = blobs(0)
    registrar = UNetRegistrar()
    opposite = shifted((0.9 - 0.8 * image) * disc, 2.0)
    velocity = refined(registrar, opposite, image, disc, **BY["mind"])
    disp = registrar.displacement(velocity, SHAPE)
    assert abs(float(disp[0, 0][disc[0, 0] > 0].mean()) - 2.0) < 0.3


@pytest.mark.parametrize("terms", BY.values(), ids=BY)
def test_images_that_agree_stay_where_they_are(terms):
    image, disc = blobs(1)
    registrar = UNetRegistrar()
    disp = registrar.displacement(refined(registrar, image, image.clone(), disc, **terms), SHAPE)
    assert float(disp.norm(dim=1)[0][disc[0, 0] > 0].mean()) < 0.1


def test_a_plane_cut_to_its_tissue_has_no_rim():
    uncut, cut = (dilate(blobs(0)[1], 3), blobs(0)[1])
    assert torch.equal(widened(uncut, cut, cut, 4), cut)
    assert torch.equal(widened(uncut, uncut, uncut, 4), dilate(uncut, 4))


def test_what_sticks_out_of_the_outline_is_drawn_in():
    _, disc = blobs(0)
    larger = dilate(disc, 3)
    registrar = UNetRegistrar()
    wide = Views(disc, larger, larger, disc, dilate(disc, 6))
    narrow = Views(disc, larger, larger, disc, disc)
    out = {}
    for name, views in (("wide", wide), ("narrow", narrow)):
        options = InferOptions(refine_steps=60, refine_l1_weight=10.0, refine_smoothness=1.0)
        velocity = refine(registrar, torch.zeros(1, 2, 32, 32), views, options)
        moved = warp(larger, registrar.displacement(velocity, SHAPE))
        out[name] = float((moved * (1 - disc)).sum())
    assert out["wide"] < 0.6 * out["narrow"]


@pytest.mark.parametrize("together", [1, 2])
def test_a_section_is_refined_alike_alone_and_in_company(together, monkeypatch):
    (a, disc), (b, _) = blobs(2), blobs(3)
    registrar = UNetRegistrar()
    monkeypatch.setattr(refine_module, "sections_together", lambda velocity: together)
    small = disc * (torch.arange(SHAPE[1]) < 40)  # whose box is a smaller one, at both levels
    sections = (
        torch.cat((shifted(a, 1.0), shifted(b, -2.0) * small)),
        torch.cat((a, b * small)),
        torch.cat((disc, small)),
    )
    sections = [torch.nn.functional.pad(t, (80,) * 4) for t in sections]
    # at zero, the kinks of linear interpolation make rounding errors large
    start = torch.full((2, 2, *(n // 2 for n in sections[0].shape[-2:])), 0.013)
    both = refined(registrar, *sections, steps=5, start=start, **BY["all"])
    for i in range(2):
        one = slice(i, i + 1)
        alone = refined(
            registrar, *(t[one] for t in sections), steps=5, start=start[one], **BY["all"]
        )
        # Adam turns the signs of gradients near 0, and so rounding, into steps
        torch.testing.assert_close(both[one], alone, atol=0.02 * (together - 1), rtol=0)


def test_the_registrar_and_the_start_are_left_alone():
    image, disc = blobs(4)
    registrar = UNetRegistrar()
    before = {k: v.clone() for k, v in registrar.state_dict().items()}
    start = torch.zeros(1, 2, SHAPE[0] // 2, SHAPE[1] // 2)
    velocity = refined(registrar, shifted(image, 1.0), image, disc, steps=3, start=start)
    assert velocity.any()
    assert not start.any()
    assert all(torch.equal(v, before[k]) for k, v in registrar.state_dict().items())


def test_more_empty_background_changes_nothing_and_no_crease_is_left():
    image, disc = blobs(5)
    fixed, registrar = shifted(image, 2.0), UNetRegistrar()
    found = []
    for pad in (48, 80):
        # at an odd place, so that the box has to be brought onto the half grid
        sides = (pad + 1, pad - 1, pad + 1, pad - 1)
        images = [torch.nn.functional.pad(t, sides) for t in (fixed, image, disc)]
        side = SHAPE[0] + 2 * pad
        start = torch.zeros(1, 2, side // 2, side // 2)
        found.append(refined(registrar, *images, steps=30, start=start, **BY["all"]))
    small, large = found
    torch.testing.assert_close(large[..., 16:-16, 16:-16], small)
    assert small.abs().max() > 0.5
    assert large[..., 0, :].abs().max() == 0
    changed = (large[0] != 0).any(0).nonzero()
    edge = large[0, :, int(changed[:, 0].min()), :]  # the first row of the box
    assert edge.abs().max() < 0.1 * large.abs().max()


def test_the_steps_are_those_of_torchs_adam():
    rng = torch.Generator().manual_seed(0)
    start, gradients = torch.randn(3, 4, generator=rng), torch.randn(6, 3, 4, generator=rng)
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    adam, optimiser = refine_module._Adam(ours), torch.optim.Adam([theirs], lr=0.3)
    for gradient in gradients:
        adam.step(gradient, 0.3)
        theirs.grad = gradient
        optimiser.step()
    torch.testing.assert_close(ours, theirs)


def test_weighted_squares_and_their_gradient():
    rng = torch.Generator().manual_seed(0)
    found, wanted = torch.rand(2, 2, 3, 4, 5, generator=rng, dtype=torch.float64)
    weights = torch.rand(2, 1, 4, 5, generator=rng, dtype=torch.float64)
    apart = refine_module._Squares.apply
    torch.testing.assert_close(
        apart(found, wanted, weights), (weights * (found - wanted) ** 2).sum()
    )
    assert torch.autograd.gradcheck(lambda f: apart(f, wanted, weights), (found.requires_grad_(),))


def test_loading_and_refining_do_without_torchs_compiler(tmp_path):
    """Importing it takes two seconds of every job."""
    script = """
import sys
import torch
from sbr_core.artifacts.names import SHIPPED_REGISTRAR
from sbr_core.artifacts.networks import _built, load_registrar
from sbr_core.config import InferOptions
from sbr_core.nn.generator import Generator
from sbr_core.training.refine import Views, refine
registrar, _ = load_registrar(SHIPPED_REGISTRAR)
small = {"channels": 2, "residual_blocks": 1}
_built("small", Generator, small, Generator(**small).state_dict())
image = torch.rand(1, 1, 32, 32)
views = Views(image, image.flip(3), image, *[torch.ones_like(image)] * 2)
options = InferOptions(refine_steps=2, refine_mind_weight=1.0, refine_l1_weight=1.0)
refine(registrar, torch.zeros(1, 2, 16, 16), views, options)
sys.exit("torch._dynamo" in sys.modules or "sympy" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
