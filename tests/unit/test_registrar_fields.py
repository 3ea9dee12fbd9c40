"""The benchmark of known fields measures what it says."""

import importlib.util

import pytest
import torch


@pytest.fixture
def script(repository, monkeypatch):
    monkeypatch.syspath_prepend(repository / "benchmarks")
    spec = importlib.util.spec_from_file_location(
        "registrar_fields", repository / "benchmarks" / "registrar_fields.py"
    )
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


class Answers:
    """A registrar that gives the same share of the truth whatever it is shown."""

    def __init__(self, fields_px, share):
        self.fields_px, self.share, self.asked = fields_px, share, 0

    def __call__(self, fixed, moving):
        start, self.asked = self.asked, self.asked + len(fixed)
        return self.share * self.fields_px[start : self.asked]

    def displacement(self, velocity, shape):
        return velocity


@pytest.fixture
def planes():
    masks = torch.zeros(10, 1, 48, 40)
    masks[..., 10:38, 8:32] = 1.0
    return torch.rand(10, 1, 48, 40, generator=torch.Generator().manual_seed(0)) * masks, masks


def test_fields_have_the_mean_length_asked_for_in_tissue(script, planes):
    _, masks = planes
    fields_px = script.known_fields(masks, 3.4, seed=0)
    lengths = fields_px.norm(dim=1, keepdim=True)
    assert (lengths * masks).sum() / masks.sum() == pytest.approx(3.4, rel=1e-5)


@pytest.mark.parametrize("share, left", [(1.0, 0.0), (0.75, 0.25), (0.0, 1.0)])
def test_error_is_what_the_registrar_left_of_the_field(script, planes, share, left):
    images, masks = planes
    fields_px = script.known_fields(masks, 1.0, seed=0)
    before, after, _ = script.recovered(Answers(fields_px, share), images, masks, fields_px)
    assert torch.allclose(after, left * before, atol=1e-6)


def test_only_a_field_that_folds_is_counted(script, planes):
    images, masks = planes
    flat = torch.zeros(10, 2, 48, 40)
    folding = flat.clone()
    folding[3, 0, 20, 20] = 2.5  # jumps over its neighbour
    assert script.recovered(Answers(flat, 1.0), images, masks, flat)[2] == 0
    assert script.recovered(Answers(folding, 1.0), images, masks, flat)[2] > 0
