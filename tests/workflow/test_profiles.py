"""How things run: on one machine with one graphics card, and what is asked of a cluster."""

import re

import yaml

SUBMITTED = re.compile(r"^rule (\w+)(?=:$)|^use rule \w+ as (\w+) with:", re.M)
LOCAL = re.compile(r"^localrules:\n((?:    \w+,\n)+)", re.M)


def profile(repository, name) -> dict:
    return yaml.safe_load((repository / "workflow/profiles" / name / "config.yaml").read_text())


def submitted_rules(repository) -> set[str]:
    """Rules whose jobs go to a cluster: neither said to be local nor mere targets."""
    found = set()
    for path in (repository / "workflow/rules").glob("*.smk"):
        text = path.read_text()
        local = set(re.findall(r"\w+", "".join(LOCAL.findall(text))))
        for rule in re.split(r"\n(?=(?:use )?rule )", text)[1:]:
            name = next(filter(None, SUBMITTED.match(rule).groups()))
            if "    output:" in rule and name not in local:
                found.add(name)
    return found


def most_at_a_time(output: str) -> int:
    """The most jobs that held a card at the same time, from what Snakemake told in order."""
    holding, most = set(), 0
    for event in re.finditer(
        r"^(?:local)?rule \w+:$(?P<block>(?:\n    .*)+)|^Finished jobid: (?P<done>\d+)",
        output,
        re.M,
    ):
        if event["done"]:
            holding.discard(event["done"])
        elif re.search(r"\bgpu=[1-9]", event["block"]):
            holding.add(re.search(r"^    jobid: (\d+)", event["block"], re.M)[1])
            most = max(most, len(holding))
    return most


def test_jobs_on_the_card_do_not_meet(lab):
    """Unless they are told to, so the count is able to see it."""

    def most(*resources):
        forced = ("--config", "gpus=1", "--forcerun", "infer", "--", "infer_all")
        done = lab.snakemake("--cores", "4", *resources, *forced)
        return most_at_a_time(done.stdout + done.stderr)

    assert most() == 1
    assert most("--resources", "gpu=9") > 1


def test_card_is_asked_for_by_gpu_or_by_gres_but_not_by_both(lab):
    def asked(*keys):
        output = lab.snakemake("-n", "--forceall", "--config", *keys).stdout
        return set(re.findall(r"\b(?:gpu|gres)=[^,\n]+", output))

    assert asked("gpus=1") == {"gpu=1", "gpu=0"}
    assert asked("gpus=2", "gres=gpu:a100") == {"gres=gpu:a100:2"}
    assert asked("gpus=0") == {"gpu=0"}


def test_slurm_profile_knows_what_every_stage_needs(repository):
    needs = profile(repository, "slurm")["set-resources"]
    assert set(needs) == submitted_rules(repository)
    for rule, resources in needs.items():
        assert {"mem_mb", "runtime"} <= set(resources), rule
        assert "* attempt" in resources["mem_mb"], "a job out of memory gets more"
        trained = rule.startswith("train")  # goes on from its checkpoint
        assert trained or "* attempt" in resources["runtime"], rule


def test_slurm_profile_puts_nothing_across_the_global_fit_into_one_job(repository):
    """A group that had stages on both sides of a stage outside of it would wait for itself."""
    groups = profile(repository, "slurm")["groups"]
    assert set(groups) == {"check_sections", "prepare", "resample", "align_sections"}
    assert len({groups[rule] for rule in ("check_sections", "prepare", "resample")}) == 3
    assert groups["align_sections"] == groups["resample"]


def test_slurm_profile_leaves_partition_and_account_to_the_user(repository):
    assert "default-resources" not in profile(repository, "slurm")
