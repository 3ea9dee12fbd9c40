"""What `sbr fetch` writes can be run as it stands."""

import pytest
from paper_data import allen_files, allen_files_of, bigbrain_files, write_list

from sbr_core.cli import main
from sbr_core.tools import fetch


def planned(lab, serve, monkeypatch, dataset, files):
    """Jobs of each rule for a data set fetched into the lab's folder."""
    monkeypatch.setattr(fetch, "FILE_LIST", write_list(lab.folder / "list.tsv", files))
    monkeypatch.chdir(lab.folder)
    assert main(["fetch", dataset, "--base-url", serve(files).url]) == 0
    return lab.rules("--config", f"brains=data/{dataset}/brain.tsv", "preset=cpu")


@pytest.mark.parametrize(
    ("dataset", "files"), [("allen", allen_files), ("bigbrain", bigbrain_files)]
)
def test_a_data_set_of_the_paper_runs_as_it_was_fetched(
    empty_lab, serve, monkeypatch, dataset, files
):
    rules = planned(empty_lab, serve, monkeypatch, dataset, files())
    assert {"prepare", "train", "reassemble", "evaluate", "report"} <= set(rules)
    assert not {"demo", "align", "prepare_mri"} & set(rules)  # it is prealigned


def test_the_real_data_runs_as_it_was_fetched(empty_lab, serve, monkeypatch, shared_data):
    files = allen_files_of(shared_data, ["002", "004", "005", "008"])
    rules = planned(empty_lab, serve, monkeypatch, "allen", files)
    assert {"prepare", "train", "reassemble", "evaluate", "report"} <= set(rules)
