"""`compare`: its tables, the section that is shown, one page."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from sbr_core.artifacts.label_pairs import LabelPairs
from sbr_core.config import CompareOptions, InferOptions, ReportOptions
from sbr_core.errors import ConfigError
from sbr_core.io.files import sha256_file
from sbr_core.io.tables import read_tsv, write_tsv
from sbr_core.io.volumes import write_plane
from sbr_core.report import pictures
from sbr_core.report.comparison import SUMMARY_COLUMNS, TEST_COLUMNS, read_values
from sbr_core.report.example_section import ExampleSection
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


@pytest.fixture(scope="module")
def compared(tmp_path_factory, brain_maker):
    """Three methods on the fake brain, all with linear's files, measured and compared."""
    brain = brain_maker(tmp_path_factory.mktemp("compared") / "results" / "b", missing=(5,))
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
        losses = [{"step": 7, "loss": 1, "seconds": 60}, {"step": 8, "loss": 1, "seconds": 90}]
        write_tsv(folder / "loss.tsv", losses)
    _add_synthesised(brain, brain.results / "compare" / "sbr")
    sections = [row["section"] for row in read_tsv(brain.table("resample"))[1]]
    write_tsv(measured_of(brain), measured_rows(sections))
    run(brain, minutes=3)
    return brain


def measured_of(brain):
    return brain.results / "compare" / "evaluation" / "sections.tsv"


def methods_of(brain):
    return {m: brain.results / ("linear" if m == "linear" else f"compare/{m}") for m in METHODS}


def _add_synthesised(brain, folder):
    header, rows = read_tsv(folder / "sections.tsv")
    for row in rows:
        path = folder / "sections" / f"{row['section']}_synthesised.nii.gz"
        write_plane(path, np.full(brain.grid.shape, 0.5, np.float32), brain.grid.spacing_mm)
        row["files"] = json.loads(row["files"]) | {f"sections/{path.name}": sha256_file(path)}
    write_tsv(folder / "sections.tsv", rows, header)


def run(brain, *, measured=None, out_dir=None, **options):
    out_dir = out_dir or brain.results / "compare"
    compare.run(
        CompareOptions(**options),
        brain="b",
        methods=methods_of(brain),
        measured=measured or measured_of(brain),
        prepared=brain.table("prepare"),
        planes=brain.table("resample"),
        align_dir=brain.results / "align",
        out_dir=out_dir,
    )
    return out_dir


def example_of(brain, section):
    """The example section, without drawing it."""
    values = read_values(measured_of(brain), METHODS)
    labels = LabelPairs(None, align_dir=brain.results / "align", mri_labels=None, stage="compare")
    tables = brain.table("prepare"), brain.table("resample")
    return ExampleSection(section, values, methods_of(brain), *tables, labels)


def test_tables_have_their_columns_and_a_row_for_each_test_and_summary(compared):
    folder = compared.results / "compare"
    header, summary = read_tsv(folder / "summary.tsv")
    assert tuple(header) == SUMMARY_COLUMNS
    assert {row["brain"] for row in summary} == {"b"}
    # four of what was measured, one of seconds, and two of trainings
    assert len(summary) == 3 * 4 + 3 + 2 * 2
    header, tests = read_tsv(folder / "tests.tsv")
    assert tuple(header) == TEST_COLUMNS
    assert len(tests) == 2 * 2 * 4


def test_page_is_self_contained_and_says_what_was_done(compared, tmp_path_factory):
    folder = compared.results / "compare"
    page = (folder / "index.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources and all(s.startswith("data:image/png") for s in sources)
    assert "://" not in page and str(tmp_path_factory.getbasetemp()) not in page
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


def test_same_inputs_give_the_same_files(compared, caplog):
    caplog.set_level("INFO", "sbr_core")
    folder = compared.results / "compare"
    before = {p: sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    run(compared, minutes=3)
    assert before == {p: sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    drawn = ("box_in_plane_mm", "box_dice", "example", "close_up")
    assert caplog.messages == [f"compare: {name}" for name in drawn]


def test_an_example_section_can_be_asked_for(compared):
    example = example_of(compared, "002")
    assert (example.section, example.why) == ("002", "as asked for")
    assert "section 002 (as asked for)" in example.whole("b").caption
    with pytest.raises(ConfigError, match="compare.section: '005' is no section"):
        example_of(compared, "005")


def test_the_example_shows_every_method_in_millimetres_of_the_plane(compared):
    example = example_of(compared, None)
    assert list(example.methods) == list(METHODS)
    # only sbr synthesised, and all have linear's picture of the section, as fine as its file
    assert [m for m, (_, synthesised) in example.methods.items() if synthesised] == ["sbr"]
    linear, nmi = (example.methods[method][0] for method in ("linear", "nmi"))
    assert linear.spacing_mm == compared.pixel_size_mm
    np.testing.assert_array_equal(linear.grey, nmi.grey)
    assert linear.extent_mm() == pytest.approx(example.target.extent_mm(), abs=0.8)
    # which is the MRI's, seen through the section's affine
    coarse = pictures.resized(linear.grey, example.target.grey.shape)
    assert np.corrcoef(coarse.ravel(), example.target.grey.ravel())[0, 1] > 0.98
    left, right, bottom, top = example.cortex_mm
    assert right - left == pytest.approx(bottom - top)
    assert example.outlines.names == {1: "from middle grey", 2: "bright"}


def test_without_anything_measured_there_are_pictures_and_times(compared, tmp_path):
    write_tsv(tmp_path / "measured.tsv", [], ("value",))
    folder = run(compared, measured=tmp_path / "measured.tsv", out_dir=tmp_path / "compare")
    page = (folder / "index.html").read_text()
    assert "in the middle of the stack" in page and "Training (minutes)" in page
    assert page.count("data:image/png") == 2


def test_linear_must_be_among_the_methods(compared):
    with pytest.raises(ConfigError, match="expected linear among them"):
        compare.run(
            CompareOptions(),
            brain="b",
            methods={"sbr": compared.results},
            measured=compared.results,
            prepared=compared.results,
            planes=compared.results,
            out_dir=compared.results,
        )


def test_the_report_shows_the_comparison_that_is_there(compared, tmp_path):
    shutil.copytree(compared.results, tmp_path / "b")

    def page():
        report.run(
            ReportOptions(),
            brain="b",
            methods={"linear": tmp_path / "b" / "linear"},
            results_dir=tmp_path / "b",
            out=tmp_path / "index.html",
        )
        return (tmp_path / "index.html").read_text()

    shown = page()
    assert "Comparison of methods" in shown and 'href="#comparison"' in shown
    comparison = shown.split('id="comparison"')[1].split('id="sections"')[0]
    assert comparison.count("data:image/png") == 4 and "rank-biserial" in comparison
    (tmp_path / "b" / "compare" / "comparison.json").unlink()
    assert "Comparison of methods" not in page()
