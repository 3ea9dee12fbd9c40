"""Where the pictures of a page are, and what they look like."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from sbr_core.report import shelf as shelf_module
from sbr_core.report.shelf import Shelf, grey_jpeg, overlay_png, rgba_png


def test_few_pictures_are_inside_the_page_and_many_beside_it(tmp_path, monkeypatch):
    shelf = Shelf(tmp_path / "report" / "index.html")
    shelf.add("s1_mri.jpg", b"12345")
    assert not shelf.is_beside
    data = base64.b64encode(b"12345").decode()
    assert shelf.uris() == {"s1_mri.jpg": f"data:image/jpeg;base64,{data}"}
    monkeypatch.setattr(shelf_module, "MOST_INSIDE", 10)
    shelf.add("s1_edges.png", b"123")
    assert shelf.is_beside  # eight bytes are eleven as text
    assert shelf.uris() == {n: f"index_files/{n}" for n in ("s1_mri.jpg", "s1_edges.png")}


def test_the_folder_has_what_the_page_shows_and_goes_when_nothing_is_beside(tmp_path, monkeypatch):
    page = tmp_path / "index.html"
    with monkeypatch.context() as context:
        context.setattr(shelf_module, "MOST_INSIDE", 1)
        for name in ("old.jpg", "new.jpg"):
            shelf = Shelf(page)
            shelf.add(name, b"123")
            shelf.write()
            assert [p.name for p in (tmp_path / "index_files").iterdir()] == [name]
    shelf = Shelf(page)
    shelf.add("new.jpg", b"123")
    shelf.write()
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_what_was_drawn():
    ramp = np.tile(np.linspace(0, 1, 64), (48, 1))
    grey = np.asarray(Image.open(io.BytesIO(grey_jpeg(ramp, 90))), float)
    assert np.abs(grey / 255 - ramp).max() < 0.05
    over = np.asarray(Image.open(io.BytesIO(overlay_png(ramp, (255, 150, 0)))).convert("RGBA"))
    assert (over[..., :3] == (255, 150, 0)).all()
    assert np.abs(over[..., 3] / 255 - ramp).max() < 0.04 and over[0, 0, 3] == 0
    colours = np.random.default_rng(0).integers(0, 255, (5, 6, 4), dtype=np.uint8)
    assert (np.asarray(Image.open(io.BytesIO(rgba_png(colours)))) == colours).all()
