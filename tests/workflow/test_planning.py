"""Planning: presets, the demo, faults of the user's, the lock of a killed run."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from sbr_core.methods import METHODS, REGISTRY

LANDMARKS = "section\tx_section_mm\ty_section_mm\tmri_x_mm\tmri_y_mm\tmri_z_mm"


@pytest.mark.parametrize("preset", ["demo", "quick", "cpu", "paper"])
def test_dry_run_of_every_preset(repository, preset):
    """At the repository's root, as it is cloned: nothing but `snakemake`."""
    arguments = ["--dry-run", "--cores", "all", "--forceall", "--config", f"preset={preset}"]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=repository,
        capture_output=True,
        text=True,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert "workflow/profiles/default" in output
    for stage in ("demo", "prepare", "align", "infer", "report"):
        assert f"\nrule {stage}:" in output
    for stage in ("train_registrar", "train"):  # quick trains nothing
        assert (f"\nrule {stage}:" in output) == (preset != "quick")


def test_faults_of_the_user_are_one_line_and_exit_2(empty_lab):
    lab = empty_lab
    good = lab.add_brain("one", ["a", "b"])
    manifest = lab.folder / "raw/one/sections.tsv"

    def said(*arguments: str) -> str:
        done = lab.snakemake("-n", *arguments, ok=False)
        assert done.returncode == 2, done.stdout + done.stderr
        lines = [s for s in done.stderr.splitlines() if s.startswith("sbr workflow: ")]
        assert len(lines) == 1 and "Traceback" not in done.stderr
        return lines[0].removeprefix("sbr workflow: ")

    lab.write_sheet(good)
    assert said("--config", "chunksize=3") == "config: unknown key 'chunksize'"
    lab.write_sheet(good.replace("LIA", "LLA"))
    assert "brain 'one': orientation 'LLA'" in said()
    lab.write_sheet(good, good)
    assert "brain 'one' stands there twice" in said()
    lab.write_sheet(good.replace("LIA\t", "LIA\ttwo"))
    assert "weights_from: no brain 'two'" in said()
    lab.write_sheet(good.replace("LIA\t", "LIA\tone"))
    assert "circle: one <- one" in said()
    (lab.folder / "raw/one/mri.nii.gz").rename(lab.folder / "raw/one/mri.nii")
    lab.write_sheet(good)
    assert said() == "config/brains.tsv: brain 'one': mri: raw/one/mri.nii.gz: no such file"
    (lab.folder / "raw/one/mri.nii").rename(lab.folder / "raw/one/mri.nii.gz")
    manifest.write_text(manifest.read_text().replace("b\timages/b.png", "b\timages/c.png"))
    assert "section 'b': raw/one/images/c.png: no such file" in said()
    manifest.write_text(manifest.read_text().replace("c.png", "b.png"))
    (lab.folder / "raw/one/landmarks.tsv").write_text(LANDMARKS + "\nc\t1\t2\t3\t4\t5\n")
    sheet = lab.folder / "config/brains.tsv"
    head, line = sheet.read_text().splitlines()
    sheet.write_text(f"{head}\tlandmarks\n{line}\traw/one/landmarks.tsv\n")
    assert said() == "raw/one/landmarks.tsv: landmark 1: no section 'c' in this brain"


def test_a_brain_that_cannot_be_used_is_told_at_planning_and_the_others_run(empty_lab):
    lab = empty_lab
    one, two, three = (lab.add_brain(name, ["a", "b"]) for name in ("one", "two", "three"))
    lab.write_sheet(one, two, three.replace("LIA\t", "LIA\ttwo"))
    (lab.folder / "raw/two/mri.nii.gz").unlink()
    why = "config/brains.tsv: brain 'two': mri: raw/two/mri.nii.gz: no such file"
    borrower = "config/brains.tsv: brain 'three': weights_from: 'two' cannot be used"

    planned = lab.snakemake("--dry-run")
    for line in (f"'two' is left out: {why}", f"'three' is left out: {borrower}"):
        assert line in planned.stdout + planned.stderr
    done = lab.snakemake(ok=False)
    assert done.returncode == 1
    assert (lab.folder / "results/one/report/index.html").is_file()
    told = done.stderr[done.stderr.index("2 of 3 brains did not get through:") :]
    assert f"two: refuse: sbr workflow: {why}" in told
    assert f"three: refuse: sbr workflow: {borrower}" in told
    assert "the same command goes on: snakemake --snakefile workflow/Snakefile --cores 2" in told

    # nothing of the others is done again once it is put right
    (lab.folder / "raw/two/mri.nii.gz").write_text("voxels")
    jobs = lab.planned()
    assert jobs and not [job for job in jobs if "one" in job.split() or "refuse" in job]


def test_a_brain_that_fails_on_the_way_is_told_at_the_end_with_the_command_to_go_on(empty_lab):
    lab = empty_lab
    lab.write_sheet(*(lab.add_brain(name, ["a", "b"]) for name in ("one", "two")))
    (lab.folder / "raw/two/mri.nii.gz").write_text("broken")
    fault = "sbr prepare-mri: raw/two/mri.nii.gz: not readable"
    lab.edit(
        "bin/sbr",
        '    elif command == "prepare-mri":\n',
        '    elif command == "prepare-mri":\n'
        '        if arguments["mri"].read_text() == "broken":\n'
        f'            sys.exit("{fault}")\n',
    )
    done = lab.snakemake(ok=False)
    assert done.returncode == 1 and (lab.folder / "results/one/report/index.html").is_file()
    told = done.stderr[done.stderr.index("1 of 2 brains did not get through:") :].splitlines()
    assert told[1].strip() == f"two: prepare_mri: {fault} (results/two/logs/prepare_mri.log)"
    (command,) = (s.partition("alone: ")[2] for s in told if "this brain alone: " in s)
    assert command == "snakemake --cores all results/two/report/index.html"
    (lab.folder / "raw/two/mri.nii.gz").write_text("voxels")
    lab.calls()
    lab.snakemake(command.split()[-1])
    made = {command for command, _ in lab.calls()}
    assert made >= {"prepare-mri", "align", "report"} and "prepare" not in made
    assert lab.planned() == []


def test_rows_of_a_chunk_may_outgrow_a_command_line(empty_lab):
    """One argument may have 128 KiB."""
    lab = empty_lab
    sections = [f"section-{number:04d}" for number in range(400)]
    row = lab.add_brain("one", sections)
    deep = "/".join(["a-folder-of-the-storage-with-a-long-name"] * 8)
    (lab.folder / "raw/one" / deep).mkdir(parents=True)
    (lab.folder / "raw/one/images").rename(lab.folder / "raw/one" / deep / "images")
    manifest = lab.folder / "raw/one/sections.tsv"
    manifest.write_text(manifest.read_text().replace("\timages/", f"\t{deep}/images/"))
    lab.edit("config/config.yaml", "chunk_size: 4", "chunk_size: 400")
    lab.write_sheet(row)
    lab.snakemake("results/one/resample/chunks/1of1.tsv")
    rows = lab.folder / "results/one/prepare/chunks/1of1.rows.json"
    assert rows.stat().st_size > 131072
    assert [len(json.loads(made)) for _, made in lab.calls() if made != "[]"] == [400] * 3


def test_landmarks_of_excluded_sections_are_passed_over(empty_lab):
    lab = empty_lab
    row = lab.add_brain("one", ["a", "b", "c", "d"])
    (lab.folder / "raw/one/landmarks.tsv").write_text(LANDMARKS + "\n")
    sheet = lab.folder / "config/brains.tsv"

    def evaluation() -> str:
        done = lab.snakemake("--dry-run")
        (line,) = [s for s in done.stdout.splitlines() if "sbr evaluate" in s]
        return line

    lab.edit("raw/one/sections.tsv", "b.png\t1.0\t0.5\tnone\t", "b.png\t1.0\t0.5\tnone\tyes")
    lab.edit("raw/one/sections.tsv", "d.png\t3.0\t0.5\tnone\t", "d.png\t3.0\t0.5\tnone\ttrue")
    lab.write_sheet(row)
    assert "--excluded" not in evaluation()  # it has no landmarks
    head, line = sheet.read_text().splitlines()
    sheet.write_text(f"{head}\tlandmarks\n{line}\traw/one/landmarks.tsv\n")
    assert "--excluded b d" in evaluation()


def test_every_method_is_planned_with_what_it_needs(repository):
    """On the demo, which has labels; every training goes through the registrar or on from it."""
    arguments = ["--dry-run", "--cores", "1", "--forceall", "--printshellcmds"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "snakemake",
            *arguments,
            "--config",
            f"methods=[{','.join(METHODS)}]",
        ],
        cwd=repository,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    commands = {}
    for line in done.stdout.splitlines():
        words = line.removeprefix("Shell command: ").split()
        if words[:1] == ["sbr"] and words[1] in ("train", "infer") and "--method" in words:
            commands.setdefault((words[1], words[words.index("--method") + 1]), line)
    trained = [method for method in METHODS if REGISTRY[method].trained]
    assert {m for stage, m in commands if stage == "train"} == set(trained)
    assert {m for stage, m in commands if stage == "infer"} == set(METHODS)
    with_shared = {key for key, line in commands.items() if "--registrar" in line}
    assert with_shared == {
        *(("train", m) for m in trained),
        *(("infer", m) for m in trained if not REGISTRY[m].trains_registrar),
    }
    with_labels = [key for key, line in commands.items() if "--mri-labels" in line]
    assert with_labels == [("train", "nmiw")]
    assert "--align-dir" in commands["train", "nmiw"] and "--prepared" in commands["train", "nmiw"]
    assert {key for key, line in commands.items() if "--weights" in line} == {
        ("infer", m) for m in trained
    }
    assert '"iterations"' in commands["infer", "syn_mi"]
    assert '"registrar_extent_px"' in commands["infer", "mind"]


def test_methods_that_use_no_shared_registrar_train_none(empty_lab):
    lab = empty_lab
    lab.write_sheet(lab.add_brain("one", ["a", "b"]))
    methods = ("--config", "methods=[nmi,syn_mi]")
    jobs = lab.planned(*methods, 'train_nmi={"registrar_start": "nothing"}')
    assert [job for job in jobs if job.startswith("train")] == ["train one nmi"]
    # the preset's starts as a copy of it
    jobs = lab.planned(*methods)
    assert [job for job in jobs if job.startswith("train")] == [
        "train one nmi",
        "train_registrar one",
    ]


def test_a_method_that_learns_from_labels_is_refused_where_there_are_none(empty_lab):
    lab = empty_lab
    lab.write_sheet(lab.add_brain("one", ["a", "b"]))
    done = lab.snakemake("-n", "--config", "methods=[nmiw]", ok=False)
    assert done.returncode == 2
    (line,) = [s for s in done.stderr.splitlines() if s.startswith("sbr workflow: ")]
    assert "brain 'one': method 'nmiw' learns from labels: expected `labels`" in line


def test_snakemakes_own_report_holds_the_page(lab):
    lab.snakemake("--report", "report.html")
    assert "index.html" in (lab.folder / "report.html").read_text()


def test_lock_of_a_killed_run_does_not_stop_the_same_command(lab):
    (lab.folder / "results/one/report/index.html").unlink()
    stub = lab.folder / "bin" / "sbr"
    text = stub.read_text()
    stub.write_text(text.replace("def main():", "import time\n\n\ndef main():\n    time.sleep(60)"))
    environment = os.environ | {"PATH": f"{stub.parent}{os.pathsep}{os.environ['PATH']}"}
    run = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "1"],
        cwd=lab.folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    note = lab.folder / ".snakemake" / "sbr_running.json"
    try:
        while not note.exists() and run.poll() is None:
            time.sleep(0.1)
        assert json.loads(note.read_text())["pid"] == run.pid
        second = lab.snakemake(ok=False)  # while the first lives, its lock is respected
        assert second.returncode == 1 and "cannot be locked" in second.stdout + second.stderr
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    stub.write_text(text)
    done = lab.snakemake()
    assert "was killed: lock removed" in done.stdout + done.stderr
    assert (lab.folder / "results/one/report/index.html").exists()
    assert not note.exists()


def test_simulated_pairs_are_made_only_when_asked_for(empty_lab):
    lab = empty_lab
    lab.write_sheet(lab.add_brain("one"), lab.add_brain("two", prealigned=True))
    assert not [job for job in lab.planned() if "simulate" in job]
    jobs = lab.planned("simulate")
    assert {"simulate_pairs one", "simulate_pairs two"} <= set(jobs)
    for brain in ("one-simulated", "two-simulated"):
        # a prealigned brain with trainings of its own, through to its report
        ours = {job.split()[0] for job in jobs if job.split()[1:2] == [brain]}
        assert ours == {
            *("prepare", "resample", "align_sections", "train_registrar", "train"),
            *("infer", "collect", "reassemble", "trust", "evaluate", "report"),
        }
    # nothing of the real brains beyond what the pairs are made of
    assert not [j for j in jobs if j.split()[0] in ("infer", "report") and "-simulated" not in j]
    page = "results/one-simulated/report/index.html"
    assert not [job for job in lab.planned(page) if "two" in job]


def test_simulated_brain_trains_for_itself_even_if_its_source_borrows(empty_lab):
    lab = empty_lab
    two = lab.add_brain("two", [f"t{i}" for i in range(5)]).replace("LIA\t", "LIA\tone")
    lab.write_sheet(lab.add_brain("one"), two)
    jobs = lab.planned("results/two-simulated/report/index.html")
    assert [job for job in jobs if job.startswith("train")] == [
        "train two-simulated sbr",
        "train_registrar two-simulated",
    ]


def test_simulated_pairs_have_labels_where_the_mri_has_some(empty_lab):
    """And a method that learns from labels is left out where it has none, which is said once."""
    lab = empty_lab
    letters = "abcd"
    rows = [lab.add_brain(name, letters, prealigned=name == "two") for name in ("one", "two")]
    rows.append(lab.add_brain("three", letters).replace("LIA\t", "LIA\tone"))
    lab.write_sheet(*rows)
    (lab.folder / "raw/one/mri_labels.nii.gz").write_text("labels")
    lab.edit("config/brains.tsv", "prealigned\n", "prealigned\tmri_labels\n")
    lab.edit("config/brains.tsv", rows[0] + "\n", f"{rows[0]}\traw/one/mri_labels.nii.gz\n")
    lab.add_columns("one", labels=["images/a.png", "", "", ""])
    planes = [f"images/{letter}_mri.png" for letter in letters]
    lab.add_columns("two", labels=["images/a.png", "", "", ""], mri_labels=planes)

    assert "without nmiw" not in lab.snakemake("--dry-run", "--config", "methods=[nmiw]").stderr
    done = lab.snakemake("--dry-run", "--config", "methods=[nmiw]", "--", "simulate")
    lines = [line for line in done.stdout.splitlines() if "-simulated" in line]
    commands = [line for line in lines if " sbr " in f" {line}" and "--" in line]
    simulate = {
        name: next(s for s in commands if "sbr simulate" in s and f"{name}-simulated" in s)
        for name in ("one", "two", "three")
    }
    labels = "--align-dir results/one/align --mri-labels raw/one/mri_labels.nii.gz"
    assert labels in simulate["one"]
    assert not [name for name in ("two", "three") if "--mri-labels" in simulate[name]]
    # both train on labels of all their planes, which their own manifest names
    trainings = [s for s in commands if "sbr train " in s]
    assert len(trainings) == 2 and all("--method nmiw" in s for s in trainings)
    for name in ("one", "two"):
        manifest = f"--rows results/{name}-simulated/data/sections.tsv"
        assert len([s for s in trainings if manifest in s]) == 1
        (line,) = [s for s in commands if "sbr evaluate" in s and f"{name}-simulated " in s]
        assert manifest in line
    assert not [s for s in commands if "three-simulated" in s and "nmiw" in s]
    said = done.stdout + done.stderr
    assert said.count("simulate: three-simulated: without nmiw, which needs labels") == 1
    assert said.count("without nmiw") == 1


def test_a_brain_of_the_sheet_cannot_take_a_simulated_ones_name(empty_lab):
    lab = empty_lab
    lab.write_sheet(lab.add_brain("one-simulated", ["a", "b"]))
    done = lab.snakemake("-n", ok=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "brain 'one-simulated': expected a name that does not end in '-simulated'" in done.stderr
