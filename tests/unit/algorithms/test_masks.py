"""Tissue masks: drawn sections whose tissue is known, and the real ones where they are at hand."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from sbr_core.algorithms.background import find_background, padding_mask
from sbr_core.algorithms.masks import brain_mask, tissue_mask
from sbr_core.algorithms.sections import tissue_signal
from sbr_core.io.images import read_labels, read_section
from sbr_core.io.manifests import read_manifest

SHARED = Path(__file__).parents[4] / "shared" / "data"

SHAPE, PIXEL_MM, FEATURE_MM = (160, 220), 0.4, 0.8


def _disc(row, column, radius):
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def _drawn(noise=0.004, seed=0):
    """A glass-white section: two pieces of tissue, one with a ventricle; and where tissue is."""
    rng = np.random.default_rng(seed)
    tissue = (_disc(80, 70, 45) & ~_disc(80, 70, 12)) | _disc(85, 170, 20)
    image = np.full(SHAPE, 0.98)
    image[tissue] = 0.75
    image[tissue & _disc(80, 70, 30)] = 0.88  # white matter is pale
    image = ndimage.gaussian_filter(image, 0.7) + rng.normal(scale=noise, size=SHAPE)
    return image.astype(np.float32), tissue


def _found(image, polarity="auto"):
    background = find_background(image, polarity)
    signal = tissue_signal(image, background.polarity, background.level)
    return tissue_mask(signal, PIXEL_MM, FEATURE_MM, background.noise)


def _dice(a, b):
    return 2 * np.sum(a & b) / (np.sum(a) + np.sum(b))


def test_pieces_and_ventricle_are_found():
    image, tissue = _drawn()
    assert _dice(_found(image), tissue) > 0.98
    assert not _found(image)[80, 70]


@pytest.mark.parametrize("gain", [1.0, 255.0, 0.06])
def test_the_intensity_scale_does_not_matter(gain):
    image, tissue = _drawn()
    assert _dice(_found(image * np.float32(gain)), tissue) > 0.98


def test_ink_lines_labels_and_dust_are_no_tissue():
    image, tissue = _drawn()
    image[4:12, 5:9] = 0.1  # letters in a corner
    image[4:12, 12:16] = 0.1
    image[60:75, 198:212] = 0.05  # a stain of ink in the open
    image[:, 140] = 0.5  # a scanner's line across the slide
    image[-2:, :] = 0.6  # edge of the slide
    image[130:133, 200:203] = 0.7  # dust
    image[145:155, 30:60] = 0.95  # a faint smear
    mask = _found(image)
    line = np.abs(np.arange(SHAPE[1]) - 140) < 3
    assert _dice(mask & ~line, tissue & ~line) > 0.97
    extra = mask & ~ndimage.binary_dilation(tissue, iterations=2)
    assert not extra.any()


def test_a_dark_frame_around_the_slide_is_no_tissue():
    image, tissue = _drawn()
    wide, tissue = np.pad(image, 14, constant_values=0.98), np.pad(tissue, 14)
    wide[:12], wide[:, -13:] = 0.15, 0.3
    wide[60:120, :11] = 0.2  # a side that is dark in part only is none
    mask = _found(ndimage.gaussian_filter(wide, 0.6))
    assert _dice(mask[:, 12:], tissue[:, 12:]) > 0.97


def test_writing_across_the_tissue_leaves_pale_tissue_in():
    image, tissue = _drawn()
    for row in (60, 90):
        image[row : row + 5, 15:150] = 0.03
    mask = _found(image)
    pale = _disc(80, 70, 28) & tissue & (image > 0.5)
    assert mask[pale].mean() > 0.97


def _littered():
    """A section with everything on the slide that is no tissue; and where tissue is."""
    rng = np.random.default_rng(4)
    image, tissue = _drawn(noise=0.0)
    crack = np.abs(np.arange(SHAPE[0])[:, None] - 45 - 0.3 * np.arange(SHAPE[1])[None, :]) < 2.5
    crack = crack & _disc(80, 70, 46)
    pale, dark = _disc(25, 175, 12), _disc(135, 185, 11)
    tissue = (tissue & ~crack) | pale | dark
    image[crack] = 0.98
    image[pale] = 0.98 - 0.4 * 0.23  # a piece that took little stain
    image[dark] = 0.98 - 1.5 * 0.23  # a piece of cortex alone, beside one with white matter
    bubble = _disc(120, 125, 13) & ~_disc(120, 125, 10)
    image[bubble] = 0.6
    image[:26, :24] = 0.93  # a paper label
    image[6:20, 6:18][::3] = 0.1  # and its print
    for column in (196, 203, 209):
        image[52:64, column : column + 3] = 0.05  # letters in ink
    image[:, 218:] = 0.55  # edge of the slide
    image[155, :] = 0.5  # edge of the cover glass, near the border
    image[30:33, 110:] = np.minimum(image[30:33, 110:], 0.8)  # and one farther in
    image[30:33][:, pale[31]] = 0.98 - 0.4 * 0.23
    image = ndimage.gaussian_filter(image, 0.6) + rng.normal(scale=0.004, size=SHAPE)
    return image.astype(np.float32), tissue, {"bubble": bubble}


def test_what_lies_on_the_slide_is_left_out_and_every_piece_kept():
    image, tissue, _ = _littered()
    mask = _found(image)
    assert _dice(mask, tissue) > 0.97
    near = ndimage.binary_dilation(tissue, iterations=2)
    near[28:35] = True  # the line that crosses the pale piece
    assert not (mask & ~near).any()
    for piece in (_disc(25, 175, 10), _disc(135, 185, 9), _disc(85, 170, 18)):
        assert mask[piece].mean() > 0.99


def test_a_crack_is_no_tissue_and_both_its_sides_are():
    image, tissue, _ = _littered()
    mask = _found(image)
    crack = _disc(80, 70, 40) & ~_disc(80, 70, 14) & ~tissue
    middle = ndimage.distance_transform_edt(crack) >= 2
    assert middle.sum() > 50 and mask[middle].mean() < 0.05


def test_a_ring_of_tissue_is_no_bubble():
    image = np.full(SHAPE, 0.98, np.float32)
    tissue = _disc(80, 70, 45) | (_disc(85, 170, 24) & ~_disc(85, 170, 13))
    image[tissue] = 0.75
    assert _dice(_found(image), tissue) > 0.98


def test_pale_tissue_in_a_cut_out_section_is_no_hole():
    """Published sections come cut out on black: then the darkest stain, near black, is tissue."""
    image = np.zeros(SHAPE, np.float32)
    tissue = _disc(80, 100, 60)
    image[tissue] = 0.6
    image[_disc(80, 100, 25) & ~_disc(80, 100, 18)] = 0.08  # 13 % of the rest
    assert _dice(_found(image), tissue) > 0.99
    # on a background with noise the same would be glass
    noisy = image + np.random.default_rng(0).normal(scale=0.01, size=SHAPE).astype(np.float32)
    assert not _found(noisy)[80, 100 + 21]


@pytest.mark.parametrize("black", [0.0, 0.02])
@pytest.mark.parametrize("angle_deg", [0, 7])
def test_a_slide_on_a_black_table_is_a_slide(black, angle_deg):
    image, tissue = _drawn(noise=0.004)
    turned = [
        ndimage.rotate(np.pad(a.astype(float), 30, constant_values=value), angle_deg, order=1,
                       reshape=True, cval=value)
        for a, value in ((image, black), (tissue, 0.0))
    ]  # fmt: skip
    picture = turned[0].astype(np.float32)
    background = find_background(picture)
    assert background.padding == pytest.approx(black, abs=0.01)
    assert background.polarity == "bright_background"
    assert background.level == pytest.approx(0.98, abs=0.01)
    picture[padding_mask(picture, background.padding)] = background.level
    assert _dice(_found(picture), turned[1] > 0.5) > 0.97


def test_a_line_that_touches_tissue_is_cut_off():
    image, tissue = _drawn()
    image[80, 112:140] = 0.6
    assert not _found(image)[80, 120:140].any()
    assert _dice(_found(image), tissue) > 0.97


def test_tissue_cut_by_the_border_stays_whole_to_the_edge():
    image, tissue = _drawn(noise=0.0)
    cut = slice(40, None)
    mask = _found(image[:, cut])
    assert _dice(mask, tissue[:, cut]) > 0.98
    assert mask[60:70, 0].all()


def test_flipped_and_turned_pictures_give_flipped_and_turned_masks():
    image, _ = _drawn()
    mask = _found(image)
    np.testing.assert_array_equal(_found(np.fliplr(image)), np.fliplr(mask))
    np.testing.assert_array_equal(_found(np.rot90(image)), np.rot90(mask))


@pytest.mark.parametrize("noise", [0.0, 0.002, 0.02])
@pytest.mark.parametrize("level", [0.0, 0.98])
def test_an_empty_slide_has_no_tissue(level, noise):
    rng = np.random.default_rng(1)
    image = np.clip(level + rng.normal(scale=noise, size=SHAPE), 0, 1)
    # as an 8-bit file holds it: most noise rounds to the same grey level
    assert not _found(np.round(image * 255).astype(np.float32) / 255).any()


def _ball(shape, radius):
    grid = np.stack(np.indices(shape)) - (np.array(shape) / 2).reshape(3, 1, 1, 1)
    return np.sqrt((grid**2).sum(axis=0)) <= radius


def test_brain_mask_of_a_stripped_mri_is_what_is_not_zero():
    ball = _ball((40, 44, 36), 14)
    rng = np.random.default_rng(2)
    volume = np.where(ball, 100 + 20 * rng.normal(size=ball.shape), 0).astype(np.float32)
    volume[18:22, 20:24, 16:20] = 0  # a cavity is inside the brain
    volume[1, 1, 1] = 90  # a stray voxel is not
    mask = brain_mask(volume)
    assert _dice(mask, ball) > 0.99
    assert mask[20, 22, 18]
    assert not mask[1, 1, 1]


def test_brain_mask_of_an_mri_with_a_noisy_background():
    ball = _ball((40, 44, 36), 14)
    rng = np.random.default_rng(3)
    volume = np.abs(rng.normal(scale=5, size=ball.shape)) + 100 * ball
    assert _dice(brain_mask(volume), ball) > 0.98


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real sections are not on this machine")
@pytest.mark.parametrize("section", ["200", "240", "280", "320", "361"])
def test_real_glass_slides(section):
    """Most of the slide is told apart, corners (ink) are empty, the tissue's share is plausible."""
    rows = read_manifest(SHARED / "bigbrain_anterior" / "sections.tsv", check_files=False)
    image = read_section(Path(next(r for r in rows if r.section == section).image))
    background = find_background(image)
    signal = tissue_signal(image, background.polarity, background.level)
    mask = tissue_mask(signal, 0.4, 0.8, background.noise)
    assert background.polarity == "bright_background"
    assert 0.3 < mask.mean() < 0.65
    for corner in (mask[:12, :20], mask[:12, -20:], mask[-12:, :20], mask[-12:, -20:]):
        assert corner.mean() < 0.05


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real sections are not on this machine")
def test_real_black_backgrounds_agree_with_the_published_labels():
    rows = read_manifest(SHARED / "allen" / "sections.tsv", check_files=False)
    for row in [r for r in rows if r.labels][::15]:
        image = read_section(Path(row.image))
        labels = read_labels(Path(row.labels), image.shape) > 0
        background = find_background(image)
        signal = tissue_signal(image, background.polarity, background.level)
        mask = tissue_mask(signal, 0.25, 0.5, background.noise)
        assert background.polarity == "dark_background"
        assert np.sum(labels & mask) / np.sum(labels) > 0.95, row.section
