"""The page over all brains, and the paragraph for a paper, of results made up in a folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from sbr_core import __version__
from sbr_core.errors import ReceiptError
from sbr_core.io.tables import read_tsv, write_tsv
from sbr_core.report.citation import Citation
from sbr_core.report.index_page import duration, index_page, last_fault
from sbr_core.report.references import package
from sbr_core.stages import index
from sbr_core.tools import cite

HOSTILE = "<script>alert(1)</script>"
VERSIONS = {"sbr_core": "9.8.7", "torch": "1.2.3", "antspyx": "0.0.4", "nibabel": "5.0"}


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def _prepared(folder: Path, n_failed: int = 1) -> None:
    rows = [
        {
            "section": f"s{i}",
            "status": "failed" if i < n_failed else "ok",
            "message": "empty" if i < n_failed else "",
            "position_mm": 0.25 * i,
            "pixel_size_mm": 0.02,
            "working_pixel_mm": 0.125,
            "files": {},
        }
        for i in range(4)
    ]
    (folder / "prepare").mkdir(parents=True, exist_ok=True)
    write_tsv(folder / "prepare" / "sections.tsv", rows)


@pytest.fixture
def results(tmp_path) -> Path:
    """`one` is finished by linear and sbr, `two` failed while it was prepared."""
    one, two = tmp_path / "one", tmp_path / "two"
    _prepared(one)
    for method, error in (("linear", 2.0), ("sbr", 1.0)):
        (one / method / "volume").mkdir(parents=True)
        _write(one / method / "sections.tsv", "section\tstatus\n")
        (one / method / "volume" / "one_space-mri_histology.nii.gz").touch()
        row = {"brain": "one", "method": method, "metric": "in_plane_mm", "class": ""}
        row |= {"statistic": "mean", "value": error, "unit": "mm", "n": 3}
        (one / "evaluation").mkdir(exist_ok=True)
        with open(one / "evaluation" / "summary.tsv", "a") as stream:
            stream.write("\t".join(row) + "\n" if method == "linear" else "")
            stream.write("\t".join(map(str, row.values())) + "\n")
    evaluation = {"versions": VERSIONS, "inputs": {"landmarks": {}}}
    _write(one / "evaluation" / "evaluation.json", evaluation)
    quality = {"options": {"rounds": 3}, "world_mm_per_stack_mm": 1.25, "versions": VERSIONS}
    _write(one / "align" / "quality.json", quality)
    weights = {"steps": 321, "options": {"contrastive_weight": 0.03, "pixel_factor": 1}}
    _write(one / "sbr" / "weights.json", weights)
    _write(one / "report" / "index.html", "page")
    header = "s\th:m:s\tmax_rss\tcpu_time\n"
    _write(one / "benchmarks" / "align.tsv", header + "100.0\t0:01:40\t5\t150.0\n")
    _write(one / "benchmarks" / "prepare" / "1of2.tsv", header + "20.0\t0:00:20\t5\t18.0\n")
    _write(one / "benchmarks" / "prepare" / "2of2.tsv", header + "0.1\t0:00:00\tNA\tNA\n")
    _write(two / "plan" / "collect.json", {"chunks": []})
    _write(two / "logs" / "prepare" / "1of1.log", f"$ sbr prepare\nsbr prepare: {HOSTILE}: bad\n")
    return tmp_path


def test_the_page_shows_every_brain_whatever_there_is_of_it(results):
    shown = {brain["name"]: brain for brain in index_page(results, ["three"])["brains"]}
    assert {name: brain["state"] for name, brain in shown.items()} == {
        "one": "finished",
        "two": "begun",
        "three": "nothing yet",
    }
    one = shown["one"]
    assert one["sections"] == "3 of 4" and one["left_out"] == "s0"
    assert one["accuracy"][0]["cells"] == [
        {"method": "linear", "text": "2.00"},
        {"method": "sbr", "text": "1.00"},
    ]
    assert (one["time"]["wall"], one["time"]["cpu"]) == ("2 min", "3 min")
    assert [line["jobs"] for line in one["time"]["lines"]] == [1, 2]
    assert one["to_look_at"] == [(1, "section left out")]
    assert shown["two"]["fault"] == f"sbr prepare: {HOSTILE}: bad (logs/prepare/1of1.log)"


def test_the_page_asks_for_nothing_and_escapes_what_it_is_given(results):
    (results / "<b>&" / "plan").mkdir(parents=True)
    index.run(None, results, brains=[HOSTILE])
    page = (results / "index.html").read_text()
    assert "<script" not in page and "<b>&<" not in page and "&lt;script&gt;" in page
    assert "http" not in page.replace("http-equiv", "") and 'src="data:' not in page
    assert 'href="one/report/index.html"' in page and 'href="one/sbr/volume/"' in page
    assert 'href="two/report/index.html"' not in page


def test_a_damaged_brain_is_said_to_be_and_costs_no_other(results):
    _write(results / "two" / "prepare" / "sections.tsv", "nothing\n")
    shown = {brain["name"]: brain for brain in index_page(results, [])["brains"]}
    assert shown["two"]["state"] == "damaged" and "sections.tsv" in shown["two"]["fault"]
    assert shown["one"]["state"] == "finished"


@pytest.mark.parametrize("options", ["text", [], {"rounds": {}}, 5])
def test_json_of_another_shape_is_told_as_damage(results, options):
    _write(results / "one" / "sbr" / "weights.json", {"options": options, "steps": []})
    _write(results / "one" / "align" / "quality.json", {"options": 5, "versions": 7})
    with pytest.raises(ReceiptError, match="cannot be told"):
        _ = Citation(results / "one", "one").paragraph
    shown = {brain["name"]: brain for brain in index_page(results, [])["brains"]}
    assert shown["one"]["state"] == "damaged" and shown["one"]["report"]


def test_an_index_of_no_folder_is_refused(tmp_path):
    with pytest.raises(ReceiptError, match="no such folder"):
        index.run(None, tmp_path / "nowhere")


def test_the_last_fault_is_that_of_the_newest_log(results):
    older, newer = (results / "two" / "logs" / f"{name}.log" for name in ("prepare", "align"))
    _write(older, "$ sbr prepare\nsbr prepare: mended since\n")
    _write(newer, "$ sbr align\nsbr align: this one\n")
    os.utime(older, (1, 1))
    os.utime(results / "two" / "logs" / "prepare" / "1of1.log", (2, 2))
    assert last_fault(results / "two") == "sbr align: this one (logs/align.log)"
    assert last_fault(results / "one") == ""


@pytest.mark.parametrize(("seconds", "words"), [(12, "12 s"), (300, "5 min"), (7200, "2.0 h")])
def test_durations_are_in_a_unit_that_fits(seconds, words):
    assert duration(seconds) == words


def test_the_paragraph_says_what_was_done_and_nothing_else(results):
    citation = Citation(results / "one", "one")
    for words in (
        "3 histological sections (of 4; the others could not be used), 0.250 mm apart",
        "pixels of 0.0200 mm were resampled to 0.125 mm",
        "3 rounds of ANTs",
        "its scale was 1.250",
        "trained for 321 steps",
        "loss of weight 0.03",
        "by landmarks: the mean in-plane landmark error was 2.00 mm (linear), 1.00 mm (sbr)",
        "sbr_core 9.8.7",
        "PyTorch 1.2.3",
    ):
        assert words in citation.paragraph
    for other in ("SyN", "MIND", "Dice", "CycleGAN", "SimpleITK", "working pixels"):
        assert other not in citation.paragraph


def test_what_was_done_by_hand_is_said(results):
    """Landmarks that were obeyed, and rejected sections, once for all methods."""
    one = results / "one"
    before = Citation(one, "one").paragraph
    assert "by hand" not in before and "rejected" not in before
    rows = [{"section": f"s{i}", "status": "ok", "constraints": "{}" * (i < 2)} for i in range(3)]
    (one / "align_sections").mkdir()
    write_tsv(one / "align_sections" / "sections.tsv", rows)
    for method in ("linear", "sbr"):
        _write(one / method / "volume" / "one_space-mri_histology.json", {"rejected": ["s2"]})
    text = Citation(one, "one").paragraph
    assert "The registration of 2 sections was guided by landmarks set by hand." in text
    assert "without 1 section rejected by eye." in text


def test_everything_that_is_cited_is_listed_and_nothing_else(results, capsys):
    citation = Citation(results / "one", "one")
    for reference in citation.references:
        assert reference.short in citation.paragraph
        assert f"{{{reference.key}," in citation.bibtex
    assert "avants2008syn" not in citation.bibtex
    cite.run(None, results, ["one"], bibtex=True)
    assert capsys.readouterr().out == citation.bibtex
    cite.run(None, results / "one")
    assert capsys.readouterr().out == citation.text


def test_this_package_is_the_first_reference_with_the_version_that_was_run(results):
    citation = Citation(results / "one", "one")
    assert citation.references[0].words == (
        "The sbr_core developers. sbr_core: Synth-by-Reg registration of histology stacks and MRI."
        " Version 9.8.7."
    )
    assert citation.bibtex.startswith("@misc{sbr_core-9.8.7,\n")
    assert r"{{The sbr\_core developers}}" in citation.bibtex, "_ alone is an error of LaTeX"


def test_the_reference_of_this_version_has_the_facts_of_the_citation_file():
    file = Path(__file__).parents[3] / "CITATION.cff"
    facts = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert package(__version__).words == (
        f"{facts['authors'][0]['name']} ({facts['date-released'].year})"
        + f". {facts['title']}. Version {facts['version']}."
    )


def test_a_simulated_brain_is_said_to_be_one(results):
    one = results / "one"
    assert "simulated" not in Citation(one, "one").paragraph
    table = one / "prepare" / "sections.tsv"
    header, rows = read_tsv(table)
    write_tsv(table, [row | {"stain": "simulated Nissl"} for row in rows], [*header, "stain"])
    text = Citation(one, "one").paragraph
    assert "3 histological sections (of 4; the others could not be used) of a simulated" in text
    assert "Accuracy was measured on a simulated brain by landmarks" in text


@pytest.mark.parametrize(
    ("of", "log", "words"),
    [
        ("mind", "", "The deformations of MIND were"),
        ("auto", "r/one/sbr/sections.tsv", "The deformations of SbR were"),
        ("auto", "'/a b/one/linear/sections.tsv'", "The affine transforms were"),
        ("auto", "", "The deformations of another method were"),
        ("auto", "'r/one", "The deformations of another method were"),
        ("auto", "r/one/else/sections.tsv", "The deformations of another method were"),
    ],
)
def test_the_method_that_was_followed_is_named_where_it_is_known(results, of, log, words):
    one = results / "one"
    _write(one / "coherent" / "sections.tsv", "section\tstatus\n")
    _write(one / "plan" / "coherent.json", {"coherent": {"options": {"of": of}}})
    if log:
        _write(
            one / "logs/cohere/coherent.log", f"note\n$ sbr cohere --sections {log}\ncohere: 1\n"
        )
    assert words in Citation(one, "one").paragraph


def test_two_versions_in_one_brain_are_both_said(results):
    _write(results / "one" / "check" / "check.json", {"versions": {"sbr_core": "0.0.1"}})
    assert "sbr_core 0.0.1 and 9.8.7" in Citation(results / "one", "one").paragraph


def test_a_brain_that_is_not_there_is_named(results):
    with pytest.raises(ReceiptError, match=r"'zero' \(there are: one, two\)"):
        cite.run(None, results, ["zero"])
