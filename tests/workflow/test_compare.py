"""The comparison of methods in the workflow: only when asked for, and no more than is needed."""

import shutil

import pytest

from sbr_core.methods import COMPARED_METHODS, TRAINED_METHODS

SOME = "compare: {methods: [linear, syn_mi, nmi, sbr], minutes: 3}\n"
PAGE = "results/one/compare/index.html"


@pytest.fixture(scope="module")
def compared(finished, open_lab, tmp_path_factory):
    """A finished brain with a comparison of some methods."""
    folder = tmp_path_factory.mktemp("compared") / "lab"
    shutil.copytree(finished.folder, folder, symlinks=True)
    lab = open_lab(folder)
    with open(folder / "config/config.yaml", "a") as stream:
        stream.write(SOME)
    lab.snakemake("compare")
    return lab


@pytest.fixture
def lab(compared, open_lab, tmp_path):
    """A copy of it to edit."""
    shutil.copytree(compared.folder, tmp_path / "lab", symlinks=True)
    return open_lab(tmp_path / "lab")


def test_every_method_is_planned_when_asked_for_and_none_otherwise(finished):
    assert finished.planned() == []
    jobs = finished.planned("compare")
    # no section has labels
    trained = [method for method in TRAINED_METHODS if method != "nmiw"]
    assert [j for j in jobs if j.startswith("train")] == sorted(
        f"train one compare/{method}" for method in trained
    )
    inferred = {job.split()[2] for job in jobs if job.startswith("infer ")}
    assert inferred == {"syn_mi", "mind", *(f"compare/{method}" for method in trained)}
    assert {"evaluate_compared one", "compare_methods one"} <= set(jobs)
    assert not [job for job in jobs if job.split()[0] in ("evaluate", "report", "align")]
    done = finished.snakemake("--dry-run", "compare")
    said = done.stdout + done.stderr
    assert said.count("compare: one: without nmiw, which needs labels") == 1
    assert "without nmiw" not in finished.snakemake("--dry-run").stderr
    # one brain by the name of its page
    assert finished.planned(PAGE) == [job for job in jobs if job != "compare"]


def test_trainings_have_the_budget_and_commands_the_bare_name(compared):
    done = compared.snakemake("--dry-run", "--forcerun", "train", "--", "compare")
    commands = [line for line in done.stdout.splitlines() if "sbr train " in line]
    assert len(commands) == 2
    for line, method in zip(sorted(commands), ("nmi", "sbr"), strict=True):
        assert f"--method {method} " in line and '"minutes":3.0' in line
        assert '"steps":1000000000' in line and f"--out-dir results/one/compare/{method} " in line
    (line,) = [line for line in done.stdout.splitlines() if "sbr compare " in line]
    assert (
        "--methods linear=results/one/linear syn_mi=results/one/syn_mi"
        " nmi=results/one/compare/nmi sbr=results/one/compare/sbr " in line
    )
    assert "--registrar results/one/registrar/loss.tsv" in line


def test_the_comparison_stands_and_only_the_report_takes_note_of_it(lab):
    assert lab.planned("compare") == []
    assert lab.planned() == ["report one"]
    lab.snakemake()
    assert lab.planned() == [] and lab.planned("compare") == []


def test_another_budget_trains_the_comparison_again_and_nothing_else(lab):
    lab.snakemake()
    lab.edit("config/config.yaml", "minutes: 3", "minutes: 4")
    assert lab.planned() == []
    jobs = lab.planned("compare")
    assert {job for job in jobs if job.startswith("train")} == {
        "train one compare/nmi",
        "train one compare/sbr",
    }
    assert {job.split()[2] for job in jobs if job.startswith("infer ")} == {
        "compare/nmi",
        "compare/sbr",
    }
    assert {job.split()[0] for job in jobs} <= {
        *("train", "infer", "collect", "reassemble", "evaluate_compared", "compare_methods"),
        "compare",
    }


def test_another_level_of_significance_trains_nothing(lab):
    lab.edit("config/config.yaml", "minutes: 3", "minutes: 3, alpha: 0.01")
    assert lab.planned("compare") == ["compare", "compare_methods one"]


def test_one_method_more_leaves_the_others_alone(lab):
    lab.edit("config/config.yaml", "nmi, sbr", "nmi, sbr, rot")
    jobs = lab.planned("compare")
    assert [job for job in jobs if job.startswith("train")] == ["train one compare/rot"]
    assert {job.split()[2] for job in jobs if job.startswith("infer ")} == {"compare/rot"}
    assert {"evaluate_compared one", "compare_methods one"} <= set(jobs)


def test_forced_trainings_of_a_comparison_forget_their_checkpoints(lab):
    checkpoints = lab.folder / "results/.checkpoints/one/compare/sbr"
    checkpoints.mkdir(parents=True)
    lab.snakemake("--forcerun", "train")
    assert checkpoints.exists(), "the comparison was not what was asked for"
    lab.snakemake("--forcerun", "train", "--", PAGE)
    assert not checkpoints.exists()


def test_a_borrowing_brain_trains_for_a_comparison_too(lab):
    first = (lab.folder / "config/brains.tsv").read_text().splitlines()[1]
    row = lab.add_brain("two", [f"t{i}" for i in range(5)]).replace("LIA\t", "LIA\tone")
    lab.write_sheet(first, row)
    assert not [job for job in lab.planned() if job.startswith("train")]
    trainings = {job for job in lab.planned("compare") if job.startswith("train")}
    assert trainings == {
        "train_registrar two",
        "train two compare/nmi",
        "train two compare/sbr",
    }


def test_labels_of_sections_and_planes_bring_nmiw(empty_lab):
    lab = empty_lab
    lab.write_sheet(lab.add_brain("one", ["a", "b"], prealigned=True))
    lab.add_columns("one", labels=["images/a.png", ""], mri_labels=["images/a_mri.png", ""])
    jobs = lab.planned("compare")
    assert {job.split()[2] for job in jobs if job.startswith("train ")} == {
        f"compare/{method}" for method in TRAINED_METHODS
    }
    assert {
        job.split()[2].removeprefix("compare/") for job in jobs if job.startswith("infer ")
    } == set(COMPARED_METHODS)
