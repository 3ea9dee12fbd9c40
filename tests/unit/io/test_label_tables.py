"""Names and colours of labels: what FreeSurfer, ITK-SNAP, BIDS and the Allen Institute write."""

import pytest

from sbr_core.errors import ManifestError
from sbr_core.io.label_tables import NO_NAMES, Label, read_label_table

_FREESURFER = """#$Id: FreeSurferColorLUT.txt $
#No. Label Name:                            R   G   B   A

0   Unknown                                 0   0   0   0
17  Left-Hippocampus                        220 216 20  0
1002 ctx lh caudal                          125 100 160 0
"""
_ITK_SNAP = """################################################
# ITK-SnAP Label Description File
# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL
################################################
    0     0    0    0        0  0  0    "Clear Label"
   17   220  216   20        1  1  1    "Left-Hippocampus"
 1002   125  100  160     0.55  1  1    "ctx lh caudal"
"""
_BIDS = (
    "index\tname\tabbreviation\tcolor\n17\tLeft-Hippocampus\tHip\t#dcd814\n"
    "1002\tctx lh caudal\tn/a\t#7D64A0\n"
)
_ALLEN = (
    "id,atlas_id,name,acronym,color_hex_triplet\n17,1,Left-Hippocampus,Hip,DCD814\n"
    '1002,2,"ctx lh caudal",ctx,7D64A0\n'
)
_SLICER = (
    "LabelValue,Name,Color_R,Color_G,Color_B,Color_A\n17,Left-Hippocampus,220,216,20,255\n"
    "1002,ctx lh caudal,125,100,160,255\n"
)
_OURS = (
    "id\tname\tr\tg\tb\n17\tLeft-Hippocampus\t220\t216\t20\n1002\tctx lh caudal\t125\t100\t160\n"
)


@pytest.mark.parametrize("text", [_FREESURFER, _ITK_SNAP, _BIDS, _ALLEN, _SLICER, _OURS])
def test_every_kind_gives_the_same_names_and_colours(tmp_path, text):
    path = tmp_path / "labels.txt"
    path.write_text(text, encoding="utf-8-sig")
    table = read_label_table(path)
    assert table.of(17) == Label(17, "Left-Hippocampus", (220, 216, 20))
    assert table.of(1002) == Label(1002, "ctx lh caudal", (125, 100, 160))
    assert table.of(5) == NO_NAMES.of(5) == Label(5, "5", None)


def test_a_colour_is_not_needed_and_loses_no_zeros(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        "label;region;color\n3;grey matter;\n4;white matter;ff\n4;white matter;0000ff\n"
    )
    table = read_label_table(path)
    assert table.of(3) == Label(3, "grey matter") and table.of(4).rgb == (0, 0, 255)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 a 1 2 3 0\n1 b 1 2 3 0\n", "line 2: the index 1 stands there twice, as 'a' and 'b'"),
        ("1 a 1 2 3 0\n2 b 1 2\n", "line 2: expected a row like those before it, found '2 b 1 2'"),
        ("1 a 1 2 300 0\n", "line 1: expected a colour of three numbers 0 to 255, found 1 2 300"),
        ("id\tname\n1.5\ta\n", "line 2: expected the whole number of a label, found '1.5'"),
        ("id\tname\n1\t\n", "line 2: name: expected a name, found nothing"),
        ("id\tname\tcolor\n1\ta\tblue\n", "color: expected a colour as #rrggbb, found 'blue'"),
        ("a\tb\n1\t2\n", "expected a colour table of FreeSurfer"),
        ("# nothing\n", "has no labels"),
        ("id\tname\n", "has no labels"),
    ],
)
def test_what_is_none_is_told_in_one_line(tmp_path, text, message):
    path = tmp_path / "t.txt"
    path.write_text(text)
    with pytest.raises(ManifestError) as raised:
        read_label_table(path)
    assert message in str(raised.value) and str(path) in str(raised.value)
    with pytest.raises(ManifestError, match="no such file"):
        read_label_table(tmp_path / "none.txt")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="not readable as UTF-8"):
        read_label_table(tmp_path / "b.txt")
