"""Losses by what they mean."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from sbr_core.functional.losses import gradient_smoothness, l1, lncc, masked_mean, patch_nce


@pytest.fixture
def pair():
    """Two different smooth images and a mask that leaves a border out."""
    rng = np.random.default_rng(0)
    images = [ndimage.gaussian_filter(rng.normal(size=(40, 48)), 1.5) for _ in range(2)]
    mask = torch.zeros(1, 1, 40, 48, dtype=torch.float64)
    mask[..., 6:-6, 8:-8] = 1
    return *(torch.tensor(i)[None, None] for i in images), mask


def test_lncc_of_an_image_and_itself_is_one(pair):
    f, _, mask = pair
    assert lncc(f, f, mask) == pytest.approx(1, abs=0.01)


def test_lncc_does_not_change_under_an_affine_change_of_intensity(pair):
    f, m, mask = pair
    before = lncc(f, m, mask)
    for a, b in ((3.0, 0.0), (0.01, 5.0), (-2.0, 1.0)):
        torch.testing.assert_close(lncc(a * f + b, m, mask), before, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(lncc(f, a * m + b, mask), before, rtol=1e-9, atol=1e-12)
    single = lncc((0.2 * f + 0.5).float(), m.float(), mask.float())
    assert float(single) == pytest.approx(float(before), rel=1e-3)


def test_lncc_sees_a_change_that_is_affine_only_locally(pair):
    f, m, mask = pair
    bias = 1 + 0.5 * torch.linspace(0, 1, 48, dtype=torch.float64)
    assert lncc(f, bias * f, mask) > 0.9 > lncc(f, m, mask) + 0.5


def test_lncc_does_not_look_outside_the_mask(pair):
    f, m, mask = pair
    noise = torch.rand_like(m) * (1 - mask)
    torch.testing.assert_close(lncc(f, m + noise, mask), lncc(f, m, mask))


def test_lncc_of_flat_and_of_empty_is_zero_with_finite_gradients(pair):
    f, _, mask = pair
    for moving, where in ((torch.full_like(f, 0.3), mask), (f.clone(), torch.zeros_like(mask))):
        moving.requires_grad_()
        value = lncc(f, moving, where)
        value.backward()
        assert float(value.detach()) == pytest.approx(0, abs=1e-6)
        assert torch.isfinite(moving.grad).all()


def test_lncc_equals_its_definition_at_one_pixel(pair):
    f, m, mask = pair
    one = torch.zeros_like(mask)
    one[..., 15:24, 20:29] = 1  # one window; all windows around it are cut to this mask
    window = (slice(None), slice(None), slice(15, 24), slice(20, 29))
    a, b = f[window].flatten().numpy(), m[window].flatten().numpy()
    values = []
    for r in range(9):
        for c in range(9):
            part = np.zeros((9, 9), bool)
            part[max(r - 4, 0) : r + 5, max(c - 4, 0) : c + 5] = True
            values.append(np.corrcoef(a[part.ravel()], b[part.ravel()])[0, 1] ** 2)
    assert float(lncc(f, m, one, flatness=0.0)) == pytest.approx(np.mean(values), rel=1e-6)


def test_l1_counts_only_the_mask_and_an_empty_mask_is_zero(pair):
    f, _, mask = pair
    moved = f + 0.25 * mask + 100 * (1 - mask)
    assert float(l1(f, moved, mask)) == pytest.approx(0.25)
    assert float(l1(f, moved, torch.zeros_like(mask))) == 0
    assert float(masked_mean(f, torch.zeros_like(mask))) == 0
    with pytest.raises(ValueError, match="one shape"):
        l1(f, moved, mask[..., 1:])


def test_smoothness_is_zero_for_a_shift_and_known_for_a_slope():
    field = torch.full((2, 2, 6, 7), 3.0)
    assert float(gradient_smoothness(field)) == 0
    field[:, 0] += 0.5 * torch.arange(7)  # du/dx = 0.5: mean over 2 components and 2 directions
    assert float(gradient_smoothness(field)) == pytest.approx(0.25 / 4)


def descriptors(n=32, c=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(1, n, c, generator=generator, dtype=torch.float64), dim=-1)


def test_nce_is_lowest_for_aligned_features():
    keys = descriptors()
    noise = 0.3 * descriptors(seed=1)
    aligned = patch_nce([keys], [keys])
    near = patch_nce([F.normalize(keys + noise, dim=-1)], [keys])
    moved = patch_nce([keys.roll(1, 1)], [keys])
    assert aligned < near < moved
    assert aligned < 0.01


def test_nce_of_descriptors_that_tell_nothing_is_log_n():
    same = descriptors(1).expand(1, 32, 16)
    assert float(patch_nce([same, same], [same, same])) == pytest.approx(np.log(32))


def test_nce_teaches_the_queries_only():
    query, key = descriptors(seed=1).requires_grad_(), descriptors(seed=2).requires_grad_()
    patch_nce([query], [key]).sum().backward()
    assert query.grad.abs().sum() > 0
    assert key.grad is None


def test_nce_of_nothing_is_zero():
    nothing = torch.zeros(1, 0, 16)
    assert float(patch_nce([nothing], [nothing])) == 0


def test_nce_is_that_of_each_image_and_layer_by_itself():
    """However many layers have as many places: the mean over layers, then over places."""
    shapes = [(2, 12, 8), (2, 7, 8), (2, 12, 8)]
    rng = torch.Generator().manual_seed(0)
    queries, keys = (
        [F.normalize(torch.randn(*s, generator=rng, dtype=torch.float64), dim=-1) for s in shapes]
        for _ in range(2)
    )
    found = patch_nce(queries, keys, 0.2)
    for image in range(2):
        layers = []
        for query, key in zip(queries, keys, strict=True):
            likeness = (query[image] @ key[image].T / 0.2).exp()
            layers.append(-(likeness.diag() / likeness.sum(1)).log().mean())
        torch.testing.assert_close(found[image], torch.stack(layers).mean())


def test_gradients(pair):
    f, m, mask = (t[..., 10:22, 10:20] for t in pair)
    f, m = f.clone().requires_grad_(), m.clone().requires_grad_()
    check = {"atol": 1e-8, "rtol": 1e-6}
    assert torch.autograd.gradcheck(lambda a, b: lncc(a, b, mask, 5), (f, m), **check)
    assert torch.autograd.gradcheck(lambda a, b: l1(a, b, mask), (f, m), **check)
    field = torch.rand(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gradient_smoothness, (field,), **check)
    query, key = descriptors(6, 4, 1).requires_grad_(), descriptors(6, 4, 2)
    assert torch.autograd.gradcheck(lambda q: patch_nce([q], [key]), (query,), **check)
