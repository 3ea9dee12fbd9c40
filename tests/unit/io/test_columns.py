"""Names of columns: a near miss is refused by name, a column of one's own is not."""

import pytest

from sbr_core.cli import main
from sbr_core.errors import ManifestError
from sbr_core.io.manifests import read_brains, read_landmarks, read_manifest

NEEDED = ("section", "image", "position_mm", "pixel_size_mm")

NEAR_MISSES = {
    "Exclude": "exclude",
    "excluded": "exclude",
    "exlcude": "exclude",
    "EXCLUDE ": "exclude",
    "include": "exclude",
    "Flip": "flip",
    "flips": "flip",
    "mirror": "flip",
    "rotation_deg": "rotate_deg",
    "Rotation (deg)": "rotate_deg",
    "rotate-deg": "rotate_deg",
    "rotate": "rotate_deg",
    "rotaton": "rotate_deg",
    "Rotate_degree": "rotate_deg",
    "label": "labels",
    "Labels": "labels",
    "lables": "labels",
    "Mask": "mask",
    "masks": "mask",
    "tissue mask": "mask",
    "staining": "stain",
    "channel": "image_channel",
    "mri_lables": "mri_labels",
    "bbox": "box_px",
}


def _manifest(tmp_path, *header, row=()):
    for i in range(2):
        (tmp_path / f"s{i}.png").write_bytes(b"x")
    path = tmp_path / "m.tsv"
    lines = ["\t".join([*NEEDED, *header])]
    lines += ["\t".join([f"s{i}", f"s{i}.png", str(i), "0.5", *row]) for i in range(2)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("column", NEAR_MISSES)
def test_a_column_that_is_nearly_one_of_the_manifest_is_refused(tmp_path, column):
    path = _manifest(tmp_path, column)
    with pytest.raises(ManifestError, match=r"m\.tsv: column ") as caught:
        read_manifest(path)
    assert f"{column.strip()!r}: expected {NEAR_MISSES[column]!r}" in str(caught.value)


OWN = (
    *("stain2", "mask_2", "channel1", "mask_by", "masked", "label_set", "labels_by"),
    *("strain", "session", "block", "slide", "thickness_mm", "image_raw", "affine", "quality"),
    *("position_um", "section_number", "file", "sections", "level", "mark", "experimenter"),
    *("mask_area_mm2", "label_text", "date", "magnification", "Notes", "comments", "id", "z"),
)


@pytest.mark.parametrize("column", OWN)
def test_a_column_of_ones_own_is_allowed(tmp_path, column):
    assert len(read_manifest(_manifest(tmp_path, column, row=["x"]))) == 2


def test_a_synonym_beside_the_column_it_would_mean_is_ones_own(tmp_path):
    path = _manifest(tmp_path, "exclude", "keep", row=["", "yes"])
    assert len(read_manifest(path)) == 2
    with pytest.raises(ManifestError, match="'Exclude': expected 'exclude'"):
        read_manifest(_manifest(tmp_path, "exclude", "Exclude"))


@pytest.mark.parametrize(
    ("needed", "given"),
    [
        ("position_mm", "Position (mm)"),
        ("position_mm", "position_um"),
        ("position_mm", "bregma"),
        ("pixel_size_mm", "pixel_size_µm"),
        ("image", "filename"),
    ],
)
def test_a_needed_column_under_another_name_is_told(tmp_path, needed, given):
    path = _manifest(tmp_path)
    path.write_text(path.read_text().replace(needed, given, 1))
    with pytest.raises(ManifestError, match=f": expected '{needed}'"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("Landmarks", "landmarks"), ("brain_mask", "mri_mask"), ("orientatoin", "orientation")],
)
def test_the_sheet_names_what_is_meant(tmp_path, given, meant):
    path = tmp_path / "brains.tsv"
    path.write_text(f"brain\tsections\tmri\t{given}\nb\tm.tsv\tmri.nii\tx\n")
    with pytest.raises(ManifestError, match=f"unknown column '{given}': expected '{meant}'"):
        read_brains(path)


def test_landmarks_and_findings_name_what_is_meant(tmp_path, capsys):
    path = tmp_path / "landmarks.tsv"
    path.write_text("section\tx_mm\ty_section_mm\tmri_x_mm\tmri_y_mm\tmri_z_mm\n")
    with pytest.raises(ManifestError, match="'x_mm': expected 'x_section_mm' in millimetres"):
        read_landmarks(path, ["a"], prealigned=False)
    (tmp_path / "findings.tsv").write_text("section\tConfidence\tsuggestion\n")
    words = ["--manifest", str(_manifest(tmp_path)), "-o", str(tmp_path / "new.tsv")]
    assert main(["apply-findings", str(tmp_path / "findings.tsv"), *words]) == 2
    assert "column 'Confidence': expected 'confidence'" in capsys.readouterr().err


def test_rows_as_json_are_held_to_the_same_names(tmp_path, capsys):
    row = '[{"section": "a", "image": "a.png", "position_mm": 1, "pixel_size_mm": 1, "Flip": "lr"}]'
    words = ["--out-dir", str(tmp_path / "out"), "--receipt", str(tmp_path / "out" / "r.tsv")]
    assert main(["prepare", "--rows", row, *words]) == 2
    assert "--rows: column 'Flip': expected 'flip'" in capsys.readouterr().err
