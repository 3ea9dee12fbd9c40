"""The training loop of every method, its checkpoints and its lock.

A method is a `Task`: modules, and a function that draws a batch and returns its losses. The loop
knows nothing else about it. On the CPU a training that was interrupted, even by SIGKILL, and taken
up again ends with the same bits as one that was not.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import pickle
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from sbr_core.errors import TERMINATED, StorageError, TrainingError, storage_fault

if TYPE_CHECKING:
    from sbr_core.config import TrainOptions

KEPT_CHECKPOINTS = 2
RUNAWAY_WINDOW = 50
# what reading half a file can raise
_DAMAGE = (RuntimeError, EOFError, OSError, ValueError, LookupError, pickle.UnpicklingError)


@dataclass(frozen=True)
class Player:
    """Networks that learn at one pace.

    Attributes
    ----------
    modules : their names in the task; their gradient is clipped as one.
    rate_factor : times the learning rate of the options.
    starts_at : share of the training, in [0, 1), before which they stay as they are.
    """

    modules: tuple[str, ...]
    rate_factor: float = 1.0
    starts_at: float = 0.0


class Task(Protocol):
    """What a method gives to the loop.

    Adversaries are players of one task: the loss is the sum of what each of them minimises, and
    each part has a gradient for its own player only (`adversarial`).

    Attributes
    ----------
    name : for messages.
    modules : the networks that are trained, by name; all of their parameters.
    players : how they learn; may be left out where all of them learn as one.
    watched : name of the loss that tells whether training works; may be left out: ``loss``.
        With adversaries the sum tells nothing, since what one wins the other loses.
    done : share of the training that is done, in [0, 1): set by the loop before each step.
    """

    name: str
    modules: dict[str, nn.Module]
    done: float

    def losses(self, rng: torch.Generator) -> dict[str, Tensor]:
        """Draw a batch with `rng` (CPU) and compute scalars; ``loss`` is the one minimised."""


def pick_device(name: str) -> torch.device:
    """``auto``: CUDA where there is one.

    Raises
    ------
    TrainingError
        CUDA was asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("device: cuda was asked for, but torch finds none (try: auto)")
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> str:
    """``auto``: bfloat16 where the device is known to compute in it, float32 elsewhere.

    A processor without bfloat16 imitates it, more than ten times slower than float32.
    """
    if name == "auto":
        return "bfloat16" if _computes_bfloat16(device) else "float32"
    return name


def _computes_bfloat16(device: torch.device) -> bool | None:
    """Whether a device has instructions for it; None where torch does not tell."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.10 or later
    told = [known[k] for k in ("avx512_bf16", "amx_bf16") if k in known]  # of x86 only
    return any(told) if told else None


def fingerprint(*tensors: Tensor) -> str:
    """Hex digest of the shapes and bytes of tensors: the data's part of a checkpoint key."""
    digest = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def checkpoint_key(stage: str, revision: int, options: Mapping[str, Any], data: str) -> str:
    """Name of the checkpoint folder: another option, data or revision is another training."""
    facts = json.dumps([stage, revision, dict(options), data], sort_keys=True)
    return f"{stage}-{hashlib.sha256(facts.encode()).hexdigest()[:20]}"


class CheckpointFolder:
    """The locked folder of one training. Made by `open_checkpoints`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, state: dict[str, Any]) -> None:
        """Write the state of a step, on disk before it gets its name; keep the last two."""
        path = self.path / f"step-{state['step']:09d}.pt"
        temporary = path.with_suffix(".tmp")
        try:
            with open(temporary, "wb") as stream:
                torch.save(state, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except Exception as error:
            reason = storage_fault(error, self.path)
            temporary.unlink(missing_ok=True)
            if reason:
                raise StorageError(f"{path}: cannot be written: {reason}") from error
            raise
        folder = os.open(self.path, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        for old in self._steps()[:-KEPT_CHECKPOINTS]:
            old.unlink()

    def load(self) -> dict[str, Any] | None:
        """The newest readable state, on the CPU, or None."""
        for path in reversed(self._steps()):
            try:
                return torch.load(path, map_location="cpu", weights_only=True)
            except _DAMAGE as error:
                _say(f"{path}: damaged, taking the one before ({error})")
        return None

    def clear(self) -> None:
        """Forget the checkpoints; the folder itself stays until the lock is given back."""
        for path in [*self._steps(), *self.path.glob("*.tmp")]:
            path.unlink()

    def _steps(self) -> list[Path]:
        return sorted(self.path.glob("step-*.pt"))


@contextlib.contextmanager
def open_checkpoints(root: Path, key: str, *, fresh: bool = False) -> Iterator[CheckpointFolder]:
    """Hold the checkpoint folder ``root/key``; nothing of it is left once it was cleared.

    Parameters
    ----------
    fresh : forget what is there.

    Raises
    ------
    TrainingError
        Another process trains in this folder.
    """
    path = Path(root) / key
    lock = _lock(path)
    try:
        for left_over in path.glob("*.tmp"):  # of a process killed while writing
            left_over.unlink()
        folder = CheckpointFolder(path)
        if fresh:
            folder.clear()
        yield folder
    finally:
        if not list(path.glob("step-*.pt")):
            shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _lock(path: Path) -> int:
    """Descriptor of the locked file ``path/lock``; the system frees it when the process dies."""
    while True:
        path.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            continue  # whoever finished just now took the folder away
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise TrainingError(
                f"{path}: another process is training here (it holds {path / 'lock'});"
                " wait for it or stop it"
            ) from None
        try:
            if os.fstat(lock).st_ino == os.stat(path / "lock").st_ino:
                return lock
        except FileNotFoundError:
            pass
        os.close(lock)  # locked a file that had just been removed


def progress(step: int, seconds: float, options: TrainOptions) -> float:
    """Share of the training that is done: of its steps or its minutes, whichever is further."""
    done = step / options.steps if options.steps else 1.0
    return done if options.minutes is None else max(done, seconds / (60 * options.minutes))


def learning_rate(done: float, options: TrainOptions) -> float:
    """Constant, then falling linearly to zero over the last `decay_fraction` of the training.

    Parameters
    ----------
    done : share of the training, as of `progress`.
    """
    falling = options.decay_fraction
    left = max(1.0 - done, 0.0)
    return options.learning_rate * min(1.0, left / falling if falling > 0 else 1.0)


def train(
    task: Task, options: TrainOptions, folder: CheckpointFolder, device: torch.device
) -> list[dict[str, float]]:
    """Train the task's modules in place, from the last checkpoint on if there is one.

    Parameters
    ----------
    task : its modules are on `device`, its data too.
    options : steps, learning rate, … of the method.
    folder : locked checkpoint folder. When training ends it holds the final state, so a stage that
        dies before its results are written loses nothing; the stage clears it afterwards.

    Returns
    -------
    One row per step: ``step``, ``learning_rate``, ``seconds`` of training up to its end, those
    before an interruption included, and every loss of the task.

    Raises
    ------
    TrainingError
        The loss is not finite, or its running mean is far above where it started.
    SystemExit, KeyboardInterrupt
        Code 143 after SIGTERM, or Ctrl-C: after the step at hand, once a checkpoint is written.
    """
    players = getattr(task, "players", (Player(tuple(task.modules)),))
    parameters = [[p for m in q.modules for p in task.modules[m].parameters()] for q in players]
    watched = getattr(task, "watched", "loss")
    optimiser = torch.optim.Adam(
        [{"params": own} for own in parameters],
        lr=options.learning_rate,
        betas=(options.beta1, 0.999),
        fused=True,
    )
    rng = torch.Generator().manual_seed(options.seed)
    step, seconds, rows = 0, 0.0, []
    if (state := folder.load()) is not None:
        for name, module in task.modules.items():
            module.load_state_dict(state["modules"][name])
        optimiser.load_state_dict(state["optimiser"])
        rng.set_state(state["rng_data"])
        torch.set_rng_state(state["rng_cpu"])
        if device.type == "cuda" and state["rng_cuda"] is not None:
            torch.cuda.set_rng_state(state["rng_cuda"], device)
        step, seconds, rows = state["step"], state["seconds"], state["rows"]
        _say(f"{task.name}: going on from step {step} of {options.steps}")

    if device.type == "cuda" and options.compile:
        for module in task.modules.values():
            module.compile()
    precision = pick_precision(options.precision, device)
    _say(f"{task.name}: on {device} in {precision}")
    if precision == "bfloat16" and _computes_bfloat16(device) is False:
        _say(
            f"{task.name}: this {device.type} only imitates bfloat16, which takes more than ten"
            " times as long as float32 (precision: auto)"
        )
    if device.type == "cpu" and options.compile:
        _say(f"{task.name}: compile is for CUDA only, ignored on the CPU")

    def save() -> None:
        folder.save(
            {
                "step": step,
                "seconds": seconds,
                "rows": rows,
                "modules": {name: m.state_dict() for name, m in task.modules.items()},
                "optimiser": optimiser.state_dict(),
                "rng_data": rng.get_state(),
                "rng_cpu": torch.get_rng_state(),
                "rng_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            }
        )

    for module in task.modules.values():
        module.train()
    teller = _Progress(task.name, step, progress(step, seconds, options))
    saved_at, saved_step = time.monotonic(), step
    began = saved_at - seconds
    with _asked_to_stop() as asked:
        while not asked and (done := progress(step, seconds, options)) < 1.0:
            task.done = done
            rate = learning_rate(done, options)
            for player, own, group in zip(players, parameters, optimiser.param_groups, strict=True):
                group["lr"] = rate * player.rate_factor
                for parameter in own:
                    parameter.requires_grad_(done >= player.starts_at)
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                losses = task.losses(rng)
            optimiser.zero_grad(set_to_none=True)
            losses["loss"].backward()
            norms = [nn.utils.clip_grad_norm_(own, options.max_grad_norm) for own in parameters]
            values = {name: float(value.detach()) for name, value in losses.items()}
            _stop_if_runaway(task.name, step, rows, values, watched)
            if not all(math.isfinite(float(norm)) for norm in norms):
                raise TrainingError(
                    f"{task.name}: the gradient is not finite at step {step + 1}; try a lower"
                    " learning_rate"
                )
            optimiser.step()
            step += 1
            seconds = time.monotonic() - began
            rows.append({"step": step, "learning_rate": rate, "seconds": seconds, **values})
            teller.tell(step, progress(step, seconds, options), values[watched])

            if time.monotonic() - saved_at > options.checkpoint_every_s:
                save()
                saved_at, saved_step = time.monotonic(), step
        if saved_step < step:
            save()
    if asked:
        _say(
            f"{task.name}: {asked[0].name}: checkpoint written at step {step} of {options.steps};"
            " the same command goes on from there"
        )
        raise SystemExit(TERMINATED) if asked[0] == signal.SIGTERM else KeyboardInterrupt
    for module in task.modules.values():
        module.eval()
    return rows


def _stop_if_runaway(
    name: str,
    step: int,
    rows: list[dict[str, float]],
    values: Mapping[str, float],
    watched: str,
) -> None:
    """TrainingError when training has gone wrong for good.

    A mean over the last steps that is clearly above the mean of the first ones: losses start at
    their worst, so this never happens to a training that works, and it also catches one that
    collapsed to a plausible-looking constant.
    """
    if not math.isfinite(values["loss"]):
        raise TrainingError(
            f"{name}: the loss is {values['loss']} at step {step + 1}; try a lower learning_rate"
        )
    if len(rows) < RUNAWAY_WINDOW:
        return
    start = sum(r[watched] for r in rows[:RUNAWAY_WINDOW]) / RUNAWAY_WINDOW
    last = [r[watched] for r in rows[-RUNAWAY_WINDOW + 1 :]]
    now = (sum(last) + values[watched]) / RUNAWAY_WINDOW
    if now > start + max(0.5 * abs(start), 0.1):
        raise TrainingError(
            f"{name}: the loss ran away: {now:.4g} on average up to step {step + 1}, {start:.4g}"
            " at the start; try a lower learning_rate"
        )


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[list[signal.Signals]]:
    """A list that SIGTERM and Ctrl-C are put into, instead of ending a step in its middle.

    A second Ctrl-C does not wait any longer.
    """
    asked: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked  # only the main thread may handle signals
        return

    def note(number: int, _: Any) -> None:
        if number == signal.SIGINT and number in asked:
            raise KeyboardInterrupt
        asked.append(signal.Signals(number))

    before = {n: signal.signal(n, note) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Progress:
    """A line on stderr now and then: step, mean loss, speed, time left; the first one early."""

    first_s, every_s = 1.0, 5.0

    def __init__(self, name: str, step: int, done: float) -> None:
        self.name, self.first, self.done = name, step, done
        self.started = time.monotonic()
        self.next_s = self.started + self.first_s
        self.losses: list[float] = []

    def tell(self, step: int, done: float, loss: float) -> None:
        self.losses.append(loss)
        now = time.monotonic()
        if now < self.next_s and done < 1.0:
            return
        speed = (step - self.first) / max(now - self.started, 1e-9)
        left = int((1.0 - min(done, 1.0)) / max(done - self.done, 1e-9) * (now - self.started))
        mean = sum(self.losses) / len(self.losses)
        _say(
            f"{self.name}: step {step} ({min(done, 1.0):.0%})  loss {mean:.4f}  {speed:.2f} steps/s"
            f"  {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"
        )
        self.next_s, self.losses = now + self.every_s, []


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
