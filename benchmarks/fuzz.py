"""Damaged files of every kind, for as long as is asked for: what ends in no result and no line.

    nice -n 10 python benchmarks/fuzz.py WORK --minutes 60 [--kinds manifest TIFF …] [--seed 1]

The files are those of `tests/fuzzing/kinds.py`, which the tests read for a minute. Here a process
for each kind reads them, round after round with new seeds. Each file that ends in something else
than a result or one clear line is kept below WORK/found, the smallest of each fault, with what
happened in a text beside it; of a process that dies or hangs the last file is kept. Printed at the
end, and after each round in WORK/table.md: a row for each kind, and one for each fault. Exits 1 if
there is one.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import re
import shutil
import sys
import time
import traceback
from pathlib import Path

from machine import heading

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]
EXAMPLES = 60
"""Of a kind in one round."""
HANG_S = 300
"""On the clock, after which a process is ended; the timer of `bounds` rings before, unless C code
holds on."""


def keep(work: Path, kind: str, key: str, data: bytes, details: str) -> None:
    """Keep a file, if it is the smallest of its fault so far."""
    name = re.sub(r"\W+", "_", f"{kind}__{key}")[:120]
    file = work / "found" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists() or file.stat().st_size > len(data):
        file.write_bytes(data)
        file.with_name(f"{name}.txt").write_text(f"{kind}\n{key}\n{details}\n")


def one_round(work: Path, kind: str, seed: int, examples: int) -> int:
    """Read damaged files of one kind in this process; how many."""
    import hypothesis
    from fuzzing.bounds import Escape
    from fuzzing.kinds import KINDS, read_damaged

    folder = work / "reading"
    n_read = 0

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(KINDS[kind].damaged)
    def read(data: bytes) -> None:
        nonlocal n_read
        n_read += 1
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (work / "current").write_bytes(data)
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        try:
            read_damaged(kind, data, folder)
        except Escape as escape:
            keep(work, kind, escape.key, data, str(escape))
        finally:
            faulthandler.cancel_dump_traceback_later()

    read()
    return n_read


def one_child(work: Path, kind: str, seed: int, examples: int) -> tuple[int, str]:
    """`one_round` in a process of its own: (files read, what it wrote to stderr where it died)."""
    log = work / "child.log"
    pid = os.fork()
    if pid == 0:
        code = 1
        with log.open("w") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
            try:
                (work / "count").write_text(str(one_round(work, kind, seed, examples)))
                code = 0
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    if status == 0:
        return int((work / "count").read_text()), ""
    end = log.read_text(errors="replace")[-6000:]
    return 0, f"process ended with {os.waitstatus_to_exitcode(status)}\n{end}"


def campaign(
    work: Path, kinds: list[str], minutes: float, seed: int, examples: int
) -> dict[str, tuple[int, float]]:
    """Rounds of all kinds until the time is over: kind -> files, seconds."""
    from fuzzing.kinds import warm_up

    warm_up()
    end = time.monotonic() + 60 * minutes
    done = dict.fromkeys(kinds, (0, 0.0))
    while True:
        for kind in kinds:
            began = time.monotonic()
            n_read, died = one_child(work, kind, seed, examples)
            if died:
                keep(work, kind, died.split("\n")[0], (work / "current").read_bytes(), died)
            files, seconds = done[kind]
            done[kind] = files + n_read, seconds + time.monotonic() - began
            if time.monotonic() > end:
                return done
        write_table(work, done)
        seed += 1


def write_table(work: Path, done: dict[str, tuple[int, float]]) -> list[Path]:
    """Write a row for each kind and a line for each fault; the accounts of the faults."""
    faults = sorted((work / "found").glob("*.txt"))
    of_kind = [fault.read_text().split("\n")[0] for fault in faults]
    lines = [heading("Damaged files"), "| kind | files | seconds | faults |\n|---|---|---|---|"]
    for kind, (files, seconds) in done.items():
        lines.append(f"| {kind} | {files} | {seconds:.0f} | {of_kind.count(kind)} |")
    lines += [
        f"- {', '.join(fault.read_text().splitlines()[:2])}: {fault.stem}" for fault in faults
    ]
    (work / "table.md").write_text("\n".join(lines) + "\n")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--kinds", nargs="+")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    from fuzzing.kinds import KINDS

    kinds = arguments.kinds or list(KINDS)
    done = campaign(work, kinds, arguments.minutes, arguments.seed, arguments.examples)
    faults = write_table(work, done)
    print((work / "table.md").read_text())
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
