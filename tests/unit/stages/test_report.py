"""`report`: one page that needs nothing else and hides nothing."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sbr_core.artifacts.rows import Trusted, write_rows
from sbr_core.config import InferOptions, ReassembleOptions, ReportOptions
from sbr_core.geometry import upright_from_file
from sbr_core.io.files import read_json, write_json
from sbr_core.io.images import write_png
from sbr_core.io.sums import remove_summed
from sbr_core.io.tables import read_tsv, write_tsv
from sbr_core.io.volumes import write_plane
from sbr_core.stages import infer, reassemble, report


@pytest.fixture(scope="module")
def finished(tmp_path_factory, brain_maker, save_networks):
    """Both methods inferred and reassembled, a measured section, one that failed."""
    folder = tmp_path_factory.mktemp("finished")
    brain = brain_maker(folder / "results" / "b", missing=(5,))
    header, rows = read_tsv(brain.table("prepare"))
    failed = {"section": "002", "status": "failed", "message": "no <tissue> found"}
    write_tsv(
        brain.table("prepare"), [failed if r["section"] == "002" else r for r in rows], header
    )
    for method, networks in (("linear", {}), ("sbr", save_networks(folder))):
        method_dir = brain.results / method
        infer.run(
            InferOptions(device="cpu"),
            method=method,
            prepared=brain.table("prepare"),
            planes=brain.table("resample"),
            affines=brain.table("align_sections"),
            out_dir=method_dir,
            receipt=method_dir / "sections.tsv",
            **networks,
        )
        reassemble.run(
            ReassembleOptions(),
            brain="b",
            method=method,
            sections=method_dir / "sections.tsv",
            prepared=brain.table("prepare"),
            align_dir=brain.results / "align",
            mri=brain.results / "prepare" / "mri.nii.gz",
            out_dir=method_dir / "volume",
        )
    write_png(brain.results / "sbr" / "loss.png", np.zeros((4, 4), np.uint8))
    for name, key, values in (
        ("sections", {"section": "003"}, {"linear": 2.0, "sbr": 2.5}),
        ("summary", {"statistic": "mean", "n": 1}, {"linear": 2.0, "sbr": 1.25}),
    ):
        write_tsv(
            brain.results / "evaluation" / f"{name}.tsv",
            [
                {"brain": "b", "method": m, **key, "metric": "in_plane_mm", "class": ""}
                | {"value": v, "unit": "mm"}
                for m, v in values.items()
            ],
        )
    left_out = {"labels_left_out": {"004": "l.png: not readable"}}
    write_json(brain.results / "evaluation" / "evaluation.json", left_out)
    return brain


@pytest.fixture
def finished_brain(finished, tmp_path):
    """A copy of it; yours to write to."""
    shutil.copytree(finished.results, tmp_path / "results" / "b")
    return replace(finished, results=tmp_path / "results" / "b")


def page_of(brain, methods=("linear", "sbr"), label_names=None, **options):
    out = brain.results / "report" / "index.html"
    report.run(
        ReportOptions(**options),
        brain="b",
        methods={m: brain.results / m for m in methods},
        results_dir=brain.results,
        out=out,
        label_names=label_names,
    )
    return out.read_text(encoding="utf-8")


def test_page_is_self_contained_and_complete(finished_brain, tmp_path):
    page = page_of(finished_brain)
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources and all(s.startswith(("data:image/", "#")) for s in sources)
    assert not (finished_brain.results / "report" / "index_files").exists()
    assert "://" not in page and str(tmp_path.parent) not in page
    pictures = [s for s in sources if s.startswith("data:image/jpeg")]
    # 11 sections of four: the MRI, one by each method, one synthesised; three cuts of five
    assert len(pictures) == 11 * 4 + 3 * 5
    # the outlines of the MRI over both methods, and under the grid of the one that deforms
    assert len([s for s in sources if s.startswith("data:image/png")]) == 11 * 4 + 1
    for picture in pictures:
        array = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.split(",")[1]))))
        assert array.ndim in (2, 3) and array.max() > 50  # none of them is black
    for anchor in re.findall(r'href="#([^"]*)"', page):
        assert f'id="{anchor}"' in page


def test_page_names_what_went_wrong(finished_brain):
    page = page_of(finished_brain)
    assert "section 002 was left out by prepare: no &lt;tissue&gt; found" in page
    assert "section 004: its labels were left out: l.png: not readable" in page
    assert "section 003: sbr is worse than linear in landmark error in the plane 2.50 mm" in page
    assert re.search(r'class="n good">1.25<', page)
    assert "linear 2.00 → sbr 1.25" in page


def test_page_names_doubtful_pixel_sizes_once_for_all_sections_alike(finished_brain):
    header, rows = read_tsv(finished_brain.table("prepare"))
    assert "the file says" not in page_of(finished_brain)
    factors = {"003": "2 times", **dict.fromkeys(("004", "006", "007"), "1/1.2 of it")}
    for row in rows:
        if row["section"] in factors:
            row["message"] = (
                f"pixel_size_mm is 1, but the file says <so>: {factors[row['section']]}"
            )
    write_tsv(finished_brain.table("prepare"), rows, header)
    to_look_at = page_of(finished_brain).split('id="alarms"')[1].split('id="accuracy"')[0]
    said = "pixel_size_mm is 1, but the file says &lt;so&gt;"
    assert f"section 003: {said}: 2 times<" in to_look_at
    assert f"sections 004, 006, 007: {said}: 1/1.2 of it<" in to_look_at
    assert to_look_at.count(said) == 2


def test_page_shows_the_accuracy_on_simulated_pairs_and_calls_it_simulated(finished_brain):
    title = "Accuracy on simulated pairs of this brain"
    assert title not in page_of(finished_brain)
    values = {"linear": (1.4, 1.7, 3.1), "sbr": (0.44, 0.61, 1.3), "syn_mi": (1.6, 1.8, 3.1)}
    write_tsv(
        finished_brain.results.with_name("b-simulated") / "evaluation" / "summary.tsv",
        [
            {"brain": "b-simulated", "method": method, "metric": metric, "class": ""}
            | {"statistic": statistic, "value": value + (metric != "in_plane_mm"), "unit": "mm"}
            for metric in ("in_plane_mm", "there_and_back_mm")
            for method, three in values.items()
            for statistic, value in zip(("mean", "rmse", "p95"), three, strict=True)
        ],
    )
    page = page_of(finished_brain)
    shown = page.split(title)[1].split("</div>")[0]
    cells = re.findall(r'<td class="n ([a-z]*)">([^<]*)<', shown)
    texts = [text for _, text in cells]
    assert texts == ["1.40", "1.70", "3.10", "0.440", "0.610", "1.30", "1.60", "1.80", "3.10"]
    grades = [grade for grade, _ in cells]
    assert grades == ["", "", "", "good", "good", "good", "bad", "bad", ""]
    assert re.findall(r"<td>([^<]*)<", shown) == ["linear", "sbr", "syn_mi"]
    assert (
        "landmark error in the plane, mm, simulated" in shown
        and "not how far its real sections are off" in shown
    )
    # what the brain itself was measured at stands apart
    assert re.search(r'class="n good">1.25<', page.split(title)[0])


def test_page_shows_what_the_doctor_said(finished_brain):
    assert 'id="doctor"' not in page_of(finished_brain)
    folder = finished_brain.results / "doctor"
    finding = {"section": "003", "finding": "flip", "confidence": 0.97}
    finding |= {"suggestion": "flip=lr rotate_deg=0", "words": "section 003: seems flipped"}
    write_tsv(folder / "findings.tsv", [finding])
    write_png(folder / "contact_sheet.png", np.zeros((4, 4, 3), np.uint8))
    page = page_of(finished_brain)
    assert "The section doctor (1)" in page and "flip=lr rotate_deg=0" in page
    assert 'alt="contact sheet' in page
    # in its table, and among what to look at first
    assert page.count("section 003: seems flipped") == 2
    to_look_at = "section 003: seems flipped (the doctor says, 0.97)"
    assert to_look_at in page
    facts = finished_brain.results / "evaluation" / "evaluation.json"
    write_json(facts, read_json(facts) | {"verdicts": {"003": "accept"}})
    page = page_of(finished_brain)
    assert to_look_at not in page and page.count("section 003: seems flipped") == 1


def test_cuts_of_every_stain_group_but_one_whose_sections_all_failed_are_shown(finished_brain):
    volumes = finished_brain.results / "linear" / "volume"
    mixed = volumes / "b_space-mri_histology.nii.gz"
    for group in ("CB", "nissl", "lost"):
        shutil.copy(mixed, volumes / f"b_space-mri_stain-{group}_histology.nii.gz")
    remove_summed(mixed)
    write_json(volumes / "b_space-mri_stain-lost_histology.json", {"sections": []})
    page = page_of(finished_brain, ("linear",))
    shown = re.findall(r"<figcaption>(linear, [^<]*)<", page)
    of_group = [f"linear, {g}{end}" for g in ("CB", "nissl") for end in ("", ", edges of the MRI")]
    assert set(shown) >= set(of_group) and not any("lost" in caption for caption in shown)
    assert shown.count("linear, CB") == 3


def test_page_without_evaluation_training_or_volume(fake_brain):
    folder = fake_brain.results / "linear"
    infer.run(
        InferOptions(),
        method="linear",
        prepared=fake_brain.table("prepare"),
        planes=fake_brain.table("resample"),
        affines=fake_brain.table("align_sections"),
        out_dir=folder,
        receipt=folder / "sections.tsv",
    )
    page = page_of(fake_brain, ("linear",))
    assert "Nothing was measured" in page and "Nothing: no section failed" in page
    assert 'id="volume"' not in page and 'id="training"' not in page
    assert page.count("data:image/jpeg") == 12 * 2


def test_pictures_respect_the_options(finished_brain):
    small, large = (
        page_of(finished_brain, max_width_px=100),
        page_of(finished_brain, jpeg_quality=95),
    )
    # the viewer zooms: the layers of a section may be twice as large
    assert max(int(w) for w in re.findall(r'width="(\d+)" height', small)) <= 200
    assert len(small) < len(large)


def test_page_marks_rejected_and_accepted_sections_with_their_notes(finished_brain):
    path = finished_brain.results / "evaluation" / "evaluation.json"
    facts = read_json(path)
    facts |= {"verdicts": {"003": "reject", "004": "accept"}, "correction_notes": {"003": "<b>"}}
    write_json(path, facts)
    page = page_of(finished_brain)
    assert "section 003 was rejected and is in no volume" in page
    assert "rejected: in no volume · “&lt;b&gt;”" in page and "accepted" in page


def viewer_of(page):
    text = re.search(r'id="viewer-data">(.*?)</script>', page, re.DOTALL)[1]
    assert "<" not in text
    return json.loads(text)


def test_the_viewer_is_given_what_corrections_need(finished_brain):
    page = page_of(finished_brain)
    viewer = viewer_of(page)
    assert (viewer["brain"], viewer["methods"]) == ("b", ["linear", "sbr"])
    assert not viewer["prealigned"]
    _, rows = read_tsv(finished_brain.table("resample"))
    digests = {row["section"]: json.loads(row["files"]) for row in rows if row["status"] == "ok"}
    shown = [section for section in viewer["sections"] if section["layers"]]
    assert len(shown) == 11
    for section in shown:
        assert section["plane_sha256"] in digests[section["name"]].values()
        plane = section["layers"]["plane"]
        assert {"rows", "columns", "pixel_mm", "width", "height"} == set(plane)
        assert set(section["layers"]["methods"]["sbr"]) == {"registered", "synthesised", "grid"}
    # the same results, the same page: a browser finds what it kept
    assert page_of(finished_brain) == page
    assert viewer["strip"]["name"] == "landmark error in the plane"
    assert viewer["strip"]["scales"]["sbr"] == [2.5, 7.5]


def test_the_viewer_says_which_flip_and_turn_is_in_force(finished_brain):
    header, rows = read_tsv(finished_brain.table("prepare"))
    laid = {"003": ("lr", 0.0), "004": ("none", -90.0), "006": ("ud", 20.0)}
    for row in rows:
        if row["section"] in laid:
            matrix = np.linalg.inv(upright_from_file((1, 1), *laid[row["section"]])[0])
            row |= {f"g{i}{j}": f"{matrix[i, j]:.6f}" for i in range(2) for j in range(2)}
    write_tsv(finished_brain.table("prepare"), rows, header)
    sections = viewer_of(page_of(finished_brain))["sections"]
    in_force = {s["name"]: s["in_force"] for s in sections if s["name"] in laid}
    assert in_force == {
        "003": ["flip lr"],
        "004": ["turned -90° counter-clockwise"],
        "006": ["flip ud", "turned 20° counter-clockwise"],
    }


def test_many_pictures_go_into_a_folder_beside_the_page(finished_brain, monkeypatch):
    folder = finished_brain.results / "report" / "index_files"
    with monkeypatch.context() as context:
        context.setattr("sbr_core.report.shelf.MOST_INSIDE", 1000)
        page = page_of(finished_brain)
    sources = {s for s in re.findall(r'src="([^"]*)"', page) if not s.startswith("data:")}
    assert sources == {f"index_files/{path.name}" for path in folder.iterdir()}
    assert len(page) < 0.8 * len(page_of(finished_brain))
    assert not folder.exists()


def test_expected_errors_colour_the_strip_lead_the_page_and_are_drawn(finished_brain):
    folder = finished_brain.results / "sbr" / "trust"
    rows = [
        Trusted(section="003", position_mm=1.0, expected_error_mm=0.4, likely_wrong=0.1),
        Trusted(section="004", position_mm=2.0, expected_error_mm=8.0, likely_wrong=0.9,
                reason="its neighbours <say> so", next_step="flip?"),
    ]  # fmt: skip
    write_rows(folder / "sections.tsv", rows)
    error = np.zeros((6, 7), np.float32)
    error[2:4, 2:5] = 5.0
    write_plane(folder / "sections" / "004_error.nii.gz", error, 8.0)
    page = page_of(finished_brain)
    suspects = page.split('id="suspects"')[1].split("</ol>")[0]
    assert "its neighbours &lt;say&gt; so; expected error 8.00 mm. Next: flip?" in suspects
    assert 'data-section="004"' in suspects and "003" not in suspects
    viewer = viewer_of(page)
    values = {section["name"]: section["value"] for section in viewer["sections"]}
    assert values["004"] == {"sbr": 8.0} and values["006"] == {}
    assert viewer["strip"]["name"] == "expected error" and viewer["error_top_mm"] == 8.0
    drawn = [
        s["name"]
        for s in viewer["sections"]
        if s["layers"] and "error" in s["layers"]["methods"]["sbr"]
    ]
    assert drawn == ["004"]
    facts = read_json(finished_brain.results / "evaluation" / "evaluation.json")
    facts["verdicts"] = {"004": "accept"}
    write_json(finished_brain.results / "evaluation" / "evaluation.json", facts)
    assert 'id="suspects"' not in page_of(finished_brain)  # looked at already


def test_classes_are_called_by_the_table_of_labels(finished_brain, tmp_path):
    rows = [
        {"brain": "b", "method": method, "section": "003", "metric": "dice", "class": "42"}
        | {"value": 0.5 + 0.2 * (method == "linear"), "unit": "1"}
        for method in ("linear", "sbr")
    ]
    write_tsv(finished_brain.results / "evaluation" / "sections.tsv", rows)
    assert "overlap of labels (Dice) of label 42 0.500 (linear 0.700)" in page_of(finished_brain)
    table = tmp_path / "names.tsv"
    table.write_text("index\tname\n42\tcortex <left>\n")
    page = page_of(finished_brain, label_names=table)
    assert "overlap of labels (Dice) of cortex &lt;left&gt; 0.500 (linear 0.700)" in page
    (section,) = [s for s in viewer_of(page)["sections"] if s["name"] == "003"]
    assert section["measured"][0]["class"] == "cortex <left>"
