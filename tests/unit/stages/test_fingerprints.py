"""Fingerprints of the per-section stages: another digest would recompute every finished brain."""

from types import SimpleNamespace

import pytest

from sbr_core.config import AlignSectionsOptions, ReassembleOptions
from sbr_core.io.manifests import SectionRow
from sbr_core.io.tables import write_tsv
from sbr_core.revisions import REVISION
from sbr_core.stages import align_sections, infer, prepare, resample

VALUES = {"size": 1.5, "name": "x"}
OPTIONS = SimpleNamespace(model_dump=lambda **_: dict(VALUES), asked=lambda **_: dict(VALUES))
PREPARED = {
    "1": "85b05f4529f85b05f84fb03c1ba73f4628db04b30f0a3dde353f41d6101c7d30",
    "2": "835ecd19dac23f85cb371da4e14b9275b59c9861747d8d03499a947587f374a2",
}
PREALIGNED = {
    "1": "239d1b496e1584379a4bee0fffe4854196c2971a2be0434f9e88e85bbd30b826",
    "2": "2a61e890a01ebba9825a949105338eb6c44a402b4323c5922ca6786c623fc450",
}
RESAMPLED = {
    "1": "faf3afa71907a82ebfb33e1fb5b9be3bcfa765903009ee412d523510df923eb9",
    "2": "cc5a0910f49cc37b19e5c605230d913973fc01f87c85dbd85d7eb6df08cb9aa6",
}
STARTED_BY_FILE = {
    "1": "d7ac5153bc90688666890eb23e4431a7cc959e413641d48712bb2640ab2a6eec",
    "2": "5b02172d44e2d576190b5b216150af56104d5fde1792751267cc246c5527ec4b",
    "3": "a373d75ac7d5a6888720813ff788c3bd779785a353708e1312809f6f76f685b2",
}
STARTED = {
    "1": "c848ed76d0f715ebfdbb2442376f8133b89b2cdae72af6594aaa040e68473bdb",
    "2": "320e09c691693fd5104be51ff3e2120283904386bce1e6ec91e2072314fe556b",
    "3": "bd3116a2c6cab63f330acbd2ec39584c42f327e03a38c57bc1c6423cdb738d3a",
}
LINEAR = {
    "1": "9f7d86de7b538220db4f8ac30d7ee1f84a7aca729b37c4ca261a7837bcce99d8",
    "2": "ae7a442dfe3646210d9598e293cf21b88878e043953db2e4d8a84cdc9eb7f6b2",
    "3": "336cf3cb1e736025ccb153586a006effbe08bf362bdb5167051c5873faaeddb6",
}
SYN = {
    "1": "832e62dc29732aecc963e3a80bd18ae79738eda324b4e8f55213555faa6fcbc2",
    "2": "ae7a442dfe3646210d9598e293cf21b88878e043953db2e4d8a84cdc9eb7f6b2",
    "3": "b5f8363e805583adf69da6a3b191147886ead4deb3a21e334b8c9381d7243d32",
}

MATRIX = {"00": 1.0, "01": 0.25, "02": -3.5, "10": 0.0, "11": 1.0, "12": 1 / 3}


@pytest.fixture
def digests(tmp_path, monkeypatch):
    """Run a stage without its work: the fingerprint of each section."""
    monkeypatch.chdir(tmp_path)
    for stage in ("prepare", "resample", "align_sections", "infer"):
        monkeypatch.setitem(REVISION, stage, 7)
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(name.encode())

    def run(stage, **arguments):
        found = {}

        def run_sections(sections, *, fingerprint, **_):
            found.update({name: fingerprint(item) for name, item in sections.items()})

        monkeypatch.setattr(stage, "run_sections", run_sections)
        stage.run(out_dir=tmp_path, receipt=tmp_path / "chunks" / "1.tsv", **arguments)
        return found

    return run


def rows():
    a = SectionRow(section="1", image="a.png", position_mm=1.5, pixel_size_mm=0.5, stain="nissl")
    b = SectionRow(
        section="2", image="b.png", position_mm=3.0, pixel_size_mm=0.5, labels="a.png",
        mri_image="a.png", mri_mask="b.png",
    )  # fmt: skip
    return [a, b]


def write_tables(folder):
    """Receipts of prepare, resample and align-sections; section 2 has no plane."""
    common = {"status": "ok", "message": "", "position_mm": 1.5}
    failed = {"section": "2", "status": "failed", "message": "no tissue"}
    tables = {}
    for stage, columns in (
        ("prepare", {"pixel_size_mm": 0.5, "working_pixel_mm": 1.0, "file_rows": 4,
                     "file_columns": 6, "polarity": "bright_background", "background": 1.0,
                     "tissue_mm2": 5.0, "image": "a.png",
                     **{f"g{k}": v for k, v in MATRIX.items()}}),
        ("resample", {"rows": 3, "columns": 4, "spacing_mm": 1.0}),
        ("align_sections", {"moved_mm": 0.5, **{f"a{k}": v for k, v in MATRIX.items()}}),
    ):  # fmt: skip
        tables[stage] = folder / stage / "sections.tsv"
        both = [
            {**common, **columns, "section": s, "fingerprint": f"{stage} {s}"}
            for s in ("1", "2", "3")
        ]
        both[1] = both[1] if stage == "prepare" else failed
        write_tsv(tables[stage], [row | {"files": {}} for row in both])
    return tables


def test_prepare(digests):
    assert digests(prepare, options=OPTIONS, rows=rows()) == PREPARED


def test_resample_of_a_prealigned_brain(digests):
    assert digests(resample, options=OPTIONS, rows=rows(), working_pixel_mm=1.0) == PREALIGNED


def test_resample_of_a_brain_with_an_mri(digests, tmp_path, monkeypatch):
    inputs = {"similarity": "0", "grid": "1", "mri": "2", "mri_mask": "3"}
    monkeypatch.setattr(resample, "_planes_of_mri", lambda *_: (None, inputs))
    paths = {name: tmp_path / name for name in ("align_dir", "mri", "mri_mask")}
    assert digests(resample, options=OPTIONS, rows=rows(), **paths) == RESAMPLED


def test_align_sections(digests, tmp_path):
    tables = write_tables(tmp_path)
    where = {"prepared": tables["prepare"], "planes": tables["resample"]}
    assert digests(align_sections, options=OPTIONS, prealigned=True, **where) == STARTED_BY_FILE
    align_dir = tmp_path / "align"
    initial = [
        {"section": s, "position_mm": z, "prepared": "x", **{f"a{k}": v for k, v in MATRIX.items()}}
        for s, z in (("7", 0.0), ("8", 4.0))
    ]
    write_tsv(align_dir / "sections_initial.tsv", initial)
    (align_dir / "plane_grid.json").write_text(
        '{"rows": 3, "columns": 4, "spacing_mm": 1.0, "enlargement": 1.25}'
    )
    assert digests(align_sections, options=OPTIONS, align_dir=align_dir, **where) == STARTED


def test_infer(digests, tmp_path):
    tables = write_tables(tmp_path)
    where = {
        "prepared": tables["prepare"],
        "planes": tables["resample"],
        "affines": tables["align_sections"],
    }
    assert digests(infer, options=OPTIONS, method="linear", **where) == LINEAR
    assert digests(infer, options=OPTIONS, method="syn_mi", **where) == SYN


def test_later_options_count_from_when_they_are_set():
    for options, name, value in (
        (AlignSectionsOptions, "landmark_tolerance_mm", 0.3),
        (ReassembleOptions, "fill", "interpolate"),
    ):
        assert name not in options().asked()
        assert options(**{name: value}).asked()[name] == value
