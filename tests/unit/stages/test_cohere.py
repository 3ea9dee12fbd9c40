"""`cohere`, and `infer` of `coherent`: sections that lie off are seen by their neighbours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sbr_core.artifacts.coherence import Cohered, Compared
from sbr_core.artifacts.names import CHANGE, LINEAR_MASK, STACK_TO_SECTION
from sbr_core.artifacts.rows import Affine, Inferred, Plane, Prepared, Row, read_rows, write_rows
from sbr_core.config import CoherentOptions, InferOptions
from sbr_core.errors import ConfigError, ReceiptError
from sbr_core.io.files import sha256_file, sha256_of
from sbr_core.io.transforms import read_section_transform
from sbr_core.io.volumes import read_plane, write_plane
from sbr_core.stages import cohere, infer

OPTIONS = CoherentOptions(device="cpu", refine_levels=(2, 1), smoothing_px=3)
CENTRE_MM = np.array([[20.0, 17.0], [24.0, 15.0], [17.0, 20.0]])


def infer_with(brain, method, options, **tables):
    out_dir = brain.results / method
    infer.run(
        options,
        method=method,
        prepared=brain.table("prepare"),
        planes=brain.table("resample"),
        affines=brain.table("align_sections"),
        out_dir=out_dir,
        receipt=out_dir / "chunks" / "all.tsv",
        **tables,
    )
    rows = read_rows(out_dir / "chunks" / "all.tsv", Inferred, only_ok=False)
    write_rows(out_dir / "sections.tsv", rows)
    return {row.section: row for row in rows}


def cohered(brain, options=OPTIONS):
    along = brain.results / "coherent" / "along"
    cohere.run(
        options,
        sections=brain.table("linear"),
        prepared=brain.table("prepare"),
        planes=brain.table("resample"),
        out_dir=along,
        table=along / "changes.tsv",
    )
    return along


def coherent(brain, options=OPTIONS):
    along = cohered(brain, options)
    tables = {"followed": brain.table("linear"), "changes": along / "changes.tsv"}
    return infer_with(brain, "coherent", options, **tables)


def displaced(brain, shifts_mm):
    """Lay sections beside where they belong, by millimetres of the plane."""
    rows = []
    for row in read_rows(brain.table("align_sections"), Affine):
        matrix = row.working_mm_from_plane_mm.copy()
        matrix[:2, 2] += matrix[:2, :2] @ shifts_mm.get(row.section, np.zeros(2))
        rows.append(
            replace(row, working_mm_from_plane_mm=matrix, fingerprint=sha256_of(matrix.tolist()))
        )
    write_rows(brain.table("align_sections"), rows)


def errors_mm(brain, rows):
    """How far the middle of the brain's tissue is from where it belongs, section by section."""
    errors = {}
    for section, row in rows.items():
        truth = brain.section_mm_from_plane_mm[section]
        section_mm = CENTRE_MM @ truth[:2, :2].T + truth[:2, 2]
        mapped = read_section_transform(row.file(STACK_TO_SECTION)).map(section_mm)
        errors[section] = float(np.linalg.norm(mapped - CENTRE_MM, axis=1).mean())
    return errors


def test_neighbours_bring_back_what_lies_beside_its_place(fake_brain):
    """Two sections 1.5 mm off; what lies right moves by a fraction of that."""
    displaced(fake_brain, {"003": np.array([1.5, 0.0]), "008": np.array([0.0, -1.5])})
    before = errors_mm(fake_brain, infer_with(fake_brain, "linear", InferOptions()))
    rows = coherent(fake_brain)
    after = errors_mm(fake_brain, rows)
    for section in ("003", "008"):
        assert before[section] == pytest.approx(1.5, abs=1e-6)
        assert after[section] < 0.75
    assert max(after[s] for s in after if s not in ("003", "008")) < 0.6
    assert all(row.folding_percent == 0 and row.inverse_p99_px < 0.05 for row in rows.values())


def test_a_pair_is_registered_anew_where_one_of_its_sections_changed(fake_brain):
    infer_with(fake_brain, "linear", InferOptions())
    along = cohered(fake_brain)
    compared = read_rows(along / "compared.tsv", Compared)
    assert [row.next_section for row in compared][3:6] == ["004", "006", "007"]
    assert compared[-1].next_section == "" and not compared[-1].files
    displaced(fake_brain, {"007": np.array([0.5, 0.0])})
    infer_with(fake_brain, "linear", InferOptions())
    cohered(fake_brain)
    again = {row.section: row.fingerprint for row in read_rows(along / "compared.tsv", Compared)}
    changed = {row.section for row in compared if again[row.section] != row.fingerprint}
    assert changed == {"006", "007"}


def test_sections_of_two_stains_are_compared_within_each(fake_brain):
    rows = [
        replace(row, stain_group=("nissl", "myelin")[int(row.section) % 2])
        for row in read_rows(fake_brain.table("prepare"), Prepared)
    ]
    write_rows(fake_brain.table("prepare"), rows)
    infer_with(fake_brain, "linear", InferOptions())
    compared = read_rows(cohered(fake_brain) / "compared.tsv", Compared)
    assert {row.section: row.next_section for row in compared}["002"] == "004"
    assert sum(row.next_section == "" for row in compared) == 2


def test_a_section_that_is_gone_leaves_no_correction(fake_brain):
    infer_with(fake_brain, "linear", InferOptions())
    along = cohered(fake_brain)
    kept = read_rows(fake_brain.table("linear"), Inferred)[:-1]
    write_rows(fake_brain.table("linear"), kept)
    cohered(fake_brain)
    assert len(list((along / "sections").glob(f"*{CHANGE}"))) == len(kept)
    assert len(read_rows(along / "changes.tsv", Cohered)) == len(kept)


def test_what_the_followed_method_could_not_do_fails_by_its_reason(fake_brain):
    infer_with(fake_brain, "linear", InferOptions())
    rows = read_rows(fake_brain.table("linear"), Inferred)
    lost = Row(section="002", status="failed", message="no tissue")
    write_rows(fake_brain.table("linear"), [*rows[:2], lost, *rows[3:]])
    rows = coherent(fake_brain)
    assert not rows["002"].ok and rows["002"].message.endswith("no tissue")
    assert rows["003"].ok


@pytest.mark.filterwarnings("error")
def test_where_nothing_was_registered_nothing_is_corrected(fake_brain):
    infer_with(fake_brain, "linear", InferOptions())
    lost = [
        Row(section=row.section, status="failed", message="no tissue")
        for row in read_rows(fake_brain.table("linear"), Inferred)
    ]
    write_rows(fake_brain.table("linear"), lost)
    assert not any(row.ok for row in coherent(fake_brain).values())


def test_a_section_beside_its_plane_is_compared_with_none_and_fails_alone(fake_brain):
    displaced(fake_brain, {"003": np.array([1000.0, 0.0])})
    rows = [
        replace(row, files=dict(row.files))
        for row in read_rows(fake_brain.table("align_sections"), Affine)
    ]
    (mask,) = (row.file(LINEAR_MASK) for row in rows if row.section == "003")
    write_plane(mask, np.zeros_like(read_plane(mask)[0]), read_plane(mask)[1])
    (row,) = (row for row in rows if row.section == "003")
    row.files[f"sections/003{LINEAR_MASK}"] = sha256_file(mask)
    write_rows(fake_brain.table("align_sections"), rows)
    infer_with(fake_brain, "linear", InferOptions())
    rows = coherent(fake_brain)
    compared = read_rows(fake_brain.results / "coherent" / "along" / "compared.tsv", Compared)
    assert {row.section for row in compared if not row.next_section} == {
        "002",
        "003",
        compared[-1].section,
    }
    assert not rows["003"].ok and "no tissue within its MRI plane" in rows["003"].message
    assert rows["002"].ok and rows["004"].ok


def test_what_is_lacking_is_named(fake_brain):
    with pytest.raises(ConfigError, match="--followed and --changes are needed"):
        infer_with(fake_brain, "coherent", OPTIONS)
    infer_with(fake_brain, "linear", InferOptions())
    planes = read_rows(fake_brain.table("resample"), Plane)
    write_rows(fake_brain.table("resample"), planes[1:])
    with pytest.raises(ReceiptError, match="'000' is not in it"):
        cohered(fake_brain)
