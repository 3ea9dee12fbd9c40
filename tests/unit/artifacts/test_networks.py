"""Networks from weights files: what is in the file is what its header says, or is refused."""

from __future__ import annotations

import time

import pytest
import torch
from safetensors.torch import load_file

from sbr_core.artifacts.networks import load_method, load_registrar, weights_header
from sbr_core.config import RegistrarOptions, SbrOptions
from sbr_core.errors import WeightsError
from sbr_core.io.weights import load_weights, read_header, save_weights
from sbr_core.nn.generator import Generator
from sbr_core.nn.registrar import UNetRegistrar

CHANNELS = {"encoder_channels": [2, 4], "decoder_channels": [4, 2]}


@pytest.fixture
def registrar(tmp_path):
    """(path, network) of a small registrar."""
    network = UNetRegistrar(**CHANNELS, squaring_steps=3)
    header = weights_header(
        "registrar",
        {"network": "unet", **CHANNELS, "squaring_steps": 3},
        RegistrarOptions(),
        working_pixel_mm=None,
        stain="",
        fingerprint="",
        revision=1,
    )
    path = tmp_path / "r.safetensors"
    save_weights(path, network.state_dict(), header)
    return path, network


@pytest.fixture
def method(tmp_path):
    """Path of the weights of a method with a small generator."""
    header = weights_header(
        "method",
        {"generator": {"channels": 1, "residual_blocks": 1}},
        SbrOptions(),
        working_pixel_mm=1.0,
        stain="",
        fingerprint="",
        revision=1,
        registers="synthesised",
        synthesis_rim_px=0,
        medium_share=0.5,
        medium_margin_px=2,
        channels=["grey"],
    )
    network = Generator(channels=1, residual_blocks=1)
    path = tmp_path / "m.safetensors"
    save_weights(path, {f"generator.{k}": v for k, v in network.state_dict().items()}, header)
    return path


def edited(path, place, value):
    """The file with one value of its header replaced."""
    tensors, header = load_file(path), read_header(path)
    part = header
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    save_weights(path, tensors, header)


def test_a_registrar_comes_back(registrar):
    path, network = registrar
    loaded, header = load_registrar(path)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor)
    assert header["architecture"]["encoder_channels"] == CHANNELS["encoder_channels"]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("architecture", "encoder_channels"), [1] * 10**6),
        (("architecture", "encoder_channels"), [2**40, 4]),
        (("architecture", "encoder_channels"), [10**30, 4]),
        (("architecture", "encoder_channels"), [4, 2]),
        (("architecture", "encoder_channels"), [[2], 4]),
        (("architecture", "squaring_steps"), 10**7),
        (("architecture", "network"), ["unet"]),
        (("architecture",), 7),
        (("preprocessing", "low_quantile"), "a hundredth"),
        (("preprocessing", "low_quantile"), float("nan")),
        (("preprocessing", "padding_multiple"), 0),
        (("preprocessing", "padding_multiple"), 10**9),
        (("preprocessing", "working_pixel_mm"), -1.0),
        (("preprocessing",), [1]),
        (("preprocessing",), 3),
        (("stain",), {"a": 1}),
    ],
)
def test_a_header_that_is_damaged_or_not_of_its_tensors_is_refused_at_once(registrar, place, value):
    path, _ = registrar
    edited(path, place, value)
    began = time.monotonic()
    with pytest.raises(WeightsError) as refused:
        load_registrar(path)
    assert str(path) in str(refused.value)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("architecture", "generator", "residual_blocks"), 10**7),
        (("architecture", "generator", "channels"), 10**6),
        (("architecture", "generator"), 1),
        (("preprocessing", "registers"), "nothing"),
        (("preprocessing", "medium_share"), 2),
        (("preprocessing", "working_pixel_mm"), None),
    ],
)
def test_a_methods_header_that_is_damaged_is_refused_at_once(method, place, value):
    assert load_method(method)[1] is not None
    edited(method, place, value)
    with pytest.raises(WeightsError, match=str(method)):
        load_method(method)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_by_name(registrar, value):
    path, network = registrar
    tensors, header = network.state_dict(), read_header(path)
    tensors["velocity.bias"][1] = value
    save_weights(path, tensors, header)
    with pytest.raises(WeightsError, match=r"velocity\.bias has values that are not finite"):
        load_weights(path)
