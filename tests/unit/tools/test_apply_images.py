"""`sbr apply` on images and labels: the right pixel, of the type and the channels it came with."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import zarr
from mapped_brain import GRID, MIDDLE_MM, SECTIONS, SPACING_MM
from PIL import Image

from sbr_core import Brain
from sbr_core.artifacts import names
from sbr_core.cli import main
from sbr_core.errors import ConfigError
from sbr_core.geometry import apply as through
from sbr_core.tools import apply


@pytest.fixture
def carry(truth, tmp_path):
    """Run `sbr apply` on one image; the file that it wrote."""

    def run(given, from_, to, out="out.tif", **flags):
        if isinstance(given, np.ndarray):
            tifffile.imwrite(tmp_path / "in.tif", given)
            given = tmp_path / "in.tif"
        flags = {"force": True, "results": truth.results} | flags
        apply.run(None, [given], from_=from_, to=to, out=tmp_path / out, **flags)
        return tmp_path / out

    return run


def plane_of(truth, section):
    """(rows, columns, 2): where the pixels of a section's file belong, plane mm."""
    one = Brain(truth.results).section(section)
    columns, rows = np.meshgrid(np.arange(one.shape[1]), np.arange(one.shape[0]))
    return one.to_plane(np.stack([columns, rows], axis=-1).astype(float))


def discs(plane_mm):
    """Labels 300 and 7, of 8 and 5 mm radius, and 0; of points (..., 2) of the plane."""
    labels = np.zeros(plane_mm.shape[:-1], np.uint16)
    for label, middle, radius in ((300, MIDDLE_MM, 8.0), (7, MIDDLE_MM + np.array([3, 11]), 5.0)):
        labels[np.linalg.norm(plane_mm - middle, axis=-1) < radius] = label
    return labels


def picture(plane_mm):
    """A smooth image from 0 to 1."""
    x, y = np.moveaxis(plane_mm - MIDDLE_MM, -1, 0)
    return 0.5 + 0.25 * np.sin(x / 3) + 0.25 * np.cos(y / 4 + x / 9)


def grid_mm(shape, spacing_mm):
    return np.stack(np.indices(shape)[::-1], axis=-1) * spacing_mm


def iou(a, b):
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


@pytest.mark.parametrize("section", SECTIONS)
def test_labels_go_to_the_plane_and_back(truth, carry, section):
    on_section = discs(plane_of(truth, section))
    spacing_mm = truth.pixel_size_mm[section]
    there = carry(on_section, f"section:{section}", f"plane:{section}", labels=True,
                  pixel_mm=spacing_mm)  # fmt: skip
    on_plane = tifffile.imread(there)
    assert on_plane.dtype == np.uint16
    expected = discs(grid_mm(on_plane.shape, spacing_mm))
    back = tifffile.imread(
        carry(there, f"plane:{section}", f"section:{section}", "back.tif", labels=True)
    )
    assert back.shape == on_section.shape and back.dtype == np.uint16
    for label in (300, 7):
        assert (
            iou(on_plane == label, expected == label) > 0.93
        )  # of 20 to 32 pixels, drawn coarsely
        assert iou(back == label, on_section == label) > 0.97
        for found, wanted in ((on_plane, expected), (back, on_section)):
            centres = [np.argwhere(array == label).mean(axis=0) for array in (found, wanted)]
            assert np.abs(centres[0] - centres[1]).max() < 0.25


def test_regions_of_a_fine_section_come_back_whole(truth, carry):
    """Regions of 96 and 60 pixels: as a shape that is wider than 20."""
    on_section = discs(plane_of(truth, "both"))
    there = carry(on_section, "section:both", "plane:both", labels=True, pixel_mm=1 / 12)
    back = tifffile.imread(carry(there, "plane:both", "section:both", "back.tif", labels=True))
    for label in (300, 7):
        assert iou(back == label, on_section == label) > 0.99


@pytest.mark.parametrize("section", SECTIONS)
def test_an_image_on_the_plane_is_what_itk_makes_of_it(truth, carry, section):
    """Through the published file, at the pixel of the section, where nothing is averaged."""
    value = np.round(picture(plane_of(truth, section)) * 60000).astype(np.uint16)
    pixel_mm = truth.pixel_size_mm[section]
    ours = tifffile.imread(
        carry(value, f"section:{section}", f"plane:{section}", pixel_mm=pixel_mm)
    )
    image = sitk.GetImageFromArray(value.astype(np.float32))
    image.SetSpacing([pixel_mm] * 2)
    file = names.section_file(truth.results / "sbr", section, names.SECTION_TO_STACK)
    grid = sitk.Image(ours.shape[1], ours.shape[0], sitk.sitkFloat32)
    grid.SetSpacing([pixel_mm] * 2)
    transform = sitk.ReadTransform(str(file))
    theirs = sitk.GetArrayFromImage(sitk.Resample(image, grid, transform, sitk.sitkLinear))
    inside = np.linalg.norm(grid_mm(ours.shape, pixel_mm) - MIDDLE_MM, axis=-1) < 16
    assert ours.dtype == np.uint16
    # pixels that are a little larger than those of the file are means of four points
    assert np.abs(ours.astype(float) - theirs)[inside].max() < 2
    expected = picture(grid_mm(ours.shape, pixel_mm)) * 60000
    assert np.abs(ours - expected)[inside].max() < 900


def test_every_channel_and_type_comes_out_as_it_went_in(truth, carry, tmp_path):
    value = picture(plane_of(truth, "boxed"))
    px = truth.px("boxed", grid_mm(GRID.shape, GRID.spacing_mm))
    # beyond the box, where another section may be
    outside = np.any((px < [18, 8]) | (px > [182, 147]), axis=-1)
    assert outside.any()
    four = np.stack([value * top for top in (60000, 30000, 200, 9)]).astype(np.uint16)
    path = tmp_path / "four.ome.tif"
    tifffile.imwrite(path, four, metadata={"axes": "CYX", "Channel": {"Name": list("WXYZ")}})
    with tifffile.TiffFile(carry(path, "section:boxed", "plane:boxed", "o.ome.tif")) as tiff:
        out = tiff.asarray()
        assert 'Name="Y"' in tiff.ome_metadata and 'SizeC="4"' in tiff.ome_metadata
        assert f'PhysicalSizeX="{GRID.spacing_mm * 1000}"' in tiff.ome_metadata
    middle = np.linalg.norm(grid_mm(GRID.shape, GRID.spacing_mm) - MIDDLE_MM, axis=-1) < 15
    expected = picture(grid_mm(GRID.shape, GRID.spacing_mm))
    assert out.dtype == np.uint16 and out.shape == (4, *GRID.shape)
    for channel, top in zip(out, (60000, 30000, 200, 9), strict=True):
        assert np.abs(channel - expected * top)[middle].max() < 0.02 * top + 1
    for dtype in ("u1", "i2", "f4"):
        given = (value * 100).astype(dtype)
        assert tifffile.imread(carry(given, "section:boxed", "plane:boxed")).dtype == dtype
    colours = np.stack([value * 255, 255 - value * 255, value * 0 + 30], axis=-1).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "in.png")
    for name in ("o.png", "o.tif"):
        done = carry(tmp_path / "in.png", "section:boxed", "plane:boxed", name)
        read = np.asarray(Image.open(done)) if name == "o.png" else tifffile.imread(done)
        assert read.shape == (*GRID.shape, 3) and read.dtype == np.uint8
        assert np.abs(read[..., 0] - expected * 255)[middle].max() < 8
        assert (read[-1, -1] == 255).all()  # glass, where the section has no pixel
    four = np.concatenate([colours, np.full((*value.shape, 1), 255, np.uint8)], axis=-1)
    Image.fromarray(four).save(tmp_path / "in.png")
    read = tifffile.imread(carry(tmp_path / "in.png", "section:boxed", "plane:boxed"))
    assert (read[outside] == [255, 255, 255, 0]).all() and (read[middle][:, 3] == 255).all()


def test_what_is_made_smaller_is_averaged(truth, carry, tmp_path):
    """From any level of a pyramid: stripes of one pixel become grey."""
    shape = (400, 420)
    stripes = np.tile(np.array([0, 200], np.uint8), (shape[0], shape[1] // 2))
    grey = tifffile.imread(carry(stripes, "section:both", "plane:both"))
    middle = np.linalg.norm(grid_mm(GRID.shape, GRID.spacing_mm) - MIDDLE_MM, axis=-1) < 15
    assert np.abs(grey[middle].astype(float) - 100).max() < 40
    assert abs(grey[middle].mean() - 100) < 1
    value = (picture(plane_of(truth, "both")) * 200).astype(np.uint8)
    path = tmp_path / "pyramid.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(value, tile=(64, 64), subifds=1)
        half = value.reshape(200, 2, 210, 2).mean(axis=(1, 3)).astype(np.uint8)
        tiff.write(half, tile=(64, 64), subfiletype=1)
    with_levels = tifffile.imread(carry(path, "section:both", "plane:both")).astype(float)
    without = tifffile.imread(carry(value, "section:both", "plane:both")).astype(float)
    assert np.abs(with_levels - without)[middle].max() < 3
    expected = picture(grid_mm(GRID.shape, GRID.spacing_mm)) * 200
    assert np.abs(without - expected)[middle].max() < 5
    # labels: the one that most of the pixel has
    ids = np.where(np.arange(420) % 3 == 0, 500, 9).astype(np.uint16) * np.ones((400, 1), np.uint16)
    most = tifffile.imread(carry(ids, "section:both", "plane:both", labels=True, pixel_mm=1.5))
    assert set(np.unique(most[10:25, 12:28])) == {9}


def test_an_image_of_another_resolution_of_the_section(truth, carry):
    value = (picture(plane_of(truth, "both")) * 200).astype(np.uint8)
    small = value.reshape(100, 4, 105, 4).mean(axis=(1, 3)).astype(np.uint8)
    middle = np.linalg.norm(grid_mm(GRID.shape, GRID.spacing_mm) - MIDDLE_MM, axis=-1) < 15
    expected = picture(grid_mm(GRID.shape, GRID.spacing_mm)) * 200
    read = tifffile.imread(carry(small, "section:both", "plane:both"))
    assert np.abs(read - expected)[middle].max() < 6


def test_images_and_volumes_go_into_the_stack(truth, carry):
    """On the grid of the planes, which ITK reads as stack mm; a section fills the layer it is."""
    value = (discs(plane_of(truth, "turned")) > 0).astype(np.uint8)
    image = sitk.ReadImage(str(carry(value, "section:turned", "stack", "s.nii.gz")))
    assert image.GetSpacing() == pytest.approx((GRID.spacing_mm, GRID.spacing_mm, SPACING_MM))
    assert image.GetOrigin() == pytest.approx((0, 0, 0)) and image.GetSize() == (120, 100, 5)
    layers = sitk.GetArrayFromImage(image)
    assert layers[2].any() and not layers[[0, 1, 3, 4]].any()
    assert iou(layers[2] > 0, discs(grid_mm(GRID.shape, GRID.spacing_mm)) > 0) > 0.95

    done = carry(truth.results / "prepare" / "mri.nii.gz", "mri", "stack", "v.nii.gz")
    stack = sitk.GetArrayFromImage(sitk.ReadImage(str(done)))
    radius_mm = np.linalg.norm(grid_mm(GRID.shape, GRID.spacing_mm) - MIDDLE_MM, axis=-1)
    expected = np.clip(18.0 - radius_mm, 0, None) * 10
    inside = (radius_mm < 15) & (radius_mm > 2)
    assert np.abs(stack[2] - expected)[inside].max() < 5
    outlines = carry(
        value, "section:turned", "section:boxed", "o.geojson", labels=True, within_mm=5
    )
    drawn = carry(outlines, "section:boxed", "stack", "l.nii.gz")
    assert iou(sitk.GetArrayFromImage(sitk.ReadImage(str(drawn)))[4] > 0, layers[2] > 0) > 0.9


@pytest.mark.parametrize("section", SECTIONS)
def test_labels_of_the_mri_on_a_section(truth, carry, section, tmp_path):
    """At full resolution, or coarser; of the type they came in."""
    affine = np.array([[0, 0, 0.5, -26], [-0.5, 0, 0, 26], [0, 0.6, 0, -24], [0, 0, 0, 1.0]])
    voxels = np.stack(np.indices((100, 80, 104)), axis=-1)
    world = through(affine, voxels)
    labels = (1000 + 2 * (world[..., 0] > 1.0) + (world[..., 2] > -2.0)).astype(np.int16)
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "atlas.nii.gz")
    plane_mm = plane_of(truth, section)
    expected = through(
        np.linalg.inv(truth.stack_from_world),
        np.concatenate(
            [plane_mm, np.full((*plane_mm.shape[:2], 1), SECTIONS.index(section) * SPACING_MM)], -1
        ),
    )
    expected = 1000 + 2 * (expected[..., 0] > 1.0) + (expected[..., 2] > -2.0)
    done = tifffile.imread(
        carry(tmp_path / "atlas.nii.gz", "mri", f"section:{section}", labels=True)
    )
    assert done.shape == expected.shape and done.dtype == np.int16
    inside = np.linalg.norm(plane_mm - MIDDLE_MM, axis=-1) < 15
    assert np.mean(done[inside] == expected[inside]) > 0.97  # a voxel of 0.5 mm along the border
    coarse = tifffile.imread(
        carry(tmp_path / "atlas.nii.gz", "mri", f"section:{section}", labels=True, pixel_mm=1.0)
    )
    step = 1.0 / truth.pixel_size_mm[section]
    assert coarse.shape == tuple(int(np.ceil(n / step - 1e-6)) for n in expected.shape)


@pytest.mark.parametrize("section", ["flipped", "both"])
def test_a_section_in_the_mri(truth, carry, section):
    """In the voxels around it, in the world of the MRI: for nibabel, and for ITK."""
    on_section = discs(plane_of(truth, section))
    done = carry(on_section, f"section:{section}", "mri", "o.nii.gz", labels=True, pixel_mm=0.5)
    image = nib.load(done)
    assert image.get_data_dtype() == np.uint16
    data = np.asarray(image.dataobj)
    world = through(image.affine, np.stack(np.indices(data.shape), axis=-1))
    stack_mm = through(truth.stack_from_world, world)
    depth_mm = stack_mm[..., 2] - SECTIONS.index(section) * SPACING_MM
    near = np.abs(depth_mm) < 0.99 * SPACING_MM / 2
    assert not data[np.abs(depth_mm) > 1.01 * SPACING_MM / 2].any()
    expected = discs(stack_mm[..., :2])
    for label in (300, 7):
        assert iou((data == label) & near, (expected == label) & near) > 0.93
    centre = world[(data == 300)].mean(axis=0)
    itk = sitk.ReadImage(str(done))
    index = itk.TransformPhysicalPointToIndex((centre * [-1, -1, 1]).tolist())
    assert itk[index] == 300
    assert np.allclose(itk.GetSpacing(), 0.5)
    again = carry(done, "mri", f"section:{section}", "o.tif", labels=True)
    back = tifffile.imread(again)
    assert back.dtype == np.uint16 and iou(back == 300, on_section == 300) > 0.9


def test_colours_in_the_mri(truth, carry, tmp_path):
    value = picture(plane_of(truth, "turned"))
    colours = np.stack([value * 255, value * 0 + 10, value * 100], axis=-1).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "in.png")
    done = carry(tmp_path / "in.png", "section:turned", "mri", "o.nii.gz")
    data = np.asarray(nib.load(done).dataobj)
    assert data.dtype.names == ("R", "G", "B")
    seen = data["G"] > 0
    assert 0 < seen.mean() < 0.3
    world = through(nib.load(done).affine, np.argwhere(seen))
    stack_mm = through(truth.stack_from_world, world)
    middle = np.linalg.norm(stack_mm[:, :2] - MIDDLE_MM, axis=1) < 12
    expected = picture(stack_mm[:, :2]) * 255
    assert np.abs(data["R"][seen].astype(float) - expected)[middle].max() < 15
    assert (data["G"][seen][middle] == 10).all()


def test_an_image_of_the_mri_on_a_plane_is_a_nifti_that_itk_reads_in_place(truth, carry):
    done = carry(truth.results / "prepare" / "mri.nii.gz", "mri", "plane:plain", "o.nii.gz")
    image = sitk.ReadImage(str(done))
    assert image.GetSize()[:2] == GRID.shape[::-1]
    value = sitk.GetArrayFromImage(image)
    radius = np.linalg.norm(grid_mm(GRID.shape, GRID.spacing_mm) - MIDDLE_MM, axis=-1)
    inside = (radius < 14) & (radius > 3)
    assert np.abs(value - (18 - radius) * 10)[inside].max() < 3


def test_labels_of_64_bits_on_a_plane_as_a_nifti(truth, carry, tmp_path):
    mri = nib.load(truth.results / "prepare" / "mri.nii.gz")
    labels = (np.asarray(mri.dataobj) > 90).astype(np.int64) * 2**40
    path = tmp_path / "labels.nii.gz"
    nib.save(nib.Nifti1Image(labels, mri.affine, dtype=np.int64), path)
    done = nib.load(carry(path, "mri", "plane:plain", "o.nii.gz", labels=True))
    assert done.get_data_dtype() == np.int64
    assert set(np.unique(np.asarray(done.dataobj))) == {0, 2**40}


def test_a_result_that_would_be_empty_is_none(truth, carry, tmp_path):
    """What is too far, or elsewhere, is told and not written; what says how far is followed."""
    value = np.full((104, 124), 9, np.uint8)

    def refused(said, *given, **flags):
        with pytest.raises(ConfigError, match=said):
            carry(*given, **flags)

    for labels in (True, False):
        refused("--within-mm", value, "section:plain", "section:flipped", labels=labels)
        refused(
            "--pixel-mm", value, "section:plain", "mri", "o.nii.gz", labels=labels, within_mm=1e-7
        )
    far = np.eye(4)
    far[:3, 3] = 500.0
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), far), tmp_path / "far.nii.gz")
    refused("far.nii.gz: no pixel of plane:plain lies in it", tmp_path / "far.nii.gz", "mri",
            "plane:plain")  # fmt: skip
    assert {p.name for p in tmp_path.iterdir()} == {"in.tif", "far.nii.gz"}
    near = carry(value, "section:plain", "section:flipped", labels=True, within_mm=2.5)
    assert (tifffile.imread(near) == 9).mean() > 0.5


def test_an_ome_zarr_has_the_pixels_of_the_tiff(truth, carry):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (400, 420, 3), np.uint8)
    way = ("section:both", "plane:both")
    group = zarr.open_group(carry(image, *way, "o.ome.zarr", pixel_mm=0.1), mode="r")
    expected = tifffile.imread(carry(image, *way, "o.tif", pixel_mm=0.1))
    assert np.array_equal(np.moveaxis(group["0"][:], 0, -1), expected)
    scale = group.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]
    assert scale == {"type": "scale", "scale": [1.0, 0.1, 0.1]}
    with pytest.raises(ConfigError, match=r"o\.ome\.zarr: is there already; --force"):
        carry(image, *way, "o.ome.zarr", force=False)


@pytest.mark.parametrize(
    ("array", "how", "said"),
    [
        (np.zeros((104, 124), np.float32), ["--labels"], "integer labels, found 1 of float32"),
        (np.zeros((104, 124, 3), np.uint8), ["--labels"], "integer labels, found colours"),
        (np.zeros((124, 104), np.uint8), [], "have not the proportions of section:plain"),
        (np.zeros((104, 124), np.uint8), ["--pixel-mm", "0"], "expected a number above 0"),
        (np.zeros((104, 124), np.uint8), ["--from", "stack"], "images go from section:ID"),
        (np.zeros((104, 124), np.uint8), ["--out", "o.jpg"], "expected .tif, .ome.tif, .ome.zarr"),
        (np.zeros((104, 124), np.uint8), ["--to", "mri"], "expected .nii.gz for an image in the"),
        (np.zeros((104, 124), np.float32), ["--out", "o.png"], "a PNG holds 8 or 16 bits"),
        (np.zeros((104, 124), np.uint8), ["--from", "section"], "which section? Expected --from"),
        (np.zeros((104, 124), np.uint8), ["--to", "section"], "which section? Expected --to"),
        (np.zeros((104, 124), np.uint8), ["--from", "mri"], "not readable as an MRI"),
        (np.zeros((50, 60), np.uint8), ["--from", "plane:plain", "--to", "section:plain"],
         "expected 120 x 100 of 0.5 mm"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_is_told_in_one_line(
    truth, tmp_path, capfd, monkeypatch, array, how, said
):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("in.tif", array)
    flags = ["--results", str(truth.results), "--from", "section:plain", "--to", "plane:plain"]
    assert main(["apply", "in.tif", *flags, "--out", "o.tif", *how]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0], lines
    assert [p.name for p in tmp_path.iterdir()] == ["in.tif"]
