"""Metadata that are not clean, or not the file's own: the pixels are good nevertheless."""

import uuid

import numpy as np
import pytest
import tifffile

from sbr_core.io.images import image_shape, read_section
from sbr_core.io.pixel_size import stated_pixel_size

GREY = np.random.default_rng(0).integers(0, 255, (60, 80)).astype(np.uint8)
OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def _image(size="500", *, number=0, shape=(60, 80), data="<TiffData/>", more="", name="slide"):
    rows, columns = shape
    return (
        f'<Image ID="Image:{number}" Name="{name}"><Pixels ID="Pixels:{number}"'
        f' DimensionOrder="XYCZT" Type="uint8" SizeX="{columns}" SizeY="{rows}" SizeC="1"'
        f' SizeZ="1" SizeT="1" PhysicalSizeX="{size}" PhysicalSizeY="{size}" {more}>'
        f'<Channel ID="Channel:{number}:0" SamplesPerPixel="1"/>{data}</Pixels></Image>'
    )


def _ome(*images, own=""):
    own = f' UUID="urn:uuid:{own}"' if own else ""
    return f'<OME xmlns="{OME}"{own}>{"".join(images)}</OME>'


def _write(path, description, array=GREY):
    content = description.encode() if isinstance(description, str) else description
    tifffile.imwrite(path, array, description=content, metadata=None)
    return path


UNCLEAN = {
    "ampersand": _ome(_image(name="NeuN & DAPI")),
    "less than": _ome(_image(name="a<b")),
    "control character": _ome(_image(name="a\x02b")),
    "prefix of nothing": _ome(_image(), "<x:y/>"),
    "cut off": _ome(_image())[:150] + "OME>",
    "decimal comma": _ome(_image("500,0")),
    "with its unit": _ome(_image("500 um")),
    "sides that are no numbers": _ome(_image()).replace('SizeX="80"', 'SizeX="8 0"'),
    "an order that there is not": _ome(_image()).replace("XYCZT", "XYQZT"),
    "pages that are no numbers": _ome(_image(data='<TiffData IFD="x"/>')),
    "MPP of two points": "Aperio Image Library|AppMag = 20|MPP = 0.5.0",
    "MPP with a comma": "Aperio Image Library|MPP = 0,5|AppMag = 20",
    "MPP with its unit": "Aperio Image Library|MPP = 0.5um",
    "ImageJ": "ImageJ=1.53t\nimages=many\nunit=micron\n",
    "shaped": '{"shape": ["a"]',
}


@pytest.mark.parametrize("name", UNCLEAN)
def test_metadata_that_are_not_clean_cost_nothing_but_the_pixel_size(tmp_path, name):
    path = _write(tmp_path / "a.tif", UNCLEAN[name])
    doubts: list[str] = []
    stated = stated_pixel_size(path, doubts)
    assert stated is None or stated.x_mm == pytest.approx(0.5)
    assert len(doubts) == 1 and ("not clean" in doubts[0] or "as they are" in doubts[0])
    assert "\n" not in doubts[0] and len(doubts[0]) < 200
    np.testing.assert_allclose(read_section(path), GREY / 255)
    assert image_shape(path) == GREY.shape


@pytest.mark.parametrize("size", ["INF", "-500", "0", ""])
def test_sizes_that_none_can_be_are_none(tmp_path, size):
    assert stated_pixel_size(_write(tmp_path / "a.tif", _ome(_image(size)))) is None


def test_clean_metadata_are_not_doubted(tmp_path):
    doubts: list[str] = []
    path = _write(tmp_path / "a.tif", _ome(_image()))
    assert stated_pixel_size(path, doubts).x_mm == 0.5 and not doubts


IDS = [str(uuid.UUID(int=number)) for number in (1, 2)]
FILES = ["overview.ome.tif", "section.ome.tif"]
SHAPES, SIZES = [(30, 40), (60, 80)], ["1000", "500"]


def _set(own, *, named=True, file_name=True):
    """OME-XML of one file of a set of two."""
    images = []
    for number in range(2):
        name = f' FileName="{FILES[number]}"' if file_name else ""
        place = f"<UUID{name}>urn:uuid:{IDS[number]}</UUID>" if named else ""
        data = f'<TiffData IFD="0" PlaneCount="1">{place}</TiffData>'
        images.append(_image(SIZES[number], number=number, shape=SHAPES[number], data=data))
    return _ome(*images, own=own)


@pytest.mark.parametrize("how", ["as written", "renamed", "no UUID of its own", "by its size"])
def test_the_pixel_size_of_a_file_of_a_set_is_its_own(tmp_path, how):
    for number, true_mm in enumerate((1.0, 0.5)):
        own = "" if how == "no UUID of its own" else IDS[number]
        description = _set(own, named=how != "by its size", file_name=how != "renamed")
        name = f"s{number}.tif" if how == "renamed" else FILES[number]
        array = GREY[: SHAPES[number][0], : SHAPES[number][1]].copy()
        assert stated_pixel_size(_write(tmp_path / name, description, array)).x_mm == true_mm


def test_a_label_and_an_overview_beside_the_slide_do_not_count(tmp_path):
    others = [_image("9000", number=n, shape=(9 + n, 12)) for n in (0, 1)]
    path = _write(tmp_path / "a.tif", _ome(*others, _image("500", number=2)))
    assert stated_pixel_size(path).x_mm == 0.5


def test_of_images_that_may_all_be_it_none_is_taken_unless_they_agree(tmp_path):
    doubts: list[str] = []
    both = _ome(_image("500"), _image("700", number=1))
    assert stated_pixel_size(_write(tmp_path / "a.tif", both), doubts) is None
    assert "2 images that may be this one" in doubts[0]
    same = _ome(_image("500"), _image("500", number=1))
    assert stated_pixel_size(_write(tmp_path / "b.tif", same)).x_mm == 0.5
