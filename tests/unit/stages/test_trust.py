"""`trust`: what it writes of a brain with a section that is wrong, and when it judges again."""

from dataclasses import replace

import numpy as np
import pytest

from sbr_core.artifacts import names
from sbr_core.artifacts.rows import Plane, Prepared, Row, Trusted, read_rows, write_rows
from sbr_core.config import InferOptions, TrustOptions
from sbr_core.errors import ConfigError
from sbr_core.io.files import sha256_file
from sbr_core.io.images import read_section, write_png
from sbr_core.io.volumes import read_plane, write_plane
from sbr_core.stages import infer, trust

WRONG = "003"


@pytest.fixture
def brain(fake_brain):
    """With masks, the linear result, and one section mirrored after its affine was found."""
    rows = []
    for row in read_rows(fake_brain.table("prepare"), Prepared, verify=False):
        picture = read_section(row.image)
        if row.section == WRONG:
            write_png(row.image, np.round(picture[::-1, ::-1] * 65535).astype(np.uint16))
        shape = tuple(
            round(n * row.pixel_size_mm / row.working_pixel_mm) + 8 for n in row.file_shape
        )
        path = names.section_file(fake_brain.results / "prepare", row.section, names.MASK)
        write_plane(path, np.ones(shape, np.uint8), row.working_pixel_mm)
        rows.append(replace(row, files={f"sections/{path.name}": sha256_file(path)}))
    write_rows(fake_brain.table("prepare"), rows)
    infer.run(
        InferOptions(device="cpu"),
        method="linear",
        prepared=fake_brain.table("prepare"),
        planes=fake_brain.table("resample"),
        affines=fake_brain.table("align_sections"),
        out_dir=fake_brain.results / "linear",
        receipt=fake_brain.table("linear"),
    )
    return fake_brain


def run(brain, method="linear", methods=("linear",), **more):
    out_dir = brain.results / method / "trust"
    trust.run(
        more.pop("options", TrustOptions()),
        method=method,
        methods={name: brain.results / name for name in methods},
        prepared=brain.table("prepare"),
        planes=brain.table("resample"),
        affines=brain.table("align_sections"),
        out_dir=out_dir,
        **more,
    )
    return {row.section: row for row in read_rows(out_dir / names.TABLE, Trusted)}


def test_every_section_has_an_error_a_map_and_the_spoilt_one_stands_out(brain):
    rows = run(brain)
    assert set(rows) == {row.section for row in read_rows(brain.table("resample"), Row)}
    worst = max(rows.values(), key=lambda row: row.likely_wrong)
    assert worst.section == WRONG
    others = [row.expected_error_mm for row in rows.values() if row.section != WRONG]
    assert rows[WRONG].expected_error_mm > max(others)
    for row in rows.values():
        errors_mm, size_mm = read_plane(row.file(names.ERROR))
        assert errors_mm.dtype == np.float32 and size_mm >= brain.grid.spacing_mm
        assert (errors_mm >= 0).all() and errors_mm.max() > 0
        assert 0 <= row.likely_wrong <= 1 and bool(row.reason) == bool(row.next_step)


def test_what_the_user_accepted_is_no_suspect(brain):
    options = TrustOptions(suspect=1e-6)
    rows = run(brain, options=options)
    assert rows[WRONG].reason and rows[WRONG].next_step
    accepted = run(brain, options=options, accepted=[WRONG])
    assert not accepted[WRONG].reason and not accepted[WRONG].next_step
    assert accepted[WRONG].expected_error_mm == rows[WRONG].expected_error_mm


def test_the_doctor_gives_the_reason(brain, tmp_path):
    findings = tmp_path / "findings.tsv"
    findings.write_text("section\tfinding\twords\n000\tdamage\t000: half of it is missing\n")
    rows = run(brain, options=TrustOptions(suspect=1e-6), findings=findings)
    assert rows["000"].next_step in ("exclude", "flip?") or rows["000"].next_step.startswith("turn")


@pytest.mark.parametrize(("pose", "is_told"), [("lr", True), ("10", False), ("", False)])
def test_one_that_the_doctor_doubts_is_a_suspect_if_it_fits_mirrored(
    brain, tmp_path, monkeypatch, pose, is_told
):
    tried = []
    monkeypatch.setattr(trust, "better_pose", lambda seen: tried.append(seen) or pose)
    findings = tmp_path / "findings.tsv"
    findings.write_text("section\tfinding\twords\n000\tdamage\t000: a little is torn\n")
    rows = run(brain, options=TrustOptions(suspect=1.0), findings=findings)
    assert tried and (rows["000"].next_step == "flip?") == is_told
    assert bool(rows["000"].reason) == is_told
    assert not run(brain, options=TrustOptions(suspect=1.0), findings=findings, accepted=["000"])[
        "000"
    ].reason


def test_what_the_doctor_would_turn_is_told_as_the_page_wants_it(brain, tmp_path, monkeypatch):
    monkeypatch.setattr(trust, "better_pose", lambda _: "")
    findings = tmp_path / "findings.tsv"
    findings.write_text(
        "section\tfinding\tsuggestion\twords\n000\tturn\tflip=none rotate_deg=-176\t000: turned\n"
    )
    rows = run(brain, options=TrustOptions(suspect=1e-6), findings=findings)
    assert rows["000"].reason == "000: turned"
    # the manifest says nothing of a turn, so that it is what is still to be done
    assert rows["000"].next_step == "turn by 184° counter-clockwise"


def test_nothing_is_judged_twice_until_something_changes(brain, caplog):
    caplog.set_level("INFO")
    first = run(brain)
    caplog.clear()
    assert run(brain).keys() == first.keys()
    assert caplog.text.count("kept") == len(first)
    caplog.clear()
    run(brain, options=TrustOptions(suspect=0.9))
    assert "kept" not in caplog.text


def test_a_section_whose_plane_has_no_tissue_fails_alone(brain):
    rows = read_rows(brain.table("resample"), Plane)
    path = rows[0].file(names.MRI_MASK)
    array, spacing_mm = read_plane(path)
    write_plane(path, np.zeros_like(array), spacing_mm)
    files = rows[0].files | {f"sections/{path.name}": sha256_file(path)}
    write_rows(brain.table("resample"), [replace(rows[0], files=files), *rows[1:]])
    judged = run(brain)
    assert len(judged) == len(rows) - 1 and rows[0].section not in judged
    table = brain.results / "linear" / "trust" / names.TABLE
    (failed,) = [row for row in read_rows(table, Row, only_ok=False) if not row.ok]
    assert failed.section == rows[0].section and "no tissue" in failed.message


def test_a_method_whose_folder_is_not_given_is_named(brain):
    with pytest.raises(ConfigError, match="expected sbr=FOLDER among them"):
        run(brain, method="sbr")
