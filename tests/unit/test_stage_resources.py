"""What the SLURM profile asks for, from what finished runs used."""

import subprocess
import sys

import yaml

HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time"


def test_largest_use_of_each_rule_becomes_lines_of_the_profile(repository, tmp_path):
    def used(name: str, seconds: float, memory_mb: float | str) -> None:
        path = tmp_path / "results" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cells = [seconds, "-", memory_mb, *[0] * 7]
        path.write_text(HEADER + "\n" + "\t".join(map(str, cells)) + "\n")

    used("benchmarks/demo.tsv", 5, 400)
    used("a/benchmarks/infer/linear/1of2.tsv", 5, 300)
    used("a/benchmarks/infer/sbr/2of2.tsv", 700, 3100)
    used("b/benchmarks/infer/sbr/1of1.tsv", 900, 1200)
    used("b/benchmarks/prepare_mri.tsv", 0.2, "NA")
    used("b/benchmarks/train/compare/sbr.tsv", 60, 900)
    used("b/benchmarks/compare/evaluate.tsv", 1, 1)

    script = repository / "benchmarks/stage_resources.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path / "results"], capture_output=True, text=True, check=True
    )
    table, lines = done.stdout.split("\n\n")
    assert "| infer | 3 | 900 | 3100 |" in table
    assert yaml.safe_load(lines)["set-resources"] == {
        "demo": {"mem_mb": "2000 * attempt", "runtime": "10 * attempt"},
        "evaluate_compared": {"mem_mb": "2000 * attempt", "runtime": "10 * attempt"},
        "infer": {"mem_mb": "6500 * attempt", "runtime": "30 * attempt"},
        "prepare_mri": {"mem_mb": "2000 * attempt", "runtime": "10 * attempt"},
        "train": {"mem_mb": "2000 * attempt", "runtime": "10 * attempt"},
    }
