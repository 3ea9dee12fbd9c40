"""The page over all brains, when it is made and by whom; and what a run says of itself."""

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
    done = lab.snakemake()
    assert "Open first: results/one/report/index.html" in done.stderr
    assert "expected:" not in done.stderr  # of a page alone that is not worth a line


def test_a_run_that_fails_leaves_a_page_that_says_so(lab):
    sheet = (lab.folder / "config" / "brains.tsv").read_text().splitlines()
    lab.write_sheet(sheet[1], lab.add_brain("bad"))
    (lab.folder / "raw" / "bad" / "mri.nii.gz").write_text("refuse")
    failed = lab.snakemake("--keep-going", ok=False)
    assert failed.returncode and "Open first" not in failed.stderr
    assert "expected: " in failed.stderr and " of disk (" in failed.stderr
    page = (lab.folder / "results" / "index.html").read_text()
    assert 'href="one/report/index.html"' in page and 'href="bad/report/index.html"' not in page
    assert "sbr check: MRI: cannot be right" in page
    # the rule makes the page again, though that of the failed run is there
    done = lab.snakemake("--dry-run")
    assert "rule index:" in done.stdout + done.stderr
