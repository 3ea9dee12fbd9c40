"""What pages have in common."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sbr_core.errors import ReceiptError
from sbr_core.io.files import write_json
from sbr_core.io.images import write_png
from sbr_core.report.page import comparison_of, jpeg, number, read_png, simulated_from

COMPARISON = {"methods": [], "lines": [], "tests": [], "notes": [], "alpha": 0.05}


def test_numbers_have_three_digits_and_counts_are_whole():
    values = [None, float("nan"), 0.0, 1e-9, 1.0, 0.25, -2.5, 16.25, 99.96, 1234.5, 7, 250]
    texts = ["–", "–", "0", "0", "1.00", "0.250", "-2.50", "16.2", "100", "1234", "7", "250"]
    assert [number(value) for value in values] == texts


def test_a_picture_is_inside_the_page(tmp_path):
    grey = np.tile(np.linspace(0, 255, 60).astype(np.uint8), (40, 1))
    picture = jpeg(np.stack([grey] * 3, axis=-1), "a ramp", 90)
    assert (picture["caption"], picture["width"], picture["height"]) == ("a ramp", 60, 40)
    kind, data = picture["uri"].split(",")
    assert kind == "data:image/jpeg;base64"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L"), float)
    assert np.abs(shown - grey).max() < 10


def test_a_comparison_s_figures_are_shown_at_the_size_of_the_page_s_letters(tmp_path):
    assert comparison_of(tmp_path) is None
    write_png(tmp_path / "figures" / "box.png", np.zeros((10, 250), np.uint8))
    figure = {"title": "", "file": "figures/box.png", "caption": "boxes"}
    write_json(tmp_path / "comparison.json", COMPARISON | {"figures": [figure]})
    comparison = comparison_of(tmp_path)
    assert comparison["alpha"] == 0.05
    (shown,) = comparison["figures"]
    # drawn at 250 dots an inch, shown at 165
    assert shown["width"] == 165 and shown["uri"].startswith("data:image/png;base64,")
    assert shown["caption"] == "boxes"


@pytest.mark.parametrize("file", ["../secret.png", "{out}", "figures/key.png", "figures/link.png"])
def test_a_comparison_shows_nothing_but_pngs_of_its_own_folder(tmp_path, file):
    write_png(tmp_path / "secret.png", np.zeros((10, 250), np.uint8))
    folder = tmp_path / "compare"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "key.png").write_text("-----BEGIN OPENSSH PRIVATE KEY-----")
    (folder / "figures" / "link.png").symlink_to(tmp_path / "secret.png")
    figure = {"title": "", "file": file.format(out=tmp_path / "secret.png"), "caption": ""}
    write_json(folder / "comparison.json", COMPARISON | {"figures": [figure]})
    with pytest.raises(ReceiptError, match="not inside this folder|not readable as PNG|a link"):
        comparison_of(folder)


def test_a_picture_that_takes_all_memory_is_not_shown(tmp_path):
    write_png(tmp_path / "box.png", np.zeros((10, 250), np.uint8))
    png = bytearray((tmp_path / "box.png").read_bytes())
    png[16:24] = struct.pack(">2I", 60_000, 60_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    (tmp_path / "box.png").write_bytes(png)
    with pytest.raises(ReceiptError, match="60000 x 60000 pixels, too many for a page"):
        read_png(tmp_path, "box.png")


@pytest.mark.parametrize("text", ["5", "[" * 9999, '{"figures": 1}', '{"methods": {}}', "{"])
def test_a_damaged_comparison_is_told_in_one_line(tmp_path, text):
    (tmp_path / "comparison.json").write_text(text)
    with pytest.raises(ReceiptError, match="comparison.json: (damaged|not readable)"):
        comparison_of(tmp_path)


@pytest.mark.parametrize(("moved", "text"), [(2.5, "2.50"), (None, "–")])
def test_a_simulated_brain_is_named_after_its_real_one(tmp_path, moved, text):
    if moved is not None:
        write_json(tmp_path / "data" / "truth.json", {"in_plane_mm_of_linear": moved})
    assert simulated_from("b-simulated", tmp_path) == {"source": "b", "moved_mm": text}
    assert simulated_from("b", tmp_path) is None
