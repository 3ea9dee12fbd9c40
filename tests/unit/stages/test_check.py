"""`sbr check` told of a brain by flags: what is wrong with them is one line."""

import numpy as np
import pytest

from sbr_core.cli import main
from sbr_core.io.images import write_png
from sbr_core.io.volumes import Volume, write_volume


@pytest.fixture
def check(tmp_path):
    """Runs `sbr check` on a brain of two sections."""
    rows, columns = np.mgrid[:60, :60]
    disc = np.hypot(rows - 30, columns - 28) < 20
    lines = ["section\timage\tposition_mm\tpixel_size_mm"]
    for i in range(2):
        write_png(tmp_path / f"{i}.png", np.where(disc, 90 + rows, 0).astype(np.uint8))
        lines.append(f"{i}\t{i}.png\t{10 * i}\t1")
    (tmp_path / "m.tsv").write_text("\n".join(lines) + "\n")
    ball = np.linalg.norm(np.indices((30, 30, 30)) - 14.5, axis=0) < 10
    write_volume(tmp_path / "mri.nii", Volume((100 * ball).astype(np.uint8), np.diag([2, 2, 2, 1])))
    of_brain = ["check", str(tmp_path / "m.tsv"), "--mri", str(tmp_path / "mri.nii")]
    return lambda *words: main([*of_brain, *words])


def test_a_brain_that_can_be_right_passes(check):
    assert check("--orientation", "LIA") == 0


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--orientation", "XYZ", "orientation 'XYZ': expected three letters"),
        ("--work", "{", "--work: not readable as JSON"),
        ("--work", "[]", "--work: "),
        ("--work", '{"n_methods": 1, "working_pixel_mm": 0}', "--work.working_pixel_mm"),
    ],
)
def test_flags_that_are_wrong_are_named_in_one_line(check, capsys, flag, value, words):
    assert check(flag, value) == 2
    last = capsys.readouterr().err.rstrip("\n").splitlines()[-1]
    assert last.startswith("sbr check: ") and words in last
