"""`sbr fetch`: the paper's data sets, from a server of this machine that has their layout."""

import hashlib

import numpy as np
import pytest
from paper_data import (
    ALLEN,
    COLOURS,
    allen_files,
    allen_files_of,
    bigbrain_files,
    classes,
    write_list,
)

from sbr_core.artifacts.rows import Row, read_rows
from sbr_core.cli import main
from sbr_core.config import PrepareOptions, ResampleOptions
from sbr_core.io.images import read_labels
from sbr_core.io.manifests import read_brains, read_manifest
from sbr_core.io.tables import read_tsv
from sbr_core.stages import prepare, resample
from sbr_core.tools import fetch


@pytest.fixture
def repository_of(serve, tmp_path, monkeypatch):
    """`repository_of(files, faults=…)`: a server of these files, which `fetch` is to bring."""

    def start(files, **how):
        monkeypatch.setattr(fetch, "FILE_LIST", write_list(tmp_path / "list.tsv", files))
        monkeypatch.chdir(tmp_path)
        return serve(files, **how)

    return start


def run(dataset, server):
    return main(["fetch", dataset, "--base-url", server.url])


def ready_rows(folder, dataset):
    """The rows of the brain that was written, found as the workflow finds them."""
    (brain,) = read_brains(folder / "brain.tsv").values()
    assert (brain.brain, brain.prealigned, brain.mri) == (dataset, True, "")
    return read_manifest(brain.sections, prealigned=True)


def assert_can_be_prepared(rows, folder, working_pixel_mm):
    """Both stages that read the files take every section."""
    prepare.run(
        PrepareOptions(working_pixel_mm=working_pixel_mm, min_tissue_mm2=1.0),
        rows=rows,
        out_dir=folder / "prepare",
        receipt=folder / "prepare" / "chunks" / "0.tsv",
        strict=True,
    )
    resample.run(
        ResampleOptions(),
        rows=rows,
        out_dir=folder / "resample",
        receipt=folder / "resample" / "chunks" / "0.tsv",
        working_pixel_mm=working_pixel_mm,
        strict=True,
    )
    for stage in ("prepare", "resample"):
        assert len(read_rows(folder / stage / "chunks" / "0.tsv", Row)) == len(rows)


def test_allen_is_ready_to_run(repository_of, tmp_path, capsys):
    server = repository_of(allen_files())
    assert run("allen", server) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[1].startswith("allen: (c) Allen Institute") and "terms-of-use" in output[1]
    assert output[-1].endswith("--config brains=data/allen/brain.tsv preset=cpu")
    folder = tmp_path / "data" / "allen"
    assert read_tsv(folder / "brain.tsv")[1][0]["notes"] == output[1].removeprefix("allen: ")
    for name, content in allen_files().items():
        assert (folder / name.removeprefix(f"{ALLEN}/")).read_bytes() == content
    rows = ready_rows(folder, "allen")
    assert [(r.section, r.position_mm, r.pixel_size_mm) for r in rows] == [
        ("002", 8.95, 0.25),
        ("003", 12.35, 0.25),
        ("004", 15.35, 0.25),
    ]
    # by its revision, where it has one, each colour is its class again
    for row, ours, theirs in zip(rows, (2, 3, 20), (12, 13, 21), strict=True):
        np.testing.assert_array_equal(read_labels(row.labels), classes(ours))
        np.testing.assert_array_equal(read_labels(row.mri_labels), classes(theirs))
    assert_can_be_prepared(rows, tmp_path, 0.5)


def test_bigbrain_is_ready_to_run(repository_of, tmp_path, capsys):
    server = repository_of(bigbrain_files())
    assert run("bigbrain", server) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[1].startswith("bigbrain: BigBrain (Amunts") and "CC BY-NC-SA" in output[1]
    folder = tmp_path / "data" / "bigbrain"
    rows = ready_rows(folder, "bigbrain")
    # by position, although the list of sections is shuffled
    assert [(r.section, r.position_mm, r.pixel_size_mm) for r in rows] == [
        ("016", 6.4, 0.4),
        ("017", 6.8, 0.4),
        ("018", 7.2, 0.4),
    ]
    for row, listed in zip(rows, read_tsv(folder / "sections.tsv")[1], strict=True):
        for mask in (row.mask, row.mri_mask):
            np.testing.assert_array_equal(read_labels(mask) > 0, classes(int(row.section)) > 0)
        for column in ("image_raw", "affine"):
            assert row.section in listed[column] and (folder / listed[column]).is_file()
    assert_can_be_prepared(rows, tmp_path, 0.8)


def test_a_second_fetch_downloads_and_writes_nothing_that_a_run_would_see(repository_of, tmp_path):
    server = repository_of(allen_files())
    run("allen", server)
    dates = {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*.png")}
    server.requests.clear()
    assert run("allen", server) == 0
    assert server.requests == []
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*.png")} == dates


def test_what_fails_on_the_way_is_one_line_and_writes_no_manifest(
    repository_of, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    path = f"{ALLEN}/mri/images/slice_003.png"
    server = repository_of(allen_files(), faults={path: ["corrupt"] * 5})
    assert run("allen", server) == 2
    (line,) = (s for s in capsys.readouterr().err.splitlines() if s.startswith("sbr "))
    assert line.startswith(f"sbr fetch: {server.url}{path}: came 5 times with another sha256")
    assert not list(tmp_path.rglob("sections.tsv")) and not list(tmp_path.rglob("brain.tsv"))
    assert run("allen", server) == 0  # and the next time it goes on
    assert len(ready_rows(tmp_path / "data" / "allen", "allen")) == 3


def test_a_folder_that_cannot_be_written_is_one_line(repository_of, tmp_path, capsys):
    server = repository_of(allen_files())
    (tmp_path / "data" / "allen").mkdir(parents=True)
    (tmp_path / "data" / "allen" / "classes").write_text("a file where the folder should be")
    assert run("allen", server) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("sbr fetch: ")]
    where, _, why = line.removeprefix("sbr fetch: ").partition(": ")
    assert where.startswith("data/allen/classes/") and "not a directory" in why.lower()


def test_another_data_set_is_refused(capsys):
    assert main(["fetch", "visible-human"]) == 2
    assert "expected one of allen, bigbrain, found 'visible-human'" in capsys.readouterr().err


def test_each_colour_is_its_class_and_a_mixture_is_none():
    np.testing.assert_array_equal(fetch.classes_of_colours(COLOURS[None]), [[0, 1, 2, 3, 4]])
    dim = (COLOURS > 0).astype(np.uint8)  # any value but 0 counts
    np.testing.assert_array_equal(fetch.classes_of_colours(dim[None]), [[0, 1, 2, 3, 4]])
    mixed = np.array([[(255, 255, 0), (255, 0, 255), (0, 255, 255)]], np.uint8)
    assert not fetch.classes_of_colours(mixed).any()


def test_the_list_has_both_data_sets_and_what_their_manifests_name():
    counts = {}
    for dataset, chosen in fetch.DATA_SETS.items():
        files = fetch._listed(chosen.folder, fetch.BASE_URL)
        assert files["slice_id.txt"].url == f"{fetch.BASE_URL}{chosen.folder}/slice_id.txt"
        assert all(f.size_bytes > 0 and len(f.sha256) == 64 for f in files.values())
        counts[dataset] = len(files), sum(f.size_bytes for f in files.values())
    assert counts == {"allen": (1038, 18635632), "bigbrain": (2502, 32249880)}


def test_real_files_are_those_of_the_list(shared_data):
    """What was repackaged byte for byte stands in the list where the layout says."""
    sections = [r["section"] for r in read_tsv(shared_data / "allen" / "sections.tsv")[1]]
    listed = fetch._listed("data", fetch.BASE_URL)
    for name, content in allen_files_of(shared_data, sections).items():
        if "/labels" not in name:
            expected = listed[name.removeprefix("data/")].sha256
            assert hashlib.sha256(content).hexdigest() == expected, name


def test_real_allen_sections_come_out_as_they_were_repackaged(shared_data, repository_of, tmp_path):
    rows = [r for r in read_tsv(shared_data / "allen" / "sections.tsv")[1] if r["labels"]][:5]
    server = repository_of(allen_files_of(shared_data, [row["section"] for row in rows]))
    assert run("allen", server) == 0
    found = ready_rows(tmp_path / "data" / "allen", "allen")
    for ours, theirs in zip(found, rows, strict=True):
        assert (ours.section, ours.position_mm) == (theirs["section"], float(theirs["position_mm"]))
        assert ours.pixel_size_mm == float(theirs["pixel_size_mm"])
        for column in ("labels", "mri_labels"):
            np.testing.assert_array_equal(
                read_labels(getattr(ours, column)),
                read_labels(shared_data / "allen" / theirs[column]),
            )
    assert_can_be_prepared(found, tmp_path, 1.0)
