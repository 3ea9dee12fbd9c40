"""Masks: how they grow, the boxes around them, and planes cut to them."""

import torch

from sbr_core.functional.masks import dilate, dilate_octagon, tissue_box, without_medium


def test_dilation_grows_by_its_radius():
    mask = torch.zeros(1, 1, 11, 11)
    mask[..., 5, 5] = 1
    assert dilate(mask, 2).sum() == 25
    assert torch.equal(dilate(mask, 0), mask)


def medium(level):
    """Two planes of 0.7 and their sections; the second shows `level` 5 px wide around its brain."""
    sections = torch.zeros(2, 1, 32, 32)
    sections[..., 8:24, 8:24] = 1
    masks = sections.clone()
    masks[1, :, 3:29, 3:29] = 1
    planes = torch.where(sections > 0, 0.7, level) * masks
    return planes, masks, sections


def test_medium_around_a_brain_is_cut_away_and_a_fitting_plane_stays():
    planes, masks, sections = medium(0.9)
    cut, cut_masks, _ = without_medium(planes, masks, sections, share=0.1, margin_px=2)
    assert torch.equal(cut_masks, sections)
    assert torch.equal(cut, 0.7 * sections)
    kept, kept_masks, _ = without_medium(planes, masks, sections, share=1.0, margin_px=2)
    assert torch.equal(kept, planes) and torch.equal(kept_masks, masks)


def test_dark_fluid_around_a_brain_stays():
    planes, masks, sections = medium(0.2)
    kept, kept_masks, _ = without_medium(planes, masks, sections, share=0.1, margin_px=2)
    assert torch.equal(kept, planes) and torch.equal(kept_masks, masks)


def test_the_edge_that_a_cut_made_is_not_compared_and_a_real_edge_is():
    planes, masks, sections = medium(0.9)
    *_, compared = without_medium(planes, masks, sections, share=0.1, margin_px=2, edge_px=3)
    assert torch.equal(compared[0], sections[0])
    inner = torch.zeros(1, 32, 32)
    inner[:, 11:21, 11:21] = 1
    assert torch.equal(compared[1], inner)


def test_the_box_holds_all_tissue_and_a_margin():
    masks = torch.zeros(2, 1, 64, 96)
    masks[0, :, 20:30, 40:50] = 1
    masks[1, :, 25:33, 44:60] = 1
    rows, columns = tissue_box(masks, 8, 8)
    assert rows.start <= 12 and rows.stop >= 41 and columns.start <= 32 and columns.stop >= 68
    assert (rows.stop - rows.start) % 8 == (columns.stop - columns.start) % 8 == 0
    assert rows.stop - rows.start < 40
    masks[:] = 0
    masks[0, :, -1, 0] = 1  # in a corner: two times the multiple, inside the image
    assert tissue_box(masks, 8, 8) == (slice(48, 64), slice(0, 16))
    assert tissue_box(torch.zeros(1, 1, 64, 96)) == (slice(0, 64), slice(0, 96))


def test_a_box_in_large_steps_ends_at_the_image():
    masks = torch.zeros(1, 1, 104, 240)
    masks[..., 40:70, 100:130] = 1
    rows, columns = tissue_box(masks, 32)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (64, 64)
    assert rows.start <= 32 and rows.stop >= 78 and columns.start <= 92 and columns.stop >= 138
    masks[..., 4:100, 100:130] = 1
    assert tissue_box(masks, 64) == (slice(0, 104), slice(92, 220))


def test_an_octagon_lies_between_a_diamond_and_a_square():
    mask = torch.zeros(1, 1, 21, 21)
    mask[..., 10, 10] = 1
    grown = dilate_octagon(mask, 6)[0, 0] > 0
    offsets = torch.arange(21) - 10
    diamond = offsets[:, None].abs() + offsets[None, :].abs() <= 6
    square = dilate(mask, 6)[0, 0] > 0
    assert (grown | ~diamond).all() and (square | ~grown).all()
    assert diamond.sum() < grown.sum() < square.sum()
