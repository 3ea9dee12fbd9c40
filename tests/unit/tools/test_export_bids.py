"""`sbr export bids`, by the rules of names and by the validator of BIDS where it is installed."""

import json
import re
import shutil
import subprocess
from fnmatch import fnmatch

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from mapped_brain import SECTIONS, MappedBrain

from sbr_core.cli import main
from sbr_core.io.tables import read_tsv
from sbr_core.io.volumes import read_plane
from sbr_core.mapping.exports.bids import label

NAME = re.compile(r"sub-[0-9A-Za-z]+(_[a-z]+-[0-9A-Za-z]+)*_[0-9A-Za-z]+(\.nii\.gz|\.tif|\.json)")


@pytest.fixture(scope="module")
def out(truth: MappedBrain, tmp_path_factory):
    """The data set of all sections."""
    histology = truth.results / "sbr" / "volume" / "b_space-mri_histology.nii.gz"
    histology.parent.mkdir()
    for volume in (histology, histology.with_name("b_space-mri_stain-CB_histology.nii.gz")):
        shutil.copyfile(truth.results / "prepare" / "mri.nii.gz", volume)
    folder = tmp_path_factory.mktemp("bids") / "out"
    words = ["--results", str(truth.results), "--out", str(folder), "--mri-suffix", "T2w"]
    assert main(["export", "bids", *words]) == 0
    return folder


def test_the_validator_has_no_errors(out):
    validator = shutil.which("bids-validator-deno")
    if validator is None:
        pytest.skip("needs bids-validator-deno (pip install bids-validator-deno)")
    said = subprocess.run([validator, out, "--format", "json"], capture_output=True, text=True)
    issues = json.loads(said.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []
    assert said.returncode == 0


def test_every_name_is_one_of_bids_or_is_listed(out):
    ignored = (out / ".bidsignore").read_text().split()
    files = [path for path in out.rglob("*") if path.is_file() and path.parent != out]
    of_bids = [p for p in files if not any(fnmatch(p.name, pattern) for pattern in ignored)]
    assert len(of_bids) == 2 * len(SECTIONS) + 4 < len(files)
    assert all(NAME.fullmatch(path.name) for path in of_bids)
    # every image has its sidecar
    for path in of_bids:
        sidecar = path.with_name(path.name.partition(".")[0] + ".json")
        assert json.loads(sidecar.read_text())["Description"]


def test_every_stain_group_has_its_volume(out):
    volumes = sorted(path.name for path in out.glob("sub-b/micr/*_desc-reassembled_*"))
    assert volumes == [
        "sub-b_space-mri_desc-reassembled_histology.nii.gz",
        "sub-b_stain-CB_space-mri_desc-reassembled_histology.nii.gz",
    ]


def test_samples_are_the_sections(truth, out):
    _, rows = read_tsv(out / "samples.tsv")
    assert [row["sample_id"] for row in rows] == [f"sample-{section}" for section in SECTIONS]
    assert [float(row["position_mm"]) for row in rows] == [0, 2, 4, 6, 8]
    for section in SECTIONS:
        (image,) = out.glob(f"sub-b/micr/*_sample-{section}_desc-registered_BF.tif")
        written, spacing_mm = read_plane(
            truth.results / "sbr" / "sections" / f"{section}_registered.nii.gz"
        )
        np.testing.assert_array_equal(tifffile.imread(image), written)
        facts = json.loads(image.with_suffix(".json").read_text())
        assert (facts["PixelSize"], facts["PixelSizeUnits"]) == ([spacing_mm] * 2, "mm")
        for a, b in (("mri", "section"), ("section", "mri")):
            name = f"sub-b_sample-{section}_from-{a}_to-{b}_mode-image_xfm.h5"
            assert sitk.ReadTransform(str(out / "sub-b" / "micr" / name)).GetDimension() == 3


def test_the_mri_is_left_out_where_its_kind_is_unknown(truth, tmp_path, capsys):
    words = ["export", "bids", "--results", str(truth.results), "--sections", "plain", "--out"]
    assert main([*words, str(tmp_path / "a")]) == 0
    assert "--mri-suffix" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "a" / "sub-b" / "anat").glob("*.nii.gz")] == [
        "sub-b_desc-brain_mask.nii.gz"
    ]
    assert main([*words, str(tmp_path / "b"), "--mri-suffix", "T3w"]) == 2
    assert "expected one of T1w, T2w" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_labels_are_of_letters_and_digits():
    assert label("slice_01-b") == "slice01b"
    with pytest.raises(Exception, match="has no letter or digit"):
        label("__")
