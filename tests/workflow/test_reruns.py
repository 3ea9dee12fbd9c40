"""What reruns, and what does not: Snakemake's own decisions on a finished run."""

import json
import shutil

GLOBAL = {"align", "train_registrar", "train"}
"""Stages that look at the brain as a whole, which one section must not start again."""
TABLES = {"reassemble": 2, "trust": 2, "evaluate": 1, "report": 1}


def test_unchanged_brain_reruns_nothing(lab):
    assert lab.planned() == []
    # a cosmetic edit of the manifest, and even a new time stamp, change nothing
    row = "s03.png\t2.0\t0.5\tnone\t\t"
    lab.edit("raw/one/sections.tsv", row, row + "ugly")
    (lab.folder / "raw/one/mri.nii.gz").touch()
    assert lab.planned() == []


def test_edited_image_reruns_its_chunk_volume_tables_and_report_only(lab):
    chunk = lab.chunk("s03")
    (lab.folder / "raw/one/images/s03.png").write_text("other pixels")
    jobs = lab.planned()
    assert set(jobs) == {
        f"check_sections one {chunk}",
        f"prepare one {chunk}",
        f"align_sections one {chunk}",
        f"infer one linear {chunk}",
        f"infer one sbr {chunk}",
        "collect one prepare",
        "collect one align_sections",
        "collect one linear",
        "collect one sbr",
        "reassemble one linear",
        "reassemble one sbr",
        "check one",
        "doctor one",
        "trust one linear",
        "trust one sbr",
        "evaluate one",
        "report one",
    }
    lab.snakemake()
    worked = dict(lab.calls())
    # within its chunk, only the section itself is computed
    assert worked["prepare"] == worked["align-sections"] == worked["infer"] == '["s03"]'
    assert lab.planned() == []


def test_flipped_row_reruns_its_chunk_but_not_its_mri_plane(lab):
    lab.edit("raw/one/sections.tsv", "s03.png\t2.0\t0.5\tnone", "s03.png\t2.0\t0.5\tlr")
    jobs = lab.rules()
    assert jobs["prepare"] == 1 and jobs["infer"] == 2 and jobs["align_sections"] == 1
    assert jobs["doctor"] == 1, "an edited row is seen by the doctor"
    assert not GLOBAL & set(jobs) and "resample" not in jobs
    assert TABLES.items() <= jobs.items()


def test_stain_groups_get_volumes_and_train_nothing_anew(lab):
    lab.add_columns("one", stain_group=["nissl", "CB"] * 6)
    jobs = lab.planned()
    for method in ("linear", "sbr"):
        wanted = {f"reassemble one {method} _stain-{group}" for group in ("nissl", "CB")}
        assert wanted == {job for job in jobs if job.startswith(f"reassemble one {method}")}
    assert not (GLOBAL | {"resample"}) & {job.split()[0] for job in jobs}
    lab.snakemake()
    assert lab.planned() == []
    for group in ("nissl", "CB"):
        volume = f"results/one/sbr/volume/one_space-mri_stain-{group}_histology.nii.gz"
        assert (lab.folder / volume).is_file()
    lab.correct("one", "s03\tverdict\treject")
    jobs = [job for job in lab.planned() if job.startswith("reassemble")]
    assert jobs == [f"reassemble one {method} _stain-nissl" for method in ("linear", "sbr")]


def test_another_channel_of_a_file_reruns_what_another_file_would(lab):
    lab.add_columns("one", image_channel=["DAPI"] * 12)
    every = lab.rules()
    lab.snakemake()
    assert every["prepare"] > 1 and "resample" not in every
    path = lab.folder / "raw/one/sections.tsv"
    text = path.read_text()
    (row,) = (line for line in text.splitlines() if line.startswith("s03"))
    path.write_text(text.replace(row, row.removesuffix("DAPI") + "GFP"))
    jobs = lab.rules()
    assert jobs["prepare"] == jobs["align_sections"] == 1 and jobs["infer"] == 2
    assert "resample" not in jobs


def test_sections_in_full_and_colours_are_made_when_asked_for_and_alone(lab):
    """Of the methods that deform; of the baseline only where there is no other."""
    asked = ("--config", "registered={pixel_mm: file}", "reassemble={colour: true}")
    lab.snakemake(*asked)
    made = {command for command, _ in lab.calls()}
    assert made == {"registered", "reassemble-colour"}
    full = lab.folder / "results/one/sbr/registered/sections/s03_registered.ome.tif"
    assert full.is_file() and not list((lab.folder / "results/one/linear").glob("**/*.ome.tif"))
    assert (lab.folder / "results/one/sbr/volume/one_space-mri_colour.nii.gz").is_file()
    full.unlink()
    jobs = lab.rules(*asked[:2], "reassemble={colour: true, format: ome-zarr}")
    assert set(jobs) == {"registered", "reassemble_colour"} and jobs["registered"] == 1


def test_moved_row_gets_a_new_mri_plane(lab):
    lab.edit("raw/one/sections.tsv", "s03.png\t2.0", "s03.png\t2.25")
    jobs = lab.rules()
    assert jobs["prepare"] == jobs["resample"] == jobs["align_sections"] == 1
    assert not GLOBAL & set(jobs) and TABLES.items() <= jobs.items()


def test_excluded_and_added_rows_rerun_their_chunks_only(lab):
    lab.edit("raw/one/sections.tsv", "s03.png\t2.0\t0.5\tnone\t", "s03.png\t2.0\t0.5\tnone\tyes")
    for section, position in (("s13", 12.0), ("s14", 13.0)):
        (lab.folder / f"raw/one/images/{section}.png").write_text("pixels")
        with open(lab.folder / "raw/one/sections.tsv", "a") as stream:
            stream.write(f"{section}\timages/{section}.png\t{position}\t0.5\n")
    jobs = lab.rules()
    assert not GLOBAL & set(jobs) and TABLES.items() <= jobs.items()
    lab.snakemake()
    sections = [s for name, work in lab.calls() if name == "prepare" for s in json.loads(work)]
    assert sorted(sections) == ["s13", "s14"]
    table = (lab.folder / "results/one/sbr/sections.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in table[1:]] == [
        f"s{i:02d}" for i in range(1, 15) if i != 3
    ]
    assert lab.planned() == []


def test_a_verdict_reruns_the_tables_and_a_rejection_the_volumes_too(lab):
    lab.correct("one", "s03\tverdict\taccept", "s04\tnote\tpale")
    assert lab.planned() == ["evaluate one", "report one"]
    lab.snakemake()
    assert lab.planned() == []
    lab.correct("one", "s03\tverdict\treject")
    assert lab.rules() == {"reassemble": 2, "evaluate": 1, "report": 1}
    lab.snakemake()
    assert lab.planned() == []


def test_landmarks_rerun_their_section_its_chunk_and_what_shows_it(lab):
    """Neither fits nor trainings; all files of other sections keep their bytes."""

    def files():
        folders = [
            lab.folder / "results/one" / name for name in ("align_sections", "linear", "sbr")
        ]
        paths = [path for folder in folders for path in folder.glob("sections/*")]
        return {path: path.read_bytes() for path in paths}

    before, chunk = files(), lab.chunk("s03")
    lab.correct("one", "s03\tlandmark\tfornix\t1\t2\t3\t4\t5")
    wanted = [f"align_sections one {chunk}", "collect one align_sections", "collect one linear"]
    wanted += ["collect one sbr", "evaluate one", f"infer one linear {chunk}"]
    wanted += [f"infer one sbr {chunk}", "reassemble one linear", "reassemble one sbr"]
    wanted += ["report one", "trust one linear", "trust one sbr"]
    assert lab.planned() == wanted
    lab.snakemake()
    worked = dict(lab.calls())
    assert worked["align-sections"] == worked["infer"] == '["s03"]'
    after = files()
    changed = {
        path.name.split("_")[0].removesuffix(".json")
        for path in before
        if before[path] != after[path]
    }
    assert changed == {"s03"} and set(after) == set(before)
    assert lab.planned() == []
    lab.correct("one", "s03\tverdict\taccept")  # they are taken back
    assert lab.rules()["align_sections"] == 1
    lab.snakemake()
    assert files() == before and lab.planned() == []


def test_landmarks_are_obeyed_in_the_run_in_which_another_chunk_changed_too(lab):
    """Their plan is new, and Snakemake does not look for it by itself."""
    first = lab.chunk("s03")
    second = next(s for s in ("s01", "s02", "s04", "s05") if lab.chunk(s) != first)
    lab.correct("one", "s03\tlandmark\tfornix\t1\t2\t3\t4\t5")
    (lab.folder / f"raw/one/images/{second}.png").write_text("edited")
    wanted = {f"align_sections one {chunk}" for chunk in (first, lab.chunk(second))}
    for target in ("all", "align_all"):
        jobs = lab.planned(target)
        assert {job for job in jobs if job.startswith("align_sections one")} == wanted


def test_chunk_that_loses_all_its_rows_leaves_every_table(lab):
    """Also while another chunk changes: the tables behind the global fit must not be forgotten."""
    gone = lab.chunk("s01")
    text = (lab.folder / "raw/one/sections.tsv").read_text().splitlines()
    kept = [text[0]]
    for line in text[1:]:
        section = line.split("\t")[0]
        if lab.chunk(section) == gone:
            line = line.replace("none\t", "none\tyes")
        else:
            other = section
        kept.append(line)
    (lab.folder / "raw/one/sections.tsv").write_text("\n".join(kept) + "\n")
    (lab.folder / f"raw/one/images/{other}.png").write_text("other pixels")
    assert not GLOBAL & set(lab.rules())
    lab.snakemake()
    for table in ("prepare", "resample", "align_sections", "linear", "sbr"):
        assert "s01" not in (lab.folder / f"results/one/{table}/sections.tsv").read_text(), table
    assert lab.planned() == []


def test_deleted_section_file_is_noticed_and_restored(lab):
    deleted = lab.folder / "results/one/sbr/sections/s05_linear.nii.gz"
    before = deleted.read_text()
    deleted.unlink()
    jobs = lab.planned()
    assert f"infer one sbr {lab.chunk('s05')}" in jobs
    assert not {"prepare", "resample", "align_sections"} & {j.split()[0] for j in jobs}
    lab.snakemake()
    assert [work for name, work in lab.calls() if name == "infer"] == ['["s05"]']
    assert deleted.read_text() == before
    assert lab.planned() == []


def test_without_snakemake_s_memory_a_newer_plan_and_lost_facts_are_noticed(lab):
    """So `upkeep` says that other options are asked for."""
    shutil.rmtree(lab.folder / ".snakemake")
    assert lab.planned() == []
    (lab.folder / "results/one/plan/train_sbr.json").touch()
    assert "align" not in (jobs := lab.rules()) and {"train", "infer"} <= set(jobs)
    (lab.folder / "results/one/prepare/mri.json").unlink()
    assert {"prepare_mri", "align"} <= set(lab.rules())


def test_config_section_reruns_its_stage_and_what_follows(lab):
    config = "config/config.yaml"
    text = (lab.folder / config).read_text()

    def rules_with(section: str) -> set[str]:
        (lab.folder / config).write_text(text + section)
        return set(lab.rules())

    assert rules_with("report: {jpeg_quality: 33}\n") == {"report"}
    # nothing but the reasons of suspects and the report look at what the doctor says
    of_doctor = {"doctor", "trust", "evaluate", "report"}
    assert rules_with("doctor: {min_turn_deg: 17}\n") == of_doctor
    assert rules_with("train_sbr: {steps: 777}\n") == {
        *("train", "infer", "collect", "reassemble", "trust", "evaluate", "report"),
    }
    assert rules_with("infer: {batch_size: 37}\n") == {
        *("infer", "collect", "reassemble", "trust", "evaluate", "report"),
    }
    # the tables of prepare are ancient to the global fit, its options are not
    everything = {
        "check_sections",
        "check",
        "prepare",
        "prepare_mri",
        "doctor",
        "resample",
        "align_sections",
        "infer",
        "collect",
    }
    assert rules_with("prepare: {min_tissue_mm2: 3.25}\n") == everything | GLOBAL | set(TABLES)


def test_options_and_a_section_changed_at_once_are_both_seen(lab):
    """Snakemake does not look at a rule's parameters behind an ancient input; the plans do."""
    (lab.folder / "raw/one/images/s03.png").write_text("other pixels")
    config = lab.folder / "config/config.yaml"
    config.write_text(config.read_text() + "train_sbr: {steps: 777}\nresample: {order: 3}\n")
    jobs = lab.rules()
    assert jobs["prepare"] == 1 and jobs["resample"] == 3 and jobs["infer"] == 6
    assert {"train_registrar", "train"} <= set(jobs) and "align" not in jobs
    lab.snakemake()
    assert lab.planned() == []


def test_global_stages_run_when_asked_and_wait_for_the_newest_table(lab):
    (lab.folder / "raw/one/images/s03.png").write_text("other pixels")
    assert "align" in lab.rules("--forcerun", "align")
    checkpoints = lab.folder / "results/.checkpoints/one"
    for name in ("registrar", "sbr"):
        (checkpoints / name).mkdir(parents=True)
    jobs = lab.rules("--forcerun", "train")
    # every chunk of sbr, the edited one of linear, and no other training
    assert jobs["train"] == 1 and jobs["infer"] == 3 + 1 and "train_registrar" not in jobs
    assert (checkpoints / "sbr").exists(), "a dry run removed checkpoints"
    lab.snakemake("--forcerun", "train")
    assert not (checkpoints / "sbr").exists(), "a forced training did not start anew"
    assert (checkpoints / "registrar").exists()


def test_further_methods_are_added_and_each_reruns_by_its_own_section(lab):
    config = lab.folder / "config/config.yaml"
    text = config.read_text().replace("[sbr]", "[sbr, nmi, sbr_r, syn_mi]")
    config.write_text(text)
    jobs = lab.planned()
    assert {j for j in jobs if j.startswith("train")} == {"train one nmi", "train one sbr_r"}
    assert {j.split()[2] for j in jobs if j.startswith("infer")} == {"nmi", "sbr_r", "syn_mi"}
    lab.snakemake()
    assert lab.planned() == []

    def methods_with(section: str) -> tuple[set[str], set[str]]:
        config.write_text(text + section)
        jobs = [job.split() for job in lab.planned()]
        return tuple({j[2] for j in jobs if j[0] == rule} for rule in ("train", "infer"))

    assert methods_with("syn_mi: {bins: 16}\n") == (set(), {"syn_mi"})
    assert methods_with("train_nmi: {bins: 10}\n") == ({"nmi"}, {"nmi"})
    assert methods_with("train_nmi: {registrar_start: nothing}\n") == ({"nmi"}, {"nmi"})
    assert methods_with("train_sbr_r: {smoothness: 3}\n") == ({"sbr_r"}, {"sbr_r"})
    # another registrar is another start
    assert methods_with("train_registrar: {finetune_steps: 9}\n")[0] == {"sbr", "nmi", "sbr_r"}
    # a key of sbr counts for those that take it over
    three = {"sbr", "nmi", "sbr_r"}
    assert methods_with("train_sbr: {steps: 777}\n") == (three, three)
    assert methods_with("infer: {batch_size: 3}\n") == (set(), {"linear", *three})
    # one section's new image starts no training, of whichever method
    config.write_text(text)
    (lab.folder / "raw/one/images/s03.png").write_text("other pixels")
    jobs = lab.rules()
    assert jobs["infer"] == 5 and not GLOBAL & set(jobs)


def test_new_mri_reruns_the_fit_and_all_that_stands_on_it(lab):
    (lab.folder / "raw/one/mri.nii.gz").write_text("other voxels")
    assert set(lab.rules()) == GLOBAL | set(TABLES) | {
        *("check", "prepare_mri", "resample", "align_sections", "infer", "collect"),
    }


def test_second_brain_leaves_the_first_alone_and_can_borrow_its_networks(lab):
    first = (lab.folder / "config/brains.tsv").read_text().splitlines()[1]
    two = lab.add_brain("two", [f"t{i}" for i in range(5)])
    three = lab.add_brain("three", [f"u{i}" for i in range(5)], prealigned=True)
    borrowing = two.replace("LIA\t", "LIA\tone")
    lab.write_sheet(first, borrowing, three)
    jobs = lab.planned()
    assert jobs and not [job for job in jobs if job.split()[1] == "one"]
    assert {j for j in jobs if j.startswith("train")} == {
        "train_registrar three",
        "train three sbr",
    }
    assert "align three" not in jobs and "prepare_mri three" not in jobs
    lab.snakemake()
    assert lab.planned() == []
    # the donor's networks are ancient: training them anew does not touch the borrower
    jobs = lab.planned("--forcerun", "train")
    assert "train one sbr" in jobs and not [j for j in jobs if j.split()[1] == "two"]
    # but naming another donor, or none, does
    lab.write_sheet(first, two, three)
    assert {"train_registrar two", "train two sbr"} <= set(lab.planned())


def test_a_brain_trains_on_from_anothers_networks_and_a_third_takes_the_result(lab):
    first = (lab.folder / "config/brains.tsv").read_text().splitlines()[1]
    two = lab.add_brain("two", [f"t{i}" for i in range(5)]).replace("LIA\t", "LIA\tone")
    three = lab.add_brain("three", [f"u{i}" for i in range(5)]).replace("LIA\t", "LIA\ttwo")
    lab.write_sheet(first, two, three)
    lab.edit("config/brains.tsv", "prealigned\n", "prealigned\tweights_use\n")
    lab.edit("config/brains.tsv", two, f"{two}\tfinetune")
    jobs = lab.planned()
    assert jobs and not [job for job in jobs if job.split()[1] == "one"]
    assert [job for job in jobs if job.startswith("train")] == ["train two sbr"]
    (training,) = [s for s in lab.snakemake("-n").stdout.splitlines() if "sbr train " in s]
    for flag in ("--start results/one/sbr", "--registrar results/one/registrar"):
        assert f"{flag}/weights.safetensors" in training
    lab.snakemake()
    assert lab.planned() == []
    done = lab.snakemake("-n", "--forcerun", "infer").stdout.splitlines()
    used = {s.split("results/")[1].split("/")[0]: s for s in done if "sbr infer --method sbr" in s}
    for brain in ("two", "three"):
        assert "--weights results/two/sbr/weights.safetensors" in used[brain]
        assert "--registrar results/one/registrar/weights.safetensors" in used[brain]

    # each training follows its own steps and no others
    config = lab.folder / "config/config.yaml"
    text = config.read_text()
    config.write_text(text + "train_sbr: {finetune_steps: 7}\n")
    assert [job for job in lab.planned() if job.startswith("train")] == ["train two sbr"]
    config.write_text(text + "train_sbr: {steps: 7}\n")
    assert [job for job in lab.planned() if job.startswith("train")] == ["train one sbr"]
    config.write_text(text)
    # what it starts from is another brain's and ancient; nothing is lost when asked anew
    assert not [j for j in lab.planned("--forcerun", "train_registrar") if "two" in j.split()]
    lab.edit("config/brains.tsv", f"{two}\tfinetune", two)
    assert not [job for job in lab.planned() if job.startswith("train")]


def test_what_is_missing_is_made_in_the_call_in_which_a_section_changed(lab):
    """Though the tables it is made from are ancient, and nothing else leads to it."""
    (lab.folder / "raw/one/images/s03.png").write_text("other pixels")
    assert "simulate_pairs one" in lab.planned("simulate")
    for name in ("sbr/weights.safetensors", "registrar/loss.tsv"):
        (lab.folder / "results/one" / name).unlink()
    jobs = lab.planned("train_all")
    assert f"prepare one {lab.chunk('s03')}" in jobs
    assert "train one sbr" in jobs and "train_registrar one" not in jobs  # no one asked for a loss
    (lab.folder / "results/one/registrar/weights.safetensors").unlink()
    assert {"train one sbr", "train_registrar one"} <= set(lab.planned("train_all"))
    lab.snakemake("simulate", "train_all")
    assert lab.planned("simulate", "train_all") == []


def test_simulated_pairs_rerun_when_their_options_or_their_source_change(lab):
    lab.snakemake("simulate")
    assert lab.planned("simulate") == []
    # the brain's own report takes note of them, once
    assert lab.planned() == ["report one"]
    worked = {name for name, _ in lab.calls()}
    lab.snakemake()
    assert lab.planned("simulate") == lab.planned() == []
    lab.calls()
    assert {"simulate", "prepare", "train", "report"} <= worked
    config = lab.folder / "config/config.yaml"
    text = config.read_text()
    config.write_text(text + "simulate: {noise: 0.05}\n")
    assert lab.planned() == []  # the brain itself has no part in it
    jobs = lab.planned("simulate")
    assert "simulate_pairs one" in jobs and "train_registrar one-simulated" in jobs
    assert "train one-simulated sbr" in jobs
    assert not [job for job in jobs if job.split()[1] == "one" and "simulate_pairs" not in job]
    # how the pairs are measured does not make them anew, how their planes are made does
    config.write_text(text + "evaluate: {percentiles: [50]}\n")
    assert lab.planned("simulate") == ["evaluate one-simulated", "report one-simulated"]
    config.write_text(text + "resample: {order: 3}\n")
    assert "simulate_pairs one" in lab.planned("simulate")
    config.write_text(text)
    # another image leaves the pairs alone, another set of sections does not
    (lab.folder / "raw/one/images/s03.png").write_text("other pixels")
    assert not [job for job in lab.planned("simulate") if "one-simulated" in job]
    lab.edit("raw/one/sections.tsv", "s03.png\t2.0\t0.5\tnone\t", "s03.png\t2.0\t0.5\tnone\tyes")
    assert "simulate_pairs one" in lab.planned("simulate")
    lab.snakemake("simulate")
    table = (lab.folder / "results/one-simulated/sbr/sections.tsv").read_text()
    assert "s04\t" in table and "s03\t" not in table
    assert lab.planned("simulate") == []


def test_edited_labels_remake_no_simulated_pairs(empty_lab):
    lab = empty_lab
    lab.write_sheet(lab.add_brain("one", ["a", "b", "c", "d"], prealigned=True))
    for name in ("labels", "mri_labels"):
        (lab.folder / f"raw/one/{name}.png").write_text("labels")
        lab.add_columns("one", **{name: [f"{name}.png", "", "", ""]})
    config = lab.folder / "config/config.yaml"
    config.write_text(config.read_text().replace("[sbr]", "[nmiw]"))
    lab.snakemake("simulate")
    assert lab.planned("simulate") == []
    (lab.folder / "raw/one/mri_labels.png").write_text("other labels")
    assert lab.planned("simulate") == []
    (lab.folder / "raw/one/labels.png").write_text("other labels")
    jobs = lab.planned("simulate")
    assert jobs and not [job for job in jobs if "simulate" in job]
    lab.snakemake("simulate")
    assert lab.planned("simulate") == []
    # a plane that gets labels is another thing
    lab.edit("raw/one/sections.tsv", "images/b_mri.png\t\t", "images/b_mri.png\t\tmri_labels.png")
    assert {"simulate_pairs one", "train one-simulated nmiw"} <= set(lab.planned("simulate"))
