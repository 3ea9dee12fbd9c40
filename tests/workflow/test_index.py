"""The page over all brains: when it is made, and that a run which fails leaves one too."""

from __future__ import annotations


def test_finished_brains_of_before_plan_nothing_but_the_page(lab):
    page = lab.folder / "results" / "index.html"
    done = lab.snakemake("--dry-run")
    assert "Nothing to be done" in done.stdout + done.stderr
    page.unlink()
    done = lab.snakemake("--dry-run")
    assert "rule index:" in done.stdout + done.stderr and lab.planned() == []
    lab.snakemake("results/one/report/index.html")
    assert not page.is_file() and lab.calls() == []


def test_a_run_that_fails_leaves_a_page_that_says_so(lab):
    sheet = (lab.folder / "config" / "brains.tsv").read_text().splitlines()
    lab.write_sheet(sheet[1], lab.add_brain("bad"))
    (lab.folder / "raw" / "bad" / "mri.nii.gz").write_text("refuse")
    assert lab.snakemake("--keep-going", ok=False).returncode
    page = (lab.folder / "results" / "index.html").read_text()
    assert 'href="one/report/index.html"' in page and 'href="bad/report/index.html"' not in page
    assert "sbr check: MRI: cannot be right" in page
    # the rule makes the page again, though that of the failed run is there
    done = lab.snakemake("--dry-run")
    assert "rule index:" in done.stdout + done.stderr
