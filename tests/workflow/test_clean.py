"""`sbr clean` on a brain that the workflow finished: afterwards nothing is planned."""

from __future__ import annotations

import os
import shutil

from sbr_core.tools import clean


def test_after_cleaning_nothing_is_planned(lab, monkeypatch):
    monkeypatch.chdir(lab.folder)
    brain = lab.folder / "results" / "one"
    needless = []
    for stage in ("check", "prepare", "resample", "align_sections", "sbr"):
        receipt = next((brain / stage / "chunks").glob("*.tsv"))
        needless.append(receipt.with_name("9of9.tsv"))
        shutil.copy(receipt, needless[-1])
        (brain / stage / "sections").mkdir(exist_ok=True)
        needless.append(brain / stage / "sections" / "gone_image.nii.gz")
        needless[-1].write_text("bytes")
    checkpoint = lab.folder / "results" / ".checkpoints" / "one" / "sbr" / "key" / "step.pt"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write_text("bytes")
    needless.append(checkpoint)
    left = brain / "align" / ".tmp-4194305-quality.json"
    left.write_text("bytes")
    os.utime(left, (1, 1))
    clean.run(None, lab.folder / "results", yes=True)
    assert not any(path.exists() for path in [*needless, left])
    clean.run(None, lab.folder / "results", ["logs"], yes=True)
    done = lab.snakemake("--dry-run")
    assert "Nothing to be done" in done.stdout + done.stderr
