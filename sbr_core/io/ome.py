"""OME-XML: which of the images that it lists is the picture of the file it stands in."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree


def pixels_of(xml: str, path: Path, shape: tuple[int, int]) -> list[ElementTree.Element]:
    """The elements ``Pixels`` that may be those of a file's picture, most likely one.

    A file of a set lists all images of the set. Its own are those whose ``TiffData`` name it, by
    its UUID or its name, and of several, as a slide's label and overview are, those of its size.

    Parameters
    ----------
    xml : of the file.
    path : the file's.
    shape : (rows, columns) of its picture.

    Raises
    ------
    ElementTree.ParseError
        It is not well-formed.
    """
    root = ElementTree.fromstring(xml)
    listed = root.findall(".//{*}Pixels")
    ours = [pixels for pixels in listed if _is_in(pixels, root.get("UUID"), path)]
    # of a file that was renamed, and has no UUID, none is named
    of_file = ours or listed
    columns_rows = [str(n) for n in reversed(shape)]
    of_size = [p for p in of_file if [p.get("SizeX"), p.get("SizeY")] == columns_rows]
    return of_size or of_file


def _is_in(pixels: ElementTree.Element, own_uuid: str | None, path: Path) -> bool:
    """Whether an image lies in a file: no other is named as the place of its planes."""
    places = pixels.findall("{*}TiffData/{*}UUID")
    if not places:
        return True
    uuids = {(place.text or "").strip() for place in places}
    names = {place.get("FileName") for place in places}
    return own_uuid in uuids or path.name in names
