"""Stain deconvolution: mixtures of dyes whose amounts are known, photographed by Beer's law."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.color import rgb2gray, rgb_from_hed

from sbr_core.algorithms.staining import (
    STAINS,
    amounts,
    find_channel,
    is_coloured,
    luminance,
    named_stain,
    optical_density,
)

SHAPE = (150, 200)
HAEMATOXYLIN, EOSIN, DAB = rgb_from_hed / np.linalg.norm(rgb_from_hed, axis=1, keepdims=True)
VIOLET = np.array([0.51, 0.78, 0.36])  # cresyl violet absorbs green most
BLUE = np.array([0.74, 0.60, 0.27])
BLACK = np.array([0.56, 0.58, 0.59])  # silver
WHITE = np.array([0.96, 0.93, 0.97])


def _tissue():
    """Where tissue is, and where in it white matter."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return [
        ((rows - 75) / height) ** 2 + ((columns - 100) / width) ** 2 < 1
        for height, width in ((58, 80), (32, 50))
    ]


def _amount(grey, white, seed):
    """(rows, columns) of a dye: so much in grey and in white matter, with texture of its own."""
    tissue, inside = _tissue()
    texture = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 1.5) * 5
    amount = np.where(inside, white, grey) * tissue * np.clip(1 + 0.3 * texture, 0.1, None)
    return ndimage.gaussian_filter(amount, 0.7)


def _photographed(dyes, noise=0.003, bits=8):
    density = sum(amount[..., None] * vector for vector, amount in dyes)
    picture = WHITE * 10**-density
    picture = picture + np.random.default_rng(9).normal(scale=noise, size=picture.shape)
    top = 2**bits - 1
    return (np.round(np.clip(picture, 0, 1) * top) / top).astype(np.float32)


H_AND_E = [(HAEMATOXYLIN, _amount(0.5, 0.25, 0)), (EOSIN, _amount(0.3, 0.5, 1))]
H_DAB = [(HAEMATOXYLIN, _amount(0.4, 0.2, 2)), (DAB, _amount(0.35, 0.05, 3))]


def test_amounts_of_two_dyes_are_recovered_exactly():
    rng = np.random.default_rng(0)
    true = rng.random((20, 3))
    third = np.cross(HAEMATOXYLIN, EOSIN)
    third /= np.linalg.norm(third)
    density = true @ np.stack([HAEMATOXYLIN, EOSIN, third])
    # vectors of any length: the unit of amount is a unit vector
    np.testing.assert_allclose(amounts(density, 3 * HAEMATOXYLIN, EOSIN), true, atol=1e-6)


def test_density_follows_beers_law_and_is_bounded_in_black():
    light = (WHITE * 10 ** -np.array([0.0, 0.4, 1.3])[:, None]).astype(np.float32)
    density = optical_density(light[None], WHITE)[0]
    np.testing.assert_allclose(density, np.array([[0.0], [0.4], [1.3]]).repeat(3, 1), atol=1e-5)
    assert np.isfinite(optical_density(np.zeros((1, 1, 3)), WHITE)).all()


@pytest.mark.parametrize(
    ("stain", "dyes", "index"),
    [("h&e", H_AND_E, 0), ("hematoxylin", H_DAB, 0), ("dab", H_DAB, 1)],
)
def test_a_channel_shows_its_dye_and_nothing_of_the_other(stain, dyes, index):
    channel, _ = find_channel(_photographed(dyes), stain)
    np.testing.assert_allclose(channel.white, WHITE, atol=0.005)
    deep = ndimage.binary_erosion(_tissue()[0], iterations=3)
    signal = channel.signal(_photographed(dyes))[deep]
    both = np.stack([amount[deep] for _, amount in dyes] + [np.ones(deep.sum())], axis=-1)
    slopes = np.linalg.lstsq(both, signal, rcond=None)[0]
    expected = np.zeros(2)
    expected[index] = 1
    np.testing.assert_allclose(slopes[:2], expected, atol=0.02)
    assert abs(channel.signal(_photographed(dyes))[:10].mean()) < 0.002


@pytest.mark.parametrize("vector", [VIOLET, BLUE, BLACK])
@pytest.mark.parametrize("stain", ["nissl", "myelin"])
def test_a_single_dye_is_linear_in_its_amount_whatever_its_colour(vector, stain):
    amount = _amount(0.6, 0.25, 4)
    picture = _photographed([(vector, amount)])
    channel, _ = find_channel(picture, stain)
    deep = ndimage.binary_erosion(_tissue()[0], iterations=3)
    signal = channel.signal(picture)[deep]
    assert np.corrcoef(signal, amount[deep])[0, 1] > 0.995
    assert np.median(signal / amount[deep]) == pytest.approx(vector.mean(), rel=0.02)


@pytest.mark.parametrize(
    ("dyes", "stain"),
    [
        (H_AND_E, "h&e"),
        (H_DAB, "hematoxylin"),
        ([(VIOLET, _amount(0.6, 0.25, 5))], "nissl"),
        ([(BLUE, _amount(0.2, 0.7, 6))], "nissl"),  # one dye is taken alike, whatever its name
    ],
)
def test_auto_tells_stains_by_their_colours(dyes, stain):
    assert find_channel(_photographed(dyes))[0].stain == stain


def test_colours_on_black_are_fluorescence():
    amount = _amount(0.3, 0.1, 7)
    picture = np.stack([0.02 + amount * v for v in (0.1, 1.0, 0.3)], axis=-1)
    picture += np.random.default_rng(0).normal(scale=0.003, size=picture.shape)
    channel, noise = find_channel(picture.astype(np.float32))
    assert (channel.stain, channel.polarity) == ("fluorescence", "dark_background")
    signal = channel.signal(picture.astype(np.float32))
    deep = ndimage.binary_erosion(_tissue()[0], iterations=3)
    np.testing.assert_allclose(signal[deep], amount[deep] * 1.4 / 3, atol=0.01)
    assert 0.0005 < noise < 0.01


def test_fluorescence_that_fills_the_picture_is_dark_where_it_says_so():
    bright = np.full(SHAPE, 0.8, np.float32)
    bright[60:90, 80:120] = 0.05  # a ventricle
    assert find_channel(bright, "fluorescence")[0].polarity == "dark_background"
    assert find_channel(bright)[0].polarity == "bright_background"


@pytest.mark.parametrize("stain", ["auto", *STAINS])
def test_a_grey_picture_is_taken_as_it_is(stain):
    """Three equal planes too; there are no colours to go by, whatever the stain is called."""
    grey = luminance(_photographed(H_AND_E))
    polarity = "bright_background"
    plain, _ = find_channel(grey, stain, polarity)
    threefold, _ = find_channel(np.stack([grey] * 3, axis=-1), stain, polarity)
    assert (plain.stain, threefold.stain) == ("grey", "grey")
    np.testing.assert_allclose(plain.signal(grey), plain.background - grey, atol=1e-6)
    np.testing.assert_allclose(
        threefold.signal(np.stack([grey] * 3, axis=-1)), plain.signal(grey), atol=1e-5
    )
    assert not is_coloured(np.stack([grey] * 3, axis=-1))


def test_the_same_channel_holds_at_another_resolution_and_depth():
    picture = _photographed(H_AND_E)
    channel, _ = find_channel(picture)
    coarse = picture.reshape(75, 2, 100, 2, 3).mean(axis=(1, 3))
    fine = channel.signal(picture).reshape(75, 2, 100, 2).mean(axis=(1, 3))
    deep = ndimage.binary_erosion(_tissue()[0][::2, ::2], iterations=3)
    np.testing.assert_allclose(channel.signal(coarse)[deep], fine[deep], atol=0.02)
    deeper, _ = find_channel(_photographed(H_AND_E, bits=16))
    np.testing.assert_allclose(deeper.white, channel.white, atol=0.003)


def test_all_dyes_together_make_the_tissue_for_masks():
    """DAB alone would leave out what is counterstained only."""
    dyes = [(HAEMATOXYLIN, _amount(0.4, 0.3, 2)), (DAB, _amount(0.0, 0.4, 3))]
    picture = _photographed(dyes)
    channel, noise = find_channel(picture, "dab")
    grey_matter = ndimage.binary_erosion(_tissue()[0] & ~_tissue()[1], iterations=3)
    assert np.median(channel.signal(picture)[grey_matter]) < 0.02
    assert np.quantile(channel.tissue(picture)[grey_matter], 0.01) > 10 * noise


@pytest.mark.parametrize("coloured", [False, True])
def test_padding_around_a_slide_is_no_tissue(coloured):
    picture = _photographed(H_AND_E)
    picture = picture if coloured else luminance(picture)
    padded = np.zeros((200, 280, *picture.shape[2:]), np.float32)
    padded[20:170, 40:240] = picture
    (own, _), (channel, _) = find_channel(picture), find_channel(padded)
    assert channel.padding == 0 and own.padding is None
    assert (channel.stain, channel.polarity) == (own.stain, own.polarity)
    signal = channel.signal(padded)
    assert np.abs(signal[:15]).max() == 0
    np.testing.assert_allclose(signal[20:170, 40:240], own.signal(picture), atol=0.02)


def test_luminance_is_what_reading_a_section_gives(tmp_path):
    from sbr_core.io.images import read_picture, read_section, write_png

    path = tmp_path / "a.png"
    write_png(path, np.round(_photographed(H_AND_E) * 255).astype(np.uint8))
    np.testing.assert_allclose(luminance(read_picture(path)), read_section(path), atol=1e-6)
    np.testing.assert_allclose(rgb2gray(read_picture(path)), read_section(path), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "stain"),
    [
        ("Nissl", "nissl"),
        ("simulated Nissl", "nissl"),
        ("H&E", "h&e"),
        ("HE", "h&e"),
        ("Haematoxylin", "hematoxylin"),
        ("DAB (parvalbumin)", "dab"),
        ("", None),
        ("cresyl violet", None),
        ("Nissl or myelin", None),
    ],
)
def test_a_manifests_stain_is_understood_or_left(text, stain):
    assert named_stain(text) == stain


def test_an_unknown_stain_is_refused():
    with pytest.raises(ValueError, match="stain 'pink'"):
        find_channel(np.zeros((20, 20)), "pink")
