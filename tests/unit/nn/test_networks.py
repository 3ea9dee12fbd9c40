"""The networks' sizes, symmetries and shapes."""

import pytest
import torch
import torch.nn.functional as F

from sbr_core.nn.generator import Blur, Generator, instance_norm
from sbr_core.nn.projection import Projection
from sbr_core.nn.registrar import (
    NETWORKS,
    PyramidRegistrar,
    UNetRegistrar,
    build_registrar,
    correlation,
)

SMALL = {
    "unet": {"encoder_channels": (4, 4, 4), "decoder_channels": (4, 4, 4)},
    "pyramid": {"encoder_channels": (4, 4, 4), "estimator_channels": (4, 4, 4)},
}


def small_registrar(network, *, velocity_std=1e-5):
    """One of the networks with few channels, its velocity layers as strong as asked for."""
    torch.manual_seed(0)
    registrar = build_registrar(network, **SMALL[network])
    layers = [registrar.velocity] if network == "unet" else [e[-1] for e in registrar.estimators]
    for layer in layers:
        torch.nn.init.normal_(layer.weight, std=velocity_std)
    return registrar


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_as_many_parameters_as_published():
    assert parameters(UNetRegistrar()) == pytest.approx(0.34e6, rel=0.02)
    assert parameters(Generator()) == pytest.approx(7.86e6, rel=0.002)


@pytest.mark.parametrize("network", NETWORKS)
def test_an_untrained_registrar_is_nearly_the_identity(network):
    torch.manual_seed(0)
    registrar = build_registrar(network)
    velocity = registrar(torch.rand(2, 1, 64, 128), torch.rand(2, 1, 64, 128))
    assert velocity.shape == (2, 2, 32, 64)
    disp = registrar.displacement(velocity, (64, 128))
    assert disp.shape == (2, 2, 64, 128)
    assert disp.abs().max() < 0.1


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("shape", [(20, 26), (64, 64), (66, 130)])
def test_any_even_size_is_padded_inside_the_registrar_and_keeps_its_place(network, shape):
    registrar = small_registrar(network, velocity_std=0.3)
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(2, 1, *shape, generator=generator)
    with torch.no_grad():
        small = registrar(*image.split(1))
        # the same images in the middle of zeros that are already a multiple of the network's
        top, left = (-n % 8 // 4 * 2 for n in shape)
        padded = F.pad(image, (left, -shape[1] % 8 - left, top, -shape[0] % 8 - top))
        large = registrar(*padded.split(1))
    inside = large[..., top // 2 :, left // 2 :][..., : shape[0] // 2, : shape[1] // 2]
    torch.testing.assert_close(small, inside)
    with pytest.raises(ValueError, match="even sides"):
        registrar(torch.zeros(1, 1, 21, 26), torch.zeros(1, 1, 21, 26))


def test_encoder_and_decoder_need_the_same_number_of_levels():
    with pytest.raises(ValueError, match="levels"):
        UNetRegistrar((8, 8), (8,))
    with pytest.raises(ValueError, match="levels"):
        PyramidRegistrar((8, 8), (8,))


@pytest.mark.parametrize("network", NETWORKS)
def test_a_registrar_treats_each_pair_of_a_batch_by_itself(network):
    registrar = small_registrar(network, velocity_std=0.3)
    fixed, moving = torch.rand(2, 3, 1, 40, 24, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        together = registrar(fixed, moving)
        for at in range(3):
            alone = registrar(fixed[at : at + 1], moving[at : at + 1])
            torch.testing.assert_close(together[at : at + 1], alone, atol=1e-5, rtol=1e-4)


def test_a_registrar_is_built_by_the_name_of_its_network():
    registrar = build_registrar(
        "pyramid", encoder_channels=(4, 8), estimator_channels=(6, 4), radius_px=1
    )
    assert isinstance(registrar, PyramidRegistrar)
    assert registrar.estimators[1][0].in_channels == 2 * 8 + 9 + 2
    with pytest.raises(ValueError, match="unet, pyramid"):
        build_registrar("transformer")


def test_correlation_peaks_at_the_offset_between_two_images():
    a = torch.randn(1, 16, 12, 12, generator=torch.Generator().manual_seed(0))
    b = a.roll((1, -2), (2, 3))  # a(p) is found in b at p + (dy 1, dx -2)
    found = correlation(a, b, 2)[0, :, 4:8, 4:8]
    at = (1 + 2) * 5 + (-2 + 2)
    assert (found.argmax(0) == at).all()
    torch.testing.assert_close(found[at], torch.ones(4, 4))


def correlation_by_torch(a, b, radius_px):
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    padded, offsets = F.pad(b, (radius_px,) * 4), range(2 * radius_px + 1)
    rows, columns = a.shape[-2:]
    shifted = [padded[..., dy : dy + rows, dx : dx + columns] for dy in offsets for dx in offsets]
    return torch.cat([(a * other).sum(1, keepdim=True) for other in shifted], 1)


@pytest.mark.parametrize("radius_px", [1, 2])
def test_the_gradient_of_the_correlation_is_that_of_its_values(radius_px):
    rng = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64, generator=rng)
    for fixed, moving in ((True, True), (True, False), (False, True)):
        inputs = a.clone().requires_grad_(fixed), b.clone().requires_grad_(moving)
        assert torch.autograd.gradcheck(lambda x, y: correlation(x, y, radius_px), inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_correlation_is_as_torch_would_compute_and_differentiate_it(dtype):
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 2, 16, 12, 10, generator=rng).to(dtype)
    inputs[:, :, :, 3, 4] = 0  # without any direction
    weights = torch.randn(2, 25, 12, 10, generator=rng)
    found = []
    for function in (correlation, correlation_by_torch):
        a, b = (t.clone().requires_grad_() for t in inputs)
        out = function(a, b, 2)
        (out * weights).sum().backward()
        found.append((out, a.grad, b.grad))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    return Generator(4, 3)


def test_the_generator_gives_an_image_in_range(generator):
    image = torch.rand(2, 1, 32, 48)
    out = generator(image)
    assert out.shape == image.shape
    assert 0 <= out.min() <= out.max() <= 1
    with pytest.raises(ValueError, match="multiples of 8"):
        generator(image[..., 1:])


def test_features_come_from_the_named_layers_in_the_order_asked_for(generator):
    image = torch.rand(2, 1, 32, 48)
    features = generator.encode(image)
    for feature, channels, stride in zip(
        features, generator.layer_channels, generator.layer_strides, strict=True
    ):
        assert feature.shape == (2, channels, 32 // stride, 48 // stride)
    torch.testing.assert_close(features[0], image)
    some = generator.encode(image, (3, 1))
    torch.testing.assert_close(some[0], features[3])
    torch.testing.assert_close(some[1], features[1])


def test_synthesis_and_features_in_one_pass_are_those_of_two(generator):
    image = torch.rand(1, 1, 32, 32)
    out, features = generator.synthesise(image)
    torch.testing.assert_close(out, generator(image))
    for one, two in zip(features, generator.encode(image), strict=True):
        torch.testing.assert_close(one, two)


def test_features_are_computed_no_further_than_asked_for(generator):
    calls = []
    hooks = [b.register_forward_hook(lambda *_: calls.append(1)) for b in generator.blocks]
    generator.encode(torch.rand(1, 1, 32, 32), (0, 3))
    assert not calls
    generator.encode(torch.rand(1, 1, 32, 32), (4,))
    assert len(calls) == 1
    for hook in hooks:
        hook.remove()


def test_a_batch_is_the_same_as_its_images_one_by_one(generator):
    images = torch.rand(3, 1, 32, 32)
    together = generator(images)
    for image, out in zip(images.split(1), together.split(1), strict=True):
        torch.testing.assert_close(generator(image), out, atol=1e-5, rtol=1e-4)


def test_the_features_of_a_shifted_image_are_shifted(generator):
    """Anti-aliased or not, 8 px is one feature pixel: place means the same in every layer."""
    image = torch.zeros(1, 1, 96, 96)
    image[..., 40:48, 40:52] = torch.rand(8, 12)
    a = generator.encode(image)[3]
    b = generator.encode(image.roll((8, 16), (2, 3)))[3]
    torch.testing.assert_close(
        a.roll((1, 2), (2, 3))[..., 4:8, 4:8], b[..., 4:8, 4:8], atol=1e-4, rtol=1e-3
    )


def test_a_feature_pixel_is_centred_on_its_image_pixel():
    """Feature (i, j) answers to a dot at pixel (stride i, stride j) symmetrically."""
    torch.manual_seed(0)
    generator = Generator(4, 1)
    for module in generator.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data.fill_(0.01)
    dot = torch.zeros(1, 1, 64, 64)
    dot[..., 32, 32] = 1
    for layer, stride in ((1, 2), (2, 4), (3, 8)):
        feature = generator.encode(dot, (layer,))[0][0, 0]
        i = 32 // stride
        torch.testing.assert_close(feature[i, i - 1], feature[i, i + 1], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(feature[i - 1, i], feature[i + 1, i], atol=1e-4, rtol=1e-3)


def test_the_blur_keeps_a_constant_and_removes_the_finest_stripes():
    blur = Blur(2)
    torch.testing.assert_close(blur(torch.full((1, 2, 8, 8), 0.7)), torch.full((1, 2, 8, 8), 0.7))
    stripes = torch.arange(8).remainder(2).float().expand(1, 2, 8, 8) - 0.5
    assert blur(stripes).abs().max() < 1e-6


def test_instance_norm_agrees_with_torch():
    x = torch.randn(3, 5, 9, 7).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(instance_norm(x), F.instance_norm(x), atol=1e-5, rtol=1e-4)


def test_descriptors_have_unit_length():
    projection = Projection((1, 6), 16)
    out = projection([torch.randn(2, 10, 1), torch.randn(2, 7, 6)])
    assert [tuple(o.shape) for o in out] == [(2, 10, 16), (2, 7, 16)]
    with torch.autocast("cpu", torch.bfloat16):  # in half precision too
        out += projection([torch.randn(2, 10, 1), torch.randn(2, 7, 6)])
    for o in out:
        torch.testing.assert_close(o.norm(dim=-1), torch.ones(o.shape[:-1]))
    with pytest.raises(ValueError, match="2 layers"):
        projection([torch.randn(2, 10, 1)])
