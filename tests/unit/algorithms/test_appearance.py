"""The look of sections, learnt from pairs whose contrast is known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr, wasserstein_distance

from sbr_core.algorithms import appearance
from sbr_core.algorithms.appearance import Look, Pair, Samples, TextureBank

SHAPE = (80, 96)
GRAIN = 0.08


def stain(mri: np.ndarray) -> np.ndarray:
    """A contrast that inverts: brighter with the MRI in the left half, darker in the right."""
    left = np.indices(mri.shape)[1] < mri.shape[1] / 2
    return np.where(left, 0.6 + 0.8 * mri, 1.4 - 0.8 * mri)


def pair(number: int, shift_px: int = 0) -> Pair:
    """A blob of tissue with blotches of MRI intensity; the section may lie off its plane."""
    rng = np.random.default_rng(number)
    y, x = np.indices(SHAPE)
    mask = ((y - 40) / 32) ** 2 + ((x - 48) / 42) ** 2 < 1
    blotches = gaussian_filter(rng.normal(size=SHAPE), 4)
    mri = np.where(mask, np.clip(0.5 + blotches * 5, 0.05, 1), 0)
    section = stain(mri) + GRAIN * rng.normal(size=SHAPE)
    section = np.where(mask, 3.0 * section, 0)
    roll = lambda image: np.roll(image, shift_px, axis=1)  # noqa: E731
    return Pair(mri.astype(np.float32), mask, roll(section).astype(np.float32), roll(mask), 0.5)


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return [pair(i) for i in range(6)]


def learn(pairs: list[Pair], without_fold: int | None = None) -> Look:
    samples, rng = Samples(), np.random.default_rng(0)
    for number, each in enumerate(pairs):
        samples.add(each, number % 2, 4000, rng)
    return Look.fit(samples, without_fold, seed=0)


@pytest.fixture(scope="module")
def look(pairs) -> Look:
    return learn(pairs)


def test_look_is_no_function_of_mri_intensity_and_inverts_where_the_stain_does(look):
    new = pair(77)
    signal, cover = look.of(new)
    tissue = (cover > 0.5) & new.mri_mask
    left = np.indices(SHAPE)[1] < 42
    right = np.indices(SHAPE)[1] > 54
    assert spearmanr(new.mri[tissue & left], signal[tissue & left])[0] > 0.8
    assert spearmanr(new.mri[tissue & right], signal[tissue & right])[0] < -0.8
    # what is left of its variance once the MRI's intensity is known
    x, y = new.mri[tissue], signal[tissue]
    bins = np.digitize(x, np.quantile(x, np.linspace(0, 1, 21)[1:-1]))
    means = np.bincount(bins, y, 20) / np.maximum(np.bincount(bins, minlength=20), 1)
    assert np.mean((y - means[bins]) ** 2) > 0.5 * y.var()


def test_look_resembles_the_section_more_than_the_mri_does(look):
    new = pair(77)
    signal, cover = look.of(new)
    signal = appearance.with_contrast_of(signal, cover > 0.5, new)
    real = new.section / new.level
    inside = new.mri_mask & (cover > 0.5)
    mri = new.mri / np.median(new.mri[inside])
    ours = wasserstein_distance(signal[inside], real[inside])
    assert ours < 0.3 * wasserstein_distance(mri[inside], real[inside])
    assert np.corrcoef(signal[inside], real[inside])[0, 1] > 0.8
    assert (cover > 0.5).sum() == pytest.approx(new.section_mask.sum(), rel=0.05)


def test_only_the_mri_of_a_pair_decides_its_look(look):
    new = pair(77)
    other = replace(new, section=np.zeros(SHAPE, np.float32), section_mask=np.zeros(SHAPE, bool))
    for ours, theirs in zip(look.of(new), look.of(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_fold_has_no_part_in_its_own_look(pairs):
    """Sections of fold 0 of another stain altogether change nothing where fold 0 is left out."""
    inverted = [
        replace(p, section=np.where(p.section_mask, 6 - p.section, 0)) if i % 2 == 0 else p
        for i, p in enumerate(pairs)
    ]
    ours, _ = learn(pairs, without_fold=0).of(pairs[0])
    np.testing.assert_array_equal(ours, learn(inverted, without_fold=0).of(pairs[0])[0])


def test_a_section_off_its_plane_is_pulled_back(look):
    off = pair(5, shift_px=3)
    near = appearance.pulled(off, *look.of(off))
    inside = off.mri_mask & near.section_mask
    on_plane = pair(5).section

    def left(each: Pair) -> float:
        return np.abs(each.section - on_plane)[inside].mean()

    assert left(near) < 0.6 * left(off)


def test_texture_has_the_grain_of_the_sections_and_none_of_its_own(pairs, look):
    bank, rng = TextureBank(), np.random.default_rng(0)
    for number, each in enumerate(pairs):
        bank.add(number, each, look.of(each)[0], rng, 200)
    new = pair(77)
    signal, cover = look.of(new)
    texture = bank.texture(99, new, signal, cover > 0.5, np.random.default_rng(1))
    deep = gaussian_filter(new.mri_mask.astype(float), 4) > 0.99
    grain = GRAIN * 3.0 / new.level
    assert 0.6 * grain < texture[deep].std() < 1.5 * grain
    # it says nothing of where the anatomy is
    assert abs(np.corrcoef(texture[deep], new.mri[deep])[0, 1]) < 0.1
    assert abs(np.corrcoef(texture[deep], new.section[deep])[0, 1]) < 0.2
    again = bank.texture(99, new, signal, cover > 0.5, np.random.default_rng(1))
    np.testing.assert_array_equal(texture, again)


def test_unevenness_is_the_spread_of_a_slow_gradient():
    even = pair(3)
    signal = stain(even.mri) / (even.level / 3.0)
    slope = np.exp(0.3 * (np.indices(SHAPE)[0] - 40) / 40).astype(np.float32)
    uneven = replace(even, section=even.section * slope)
    assert appearance.unevenness(even, signal) < 0.02
    assert 0.05 < appearance.unevenness(uneven, signal) < 0.15


def test_nothing_in_tissue_cannot_be_learnt():
    empty = replace(pair(0), section_mask=np.zeros(SHAPE, bool))
    with pytest.raises(ValueError, match="no sample lies in tissue"):
        learn([empty])
