"""Bad input: each fault is one line that names it, exit code 2, and nothing is written."""

from __future__ import annotations

import json
import pickle
from functools import partial

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch

from sbr_core.artifacts.rows import Affine, Plane, Prepared, write_rows
from sbr_core.cli import main
from sbr_core.geometry import PlaneGrid
from sbr_core.io.files import sha256_file, write_text
from sbr_core.io.images import write_png
from sbr_core.io.manifests import read_manifest as read_rows
from sbr_core.io.manifests import rows_to_json
from sbr_core.io.tables import read_tsv
from sbr_core.io.transforms import write_stack_from_world
from sbr_core.io.weights import save_weights

COLUMNS = "section\timage\tposition_mm\tpixel_size_mm"
GOOD = "good\tgood.png\t1\t0.5"


def _section(shape=(60, 80)):
    """A glass-white section with one piece of tissue."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    tissue = ((rows - 30) / 20) ** 2 + ((columns - 35) / 28) ** 2 < 1
    return np.where(tissue, 120 + columns, 250).astype(np.uint8)


@pytest.fixture
def raw(tmp_path):
    """A folder with one good section and a manifest to be spoilt."""
    folder = tmp_path / "raw"
    write_png(folder / "good.png", _section())
    return folder


def _manifest(raw, *rows, header=COLUMNS, encoding="utf-8", newline="\n"):
    path = raw / "sections.tsv"
    path.write_bytes(newline.join([header, *rows, ""]).encode(encoding))
    return path


def _sbr(command, *switches, **flags):
    """Run a command in this process; each keyword is a flag."""
    words = [command, *switches]
    for name, value in flags.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return main(words)


def _prepare(raw, rows, *switches, out=None, **flags):
    out = out or raw.parent / "out"
    receipt = out / "chunks" / "000.tsv"
    return _sbr("prepare", *switches, rows=rows, out_dir=out, receipt=receipt, **flags)


def _refused(code, capsys, out, *words):
    """Exit code 2, one line with all the words last, no traceback, no file under `out`."""
    captured = capsys.readouterr()
    assert code == 2, captured.err
    assert "Traceback" not in captured.err
    last = captured.err.rstrip("\n").splitlines()[-1]
    assert last.startswith("sbr ")
    assert all(word in last for word in words), last
    assert [p for p in out.rglob("*") if p.is_file()] == []
    return captured.err


MANIFEST_FAULTS = {
    "missing image": (["a\tgone.png\t2\t0.5"], ["section 'a'", "gone.png", "no such file"]),
    "duplicate id": (["good\tgood.png\t2\t0.5"], ["sections.tsv", "section 'good'", "twice"]),
    "repeated positions": (["b\tgood.png\t1.0\t0.5"], ["'good' and 'b'", "same position_mm 1"]),
    "wrong type": (["b\tgood.png\tfront\t0.5"], ["position_mm", "expected a number", "'front'"]),
    "NaN pixel size": (["b\tgood.png\t2\tNaN"], ["pixel_size_mm", "above 0", "'NaN'"]),
    "negative pixel size": (["b\tgood.png\t2\t-1"], ["pixel_size_mm", "above 0", "'-1'"]),
    "id that is a path": (["../x\tgood.png\t2\t0.5"], ["'../x'", "expected letters"]),
    "absolute id": (["/tmp/x\tgood.png\t2\t0.5"], ["'/tmp/x'", "expected letters"]),
}


@pytest.mark.parametrize("fault", MANIFEST_FAULTS)
def test_faults_of_the_manifest(raw, tmp_path, capsys, fault):
    rows, words = MANIFEST_FAULTS[fault]
    code = _prepare(raw, _manifest(raw, GOOD, *rows))
    errors = _refused(code, capsys, tmp_path / "out", *words)
    assert errors.count("\n") == 1


@pytest.mark.parametrize("column", COLUMNS.split("\t"))
def test_a_missing_column(raw, tmp_path, capsys, column):
    header = COLUMNS.replace(column, "other")
    code = _prepare(raw, _manifest(raw, GOOD, header=header))
    _refused(code, capsys, tmp_path / "out", "sections.tsv", f"column '{column}' is missing")


def test_no_manifest(raw, tmp_path, capsys):
    _refused(_prepare(raw, raw / "gone.tsv"), capsys, tmp_path / "out", "gone.tsv: no such file")


def test_bom_and_crlf_are_no_fault(raw, tmp_path):
    path = _manifest(raw, GOOD, encoding="utf-8-sig", newline="\r\n")
    assert _prepare(raw, path) == 0
    assert read_tsv(tmp_path / "out" / "chunks" / "000.tsv")[1][0]["status"] == "ok"


def test_an_image_that_went_missing_after_the_manifest_was_read(raw, tmp_path, capsys):
    """The workflow hands rows as JSON; their files are looked for again."""
    rows = rows_to_json(read_rows(_manifest(raw, GOOD)))
    (raw / "good.png").unlink()
    code = _prepare(raw, rows)
    _refused(code, capsys, tmp_path / "out", "section 'good'", "good.png: no such file")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ('{"working_pixel": 1}', ["unknown key 'prepare.working_pixel'"]),
        ('{"working_pixel_mm": "wide"}', ["prepare.working_pixel_mm", "valid number", "wide"]),
        ('{"working_pixel_mm": -1}', ["prepare.working_pixel_mm"]),
        ('{"working_pixel_mm": 1', ["--options", "JSON"]),
    ],
)
def test_faults_of_the_configuration(raw, tmp_path, capsys, options, words):
    code = _prepare(raw, _manifest(raw, GOOD), options=options)
    errors = _refused(code, capsys, tmp_path / "out", *words)
    assert errors.count("\n") == 1


def _spoil(raw, fault):
    """A row whose files are there but cannot be used; and words that tell why."""
    if fault == "unreadable image":
        (raw / "bad.png").write_text("no image")
    elif fault == "zero bytes":
        (raw / "bad.png").write_bytes(b"")
    elif fault == "truncated PNG":
        whole = (raw / "good.png").read_bytes()
        (raw / "bad.png").write_bytes(whole[: len(whole) // 2])
    elif fault == "truncated TIFF":
        tifffile.imwrite(raw / "bad.tif", _section())
        whole = (raw / "bad.tif").read_bytes()
        (raw / "bad.tif").write_bytes(whole[: len(whole) // 2])
        return "bad\tbad.tif\t2\t0.5\t", ["bad.tif", "not readable as an image"]
    elif fault == "empty section":
        write_png(raw / "bad.png", np.full((60, 80), 250, np.uint8))
        return "bad\tbad.png\t2\t0.5\t", ["section 'bad'", "no tissue found"]
    elif fault == "mask of another shape":
        write_png(raw / "mask.png", np.ones((60, 79), np.uint8))
        return "bad\tgood.png\t2\t0.5\tmask.png", ["mask.png", "(60, 79)", "(60, 80)"]
    elif fault == "mask that is no mask":
        write_png(raw / "mask.png", np.ones((60, 80, 3), np.uint8))
        return "bad\tgood.png\t2\t0.5\tmask.png", ["mask.png", "integer labels"]
    return "bad\tbad.png\t2\t0.5\t", ["bad.png", "not readable as an image"]


@pytest.mark.parametrize(
    "fault",
    [
        "unreadable image",
        "zero bytes",
        "truncated PNG",
        "truncated TIFF",
        "empty section",
        "mask of another shape",
        "mask that is no mask",
    ],
)
def test_one_bad_section_is_told_and_left_out_or_stops_a_strict_run(raw, tmp_path, capsys, fault):
    row, words = _spoil(raw, fault)
    manifest = _manifest(raw, row, f"{GOOD}\t", header=f"{COLUMNS}\tmask")

    assert _prepare(raw, manifest) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "FAILED" in line]
    assert len(told) == 1 and all(word in told[0] for word in ["section bad", *words])
    out = tmp_path / "out"
    receipt = {r["section"]: r for r in read_tsv(out / "chunks" / "000.tsv")[1]}
    assert receipt["good"]["status"] == "ok"
    assert receipt["bad"]["status"] == "failed"
    assert all(word in receipt["bad"]["message"] for word in words)
    names = {p.name for p in (out / "sections").iterdir()}
    assert names == {"good.json", "good_image.nii.gz", "good_mask.nii.gz"}

    only_bad = _manifest(raw, row, header=f"{COLUMNS}\tmask")
    capsys.readouterr()
    code = _prepare(raw, only_bad, "--strict", out=tmp_path / "strict")
    _refused(code, capsys, tmp_path / "strict", *words)


def test_a_chunk_of_only_bad_sections_does_not_stop_the_brain(raw, tmp_path):
    (raw / "bad.png").write_bytes(b"")
    assert _prepare(raw, _manifest(raw, "bad\tbad.png\t1\t0.5")) == 0
    (row,) = read_tsv(tmp_path / "out" / "chunks" / "000.tsv")[1]
    assert row["status"] == "failed"


CUBE = np.zeros((12, 13, 14), np.float32)
CUBE[3:9, 3:9, 3:9] = 100 + np.arange(6)


def _nifti(path, data):
    nib.save(nib.Nifti1Image(data, np.diag([1.0, 1.2, 1.4, 1.0])), path)
    return path


MRI_FAULTS = {
    "2D": (lambda p: _nifti(p, CUBE[5]), ["mri.nii.gz", "expected a 3D volume", "(13, 14)"]),
    "4D": (
        lambda p: _nifti(p, np.stack([CUBE] * 3, -1)),
        ["mri.nii.gz", "expected a 3D volume", "(12, 13, 14, 3)"],
    ),
    "all zero": (lambda p: _nifti(p, 0 * CUBE), ["mri.nii.gz", "all zero"]),
    "NaN": (lambda p: _nifti(p, np.where(CUBE > 0, CUBE, np.nan)), ["mri.nii.gz", "NaN"]),
    "no file": (lambda p: p, ["mri.nii.gz", "no such file"]),
    "no NIfTI": (lambda p: p.write_text("x"), ["mri.nii.gz", "not readable as NIfTI"]),
    "zero bytes": (lambda p: p.write_bytes(b""), ["mri.nii.gz", "not readable as NIfTI"]),
}


def _prepare_mri(tmp_path, **flags):
    return _sbr("prepare-mri", mri=tmp_path / "mri.nii.gz", out_dir=tmp_path / "out", **flags)


@pytest.mark.parametrize("fault", MRI_FAULTS)
def test_faults_of_the_mri(tmp_path, capsys, fault):
    make, words = MRI_FAULTS[fault]
    make(tmp_path / "mri.nii.gz")
    errors = _refused(_prepare_mri(tmp_path), capsys, tmp_path / "out", *words)
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (CUBE[:-1], ["mask.nii.gz", "(11, 13, 14)", "(12, 13, 14)"]),
        (0 * CUBE, ["mask.nii.gz", "all zero"]),
    ],
)
def test_faults_of_the_mri_mask(tmp_path, capsys, mask, words):
    _nifti(tmp_path / "mri.nii.gz", CUBE)
    path = _nifti(tmp_path / "mask.nii.gz", mask)
    code = _prepare_mri(tmp_path, mri_mask=path)
    _refused(code, capsys, tmp_path / "out", *words)


@pytest.fixture
def brain(tmp_path):
    """Tables and the alignment of a brain with one section, as far as a fault lets them be read."""
    prepared = {"pixel_size_mm": 0.5, "working_pixel_mm": 1.0, "file_rows": 16, "file_columns": 16}
    prepared |= {"polarity": "dark", "background": 1.0, "tissue_mm2": 9.0, "image": "001.png"}
    grid = PlaneGrid((8, 8), 1.0)
    rows = {
        "prepare": partial(Prepared, **prepared, section_mm_from_working_mm=np.eye(3)),
        "resample": partial(Plane, grid=grid),
        "align_sections": partial(Affine, working_mm_from_plane_mm=np.eye(3), moved_mm=0.0),
    }
    tables = {}
    for stage, row in rows.items():
        file = tmp_path / stage / "sections" / f"001_{stage}.txt"
        write_text(file, stage)
        files = {f"sections/{file.name}": sha256_file(file)}
        tables[stage] = tmp_path / stage / "sections.tsv"
        write_rows(tables[stage], [row(section="001", position_mm=1.0, files=files)])
    xfm = tmp_path / "align" / "from-stack_to-mri_mode-image_xfm.txt"
    write_stack_from_world(xfm, np.eye(4))
    return tables


def _infer(brain, out, registrar, weights):
    return _sbr(
        "infer",
        method="sbr",
        prepared=brain["prepare"],
        planes=brain["resample"],
        affines=brain["align_sections"],
        registrar=registrar,
        weights=weights,
        out_dir=out,
        receipt=out / "chunks" / "000.tsv",
        options='{"device": "cpu"}',
    )


@pytest.fixture
def networks(tmp_path):
    """Weights files of a small registrar and a small generator that fit together."""
    from sbr_core.artifacts.networks import weights_header
    from sbr_core.config import RegistrarOptions, SbrOptions
    from sbr_core.nn.generator import Generator
    from sbr_core.nn.registrar import UNetRegistrar

    built = {
        "registrar": (
            UNetRegistrar,
            {"encoder_channels": [4, 4], "decoder_channels": [4, 4]},
            RegistrarOptions(),
        ),
        "generator": (Generator, {"channels": 4, "residual_blocks": 1}, SbrOptions()),
    }
    paths = {}
    for name, (network, architecture, options) in built.items():
        tensors = network(**architecture).state_dict()
        kind = "registrar"
        if name == "generator":
            kind, architecture = "method", {name: architecture}
            tensors = {f"generator.{k}": v for k, v in tensors.items()}
        header = weights_header(
            kind,
            architecture,
            options,
            working_pixel_mm=1.0,
            stain="",
            fingerprint="test",
            revision=1,
            registers="synthesised",
            synthesis_rim_px=0,
            medium_share=1.0,
            medium_margin_px=2,
        )
        paths[name] = tmp_path / "weights" / f"{name}.safetensors"
        save_weights(paths[name], tensors, header)
    return paths


def test_weights_of_another_architecture(brain, networks, tmp_path, capsys):
    from sbr_core.io.weights import load_weights

    tensors, header = load_weights(networks["registrar"])
    header["architecture"]["encoder_channels"] = [4, 8]
    other = tmp_path / "weights" / "other.safetensors"
    save_weights(other, tensors, header)
    code = _infer(brain, tmp_path / "out", other, networks["generator"])
    errors = _refused(code, capsys, tmp_path / "out", "other.safetensors", "architecture")
    assert errors.count("\n") == 1


def test_weights_of_another_kind_of_network(brain, networks, tmp_path, capsys):
    code = _infer(brain, tmp_path / "out", networks["generator"], networks["registrar"])
    _refused(code, capsys, tmp_path / "out", "expected weights of a method", "'registrar'")


def test_weights_that_are_missing(brain, networks, tmp_path, capsys):
    gone = tmp_path / "gone.safetensors"
    code = _infer(brain, tmp_path / "out", networks["registrar"], gone)
    _refused(code, capsys, tmp_path / "out", "gone.safetensors", "no such file")


@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_a_pickle_where_safetensors_is_expected(brain, networks, tmp_path, capsys, writer):
    path = tmp_path / "weights" / "w.pt"
    if writer == "pickle":
        path.write_bytes(pickle.dumps({"a": [1.0]}))
    else:
        torch.save({"a": torch.zeros(2)}, path)
    code = _infer(brain, tmp_path / "out", path, networks["generator"])
    _refused(code, capsys, tmp_path / "out", "w.pt", "expected a .safetensors file")


def test_a_landmark_of_a_section_that_is_not_there(brain, tmp_path, capsys):
    landmarks = tmp_path / "landmarks.tsv"
    landmarks.write_text(
        "section\tx_section_mm\ty_section_mm\tmri_x_mm\tmri_y_mm\tmri_z_mm\n"
        "001\t1\t1\t0\t0\t0\nghost\t1\t1\t0\t0\t0\n"
    )
    code = _sbr(
        "evaluate",
        brain="b",
        methods=f"linear={tmp_path / 'linear'}",
        prepared=brain["prepare"],
        planes=brain["resample"],
        align_dir=tmp_path / "align",
        landmarks=landmarks,
        out_dir=tmp_path / "out",
    )
    _refused(code, capsys, tmp_path / "out", "landmarks.tsv", "landmark 2", "no section 'ghost'")


def test_a_receipt_whose_files_were_tampered_with(brain, networks, tmp_path, capsys):
    path = tmp_path / "align_sections" / "sections" / "001_align_sections.txt"
    path.write_text("tampered")
    code = _infer(brain, tmp_path / "out", networks["registrar"], networks["generator"])
    _refused(code, capsys, tmp_path / "out", path.name, "sha256 differs")


def test_rows_that_are_no_rows(raw, tmp_path, capsys):
    for text, words in (
        ("[{]", ["--rows", "JSON"]),
        (json.dumps(["good"]), ["--rows", "list of objects"]),
        (json.dumps([{"section": "../x"}]), ["--rows", "'../x'"]),
    ):
        _refused(_prepare(raw, text), capsys, tmp_path / "out", *words)
