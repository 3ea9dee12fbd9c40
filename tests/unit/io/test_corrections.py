"""The table of corrections: what is written is read, the later word counts, faults are named."""

import pytest

from sbr_core.errors import ManifestError
from sbr_core.io.corrections import (
    Correction,
    landmarks_from,
    landmarks_json,
    merged,
    read_corrections,
    write_corrections,
)
from sbr_core.io.manifests import Landmark

A = Landmark("a", (1.5, 2.25), mri_mm=(-3.0, 4.0, 5.5), name="fornix")
B = Landmark("a", (0.1, 0.2), mri_mm=(0.3, 0.4, 0.5), name="2")
HEADER = "section\tkind\tvalue\tx_section_mm\ty_section_mm\tmri_x_mm\tmri_y_mm\tmri_z_mm\n"


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "corrections.tsv"
    said = {
        "a": Correction("a", "reject", (A, B), "torn; see photo"),
        "b": Correction("b", "accept"),
        "c": Correction("c", note="pale"),
    }
    write_corrections(path, said.values(), prealigned=False)
    assert read_corrections(path, "abc", prealigned=False) == said
    assert landmarks_from(landmarks_json(said, ["c", "a"])) == [A, B]
    assert landmarks_json(said, ["b", "c"]) == "[]"
    assert landmarks_from(str(path)) == [A, B]

    mark = Landmark("a", (1.0, 2.0), plane_mm=(3.0, 4.0), name="x")
    write_corrections(path, [Correction("a", landmarks=(mark,))], prealigned=True)
    assert read_corrections(path, "a", prealigned=True)["a"].landmarks == (mark,)
    assert landmarks_from(str(path)) == [mark]
    for wrong in ("[", "[3]", '[{"section": "a"}]'):
        with pytest.raises(ManifestError, match="--landmarks"):
            landmarks_from(wrong)


def test_landmarks_without_a_name_are_numbered(tmp_path):
    path = tmp_path / "corrections.tsv"
    path.write_text(HEADER + "a\tlandmark\t\t1\t1\t2\t3\t4\n" * 2)
    marks = read_corrections(path, "a", prealigned=False)["a"].landmarks
    assert [mark.name for mark in marks] == ["1", "2"]


def test_later_words_count_and_what_they_leave_out_stays():
    before = {"a": Correction("a", "reject", (A,), "torn"), "b": Correction("b", "accept")}
    both = merged(before, [Correction("a", "accept"), Correction("c", note="new")])
    assert both["a"] == Correction("a", "accept", (A,), "torn")
    assert list(both) == ["a", "b", "c"] and both["b"] == before["b"]
    assert merged(before, [Correction("a", landmarks=())])["a"].landmarks == ()
    assert merged(both, [Correction("a", "accept")]) == both, "twice is once"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("z\tverdict\taccept\n", "no such section"),
        ("a\topinion\tgood\n", "kind: expected one of"),
        ("a\tverdict\tfine\n", "'accept', 'reject'"),
        ("a\tverdict\texclude\n", "manifest"),
        ("a\tverdict\taccept\na\tverdict\treject\n", "line 3: section 'a': a second verdict"),
        ("a\tlandmark\t1\t1\t2\t3\t4\n", "mri_z_mm: expected a number"),
        ("a\tlandmark\t1\t1\t2\t3\t4\t5\na\tlandmark\t1\t1\t2\t3\t4\t5\n", "a second landmark"),
    ],
)
def test_faults_name_line_and_section(tmp_path, rows, said):
    path = tmp_path / "corrections.tsv"
    path.write_text(HEADER + rows)
    with pytest.raises(ManifestError, match=said):
        read_corrections(path, "a", prealigned=False)


def test_columns_nearly_right_are_refused(tmp_path):
    path = tmp_path / "corrections.tsv"
    path.write_text("section\tkind\tverdict\na\tverdict\taccept\n")
    with pytest.raises(ManifestError, match="expected 'value'"):
        read_corrections(path, "a", prealigned=False)
