"""Recorded sums: what was changed since it was written is refused where it is read."""

import numpy as np
import pytest
import torch

from sbr_core.artifacts.global_fit import (
    InitialAffine,
    read_initial,
    read_plane_grid,
    write_initial,
    write_plane_grid,
)
from sbr_core.errors import ReceiptError
from sbr_core.geometry import PlaneGrid
from sbr_core.io import sums
from sbr_core.io.files import sum_file, write_text
from sbr_core.io.sums import check_sum, recorded, remove_summed, summed_path
from sbr_core.io.transforms import read_stack_from_world, write_stack_from_world
from sbr_core.io.volumes import Volume, read_cuts, read_volume, write_volume
from sbr_core.io.weights import load_weights, read_header, save_weights


def write(path, text, **facts):
    with summed_path(path, **facts) as temporary:
        temporary.write_text(text)


def test_a_file_is_compared_with_its_record_where_there_is_one(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("of before there were records")
    assert check_sum(path) is None
    write(path, "as written", sections=["1", "2"])
    assert check_sum(path).sections == ["1", "2"]
    path.write_text("as writteN")
    with pytest.raises(ReceiptError, match="a.txt: is not the file that was written"):
        check_sum(path)
    path.unlink()
    with pytest.raises(ReceiptError, match="a.txt: no such file"):
        check_sum(path)
    write(path, "written anew")
    assert check_sum(path).sections is None
    for damaged in ("", "{}", "5", '{"sha256": 1}'):
        sum_file(path).write_text(damaged)
        with pytest.raises(ReceiptError, match="a.txt.json: (damaged|not readable).*remove both"):
            check_sum(path)
    write(path, "written anew")
    write_text(path, "and again, without a record")
    assert check_sum(path) is None
    write(path, "as written")
    remove_summed(path)
    assert not path.exists() and recorded(path) is None


def test_killed_between_a_file_and_its_record_leaves_no_wrong_record(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write(path, "before")
    monkeypatch.setattr("sbr_core.io.sums.write_json", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(path, "after")
    assert path.read_text() == "after" and check_sum(path) is None


def _volume(path):
    noise = np.random.default_rng(0).random((9, 8, 7), np.float32)
    write_volume(path, Volume(noise, np.eye(4)), summed=True)


HANDED_ON = {
    "mri.nii.gz": (_volume, (read_volume, read_cuts)),
    "x.txt": (lambda path: write_stack_from_world(path, np.eye(4)), (read_stack_from_world,)),
    "grid.json": (
        lambda path: write_plane_grid(path, PlaneGrid((30, 40), 0.25), 1.0),
        (read_plane_grid,),
    ),
    "initial.tsv": (
        lambda path: write_initial(path, [InitialAffine("001", 1.25, "", np.eye(3))]),
        (read_initial,),
    ),
    "weights.safetensors": (
        lambda path: save_weights(path, {"w": torch.ones(50)}, {"kind": "method"}),
        (load_weights, read_header),
    ),
}


@pytest.mark.parametrize("name", HANDED_ON)
def test_a_flipped_bit_in_what_a_stage_hands_on_is_refused(tmp_path, name):
    """Be it a digit that still reads as a number: that would be another volume without a word."""
    writer, readers = HANDED_ON[name]
    path = tmp_path / name
    writer(path)
    whole = path.read_bytes()
    for read in readers:
        read(path)
        for position in range(5, len(whole), max(1, len(whole) // 20)):
            damaged = bytearray(whole)
            damaged[position] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(ReceiptError, match=f"{name}: is not the file that was written"):
                read(path)
        path.write_bytes(whole)
        sum_file(path).unlink()
        read(path)  # of before there were records
        writer(path)


def test_a_record_that_a_job_replaces_meanwhile_is_read_again(tmp_path, monkeypatch):
    """As when planning looks at results that jobs of a cluster are writing."""
    file = tmp_path / "table.tsv"
    write(file, "old")
    read = []

    def then_written_anew(path):
        read.append(recorded(path))
        if len(read) == 1:
            write(file, "new")
        return read[-1]

    monkeypatch.setattr(sums, "recorded", then_written_anew)
    assert check_sum(file) == read[1] != read[0]


def test_what_a_killed_job_had_begun_to_record_counts_as_nothing(tmp_path):
    write(tmp_path / "a.tsv", "x")
    (tmp_path / ".sums" / ".tmp-12-b.tsv.json").write_text("{")
    assert list(sums.recorded_in(tmp_path)) == [tmp_path / "a.tsv"]
