"""What of a folder is a section, and that nothing of it leaves or enters without a word."""

import numpy as np
import pytest

from sbr_core.cli import main
from sbr_core.io.folders import list_folder
from sbr_core.io.images import write_png
from sbr_core.io.tables import read_tsv

GREY = np.full((20, 30), 200, np.uint8)


@pytest.fixture
def folder(tmp_path):
    def make(*names, content=b"x"):
        for name in names:
            path = tmp_path / name
            if name.endswith("/"):
                path.mkdir()
            elif name.endswith(".png"):
                write_png(path, GREY)
            else:
                path.write_bytes(content)
        return tmp_path

    return make


@pytest.mark.parametrize(
    "ending", [".czi", ".MRXS", ".nd2", ".lif", ".vsi", ".dcm", ".heic", ".psd", ".nrrd"]
)
def test_a_section_of_a_format_that_is_not_read_keeps_its_place_and_is_named(folder, ending):
    listing = list_folder(folder("s1.png", f"s2{ending}", "s4.png", "report.pdf"))
    assert listing.sections == ("s1.png", f"s2{ending}", "s4.png")
    assert list(listing.unread) == [f"s2{ending}"]
    said = "\n".join(listing.notes)
    assert f"s2{ending}" in said and "report.pdf" in said and "LEFT OUT" in said


def test_whatever_else_is_there_is_named(folder):
    made = folder("s1.png", "s1.czi", "s2.png", "notes.txt", "s3", ".hidden.czi", "Thumbs.db")
    (made / "s3").write_bytes(b"\x89PNG....")
    folder("more/", "more/a.png", "more/b.png")
    listing = list_folder(made)
    assert listing.sections == ("s1.png", "s2.png", "s3")
    said = "\n".join(listing.notes)
    for words in ("s1.czi", "notes.txt", "more (2 images)", "add the ending .png: s3", "Thumbs"):
        assert words in said
    assert "hidden" not in said


@pytest.mark.parametrize(
    "name",
    [
        *("s1-mask.png", "s1_seg.png", "s1_Mask.png", "mask_s1.png", "S1 mask.png", "s1_label.png"),
        *("s1_cp_masks.png", "s1_Simple Segmentation.png", "s1mask.png", "s1_thumbnail.png"),
        *("s1_masked.png", "s1.annotations.png"),
    ],
)
def test_what_looks_like_a_mask_is_no_section_and_is_asked_about(folder, name):
    listing = list_folder(folder("s1.png", "s2.png", name))
    assert listing.sections == ("s1.png", "s2.png") and listing.companions == {}
    assert any(f"{name}: are they? Name a mask" in note for note in listing.notes)


def test_masks_and_labels_named_as_they_should_be_belong_to_their_sections(folder):
    listing = list_folder(folder("s1.png", "s1_mask.png", "s1_labels.png", "s2.png"))
    assert listing.sections == ("s1.png", "s2.png") and listing.notes == ()
    assert listing.companions == {"s1": {"mask": "s1_mask.png", "labels": "s1_labels.png"}}


@pytest.mark.parametrize(
    "name", ["smask1.png", "unmasked7.png", "labelling_1.png", "segovia_1.png"]
)
def test_words_within_words_are_no_masks(folder, name):
    assert name in list_folder(folder("s1.png", name)).sections


def test_masks_alone_are_taken_with_a_question(folder):
    listing = list_folder(folder("s1_mask.png", "s2_mask.png"))
    assert listing.sections == ("s1_mask.png", "s2_mask.png")
    assert "named like masks" in listing.notes[0] and "check it" in listing.notes[0]


def test_sections_come_in_the_order_of_signed_numbers_and_not_of_dates(folder):
    names = ("bregma_1.5.png", "bregma_-2.5.png", "bregma_-1.5.png")
    listing = list_folder(folder(*names))
    assert listing.sections == ("bregma_-2.5.png", "bregma_-1.5.png", "bregma_1.5.png")


def test_dates_do_not_order_sections_that_are_numbered(folder):
    listing = list_folder(folder("20240116_s1.png", "20240115_s2.png"))
    assert listing.sections == ("20240116_s1.png", "20240115_s2.png")


def test_the_manifest_shows_the_numbers_and_keeps_places(folder, capsys):
    made = folder("bregma_1.5.png", "bregma_-2.5.png", "bregma_-1.5.czi")
    flags = ["--thickness-mm", "1", "--pixel-size-mm", "0.01"]
    assert main(["manifest", str(made), *flags]) == 0
    rows = read_tsv(made / "sections.tsv")[1]
    assert [float(row["position_mm"]) for row in rows] == [0, 4]
    said = capsys.readouterr().err
    assert "-2.5 in bregma_-2.5" in said and "bregma_-1.5.czi" in said
    (made / "sections.tsv").unlink()
    assert main(["manifest", str(made), "--section-spacing-mm", "0.5"]) == 0
    rows = read_tsv(made / "sections.tsv")[1]
    assert [float(row["position_mm"]) for row in rows] == [0, 2]
    said = capsys.readouterr().err
    assert "which go by 1: 0.5 mm apart; 2 numbers are missing" in said
    assert "--thickness-mm 1 takes them" in said


def test_dates_are_told_where_positions_go_by_order(folder, capsys):
    made = folder("a_2024-01-15.png", "a_2024-01-18.png")
    assert main(["manifest", str(made), "--section-spacing-mm", "1"]) == 0
    said = capsys.readouterr().err
    assert "by the order of the names, 1 mm apart" in said and "dates in them do not count" in said
    assert main(["manifest", str(made), "--thickness-mm", "1", "-o", str(made / "b.tsv")]) == 2
    assert "dates in them do not count" in capsys.readouterr().err
