"""Harm done on purpose to an analytic stack, and what the doctor says of it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from sbr_core import geometry
from sbr_core.config import DoctorOptions, PrepareOptions
from sbr_core.errors import ConfigError, ManifestError
from sbr_core.io.images import write_png
from sbr_core.io.manifests import read_manifest, rows_from
from sbr_core.io.tables import read_tsv, write_tsv
from sbr_core.stages import collect, doctor, prepare
from sbr_core.tools import apply_findings

N = 26
FLIPPED_LR, FLIPPED_UD, TURNED, TURNED_AND_FLIPPED = 4, 5, 9, 13
TORN, SWAPPED = 17, (20, 21)
PIXEL_MM = 0.5


def _stack() -> list[np.ndarray]:
    """Sections of an ellipsoid with structure that changes slowly along the stack, in [0, 1]."""
    rng = np.random.default_rng(5)
    shape = (N, 90, 110)
    texture = ndimage.gaussian_filter(rng.standard_normal(shape), (2.5, 2.5, 2.5))
    texture /= texture.std()
    z, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]].astype(float)
    radius = 1 - ((z - N / 2) / (0.8 * N)) ** 2
    inside = ((x - 54.5) / 42) ** 2 + ((y - 44.5) / 34) ** 2 < radius
    inside &= (x - 88) ** 2 + (y - 30) ** 2 > 120
    sections = []
    for i in range(N):
        brain = np.where(inside[i], 0.55 + 0.12 * np.clip(texture[i], -2, 2), 0.0)
        turn, shift = rng.normal(scale=2), rng.normal(scale=2, size=2)
        brain = ndimage.shift(ndimage.rotate(brain, turn, reshape=False, order=1), shift, order=1)
        sections.append(np.clip(brain + rng.normal(scale=0.02, size=brain.shape), 0, 1))
    return sections


def _turned(image: np.ndarray, degrees: float) -> np.ndarray:
    """Counter-clockwise as displayed, on a canvas that holds all of it."""
    new_from_old, shape = geometry.upright_from_file(image.shape, "none", degrees)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    old = geometry.apply(np.linalg.inv(new_from_old), np.stack([columns, rows], axis=-1))
    return ndimage.map_coordinates(image, [old[..., 1], old[..., 0]], order=1)


def _harmed(sections: list[np.ndarray]) -> list[np.ndarray]:
    sections = list(sections)
    sections[FLIPPED_LR] = sections[FLIPPED_LR][:, ::-1]
    sections[FLIPPED_UD] = sections[FLIPPED_UD][::-1]
    sections[TURNED] = _turned(sections[TURNED], 70)
    sections[TURNED_AND_FLIPPED] = _turned(sections[TURNED_AND_FLIPPED][:, ::-1], -40)
    torn = sections[TORN].copy()
    torn[:, 62:] = 0
    sections[TORN] = torn
    a, b = SWAPPED
    sections[a], sections[b] = sections[b], sections[a]
    return sections


def _name(number: int) -> str:
    return f"s{number:02d}"


def _write(folder, sections):
    """Images on glass and their manifest."""
    rows = []
    for i, brain in enumerate(sections):
        image = f"img/{_name(i)}.png"
        write_png(folder / image, np.round(255 * (1 - 0.9 * brain)).astype(np.uint8))
        rows.append(
            {
                "section": _name(i),
                "image": image,
                "position_mm": 1.5 * i,
                "pixel_size_mm": PIXEL_MM,
            }
        )
    write_tsv(folder / "sections.tsv", rows)
    return folder / "sections.tsv"


def _examine(manifest, out_dir, **options):
    """Prepare a brain and have it looked at; its findings."""
    receipt, table = out_dir / "prepare" / "chunks" / "1of1.tsv", out_dir / "prepare/sections.tsv"
    prepare.run(
        PrepareOptions(
            # light and staining are even here, and to find that takes longer than all else
            working_pixel_mm=0.5,
            min_tissue_mm2=1,
            even_light="never",
            even_staining="never",
        ),
        rows=rows_from(str(manifest)),
        out_dir=out_dir / "prepare",
        receipt=receipt,
    )
    collect.run(None, receipts=[receipt], table=table)
    doctor.run(DoctorOptions(**options), prepared=table, out_dir=out_dir / "doctor")
    return read_tsv(out_dir / "doctor" / "findings.tsv")[1]


@pytest.fixture(scope="module")
def harmed(tmp_path_factory):
    """(manifest, folder of results, findings) of the harmed stack."""
    folder = tmp_path_factory.mktemp("harmed")
    manifest = _write(folder, _harmed(_stack()))
    return manifest, folder / "results", _examine(manifest, folder / "results")


def test_every_harm_is_found_and_nothing_else(harmed):
    found = {(line["section"], line["finding"]) for line in harmed[2]}
    assert found == {
        *((_name(i), "flip") for i in (FLIPPED_LR, FLIPPED_UD, TURNED_AND_FLIPPED)),
        (_name(TURNED), "turn"),
        (_name(TORN), "damage"),
        *((_name(i), "swap") for i in SWAPPED),
    }


def test_suggestions_undo_the_harm(harmed):
    said = {line["section"]: line["suggestion"] for line in harmed[2]}
    assert said[_name(FLIPPED_LR)] == "flip=lr rotate_deg=0"
    assert said[_name(FLIPPED_UD)] == "flip=ud rotate_deg=0"
    flip, turn = said[_name(TURNED)].split()
    assert flip == "flip=none"
    assert float(turn.removeprefix("rotate_deg=")) == pytest.approx(-70, abs=7)
    # mirrored and turned by −40°: mirrored first, the same turn is the opposite one
    flip, turn = said[_name(TURNED_AND_FLIPPED)].split()
    assert flip == "flip=lr"
    assert float(turn.removeprefix("rotate_deg=")) == pytest.approx(-40, abs=7)
    a, b = SWAPPED
    assert said[_name(a)] == f"position_mm={1.5 * b}" and said[_name(b)] == f"position_mm={1.5 * a}"
    assert said[_name(TORN)] == "exclude=true"


def test_contact_sheet_frames_what_was_found(harmed):
    from PIL import Image

    picture = np.asarray(Image.open(harmed[1] / "doctor" / "contact_sheet.png"))
    assert picture.ndim == 3
    red = (picture[..., 0] > 150) & (picture[..., 1] < 80)
    # a frame is the outline of a square, and its section's marks are not seven times longer
    frames = red.sum() / (4 * 2 * (DoctorOptions().picture_px + 3))
    # of the four that lie wrong, once more beside what is suggested
    assert 7 + 4 <= frames <= 15


def test_mended_manifest_is_quiet(harmed, tmp_path):
    manifest, results, _ = harmed
    before = manifest.read_bytes()
    out = tmp_path / "elsewhere" / "new.tsv"
    apply_findings.run(
        None, findings=results / "doctor" / "findings.tsv", manifest=manifest, out=out
    )
    assert manifest.read_bytes() == before
    assert len(read_manifest(out)) == N - 1, "images are found from the other folder"
    # the torn section is excluded, which leaves a gap; nothing else is left to say
    findings = _examine(out, tmp_path / "results")
    assert [(line["section"], line["finding"]) for line in findings] == [(_name(TORN - 1), "gap")]


def test_what_the_manifest_says_already_is_taken_into_account(tmp_path):
    """A section rightly flipped and turned is quiet; one wrongly so gets what undoes it."""
    sections = _stack()[:18]
    sections[8] = _turned(sections[8], -90)[:, ::-1]
    manifest = _write(tmp_path, sections)
    columns, rows = read_tsv(manifest)
    rows[8] |= {"flip": "lr", "rotate_deg": "90"}
    rows[12] |= {"flip": "ud", "rotate_deg": "30"}
    write_tsv(manifest, rows, columns)
    findings = _examine(manifest, tmp_path / "results")
    assert [(line["section"], line["finding"]) for line in findings] == [(_name(12), "flip")]
    assert findings[0]["suggestion"].startswith("flip=none rotate_deg=")
    turn = float(findings[0]["suggestion"].rsplit("=", 1)[1])
    assert turn == pytest.approx(0, abs=7)


def test_misplaced_section_gap_and_staining(tmp_path):
    sections = _stack()
    moved = sections.pop(3)
    sections.insert(17, moved)
    sections[10] = 0.5 * sections[10]
    del sections[24]
    manifest = _write(tmp_path, sections)
    columns, rows = read_tsv(manifest)
    rows[-1]["position_mm"] = str(1.5 * (N - 1))
    write_tsv(manifest, rows, columns)
    found = {(r["section"], r["finding"]): r for r in _examine(manifest, tmp_path / "results")}
    assert (_name(10), "staining") in found and (_name(23), "gap") in found
    # it came from between the third and the fourth of those that are left
    place = found[_name(17), "place"]
    assert float(place["suggestion"].removeprefix("position_mm=")) == pytest.approx(3.75)
    assert {section for section, _ in found} <= {_name(i) for i in (10, 17, 23)}


def test_few_flat_or_tiny_sections_are_no_reason_to_fail(tmp_path):
    """Too few to judge, or with nothing in them to compare: nothing is claimed."""
    few = _write(tmp_path / "few", _stack()[:3])
    assert _examine(few, tmp_path / "few" / "results") == []
    flat = [np.pad(np.full((30, 40), 0.6), 20) for _ in range(8)]
    flat[2] = np.pad(np.full((3, 3), 0.6), (40, 41))
    findings = _examine(_write(tmp_path / "flat", flat), tmp_path / "flat" / "results")
    assert {line["section"] for line in findings} <= {_name(2)}


def test_a_section_that_could_not_be_prepared_is_named_each_time_alike(tmp_path):
    sections = _stack()[:8]
    sections[4] = np.zeros_like(sections[4])
    findings = _examine(_write(tmp_path, sections), tmp_path / "results")
    assert findings[0]["section"] == _name(4) and findings[0]["finding"] == "unusable"
    assert findings[0]["suggestion"] == "exclude=true" and "no tissue" in findings[0]["words"]
    table = tmp_path / "results" / "prepare" / "sections.tsv"
    doctor.run(DoctorOptions(), prepared=table, out_dir=tmp_path / "again")
    for name in ("findings.tsv", "contact_sheet.png"):
        first = tmp_path / "results" / "doctor" / name
        assert (tmp_path / "again" / name).read_bytes() == first.read_bytes(), name


# --------------------------------------------------------------------------------------------
# Applying findings
# --------------------------------------------------------------------------------------------


def _apply(tmp_path, lines, **options):
    manifest = tmp_path / "sections.tsv"
    manifest.write_text(
        "section\timage\tposition_mm\tpixel_size_mm\tmine\n"
        "a\ta.png\t0\t0.5\tx\nb\tb.png\t1\t0.5\ty\nc\tc.png\t2\t0.5\t\n"
    )
    findings = tmp_path / "findings.tsv"
    header = "section\tfinding\tconfidence\tsuggestion\twords"
    findings.write_text("\n".join([header, *lines]) + "\n")
    out = tmp_path / "new.tsv"
    apply_findings.run(None, findings=findings, manifest=manifest, out=out, **options)
    return {row["section"]: row for row in read_tsv(out)[1]}


def test_findings_are_applied_from_the_confidence_asked_for(tmp_path):
    lines = [
        "a\tflip\t0.9\tflip=lr rotate_deg=12\t",
        "b\tturn\t0.6\tflip=none rotate_deg=90\t",
        "b\tdamage\t0.97\texclude=true\t",
    ]
    rows = _apply(tmp_path, lines, min_confidence=0.8)
    assert (rows["a"]["flip"], rows["a"]["rotate_deg"], rows["a"]["mine"]) == ("lr", "12", "x")
    assert rows["b"]["rotate_deg"] == "" and rows["b"]["exclude"] == "true"
    assert "doctor" in rows["a"]["notes"] and rows["c"]["notes"] == ""
    assert _apply(tmp_path, lines)["b"]["rotate_deg"] == "90"


def test_faults_of_findings_are_named_and_nothing_is_written(tmp_path):
    for lines, said in (
        (["z\tflip\t0.9\tflip=lr\t"], "'z'"),
        (["a\tflip\tsure\tflip=lr\t"], "confidence"),
        (["a\tflip\t0.9\tcolour=red\t"], "colour=red"),
        (["a\tflip\t0.9\tflip=sideways\t"], "sideways"),
        (["a\tswap\t0.9\tposition_mm=1\t"], "same position_mm"),
        (["a\tdamage\t0.9\texclude=perhaps\t"], "perhaps"),
    ):
        with pytest.raises(ManifestError, match=said):
            _apply(tmp_path, lines)
        assert not (tmp_path / "new.tsv").exists()
    with pytest.raises(ConfigError, match="min-confidence"):
        _apply(tmp_path, [], min_confidence=3.0)
    with pytest.raises(ConfigError, match="manifest itself"):
        apply_findings.run(
            None,
            findings=tmp_path / "findings.tsv",
            manifest=tmp_path / "sections.tsv",
            out=tmp_path / "sections.tsv",
        )
