"""The check before a run: who waits for it, who is left out, and what it leaves alone."""

PASSED = "        passed=lambda wildcards: marked(inputs.passed(STUDY, wildcards.brain)),\n"
REPORT = "inputs.report(STUDY, wildcards.brain)"
OLD = "k != 'checked'"
"""What the rules of before did not have."""


def test_a_brain_that_fails_is_left_out_until_it_is_mended(empty_lab):
    lab = empty_lab
    sections = ["a", "b", "c", "d", "e"]
    lab.write_sheet(lab.add_brain("one", sections), lab.add_brain("two", sections))
    mri = lab.folder / "raw/two/mri.nii.gz"
    mri.write_text("refuse")
    done = lab.snakemake("--", "prepare_all", ok=False)
    assert done.returncode == 1
    assert "sbr check: MRI: cannot be right" in done.stdout + done.stderr
    assert (lab.folder / "results/one/doctor/findings.tsv").is_file()
    assert not list((lab.folder / "results/two").glob("prepare/chunks/*.tsv"))
    mri.write_text("voxels")
    lab.calls()
    lab.snakemake("--", "prepare_all")
    made = [command for command, _ in lab.calls()]
    assert made.count("check") == 1 and "check-sections" not in made
    assert (lab.folder / "results/two/doctor/findings.tsv").is_file()
    assert lab.planned("--", "prepare_all") == []


def test_a_brain_finished_before_there_was_a_check_is_checked_and_no_more(empty_lab):
    lab = empty_lab
    lab.write_sheet(lab.add_brain("one", ["a", "b", "c", "d", "e"]))
    rules = {
        "workflow/rules/prepare.smk": (PASSED, ""),
        "workflow/rules/report.smk": (REPORT, f"{{k: v for k, v in {REPORT}.items() if {OLD}}}"),
    }
    texts = {file: (lab.folder / file).read_text() for file in rules}
    for file, edit in rules.items():
        lab.edit(file, *edit)
    lab.snakemake()
    assert not (lab.folder / "results/one/check").exists()
    for file, text in texts.items():
        (lab.folder / file).write_text(text)
    assert set(lab.rules()) == {"check_sections", "check", "report"}
    lab.snakemake()
    assert lab.planned() == []


def test_edited_mri_and_landmarks_are_checked_again_and_edited_notes_are_not(lab):
    lab.edit(
        "raw/one/sections.tsv", "s03.png\t2.0\t0.5\tnone\t\t", "s03.png\t2.0\t0.5\tnone\t\told"
    )
    assert lab.planned() == []
    (lab.folder / "raw/one/mri.nii.gz").write_text("other voxels")
    jobs = lab.rules()
    assert jobs["check"] == 1 and "check_sections" not in jobs and "prepare" not in jobs
    assert "pass_check" not in jobs, "what passed once waits no more"
