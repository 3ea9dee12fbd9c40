"""Writing beside and renaming, names inside a folder, JSON that is what it should be."""

import os

import pytest
from pydantic import BaseModel

from sbr_core.errors import ReceiptError, StorageError
from sbr_core.io.files import atomic_path, inside, read_json, refuse_links, walk, write_text


@pytest.mark.parametrize("linked", ["result.txt", f".tmp-{os.getpid()}-result.txt"])
def test_a_link_under_a_result_s_name_is_replaced_and_not_followed(tmp_path, linked):
    (tmp_path / "elsewhere.txt").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / linked).symlink_to(tmp_path / "elsewhere.txt")
    write_text(tmp_path / "out" / "result.txt", "result")
    assert (tmp_path / "elsewhere.txt").read_text() == "mine"
    assert (tmp_path / "out" / "result.txt").read_text() == "result"
    refuse_links(tmp_path)


def test_what_fails_leaves_what_was_there(tmp_path):
    write_text(tmp_path / "a.txt", "before")
    with pytest.raises(KeyError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "before"


def test_names_are_of_files_inside_a_folder(tmp_path):
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "secret").touch()
    assert inside(root, "a/b.txt") == root / "a" / "b.txt"
    (root / "own").symlink_to(root / "a")
    (root / "out").symlink_to(tmp_path)
    assert inside(root, "own/b.txt") == root / "own" / "b.txt"
    (tmp_path / "link").symlink_to(root)  # the root itself may be one
    assert inside(tmp_path / "link", "a/b.txt") == tmp_path / "link" / "a" / "b.txt"
    for name in ("", "/etc/passwd", "../secret", "a/../../secret", "out/secret", str(root / "a")):
        with pytest.raises(ReceiptError):
            inside(root, name)


@pytest.mark.parametrize("name", ["a", "pipe", "a\0b", "\ud800", "x" * 300, "round/b"])
def test_what_cannot_be_a_file_is_none_of_a_folder(tmp_path, name):
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(ReceiptError, match="(is listed as a file, and is none|, which is none: )"):
        inside(tmp_path, name)


ODD = {
    "a/link": (lambda path: path.symlink_to("/etc"), "a/link: is a link"),
    "a/dead": (lambda path: path.symlink_to("gone"), "a/dead: is a link"),
    "a/pipe": (os.mkfifo, "a/pipe: is a pipe or a device"),
    "a/deep": (
        lambda path: (path / "/".join("d" * 70)).mkdir(parents=True),
        "lies 64 folders deep",
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_results_are_files_and_folders(tmp_path, name):
    write_text(tmp_path / "a" / "b" / "c.txt", "")
    assert list(walk(tmp_path)) == [(str(tmp_path / "a" / "b" / "c.txt"), "")]
    refuse_links(tmp_path)
    refuse_links(tmp_path / "gone")
    make, words = ODD[name]
    make(tmp_path / name)
    with pytest.raises(StorageError, match=words):
        refuse_links(tmp_path)
    assert [why for _, why in walk(tmp_path)].count("") == 1


def test_a_folder_that_may_be_entered_and_not_be_listed_is_told(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()

    def scandir(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(StorageError, match="its files cannot be listed: Permission denied"):
        refuse_links(tmp_path / "a")
    monkeypatch.setattr(os, "access", lambda *_: False)  # and nobody gets into it
    refuse_links(tmp_path / "a")


def test_a_pipe_is_no_json(tmp_path):
    os.mkfifo(tmp_path / "p.json")
    with pytest.raises(ReceiptError, match="p.json: is no file"):
        read_json(tmp_path / "p.json")


class Point(BaseModel):
    x: float
    names: list[str] = []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not readable as JSON"),
        ("", "not readable as JSON"),
        ("[" * 100 + "]" * 100, "nested more than 64 levels deep"),
        ("[" * 100_000, "nested more than 64 levels deep"),
        ('{"x": ' + "9" * 5000 + "}", "not readable as JSON"),
        ("\xff", "not readable as JSON"),
        ("5", "damaged"),
        ("[1]", "damaged"),
        ("{}", "damaged: x: Field required"),
        ('{"x": "two"}', "damaged: x: "),
        ('{"x": 1, "names": [5]}', "damaged: names.0: "),
    ],
)
def test_json_that_is_damaged_is_told_in_one_line(tmp_path, text, words):
    (tmp_path / "p.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ReceiptError, match=words) as caught:
        read_json(tmp_path / "p.json", Point)
    assert str(caught.value).startswith(f"{tmp_path}/p.json: ")


def test_json_that_is_right_is_read(tmp_path):
    write_text(tmp_path / "p.json", '{"x": 0.1, "names": ["a"], "later": {"more": [1]}}')
    assert read_json(tmp_path / "p.json", Point) == Point(x=0.1, names=["a"])
    assert read_json(tmp_path / "p.json")["later"] == {"more": [1]}
    with pytest.raises(ReceiptError, match="no such file"):
        read_json(tmp_path / "none.json")
