"""A stage hit in its middle: no half-written file under a result's name, nothing done twice.

`benchmarks/faults.py` does it to every stage.
"""

import re
import signal
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from sbr_core.cli import main
from sbr_core.io.images import write_png
from sbr_core.io.tables import read_tsv, write_tsv

SECTIONS = ["a", "b", "c", "d"]

# the command, hit when the sidecar of its second section is there
HIT = """\
import os, resource, signal, sys
from sbr_core import cli
from sbr_core.artifacts import receipts

written, write = [], receipts.write_json


def write_json(path, value):
    write(path, value)
    written.append(path)
    if len(written) == 2:
        if sys.argv[1] == "full disk":
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        else:
            os.kill(os.getpid(), signal.Signals[sys.argv[1]])


receipts.write_json = write_json
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("fault", ["SIGTERM", "SIGKILL", "full disk"])
def test_finished_sections_outlive_a_fault_and_no_other_file_has_a_results_name(
    tmp_path, capsys, fault
):
    rows, columns = np.mgrid[:60, :80]
    tissue = ((rows - 30) / 20) ** 2 + ((columns - 35) / 28) ** 2 < 1
    write_png(tmp_path / "s.png", np.where(tissue, 120 + columns, 250).astype(np.uint8))
    table = [
        {"section": name, "image": "s.png", "position_mm": float(i), "pixel_size_mm": 0.5}
        for i, name in enumerate(SECTIONS)
    ]
    write_tsv(tmp_path / "sections.tsv", table)
    out = tmp_path / "out"
    command = ["prepare", "--rows", str(tmp_path / "sections.tsv"), "--out-dir", str(out)]
    command += ["--receipt", str(out / "chunks" / "1of1.tsv")]
    hit = subprocess.run(
        [sys.executable, "-c", HIT, fault, *command], capture_output=True, text=True
    )
    codes = {"SIGTERM": {143}, "SIGKILL": {-signal.SIGKILL}, "full disk": {2}}
    assert hit.returncode in codes[fault], hit.stderr
    if fault == "SIGTERM":
        assert hit.stderr.splitlines()[-1].startswith("sbr prepare: SIGTERM: stopped")
    assert not (out / "chunks" / "1of1.tsv").exists()
    assert {path.stem for path in (out / "sections").glob("*.json")} == {"a", "b"}
    for path in (out / "sections").glob("[a-d]_*.nii.gz"):
        assert np.asarray(nib.load(path).dataobj).size, path

    assert main(command) == 0
    states = dict(re.findall(r"section (\w+) (\w+)$", capsys.readouterr().err, re.M))
    assert states == {"a": "kept", "b": "kept", "c": "done", "d": "done"}
    assert [row["status"] for row in read_tsv(out / "chunks" / "1of1.tsv")[1]] == ["ok"] * 4
