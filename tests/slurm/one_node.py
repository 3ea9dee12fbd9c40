"""A real SLURM on this machine alone: munge, slurmctld and slurmd, with one card as `gpu` GRES.

``python tests/slurm/one_node.py COMMAND...`` starts it, runs the command in it and takes it down.
It needs root and Debian's packages slurmctld, slurmd, slurm-client and munge, installs nothing,
and keeps all its state in one new folder. The card is /dev/null: SLURM gives it out to one job at
a time as it would a real one, and the jobs compute on the processor.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
START_S = 60
"""How long a daemon may take to answer."""
CPUS, MEMORY_MB = 4, 64_000
"""As the node says, whatever this machine has."""
KILL_WAIT_S = 30
"""SLURM's own default: between SIGTERM and SIGKILL of a job that is cancelled or pre-empted."""


def why_not() -> str:
    """Why no SLURM can be started here; empty if one can."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: slurmctld slurmd slurm-client munge)"
    if os.geteuid() != 0:
        return "slurmd runs jobs as root only"
    try:
        pwd.getpwnam("munge")
    except KeyError:
        return "there is no user `munge`"
    return ""


class OneNode:
    """The daemons, and what a command needs to talk to them.

    Two partitions share the node. A job in `urgent` pre-empts those in `main`, which SLURM sends
    SIGTERM, kills after `KILL_WAIT_S` if they are still there, and queues again under their id.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="one_node_slurm_"))
        self.folder.chmod(0o755)  # munged is another user
        self.daemons: list[psutil.Process] = []

    @property
    def environment(self) -> dict[str, str]:
        """Environment of commands in this cluster."""
        return os.environ | {
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"]]),
        }

    def run(self, *command: str) -> str:
        """What a command of SLURM's prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def jobs(self) -> dict[str, tuple[str, str]]:
        """Id -> (state, comment) of every job SLURM remembers; the comment names the rule."""
        lines = self.run("squeue", "--noheader", "--states=all", "--format=%i|%T|%k").splitlines()
        fields = (line.split("|", 2) for line in lines)
        return {job: (state, comment) for job, state, comment in fields}

    def __enter__(self) -> OneNode:
        try:
            self._write_files()
            self._start_munge()
            self._start("slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))
            self._start("slurmd", "-D", "-f", str(self.folder / "slurm.conf"))
            self._wait_for(
                "the node", lambda: self.run("sinfo", "-h", "-o", "%T").strip() == "idle"
            )
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_) -> None:
        self._stop()

    def _write_files(self) -> None:
        state, host = self.folder, socket.gethostname()
        for name in ("munge", "state", "spool", "bin"):
            (state / name).mkdir()
        (state / "slurm.conf").write_text(f"""\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmdParameters=config_overrides
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
AuthInfo=socket={state}/munge/socket
SlurmUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
ReturnToService=2
MinJobAge=3600
KillWait={KILL_WAIT_S}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
StateSaveLocation={state}/state
SlurmdSpoolDir={state}/spool
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/slurmd.pid
SlurmctldLogFile={state}/slurmctld.log
SlurmdLogFile={state}/slurmd.log
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={CPUS} RealMemory={MEMORY_MB} Gres=gpu:1
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
""")
        # a GRES that has a count only is refused
        (state / "gres.conf").write_text(f"NodeName={host} Name=gpu File=/dev/null\n")
        # Snakemake's plugin drops every SLURM_* before it calls srun inside of a job
        srun = state / "bin" / "srun"
        conf, real = state / "slurm.conf", shutil.which("srun")
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={conf} exec {real} "$@"\n')
        srun.chmod(0o755)

    def _start_munge(self) -> None:
        folder, user = self.folder / "munge", pwd.getpwnam("munge")
        key = folder / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        for path in (folder, key):
            os.chown(path, user.pw_uid, user.pw_gid)
        self._start(
            *("setpriv", "--reuid=munge", "--regid=munge", "--clear-groups"),
            *("munged", "--foreground", f"--key-file={key}", f"--socket={folder}/socket"),
            *(f"--{name}-file={folder}/{name}" for name in ("pid", "log", "seed")),
        )
        self._wait_for("munge", (folder / "socket").exists)

    def _start(self, *command: str) -> None:
        with open(self.folder / "daemons.log", "a") as log:
            daemon = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        self.daemons.append(psutil.Process(daemon.pid))

    def _wait_for(self, what: str, is_there) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            try:
                if is_there():
                    return
            except RuntimeError:  # the controller does not answer yet
                pass
            time.sleep(0.3)
        logs = "".join(path.read_text()[-2000:] for path in sorted(self.folder.glob("*.log")))
        raise RuntimeError(f"{what} did not start within {START_S} s:\n{logs}")

    def _stop(self) -> None:
        """End what was started here, by its ids, and remove the folder."""
        if len(self.daemons) == 3:
            for job, (state, _) in self.jobs().items():
                if state in ("RUNNING", "PENDING"):
                    self.run("scancel", job)
        started = [p for daemon in self.daemons for p in (*children(daemon), daemon)]
        for process in reversed(started):
            with_patience(process)
        shutil.rmtree(self.folder, ignore_errors=True)


def children(process: psutil.Process) -> list[psutil.Process]:
    """Everything a process started, and what that started."""
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def with_patience(process: psutil.Process) -> None:
    """SIGTERM, and SIGKILL after some seconds."""
    try:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)
    except psutil.NoSuchProcess:
        pass


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    if reason := why_not():
        sys.exit(f"no SLURM here: {reason}")
    with OneNode() as cluster:
        sys.exit(subprocess.run(sys.argv[1:], env=cluster.environment).returncode)
