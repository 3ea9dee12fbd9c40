"""Refinement of a velocity: towards the truth, for each image by itself."""

import torch

from sbr_core.config import InferOptions
from sbr_core.functional.warp import warp
from sbr_core.nn.registrar import UNetRegistrar
from sbr_core.training.refine import refine

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


def refined(registrar, fixed, moving, masks, steps=60, start=None):
    if start is None:
        start = torch.zeros(len(fixed), 2, SHAPE[0] // 2, SHAPE[1] // 2)
    return refine(
        registrar,
        start,
        fixed,
        moving,
        masks,
        InferOptions(refine_steps=steps, refine_smoothness=1.0, refine_window_px=9),
    )


def test_a_shift_is_found_from_nothing():
    image, disc = blobs(0)
    registrar = UNetRegistrar()
    velocity = refined(registrar, shifted(image, 2.0), image, disc)
    disp = registrar.displacement(velocity, SHAPE)
    inside = disc[0, 0] > 0
    assert abs(float(disp[0, 0][inside].mean()) - 2.0) < 0.2
    assert abs(float(disp[0, 1][inside].mean())) < 0.2


def test_images_that_agree_stay_where_they_are():
    image, disc = blobs(1)
    registrar = UNetRegistrar()
    disp = registrar.displacement(refined(registrar, image, image.clone(), disc), SHAPE)
    assert float(disp.norm(dim=1)[0][disc[0, 0] > 0].mean()) < 0.1


def test_a_section_is_refined_alike_alone_and_in_company():
    (a, disc), (b, _) = blobs(2), blobs(3)
    registrar = UNetRegistrar()
    alone = refined(registrar, shifted(a, 1.0), a, disc, steps=5)
    both = refined(
        registrar,
        torch.cat((shifted(a, 1.0), shifted(b, -2.0))),
        torch.cat((a, b)),
        torch.cat((disc, disc)),
        steps=5,
    )
    assert torch.equal(both[:1], alone)


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
        found.append(refined(registrar, *images, steps=30, start=start))
    small, large = found
    torch.testing.assert_close(large[..., 16:-16, 16:-16], small)
    assert small.abs().max() > 0.5
    assert large[..., 0, :].abs().max() == 0
    changed = (large[0] != 0).any(0).nonzero()
    edge = large[0, :, int(changed[:, 0].min()), :]  # the first row of the box
    assert edge.abs().max() < 0.1 * large.abs().max()
