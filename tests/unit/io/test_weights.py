"""Weights files: safetensors with a header, never a pickle."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from sbr_core.errors import WeightsError
from sbr_core.io.weights import load_weights, read_header, save_weights


def test_tensors_and_header_come_back(tmp_path):
    path = tmp_path / "sub" / "w.safetensors"
    wide = torch.arange(12.0).reshape(3, 4)
    header = {"kind": "registrar", "architecture": {"channels": [1, 2]}, "stain": "Größe"}
    save_weights(path, {"a": wide.T, "b": wide, "same": wide}, header)  # strided and shared
    tensors, found = load_weights(path)
    assert found == header == read_header(path)
    torch.testing.assert_close(tensors["a"], wide.T)
    torch.testing.assert_close(tensors["same"], wide)
    assert [f.name for f in path.parent.iterdir() if f.is_file()] == ["w.safetensors"]


def test_a_pickle_is_refused_and_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    plain = tmp_path / "plain.safetensors"
    plain.write_bytes(pickle.dumps(Trap()))
    saved = tmp_path / "torch.safetensors"
    torch.save({"a": torch.zeros(3)}, saved)
    for path in (plain, saved):
        with pytest.raises(WeightsError, match=r"expected a .safetensors file.*never opened"):
            load_weights(path)
    assert not (tmp_path / "sprung").exists()


def test_missing_damaged_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="no such file"):
        read_header(tmp_path / "gone.safetensors")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    with pytest.raises(WeightsError, match="found something else"):
        read_header(tmp_path / "empty.safetensors")
    whole = tmp_path / "whole.safetensors"
    save_weights(whole, {"a": torch.zeros(1000)}, {})
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:900])
    with pytest.raises(WeightsError, match="found something else"):
        read_header(cut)
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="without an sbr_core header"):
        read_header(tmp_path / "other.safetensors")
    for header, said in (("{", "not readable as JSON"), ("[1]", "expected a header of keys")):
        save_file({"a": torch.zeros(2)}, tmp_path / "odd.safetensors", {"sbr_core": header})
        with pytest.raises(WeightsError, match=said):
            read_header(tmp_path / "odd.safetensors")
