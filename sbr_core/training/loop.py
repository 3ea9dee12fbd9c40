"""The training loop of every method.

A method is a `Task`: modules, and a function that draws a batch and returns its losses. The loop
knows nothing else about it. On the CPU a training that was interrupted, even by SIGKILL, and taken
up again ends with the same bits as one that was not.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sbr_core.errors import TERMINATED, TrainingError
from sbr_core.training import threads
from sbr_core.training.checkpoints import CheckpointFolder
from sbr_core.training.devices import Reading, computes_bfloat16, pick_precision
from sbr_core.training.tasks import Player, Task

if TYPE_CHECKING:
    from sbr_core.config import TrainOptions

RUNAWAY_WINDOW = 50
"""Steps in the two means that are compared: more average out the noise of single batches, fewer
notice a runaway sooner."""
RUNAWAY_RISE, RUNAWAY_FLOOR = 0.5, 0.1
"""A mean loss this share above that of the start has run away, at least by the floor: losses near
zero, and those that can be negative, move by more than a share of themselves."""
_SECOND_MOMENT_DECAY = 0.999
"""Adam's own default (Kingma and Ba 2015)."""
_FIRST_LINE_S, _LINE_EVERY_S = 1.0, 5.0
"""When progress is logged: early, so that a wrong start is seen at once, then now and then."""

logger = logging.getLogger(__name__)


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


class _State:
    """How far a training is: its networks, its optimiser, its random numbers, its history."""

    def __init__(self, task: Task, options: TrainOptions, device: torch.device) -> None:
        self.task, self.options, self.device = task, options, device
        self.players = getattr(task, "players", (Player(tuple(task.modules)),))
        self.parameters = [
            [p for name in player.modules for p in task.modules[name].parameters()]
            for player in self.players
        ]
        self.optimiser = torch.optim.Adam(
            [{"params": own} for own in self.parameters],
            lr=options.learning_rate,
            betas=(options.beta1, _SECOND_MOMENT_DECAY),
            fused=True,
        )
        self.rng = torch.Generator().manual_seed(options.seed)
        self.step, self.seconds, self.rows = 0, 0.0, []
        self.threads = options.threads
        """Of the processor; None until they are chosen."""
        self.graphs = False
        """Whether the networks are in CUDA graphs."""
        # a graphics card is given the next step before the processor looks at what the last one
        # measured; on the processor itself there is nothing to wait for
        self.read_later = 1 if device.type == "cuda" else 0
        self.unread: deque[tuple[dict[str, float], list[str], Reading]] = deque()

    def load(self, saved: Mapping[str, Any]) -> None:
        """Go back to what `saved` returned."""
        for name, module in self.task.modules.items():
            module.load_state_dict(saved["modules"][name])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.rng.set_state(saved["rng_data"])
        torch.set_rng_state(saved["rng_cpu"])
        if self.device.type == "cuda" and saved["rng_cuda"] is not None:
            torch.cuda.set_rng_state(saved["rng_cuda"], self.device)
        self.step, self.seconds, self.rows = saved["step"], saved["seconds"], saved["rows"]
        # checkpoints of before have none
        self.threads = saved.get("threads") or self.threads

    def saved(self) -> dict[str, Any]:
        """A checkpoint. Raises TrainingError where a step up to it went wrong."""
        self.read()
        on_cuda = self.device.type == "cuda"
        return {
            "step": self.step,
            "seconds": self.seconds,
            "rows": self.rows,
            "threads": self.threads,
            "modules": {name: m.state_dict() for name, m in self.task.modules.items()},
            "optimiser": self.optimiser.state_dict(),
            "rng_data": self.rng.get_state(),
            "rng_cpu": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state(self.device) if on_cuda else None,
        }

    @property
    def done(self) -> float:
        """Share of the training that is done."""
        return progress(self.step, self.seconds, self.options)

    def advance(self, precision: str) -> dict[str, float]:
        """One step of the optimiser; its row, whose losses may still be on their way."""
        task, options, done = self.task, self.options, self.done
        task.done = done
        if self.graphs:
            # what graphs of the last step wrote may be written over from here on
            torch.compiler.cudagraph_mark_step_begin()
        rate = learning_rate(done, options)
        groups = zip(self.players, self.parameters, self.optimiser.param_groups, strict=True)
        for player, own, group in groups:
            group["lr"] = rate * player.rate_factor
            for parameter in own:
                parameter.requires_grad_(done >= player.starts_at)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            losses = task.losses(self.rng)
        if (read_ahead := getattr(task, "read_ahead", None)) is not None:
            read_ahead(self.rng)
        self.optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norms = [
            nn.utils.clip_grad_norm_(own, options.max_grad_norm)
            for own in self.parameters
            if any(p.grad is not None for p in own)  # a player that does not learn yet has none
        ]
        row = {"step": self.step + 1, "learning_rate": rate, "seconds": self.seconds}
        self.unread.append((row, list(losses), Reading([*losses.values(), *norms])))
        self.read(but=self.read_later)
        self.optimiser.step()
        self.step += 1
        return row

    def read(self, but: int = 0) -> None:
        """Put what the steps measured into the rows, all but the last `but` steps.

        Raises
        ------
        TrainingError
            A loss or a gradient is not finite, or the loss has run away. Nothing that was computed
            after such a step is ever written.
        """
        while len(self.unread) > but:
            row, names, reading = self.unread.popleft()
            values = reading.values()
            losses = dict(zip(names, values, strict=False))
            step = int(row["step"])
            _stop_if_runaway(self.task, step, self.rows, losses)
            if not all(math.isfinite(norm) for norm in values[len(names) :]):
                raise TrainingError(
                    f"{self.task.name}: the gradient is not finite at step {step}; try a lower"
                    " learning_rate"
                )
            row.update(losses)
            self.rows.append(row)


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
    state = _State(task, options, device)
    if (saved := folder.load()) is not None:
        state.load(saved)
        logger.info(f"{task.name}: going on from step {state.step} of {options.steps}")
    precision = _set_up(task, options, device)
    for module in task.modules.values():
        module.train()
    _set_threads(state, precision)
    _try_compiled(state, precision)
    report = _Progress(task.name, state.step, state.done)
    saved_at, saved_step = time.monotonic(), state.step
    began = saved_at - state.seconds
    with _stop_signals() as received:
        while not received and state.done < 1.0:
            row = state.advance(precision)
            row["seconds"] = state.seconds = time.monotonic() - began
            if state.rows:
                report.log(state.step, state.done, state.rows[-1][_watched(task)])
            if time.monotonic() - saved_at > options.checkpoint_every_s:
                folder.save(state.saved())
                saved_at, saved_step = time.monotonic(), state.step
        if saved_step < state.step:
            folder.save(state.saved())
    if received:
        logger.info(
            f"{task.name}: {received[0].name}: checkpoint written at step {state.step} of"
            f" {options.steps}; the same command goes on from there"
        )
        raise SystemExit(TERMINATED) if received[0] == signal.SIGTERM else KeyboardInterrupt
    for module in task.modules.values():
        module.eval()
    return state.rows


def _set_up(task: Task, options: TrainOptions, device: torch.device) -> str:
    """The precision to compute in; tells what of the options this device cannot do."""
    precision = pick_precision(options.precision, device)
    logger.info(f"{task.name}: on {device} in {precision}")
    if precision == "bfloat16" and computes_bfloat16(device) is False:
        logger.warning(
            f"{task.name}: this {device.type} only imitates bfloat16, which takes more than ten"
            " times as long as float32 (precision: auto)"
        )
    if device.type == "cpu" and options.compile:
        logger.warning(f"{task.name}: compile is for CUDA only, ignored on the CPU")
    return precision


@contextlib.contextmanager
def _taken_back(state: _State) -> Iterator[None]:
    """Steps within are taken back at the end: the training is the one it would be without."""
    before = io.BytesIO()
    torch.save(state.saved(), before)
    yield
    before.seek(0)
    state.load(torch.load(before, map_location="cpu", weights_only=True))


def _try_compiled(state: _State, precision: str) -> None:
    """Compile the networks where that is asked for, if a step with them works; else warn."""
    asked = state.options.compile
    if state.device.type != "cuda" or not asked:
        return
    networks = networks_of(state.task)
    for module in networks:
        module.compile(**({"mode": "reduce-overhead"} if asked == "graphs" else {}))
    state.graphs = asked == "graphs"
    with _taken_back(state):
        try:
            state.advance(precision)
            state.read()
        except TrainingError:
            raise
        except Exception as error:  # whatever compilers raise, the training needs none of them
            state.unread.clear()
            state.graphs = False
            for module in networks:
                _forget_compiled(module)
            first = str(error).strip().partition("\n")[0]
            logger.warning(
                f"{state.task.name}: compile: {asked}: goes on without, since"
                f" {type(error).__name__}: {first}"
            )


def _forget_compiled(module: nn.Module) -> None:
    """Undo `compile` of a network: its own call, and the methods that it replaced."""
    module._compiled_call_impl = None
    for name in ("displacement", "synthesise", "encode"):
        module.__dict__.pop(name, None)


def _set_threads(state: _State, precision: str) -> None:
    """Let torch use as many threads as the training began with, or choose their number."""
    if state.device.type != "cpu":
        return
    most = torch.get_num_threads()
    if state.threads is None and most > 1 and state.options.steps >= threads.MEASURED_FROM_STEPS:
        with _taken_back(state):
            number, seconds = threads.choose(lambda: state.advance(precision), most)
        state.threads = number
        each = ", ".join(f"{s:.3g} s with {n}" for n, s in seconds.items())
        logger.info(f"{state.task.name}: threads: {number}; a step takes {each}")
    state.threads = state.threads or most
    torch.set_num_threads(state.threads)


def networks_of(task: Task) -> list[nn.Module]:
    """All that a step calls: what is trained, and a registrar that is not."""
    own = list(task.modules.values())
    registrar = getattr(task, "registrar", None)
    return own if registrar is None or registrar in own else [*own, registrar]


def _watched(task: Task) -> str:
    return getattr(task, "watched", "loss")


def _stop_if_runaway(
    task: Task, step: int, rows: list[dict[str, float]], values: Mapping[str, float]
) -> None:
    """TrainingError when training has gone wrong for good.

    A mean over the last steps that is clearly above the mean of the first ones: losses start at
    their worst, so this never happens to a training that works, and it also catches one that
    collapsed to a plausible-looking constant.
    """
    if not math.isfinite(values["loss"]):
        raise TrainingError(
            f"{task.name}: the loss is {values['loss']} at step {step}; try a lower learning_rate"
        )
    if len(rows) < RUNAWAY_WINDOW:
        return
    watched = _watched(task)
    start = sum(row[watched] for row in rows[:RUNAWAY_WINDOW]) / RUNAWAY_WINDOW
    last = [row[watched] for row in rows[-RUNAWAY_WINDOW + 1 :]]
    now = (sum(last) + values[watched]) / RUNAWAY_WINDOW
    if now > start + max(RUNAWAY_RISE * abs(start), RUNAWAY_FLOOR):
        raise TrainingError(
            f"{task.name}: the loss ran away: {now:.4g} on average up to step {step},"
            f" {start:.4g} at the start; try a lower learning_rate"
        )


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[signal.Signals]]:
    """A list that SIGTERM and Ctrl-C are put into, instead of ending a step in its middle.

    A second Ctrl-C does not wait any longer.
    """
    received: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may handle signals
        return

    def receive(number: int, _: Any) -> None:
        if number == signal.SIGINT and number in received:
            raise KeyboardInterrupt
        received.append(signal.Signals(number))

    handlers = {n: signal.signal(n, receive) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class _Progress:
    """Logs a line now and then: step, mean loss, speed, time left."""

    def __init__(self, name: str, step: int, done: float) -> None:
        self.name, self.first, self.done = name, step, done
        self.started = time.monotonic()
        self.next_s = self.started + _FIRST_LINE_S
        self.losses: list[float] = []

    def log(self, step: int, done: float, loss: float) -> None:
        self.losses.append(loss)
        now = time.monotonic()
        if now < self.next_s and done < 1.0:
            return
        speed = (step - self.first) / max(now - self.started, 1e-9)
        left = int((1.0 - min(done, 1.0)) / max(done - self.done, 1e-9) * (now - self.started))
        mean = sum(self.losses) / len(self.losses)
        logger.info(
            f"{self.name}: step {step} ({min(done, 1.0):.0%})  loss {mean:.4f}  {speed:.2f} steps/s"
            f"  {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"
        )
        self.next_s, self.losses = now + _LINE_EVERY_S, []
