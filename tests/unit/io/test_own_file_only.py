"""What is read of a file lies in that file: formats that can name others, which say so here."""

import json
import shutil
import struct

import h5py
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from sbr_core.errors import ImageError
from sbr_core.io import transforms
from sbr_core.io.images import read_labels, read_reduced
from sbr_core.io.pixel_size import stated_pixel_size
from sbr_core.io.volumes import read_volume


@pytest.fixture
def transform(tmp_path):
    """A transform of a section as this package writes it, and the name of its last numbers."""
    path = tmp_path / "t.h5"
    field = transforms.PlaneField(np.ones((3, 4, 2)), 0.5)
    transforms.write_section_transform(path, transforms.SectionTransform((np.eye(3), field)))
    transforms.read_section_transform(path)
    with h5py.File(path) as file:
        names = []
        file.visit(lambda name: names.append(name) if name.endswith("mParameters") else None)
    return path, names[-1]


def _external(file, name, outside):
    old = file[name]
    shape, dtype = old.shape, old.dtype
    del file[name]
    file.create_dataset(name, shape, dtype, external=[(str(outside), 0, h5py.h5f.UNLIMITED)])


def _linked(file, name, outside):
    del file[name]
    file[name] = h5py.ExternalLink(str(outside), "/x")


def _linked_group(file, name, outside):
    group = name.rpartition("/")[0]
    del file[group]
    file[group] = h5py.ExternalLink(str(outside), "/")


def _virtual(file, name, outside):
    layout = h5py.VirtualLayout(file[name].shape, file[name].dtype)
    layout[:] = h5py.VirtualSource(str(outside), "x", shape=file[name].shape)
    del file[name]
    file.create_virtual_dataset(name, layout)


def _within(file, name, outside):
    file.move(name, "elsewhere")
    file[name] = h5py.SoftLink("/elsewhere")


@pytest.mark.parametrize("other", [_external, _linked, _linked_group, _virtual, _within])
@pytest.mark.parametrize("user_block", [0, 512])
def test_a_transform_takes_no_numbers_from_another_file(tmp_path, transform, other, user_block):
    path, name = transform
    if user_block:
        plain = path.rename(tmp_path / "plain.h5")
        with h5py.File(plain) as old, h5py.File(path, "w", userblock_size=user_block) as new:
            for key in old:
                old.copy(key, new)
        transforms.read_section_transform(path)
    outside = tmp_path / "outside.h5"
    with h5py.File(outside, "w") as file:
        file["x"] = np.arange(24.0)
    with h5py.File(path, "r+") as file:
        other(file, name, outside)
    with pytest.raises(ImageError, match="t.h5: .*lies in another file"):
        transforms.read_section_transform(path)


@pytest.mark.parametrize("name", ["a.txt", "a.tfm"])
@pytest.mark.parametrize("other", ["../outside.txt", "/outside.txt", "beside.txt"])
def test_a_similarity_is_no_composite_of_other_files(tmp_path, name, other):
    for path in (tmp_path / "outside.txt", tmp_path / "beside.txt"):
        sitk.WriteTransform(sitk.AffineTransform(3), str(path))
    (tmp_path / name).write_text(
        "#Insight Transform File V1.0\n#Transform 0\nTransform: CompositeTransform_double_3_3\n"
        f"ComponentTransformFile: {other}\n"
    )
    with pytest.raises(ImageError, match="ComponentTransformFile: lies in another file"):
        transforms.read_stack_from_world(tmp_path / name)


def _micro_manager(path, pixels, summary):
    """A TIFF of one page with Micro-Manager's header and tag, as both its formats have them."""
    header = struct.pack("<4I", 483729, summary["MajorVersion"], 2355492, 0)
    text = json.dumps(summary).encode()
    header = header[:12] + struct.pack("<I", len(text)) + text
    data, (rows, columns) = pixels.tobytes(), pixels.shape
    start = 8 + len(header) + len(header) % 2
    ifd = start + len(data) + len(data) % 2
    tags = [
        *((256, 4, 1, columns), (257, 4, 1, rows), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)),
        *((273, 4, 1, start), (277, 3, 1, 1), (278, 4, 1, rows), (279, 4, 1, len(data))),
        (51123, 2, 10, ifd + 2 + 12 * 10 + 4),
    ]
    body = (struct.pack("<4sI", b"II*\0", ifd) + header).ljust(start, b"\0") + data
    body = body.ljust(ifd, b"\0") + struct.pack("<H", len(tags))
    body += b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    path.write_bytes(body + b'{"a": 10}\0')


@pytest.mark.parametrize("named", ["outside", "beside", "absolute"])
def test_a_micro_manager_tiff_is_its_own_pixels_whatever_its_index_names(tmp_path, named):
    folder = tmp_path / "in"
    folder.mkdir()
    secret = tmp_path / "secret.tif"
    tifffile.imwrite(secret, np.full((20, 30), 77, np.uint8), photometric="minisblack")
    own = np.arange(600, dtype=np.uint8).reshape(20, 30) % 5
    _micro_manager(folder / "a.tif", own, {"MajorVersion": 3})
    name = {"outside": "../secret.tif", "beside": "b.tif", "absolute": str(secret)}[named]
    shutil.copy(secret, folder / "b.tif")
    with tifffile.TiffFile(secret) as tiff:
        offset = tiff.pages[0].dataoffsets[0]
    axes, name = json.dumps({"z": 0}).encode(), name.encode()
    (folder / "NDTiff.index").write_bytes(
        struct.pack(f"<I{len(axes)}sI{len(name)}s", len(axes), axes, len(name), name)
        + struct.pack("<8I", offset, 30, 20, 0, 0, 0, 0, 0)
    )
    with tifffile.TiffFile(folder / "a.tif", _multifile=False) as tiff, pytest.warns(UserWarning):
        assert tiff.is_ndtiff and tiff.series[0].pages[0].asarray()[0, 0] == 77  # so it would be
    np.testing.assert_array_equal(read_labels(folder / "a.tif"), own)
    assert read_reduced(folder / "a.tif", 1.0).pixels.max() < 77 / 255
    stated_pixel_size(folder / "a.tif")


SECRET = b"secret" * 4


@pytest.mark.parametrize("head", [b"NRRD0004\n", b"NDims = 3\n", b"\0" * 128 + b"DICM"])
@pytest.mark.parametrize("name", ["mri.nii.gz", "m.nii", "m.nrrd", "m.mha", "m.dcm"])
def test_hdf5_under_the_head_of_another_format_is_not_read(tmp_path, head, name):
    outside = tmp_path / "outside.raw"
    outside.write_bytes(SECRET)
    path = tmp_path / name
    image = sitk.GetImageFromArray(np.zeros((2, 3, 4), np.uint8))
    sitk.WriteImage(image, str(tmp_path / "m.h5"), imageIO="HDF5ImageIO")
    with h5py.File(tmp_path / "m.h5") as old, h5py.File(path, "w", userblock_size=512) as new:
        for key in old:
            old.copy(key, new)
        data = "ITKImage/0/VoxelData"
        attributes = dict(new[data].attrs)
        _external(new, data, outside)
        new[data].attrs.update(attributes)
    with path.open("r+b") as stream:
        stream.write(head.ljust(512))
    if name == "mri.nii.gz":  # so it would be
        assert bytes(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))) == SECRET
    with pytest.raises(ImageError, match=f"{name}: "):
        read_volume(path)


def _nrrd(stated):
    return (
        "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 3 2\nencoding: raw\nendian: little\n"
        f"space dimension: 3\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n{stated}\n"
    )


def _metaimage(stated):
    return f"ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementType = MET_UCHAR\n{stated}\n"


DETACHED = {
    "m.nhdr": (_nrrd, "data file: "),
    "n.nrrd": (_nrrd, "DataFile: "),
    "m.mhd": (_metaimage, "ElementDataFile = "),
    "n.mha": (_metaimage, "ElementDataFile="),
}


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("name", DETACHED)
@pytest.mark.parametrize(
    "stated",
    [
        *("../out.raw", "{out}", "sub/../../out.raw", "-", "gone.raw", "x\r/"),
        *("LIST\n../out.raw", "LIST\nx1.raw\n{out}", "LIST 2\nx1.raw\nsub/../../x"),
        *("../o%dt.raw 1 2 1", "../out%1$s.raw 1 2 1"),
    ],
)
def test_voxels_are_not_looked_for_outside_the_folder_of_their_header(tmp_path, name, stated, ends):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for path in (tmp_path / "out.raw", folder / "x.raw", folder / "x1.raw", folder / "x2.raw"):
        path.write_bytes(SECRET)
    header, field = DETACHED[name]
    text = header(field + stated.format(out=tmp_path / "out.raw"))
    (folder / name).write_bytes(text.replace("\n", ends).encode())
    with pytest.raises(ImageError, match=f"{name}: (its voxels are in|damaged: its header is no)"):
        read_volume(folder / name)


@pytest.mark.parametrize("name", DETACHED)
@pytest.mark.parametrize(
    "stated", ["x.raw", "./x.raw", "sub/x.raw", "LIST\nx1.raw\nx2.raw", "x%d.raw 1 2 1"]
)
def test_voxels_beside_their_header_are_read_up_to_what_they_can_hold(tmp_path, name, stated):
    (tmp_path / "sub").mkdir()
    for path in (tmp_path / "x.raw", tmp_path / "sub" / "x.raw"):
        path.write_bytes(bytes(range(24)))
    for number, path in enumerate((tmp_path / "x1.raw", tmp_path / "x2.raw")):
        path.write_bytes(bytes(range(12 * number, 12 * number + 12)))
    header, field = DETACHED[name]
    (tmp_path / name).write_text(header(field + stated))
    np.testing.assert_array_equal(read_volume(tmp_path / name).data.T.ravel(), range(24))
    text = header(field + stated).replace("4 3 2", "4000 3000 2")
    (tmp_path / name).write_text(text)
    with pytest.raises(ImageError, match="claims 4000 x 3000 x 2 voxels"):
        read_volume(tmp_path / name)
