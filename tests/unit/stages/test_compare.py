"""`compare`: what the tables say, what is tested against what, which section is shown, one page."""

from __future__ import annotations

import base64
import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from sbr_core.artifacts.receipts import read_table
from sbr_core.config import CompareOptions, InferOptions, ReportOptions
from sbr_core.errors import ConfigError
from sbr_core.io.files import sha256_file
from sbr_core.io.tables import read_tsv, write_tsv
from sbr_core.io.volumes import write_plane
from sbr_core.stages import compare, infer, report

METHODS = ("linear", "nmi", "sbr")
# what each method adds to linear's landmark error and Dice
ERROR = {"linear": 0.0, "nmi": 0.05, "sbr": -0.5}
DICE = {"linear": 0.0, "nmi": 0.0, "sbr": 0.1}


def measured_rows(sections):
    """Values of every section: sbr is always better than linear, nmi's error always worse."""
    rng = np.random.default_rng(0)
    rows = []
    for number, section in enumerate(sections):
        base = {"in_plane_mm": 2 + 0.1 * number, "dice": 0.7 + 0.01 * number, "folding": 0.0}
        noise = rng.uniform(0, 0.01)
        for method in METHODS:
            shift = {"in_plane_mm": ERROR[method], "dice": DICE[method], "folding": 0.0}
            for metric, value in base.items():
                for class_ in ("2", "3") if metric == "dice" else ("",):
                    rows.append(
                        {
                            "brain": "b",
                            "method": method,
                            "section": section,
                            "metric": metric,
                            "class": class_,
                            "value": value + shift[metric] * (1 + noise),
                            "unit": "mm" if metric.endswith("_mm") else "1",
                        }
                    )
    return rows


@pytest.fixture
def compared(fake_brain):
    """Three methods on the fake brain, all with linear's files, and their measured values."""
    brain = fake_brain
    infer.run(
        InferOptions(),
        method="linear",
        prepared=brain.table("prepare"),
        planes=brain.table("resample"),
        affines=brain.table("align_sections"),
        out_dir=brain.results / "linear",
        receipt=brain.results / "linear" / "sections.tsv",
    )
    for method in ("nmi", "sbr"):
        folder = brain.results / "compare" / method
        shutil.copytree(brain.results / "linear", folder)
        header, rows = read_tsv(folder / "sections.tsv")
        for number, row in enumerate(rows):
            row["seconds"] = 8.0 if number == 0 else 1.0  # a batch counts for its first section
        write_tsv(folder / "sections.tsv", rows, header)
        losses = [{"step": 7, "loss": 1, "seconds": 60}, {"step": 8, "loss": 1, "seconds": 90}]
        write_tsv(folder / "loss.tsv", losses)
    _add_synthesised(brain, brain.results / "compare" / "sbr")
    sections = [row["section"] for row in read_table(brain.table("resample"), verify=False)]
    write_tsv(brain.results / "compare" / "evaluation" / "sections.tsv", measured_rows(sections))
    return brain


def _add_synthesised(brain, folder):
    header, rows = read_tsv(folder / "sections.tsv")
    table = read_table(folder / "sections.tsv", verify=False)
    for row, text in zip(table, rows, strict=True):
        path = folder / "sections" / f"{row['section']}_synthesised.nii.gz"
        write_plane(path, np.full(brain.grid.shape, 0.5, np.float32), brain.grid.spacing_mm)
        text["files"] = row["files"] | {f"sections/{path.name}": sha256_file(path)}
    write_tsv(folder / "sections.tsv", rows, header)


def run(brain, **options):
    folder = brain.results / "compare"
    methods = {m: brain.results / ("linear" if m == "linear" else f"compare/{m}") for m in METHODS}
    compare.run(
        CompareOptions(**options),
        brain="b",
        methods=methods,
        measured=folder / "evaluation" / "sections.tsv",
        prepared=brain.table("prepare"),
        planes=brain.table("resample"),
        align_dir=brain.results / "align",
        out_dir=folder,
    )
    return folder


def row_of(path, **where):
    (row,) = [r for r in read_tsv(path)[1] if all(r[k] == v for k, v in where.items())]
    return row


def test_a_training_that_took_no_step_or_no_time_here_states_none(compared):
    """Of 0 steps, and that of the shipped registrar."""
    for losses in ([], [{"step": 1, "loss": 2.0}]):
        write_tsv(compared.results / "compare" / "nmi" / "loss.tsv", losses, ("step", "loss"))
        rows = read_tsv(run(compared) / "summary.tsv")[1]
        assert {r["method"] for r in rows if r["metric"].startswith("training_")} == {"sbr"}


def test_summary_has_a_row_for_each_method_metric_and_class(compared):
    path = run(compared) / "summary.tsv"
    assert tuple(read_tsv(path)[0]) == compare.SUMMARY_COLUMNS
    linear = row_of(path, method="linear", metric="in_plane_mm")
    assert float(linear["mean"]) == pytest.approx(2 + 0.1 * 5.5)
    assert float(linear["median"]) == pytest.approx(2 + 0.1 * 5.5)
    assert (linear["n"], linear["unit"], linear["p_holm_vs_linear"]) == ("12", "mm", "")
    sbr = row_of(path, method="sbr", metric="dice", **{"class": "3"})
    # 12 sections, all better: 2/2^12, times the two methods and two classes of the family
    assert float(sbr["p_holm_vs_linear"]) == pytest.approx(4 * 2 / 2**12)
    assert sbr["p_holm_vs_sbr"] == ""
    seconds = row_of(path, method="nmi", metric="seconds_per_section")
    assert float(seconds["mean"]) == pytest.approx((8 + 11) / 12) and seconds["median"] == ""
    assert float(row_of(path, method="sbr", metric="training_minutes")["mean"]) == 1.5
    assert float(row_of(path, method="sbr", metric="training_steps")["mean"]) == 8
    assert not [r for r in read_tsv(path)[1] if r["method"] == "linear" and "train" in r["metric"]]


def test_tests_pair_each_method_with_each_reference_and_name_the_better(compared):
    path = run(compared) / "tests.tsv"
    assert tuple(read_tsv(path)[0]) == compare.TEST_COLUMNS
    error = row_of(path, metric="in_plane_mm", method="sbr", reference="linear")
    assert float(error["median_difference"]) == pytest.approx(-0.5, abs=0.01)
    assert (float(error["rank_biserial"]), error["better"], error["n"]) == (-1.0, "sbr", "12")
    dice = row_of(path, metric="dice", method="sbr", reference="linear", **{"class": "2"})
    assert (float(dice["rank_biserial"]), dice["better"]) == (1.0, "sbr")
    worse = row_of(path, metric="in_plane_mm", method="nmi", reference="linear")
    assert worse["better"] == "linear"
    assert row_of(path, metric="in_plane_mm", method="nmi", reference="sbr")["better"] == "sbr"
    same = row_of(path, metric="folding", method="sbr", reference="linear")
    assert (float(same["p"]), same["better"]) == (1.0, "")
    # two methods against linear: Holm's smallest p counts twice, and nothing is made smaller
    for row in read_tsv(path)[1]:
        assert float(row["p_holm"]) >= float(row["p"])
    assert float(error["p_holm"]) == pytest.approx(2 * float(error["p"]))


def test_the_example_section_is_typical_of_all_methods_and_the_best_of_none():
    sections = "abcdefg"
    by_method = {
        "linear": dict(zip(sections, (1, 2, 3, 4, 5, 6, 7), strict=True)),
        "sbr": dict(zip(sections, (1, 3, 2, 4, 6, 5, 7), strict=True)),
    }
    assert compare.example_section({"dice": {"2": by_method}}, ["linear", "sbr"]) == ("d", "dice")
    # landmarks come first, folding never; a section that one method lacks is not shown
    del by_method["sbr"]["d"]
    values = {"in_plane_mm": {"": by_method}, "dice": {"2": {"linear": {"a": 0.1}}}}
    section, metric = compare.example_section(values, ["linear", "sbr"])
    assert metric == "in_plane_mm" and section in "ce"
    assert compare.example_section({"folding": {"": by_method}}, ["linear"]) is None


def test_page_is_self_contained_and_says_what_was_done(compared, tmp_path):
    folder = run(compared, minutes=3)
    page = (folder / "index.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources and all(s.startswith("data:image/png") for s in sources)
    assert "http" not in page and str(tmp_path) not in page
    names = ("box_in_plane_mm", "box_dice", "example", "close_up")
    assert len(sources) == len(names)
    for name, source in zip(names, sources, strict=True):
        array = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))))
        assert array.std() > 5, f"{name} is empty"
        assert (folder / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert "Every trained method had 3 minutes" in page
    assert "Left out, for want of labels to train with: NMIw." in page
    assert re.search(r'class="n good">2\.05', page)  # sbr's error: better than linear
    assert re.search(r'class="n bad">2\.6', page)  # nmi's: worse
    assert "section 006" in page or "section 007" in page
    assert "of median rank by In-plane landmark error" in page


def test_same_inputs_give_the_same_files(compared):
    before = {p: sha256_file(p) for p in sorted(run(compared).rglob("*")) if p.is_file()}
    after = {p: sha256_file(p) for p in sorted(run(compared).rglob("*")) if p.is_file()}
    assert before == after


def test_an_example_section_can_be_asked_for(compared):
    assert "section 002 (as asked for)" in (run(compared, section="002") / "index.html").read_text()
    with pytest.raises(ConfigError, match="compare.section: '005' is no section"):
        run(compared, section="005")


def test_without_anything_measured_there_are_pictures_and_times(compared):
    measured = compared.results / "compare" / "evaluation" / "sections.tsv"
    write_tsv(measured, [r for r in measured_rows(["000"]) if r["metric"] == "none"], ("value",))
    page = (run(compared) / "index.html").read_text()
    assert "in the middle of the stack" in page and "Training (minutes)" in page
    assert page.count("data:image/png") == 2


def test_the_report_shows_the_comparison_that_is_there(compared):
    def page():
        out = compared.results / "report" / "index.html"
        methods = {"linear": compared.results / "linear"}
        report.run(
            ReportOptions(), brain="b", methods=methods, results_dir=compared.results, out=out
        )
        return out.read_text()

    assert "Comparison of methods" not in page()
    run(compared)
    shown = page()
    assert "Comparison of methods" in shown and 'href="#comparison"' in shown
    assert shown.count("data:image/png") == 4 and "rank-biserial" in shown
