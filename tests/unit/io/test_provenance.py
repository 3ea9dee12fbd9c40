"""Files that appear whole or not at all, and digests that mean the same everywhere."""

import json

import pytest

from sbr_core.errors import ReceiptError
from sbr_core.io.files import atomic_path, read_json, sha256_file, sha256_of, write_json, write_text
from sbr_core.io.provenance import write_provenance


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "sub" / "a.nii.gz"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.name.endswith(".nii.gz")  # writers go by the suffix
        assert temporary.parent == path.parent  # a rename stays on one file system
    assert path.read_text() == "new"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="halfway"), atomic_path(path) as temporary:
        temporary.write_text("ne")
        raise RuntimeError("halfway")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_digests_do_not_depend_on_the_order_of_keys(tmp_path):
    assert sha256_of({"a": 1, "b": [1, 2]}) == sha256_of({"b": [1, 2], "a": 1})
    assert sha256_of({"a": 1}) != sha256_of({"a": 2})
    write_text(tmp_path / "x", "abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2
    assert sha256_file(tmp_path / "x") == known
    with pytest.raises(ReceiptError, match="gone: no such file"):
        sha256_file(tmp_path / "gone")


def test_json_comes_back_and_damage_is_named(tmp_path):
    write_json(tmp_path / "a.json", {"µ": [1, None]})
    assert read_json(tmp_path / "a.json") == {"µ": [1, None]}
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(ReceiptError, match=r"b.json: not readable as JSON"):
        read_json(tmp_path / "b.json")
    with pytest.raises(ReceiptError, match="no such file"):
        read_json(tmp_path / "c.json")


def test_provenance_names_versions_options_and_inputs(tmp_path):
    write_text(tmp_path / "in.txt", "abc")
    write_provenance(
        tmp_path / "p.json",
        stage="prepare",
        options={"seed": 3},
        inputs={"mri": tmp_path / "in.txt"},
        note=1,
    )
    found = json.loads((tmp_path / "p.json").read_text())
    assert (found["stage"], found["options"], found["note"]) == ("prepare", {"seed": 3}, 1)
    assert found["inputs"]["mri"]["sha256"] == sha256_file(tmp_path / "in.txt")
    assert {"sbr_core", "python", "numpy", "torch"} <= set(found["versions"])
