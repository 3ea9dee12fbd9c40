"""`sbr prepare`: the working image, the mask, the receipt, and what happens to bad sections."""

import dataclasses
import json
import re

import numpy as np
import pytest
import tifffile
from scipy import ndimage
from skimage.color import rgb_from_hed

from sbr_core import geometry
from sbr_core.artifacts.rows import Prepared, columns_of, read_rows
from sbr_core.artifacts.section_signal import read_signal
from sbr_core.config import PrepareOptions
from sbr_core.errors import ImageError, ManifestError
from sbr_core.io.images import read_labels, write_png
from sbr_core.io.manifests import SectionRow
from sbr_core.io.tables import read_tsv
from sbr_core.io.volumes import read_plane
from sbr_core.stages import prepare

OPTIONS = PrepareOptions(working_pixel_mm=0.6, min_tissue_mm2=20.0)


def _tissue(seed=0, shape=(90, 120)):
    """Smooth tissue in [0, 1] with 0 around it, no symmetry."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    blob = ((rows - 40) / 30) ** 2 + ((columns - 65) / 45) ** 2 < 1
    blob |= ((rows - 70) / 12) ** 2 + ((columns - 30) / 14) ** 2 < 1
    texture = ndimage.gaussian_filter(rng.random(shape), 3)
    texture = 0.4 + 0.5 * (texture - texture.min()) / np.ptp(texture)
    return ndimage.gaussian_filter(np.where(blob, texture, 0.0), 0.8)


def _glass(tissue, bits=8):
    top = 2**bits - 1
    return np.round((1 - 0.8 * tissue) * top).astype(np.uint8 if bits == 8 else np.uint16)


def _row(tmp_path, array, name="s1", **changes):
    image = tmp_path / "raw" / f"{name}.png"
    write_png(image, array)
    values = {"section": name, "image": str(image), "position_mm": 1.0, "pixel_size_mm": 0.2}
    return SectionRow(**(values | changes))


def _run(tmp_path, *rows, options=OPTIONS, strict=False, out="out"):
    """Prepare, and give back the receipt's rows by section."""
    out_dir = tmp_path / out
    receipt = out_dir / "chunks" / "000.tsv"
    prepare.run(options, rows=list(rows), out_dir=out_dir, receipt=receipt, strict=strict)
    return {r.section: r for r in read_rows(receipt, Prepared, only_ok=False)}


def _planes(tmp_path, name="s1", out="out"):
    folder = tmp_path / out / "sections"
    image, spacing_mm = read_plane(folder / f"{name}_image.nii.gz")
    mask, _ = read_plane(folder / f"{name}_mask.nii.gz")
    assert spacing_mm == pytest.approx(0.6)
    assert (image.dtype, mask.dtype) == (np.float32, np.uint8)
    assert image.shape == mask.shape
    return image, mask


def test_receipt_has_the_agreed_columns(tmp_path):
    row = _run(tmp_path, _row(tmp_path, _glass(_tissue())))["s1"]
    columns, _ = read_tsv(tmp_path / "out" / "chunks" / "000.tsv")
    wanted = "section status message position_mm pixel_size_mm working_pixel_mm file_rows stain"
    wanted += " read_step stain_group affine_from"
    wanted += " file_columns polarity background channel white padding light staining"
    wanted += " g00 g01 g02 g10 g11 g12 tissue_mm2 image image_channel labels box_px thickness_um"
    assert set(wanted.split()) | {"files", "fingerprint"} == set(columns)
    assert (row.status, row.polarity) == ("ok", "bright_background")
    assert (row.file_rows, row.file_columns) == (90, 120)
    assert set(row.files) == {"sections/s1_image.nii.gz", "sections/s1_mask.nii.gz"}
    sidecar = json.loads((tmp_path / "out" / "sections" / "s1.json").read_text())
    assert sidecar["row"]["fingerprint"] == row.fingerprint


@pytest.mark.parametrize("turn", [{}, {"flip": "lr", "rotate_deg": 90.0}])
def test_a_box_of_a_picture_is_as_good_as_a_picture_of_its_own(tmp_path, turn):
    """Here, and in the stages that go back to the file later, in millimetres of the file."""
    one, two = _glass(_tissue()), _glass(_tissue(1))
    slide = np.full((150, 300), 255, np.uint8)
    slide[30:120, :120], slide[60:150, 160:280] = one, two
    labels = np.where(slide < 250, 1, 0).astype(np.uint8)
    write_png(tmp_path / "labels.png", labels)
    options = OPTIONS.model_copy(update={"even_light": "never", "even_staining": "never"})
    rows = _run(
        tmp_path,
        _row(tmp_path, one, "one", **turn),
        _row(tmp_path, two, "two", position_mm=2.0, **turn),
        _row(tmp_path, slide, "left", position_mm=3.0, box_px="0 30 120 90", **turn),
        _row(tmp_path, slide, "right", position_mm=4.0, box_px="160 60 120 90", **turn),
        options=options,
    )
    for alone, box, corner in (("one", "left", (0, 30)), ("two", "right", (160, 60))):
        assert rows[box].status == "ok" and rows[box].file_shape == (150, 300)
        for image, other in zip(_planes(tmp_path, alone), _planes(tmp_path, box), strict=True):
            assert image.shape == other.shape
            assert np.abs(image.astype(float) - other)[2:-2, 2:-2].max() < 0.02
        moved = geometry.translation(*np.array(corner) * 0.2)
        matrix = moved @ rows[alone].section_mm_from_working_mm
        np.testing.assert_allclose(rows[box].section_mm_from_working_mm, matrix, atol=1e-9)
        signal = read_signal(rows[box], 0.6)
        columns, lines = np.meshgrid(np.arange(300), np.arange(150))
        inside = rows[box].box.has(np.stack([columns, lines], -1))
        assert signal.pixels.shape == (150, 300)  # at full resolution, here
        assert (signal.pixels[~inside] == 0).all() and (signal.pixels[inside] > 0.1).any()


@pytest.mark.parametrize(
    ("box", "words"),
    [("0 30 120 200", "box_px 0 30 120 200 .* is not within the image of 120 x 90 pixels")],
)
def test_a_box_that_is_not_within_the_picture_is_the_section_s_fault(tmp_path, box, words):
    row = _row(tmp_path, _glass(_tissue()), box_px=box)
    with pytest.raises(ImageError, match=words):
        _run(tmp_path, row, strict=True)


def test_a_chosen_channel_is_as_good_as_that_channel_in_a_file_of_its_own(tmp_path):
    """Here, and in the stages that go back to the file later."""
    stained = np.round(200 * _tissue()).astype(np.uint8)
    channels = np.stack([np.round(200 * _tissue(1)).astype(np.uint8), stained])
    path = tmp_path / "two.ome.tif"
    names = {"axes": "CYX", "Channel": {"Name": ["GFP", "DAPI"]}}
    tifffile.imwrite(path, channels, photometric="minisblack", metadata=names)
    alone = _row(tmp_path, stained, "alone")
    rows = _run(
        tmp_path,
        alone,
        dataclasses.replace(alone, section="dapi", image=str(path), image_channel="DAPI"),
        dataclasses.replace(alone, section="second", image=str(path), image_channel="2"),
        dataclasses.replace(alone, section="none", image=str(path)),
        dataclasses.replace(alone, section="fifth", image=str(path), image_channel="5"),
    )
    for name in ("dapi", "second"):
        for chosen, own in zip(_planes(tmp_path, name), _planes(tmp_path, "alone"), strict=True):
            np.testing.assert_array_equal(chosen, own)
        np.testing.assert_array_equal(
            read_signal(rows[name], 0.2).pixels, read_signal(rows["alone"], 0.2).pixels
        )
    assert rows["none"].status == rows["fifth"].status == "failed"
    assert "found 2 channels: image_channel chooses one" in rows["none"].message
    assert "expected one of 1 GFP, 2 DAPI, found '5'" in rows["fifth"].message


def test_tissue_is_positive_background_zero_and_the_scale_linear(tmp_path):
    tissue = _tissue()
    _run(tmp_path, _row(tmp_path, _glass(tissue)))
    image, mask = _planes(tmp_path)
    _, shape = geometry.file_px_from_working_px(tissue.shape, 0.2, 0.6)
    assert image.shape == shape
    # every third pixel, first at file pixel (1, 1); the texture is much coarser than 3 px
    deep = ndimage.binary_erosion(mask, iterations=3)
    np.testing.assert_allclose(image[deep], 0.8 * tissue[1::3, 1::3][deep], atol=0.03)
    assert np.abs(image[~ndimage.binary_dilation(mask, iterations=3)]).max() < 0.01
    truth = tissue[1::3, 1::3] > 0.2
    assert 2 * np.sum(truth & (mask > 0)) / (truth.sum() + mask.sum()) > 0.97


def test_8_and_16_bit_files_of_one_picture_give_the_same(tmp_path):
    picture = _glass(_tissue())
    wide = picture.astype(np.uint16) * 257
    _run(tmp_path, _row(tmp_path, picture), _row(tmp_path, wide, "s2"))
    for narrow, broad in zip(_planes(tmp_path, "s1"), _planes(tmp_path, "s2"), strict=True):
        np.testing.assert_allclose(narrow, broad, atol=1e-6)


def test_another_pixel_size_gives_nearly_the_same(tmp_path):
    tissue = _tissue()
    coarse = ndimage.zoom(tissue, 2 / 3, order=1, grid_mode=True, mode="nearest")
    assert coarse.shape == (60, 80)
    _run(
        tmp_path,
        _row(tmp_path, _glass(tissue, 16)),
        _row(tmp_path, _glass(coarse), "s2", pixel_size_mm=0.3),
    )
    (image, mask), (image_2, mask_2) = _planes(tmp_path, "s1"), _planes(tmp_path, "s2")
    deep = ndimage.binary_erosion(mask, iterations=2)
    np.testing.assert_allclose(image_2[deep], image[deep], atol=0.02)
    assert 2 * np.sum((mask > 0) & (mask_2 > 0)) / (mask.sum() + mask_2.sum()) > 0.97


def test_inverted_pictures_give_the_same_but_for_the_polarity(tmp_path):
    picture = _glass(_tissue())
    rows = _run(tmp_path, _row(tmp_path, picture), _row(tmp_path, 255 - picture, "s2"))
    assert rows["s1"].polarity == "bright_background"
    assert rows["s2"].polarity == "dark_background"
    for bright, dark in zip(_planes(tmp_path, "s1"), _planes(tmp_path, "s2"), strict=True):
        np.testing.assert_allclose(bright, dark, atol=1e-6)


@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3])
@pytest.mark.parametrize("flip", ["none", "lr", "ud"])
def test_one_picture_stored_in_any_orientation_gives_one_result(tmp_path, flip, quarter_turns):
    picture = _glass(_tissue())
    stored = np.rot90(picture, -quarter_turns)
    stored = {"none": stored, "lr": np.fliplr(stored), "ud": np.flipud(stored)}[flip]
    described = {"flip": flip, "rotate_deg": 90.0 * quarter_turns}
    _run(tmp_path, _row(tmp_path, picture), _row(tmp_path, stored, "s2", **described))
    (image, mask), (image_2, mask_2) = _planes(tmp_path, "s1"), _planes(tmp_path, "s2")
    np.testing.assert_allclose(image_2, image, atol=1e-6)
    assert np.mean(mask_2 != mask) < 0.005  # ties of the area vote


def test_the_recorded_matrix_leads_back_to_the_file(tmp_path):
    """A dot in a flipped, turned, 3x downsampled section, found within 0.1 working px."""
    tissue = _tissue()
    rows, columns = np.mgrid[:90, :120]
    dot = 0.5 * np.exp(-((columns - 70) ** 2 + (rows - 35) ** 2) / (2 * 2.0**2))
    described = {"flip": "lr", "rotate_deg": 33.0}
    plain = _row(tmp_path, _glass(tissue * 0.6, 16), "s1", **described)
    dotted = _row(tmp_path, _glass(tissue * 0.6 + dot, 16), "s2", **described)
    receipt = _run(tmp_path, plain, dotted)
    difference = _planes(tmp_path, "s2")[0] - _planes(tmp_path, "s1")[0]
    found_px = np.array(ndimage.center_of_mass(np.clip(difference, 0, None)))[::-1]
    section_from_working = receipt["s2"].section_mm_from_working_mm
    expected_px = (
        geometry.apply(np.linalg.inv(section_from_working), np.array([70, 35]) * 0.2) / 0.6
    )
    assert np.abs(found_px - expected_px).max() < 0.1


def test_a_given_mask_wins_and_goes_by_area_vote(tmp_path):
    picture = _glass(_tissue())
    mask = np.zeros(picture.shape, np.uint8)
    mask[10:61, 20:80] = 255
    write_png(tmp_path / "mask.png", mask)
    row = _row(tmp_path, picture, mask=str(tmp_path / "mask.png"), rotate_deg=90.0)
    receipt = _run(tmp_path, row)["s1"]
    _, found = _planes(tmp_path)
    voted = np.add.reduceat(np.add.reduceat(mask > 0, range(0, 90, 3), 0, dtype=int),
                            range(0, 120, 3), 1) > 4  # fmt: skip
    np.testing.assert_array_equal(found, np.rot90(voted))
    assert receipt.tissue_mm2 == pytest.approx(found.sum() * 0.36)


def test_a_mask_of_another_shape_fails_its_section_only(tmp_path):
    picture = _glass(_tissue())
    write_png(tmp_path / "small.png", np.ones((30, 40), np.uint8))
    bad = _row(tmp_path, picture, "s1", mask=str(tmp_path / "small.png"))
    receipt = _run(tmp_path, bad, _row(tmp_path, picture, "s2"))
    assert receipt["s1"].status == "failed"
    assert "small.png: shape (30, 40) differs" in receipt["s1"].message
    assert receipt["s2"].status == "ok"
    assert not list((tmp_path / "out" / "sections").glob("s1*"))


@pytest.mark.parametrize("fault", ["shape (30, 40) differs", "integer labels", "not readable"])
def test_labels_that_cannot_be_used_cost_the_labels_and_not_the_section(tmp_path, caplog, fault):
    labels = tmp_path / "l.png"
    if fault == "not readable":
        labels.write_bytes(b"no image")
    else:
        write_png(labels, np.ones((30, 40) if "shape" in fault else (60, 70, 3), np.uint8))
    bad = _row(tmp_path, _glass(_tissue()), "s1", labels=str(labels))
    receipt = _run(tmp_path, bad)["s1"]
    assert (receipt.status, receipt.labels) == ("ok", "")
    assert "its labels are left out: " in receipt.message and fault in receipt.message
    assert receipt.message in caplog.text
    with pytest.raises(ImageError, match=re.escape(fault)):
        _run(tmp_path, bad, strict=True, out="strict")


def test_metadata_that_are_not_clean_are_said_in_log_and_message(tmp_path, caplog):
    row = _row(tmp_path, _glass(_tissue()), "s1")
    spoilt = tmp_path / "spoilt.tif"
    description = b"<OME><Image Name='a & b'/></OME>"
    tifffile.imwrite(spoilt, _glass(_tissue()), description=description, metadata=None)
    receipt = _run(tmp_path, dataclasses.replace(row, image=str(spoilt)), strict=True)["s1"]
    assert "its OME-XML is not clean, so it states no pixel size" in receipt.message
    assert receipt.message in caplog.text


def test_an_empty_section_fails_and_stops_a_strict_run(tmp_path):
    empty = _row(tmp_path, np.full((60, 70), 250, np.uint8))
    assert "no tissue found" in _run(tmp_path, empty)["s1"].message
    with pytest.raises(ImageError, match="no tissue found"):
        _run(tmp_path, empty, strict=True, out="strict")
    assert not list((tmp_path / "strict").rglob("*.*"))


def test_less_tissue_than_asked_for_is_none(tmp_path):
    row = _row(tmp_path, _glass(_tissue()))
    found = _run(tmp_path, row)["s1"].tissue_mm2
    demanding = OPTIONS.model_copy(update={"min_tissue_mm2": found + 1})
    assert _run(tmp_path, row, options=demanding)["s1"].status == "failed"


def test_a_missing_file_is_refused_before_anything_is_written(tmp_path):
    good = _row(tmp_path, _glass(_tissue()))
    bad = dataclasses.replace(good, section="s2", image=str(tmp_path / "gone.png"))
    with pytest.raises(ManifestError, match=r"section 's2': .*gone.png: no such file"):
        _run(tmp_path, good, bad)
    assert not (tmp_path / "out").exists()


def test_only_what_changed_is_done_again(tmp_path, caplog):
    rows = [_row(tmp_path, _glass(_tissue(seed)), f"s{seed}") for seed in (1, 2, 3, 4)]
    first = _run(tmp_path, *rows)
    caplog.set_level("INFO", "sbr_core")
    again = _run(tmp_path, *rows)
    assert [columns_of(r) for r in again.values()] == [columns_of(r) for r in first.values()]
    assert caplog.text.count(" kept") == 4
    caplog.clear()

    write_png(rows[0].image, _glass(_tissue(9)))  # the picture changed
    rows[1] = dataclasses.replace(rows[1], flip="lr")  # the row changed
    (tmp_path / "out" / "sections" / "s3_mask.nii.gz").unlink()  # an output is gone
    second = _run(tmp_path, *rows)
    log = caplog.text
    caplog.clear()
    assert [s for s in second if f"section {s} kept" in log] == ["s4"]
    assert columns_of(second["s3"]) == columns_of(first["s3"])
    assert second["s2"].fingerprint != first["s2"].fingerprint

    _run(tmp_path, *rows, options=OPTIONS.model_copy(update={"polarity": "bright_background"}))
    assert " kept" not in caplog.text


def test_a_section_that_leaves_the_chunk_takes_its_files_along(tmp_path):
    rows = [_row(tmp_path, _glass(_tissue(seed)), f"s{seed}") for seed in (1, 2)]
    _run(tmp_path, *rows)
    assert list(_run(tmp_path, rows[0])) == ["s1"]
    assert {f.name[:2] for f in (tmp_path / "out" / "sections").iterdir()} == {"s1"}


def _stained(tissue, dyes):
    """An 8-bit colour photograph of dyes, each a vector of density and an amount."""
    density = sum(np.asarray(amount)[..., None] * np.asarray(dye) for dye, amount in dyes)
    light = np.array([0.97, 0.94, 0.96]) * 10**-density
    return np.round(255 * np.clip(light, 0, 1)).astype(np.uint8)


def _two_dyes(tissue):
    """Haematoxylin where there is much tissue, DAB where there is little."""
    haematoxylin, _, dab = rgb_from_hed
    return _stained(tissue, [(haematoxylin, 0.6 * tissue), (dab, 0.5 * tissue * (1 - tissue))])


def test_a_stain_of_the_manifest_goes_before_the_configurations(tmp_path):
    tissue = _tissue()
    picture = _two_dyes(tissue)
    rows = [
        _row(tmp_path, picture, "s1", stain="parvalbumin, DAB"),
        _row(tmp_path, picture, "s2", stain="parvalbumin"),
    ]
    options = OPTIONS.model_copy(update={"stain": "hematoxylin"})
    receipt = _run(tmp_path, *rows, options=options)
    assert [receipt[s].channel for s in ("s1", "s2")] == ["dab", "hematoxylin"]
    expected = {"s1": 0.5 * tissue * (1 - tissue), "s2": 0.6 * tissue}
    lengths = {"s1": np.linalg.norm(rgb_from_hed[2]), "s2": np.linalg.norm(rgb_from_hed[0])}
    for name, amount in expected.items():
        image, mask = _planes(tmp_path, name)
        deep = ndimage.binary_erosion(mask, iterations=3)
        np.testing.assert_allclose(image[deep], lengths[name] * amount[1::3, 1::3][deep], atol=0.02)
    # the mask is that of the tissue, whichever dye is looked at
    np.testing.assert_array_equal(_planes(tmp_path, "s1")[1], _planes(tmp_path, "s2")[1])


def test_later_stages_see_the_same_signal_in_the_file(tmp_path):
    """In colour, unevenly lit, unevenly stained, flipped, turned: all of it is in the receipt."""
    tissue = _tissue(shape=(240, 320))
    rows, columns = np.indices(tissue.shape)
    light = np.exp(-0.1 * (((rows - 120) / 120) ** 2 + ((columns - 160) / 160) ** 2))
    picture = np.round(_two_dyes(tissue) * light[..., None]).astype(np.uint8)
    row = _row(tmp_path, picture, "s1", flip="lr", rotate_deg=90.0)
    options = OPTIONS.model_copy(update={"even_staining": "always", "min_tissue_mm2": 1.0})
    receipt = _run(tmp_path, row, options=options)["s1"]
    assert receipt.light and receipt.staining
    signal = read_signal(receipt, 0.2).pixels
    working, _ = _planes(tmp_path)
    turned = np.rot90(np.fliplr(signal))
    blurred = ndimage.gaussian_filter(turned, np.sqrt(8) / 2.355)[1::3, 1::3]
    inner = (slice(4, -4), slice(4, -4))
    np.testing.assert_allclose(working[inner], blurred[inner], atol=0.01)
    glass = signal[ndimage.binary_dilation(tissue < 1e-6, iterations=1) & (tissue < 1e-6)]
    assert np.abs(glass).mean() < 0.01  # the light was as uneven as 0.08 in density


def test_even_light_and_staining_change_nothing_unless_it_is_clear(tmp_path):
    row = _row(tmp_path, _glass(_tissue()))
    never = OPTIONS.model_copy(update={"even_light": "never", "even_staining": "never"})
    _run(tmp_path, row)
    _run(tmp_path, row, options=never, out="never")
    for one, other in zip(_planes(tmp_path), _planes(tmp_path, out="never"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_demos_masks_are_its_labels(small_demo, tmp_path):
    from sbr_core.algorithms.sections import area_vote
    from sbr_core.io.manifests import read_manifest

    rows = read_manifest(small_demo / "sections.tsv")
    options = PrepareOptions(working_pixel_mm=2.0)
    receipt = _run(tmp_path, *rows, options=options)
    for row in rows:
        assert receipt[row.section].status == "ok"
        mask, _ = read_plane(tmp_path / "out" / "sections" / f"{row.section}_mask.nii.gz")
        labels = read_labels(row.labels) > 0
        matrix, shape = geometry.file_px_from_working_px(
            labels.shape, row.pixel_size_mm, 2.0, row.flip, row.rotate_deg
        )
        truth = area_vote(labels, matrix, shape)
        assert 2 * np.sum(truth & (mask > 0)) / (truth.sum() + mask.sum()) > 0.93, row.section


def test_a_fine_picture_is_read_coarsely_and_gives_nearly_the_same(tmp_path):
    """As a pyramid, and averaged as it is read: the same working image as of a coarse file."""
    tissue = _tissue()
    fine = np.kron(_glass(tissue), np.ones((8, 8), np.uint8))
    tifffile.imwrite(tmp_path / "tiles.tif", fine, tile=(64, 64))
    with tifffile.TiffWriter(tmp_path / "pyramid.ome.tif", ome=True) as writer:
        writer.write(fine, tile=(64, 64), subifds=1)
        writer.write(fine[::4, ::4], tile=(64, 64), subfiletype=1)
    how = {"section": "x", "position_mm": 1.0, "pixel_size_mm": 0.025, "flip": "lr"}
    rows = _run(
        tmp_path,
        _row(tmp_path, _glass(tissue), flip="lr"),
        SectionRow(**(how | {"section": "s2", "image": str(tmp_path / "tiles.tif")})),
        SectionRow(**(how | {"section": "s3", "image": str(tmp_path / "pyramid.ome.tif")})),
    )
    assert [rows[name].read_step for name in ("s1", "s2", "s3")] == [1, 6, 4]
    image, mask = _planes(tmp_path, "s1")
    for name in ("s2", "s3"):
        other, other_mask = _planes(tmp_path, name)
        deep = ndimage.binary_erosion(mask, iterations=2)
        np.testing.assert_allclose(other[deep], image[deep], atol=0.02)
        assert 2 * np.sum((mask > 0) & (other_mask > 0)) / (mask.sum() + other_mask.sum()) > 0.98


@pytest.mark.parametrize(
    ("extent_mm", "words"),
    [
        (0.9, "by which the section is 0.9 mm wide: divided by 1000 twice?"),
        (1.1, ""),
        (8, ""),  # a mouse
        (200, ""),  # a whole human brain
        (480, ""),
        (510, "are 0.51 m: given in micrometres?"),
        (8000, "are 8 m: given in micrometres? Then it is 0.066"),
    ],
)
def test_a_section_wider_than_any_brain_is_refused_and_a_tiny_one_told(tmp_path, extent_mm, words):
    array = _glass(_tissue())
    row = _row(tmp_path, array, pixel_size_mm=extent_mm / max(array.shape))
    working_pixel_mm = extent_mm / 40
    options = PrepareOptions(working_pixel_mm=working_pixel_mm, min_tissue_mm2=0.0)
    found = _run(tmp_path, row, options=options)["s1"]
    assert found.status == ("failed" if extent_mm > 500 else "ok")
    assert words in found.message and bool(words) == bool(found.message)
    if extent_mm > 500:
        assert "section 's1'" in found.message and "row of the manifest" in found.message
