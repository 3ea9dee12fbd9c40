"""The loop: resuming, stopping, locking, and when a training is another one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import small_training
import torch
from small_training import OPTIONS, small_task
from torch import nn

from sbr_core.config import TrainOptions
from sbr_core.errors import TrainingError
from sbr_core.training import loop, threads
from sbr_core.training.checkpoints import (
    KEPT_CHECKPOINTS,
    checkpoint_key,
    fingerprint,
    open_checkpoints,
)
from sbr_core.training.devices import pick_device, pick_precision
from sbr_core.training.loop import (
    learning_rate,
    train,
)
from sbr_core.training.tasks import Player

CPU = torch.device("cpu")
SCRIPT = Path(__file__).with_name("small_training.py")


class ToyTask:
    """Fits one number to noise around 3; `losses_at` can make a step's loss anything."""

    name = "toy"

    def __init__(self, loss_at=None):
        self.module = nn.Linear(1, 1)
        nn.init.zeros_(self.module.weight)
        self.modules = {"line": self.module}
        self.loss_at, self.step = loss_at, 0

    def losses(self, rng):
        self.step += 1
        loss = (self.module.weight.sum() - 3 + torch.randn((), generator=rng)) ** 2
        if self.loss_at is not None:
            loss = loss * 0 + self.loss_at(self.step)
        return {"loss": loss}


def toy_options(**changes):
    return TrainOptions(**({"steps": 20, "batch_size": 1, "learning_rate": 0.1} | changes))


def run_script(*arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_killed_and_resumed_ends_with_the_bits_of_uninterrupted(tmp_path, caplog):
    killed = run_script(tmp_path / "a", tmp_path / "a.pt", 6)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "a.pt").exists()
    threads = torch.get_num_threads()
    small_training.main(tmp_path / "a", tmp_path / "a.pt")
    assert f"going on from step 5 of {OPTIONS.steps}" in caplog.text
    small_training.main(tmp_path / "b", tmp_path / "b.pt")
    torch.set_num_threads(threads)
    a, b = torch.load(tmp_path / "a.pt"), torch.load(tmp_path / "b.pt")
    for name in a:
        assert torch.equal(a[name], b[name]), name
    # a finished training leaves nothing behind
    assert not list((tmp_path / "a").iterdir())


def test_choosing_threads_leaves_no_trace_but_their_number(tmp_path, monkeypatch, caplog):
    def two_steps(step, most):
        step(), step()
        return 1, {1: 0.2, most: 0.3}

    caplog.set_level("INFO")
    options = toy_options(steps=120, checkpoint_every_s=1e-9)
    found = {}
    for name, chosen in (("measured", two_steps), ("given", None)):
        torch.set_num_threads(2 if chosen else 1)
        monkeypatch.setattr(threads, "choose", chosen)
        torch.manual_seed(0)
        task = ToyTask()
        with open_checkpoints(tmp_path, name) as folder:
            rows = train(task, options, folder, CPU)
            assert folder.load()["threads"] == torch.get_num_threads() == 1
        found[name] = task.module.weight.item(), [row["loss"] for row in rows]
    assert found["measured"] == found["given"]
    assert "threads: 1; a step takes 0.2 s with 1, 0.3 s with 2" in caplog.text


def test_a_training_keeps_its_threads_and_those_that_are_given_count(tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "choose", None)  # would be called otherwise
    torch.set_num_threads(1)
    with pytest.raises(KeyboardInterrupt), open_checkpoints(tmp_path, "toy") as folder:
        options = toy_options(steps=120, checkpoint_every_s=1e-9)
        train(ToyTask(interrupted_at(12)), options, folder, CPU)
    torch.set_num_threads(2)
    with open_checkpoints(tmp_path, "toy") as folder:
        train(ToyTask(), toy_options(steps=120), folder, CPU)
    assert torch.get_num_threads() == 1
    with open_checkpoints(tmp_path, "other") as folder:
        train(ToyTask(), toy_options(steps=120, threads=2), folder, CPU)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def interrupted_at(at):
    def interrupt(step):
        if step == at:
            raise KeyboardInterrupt
        return 1.0

    return interrupt


def test_the_history_of_a_resumed_training_has_every_step_once(tmp_path):
    options = toy_options(checkpoint_every_s=1e-9)
    with pytest.raises(KeyboardInterrupt), open_checkpoints(tmp_path, "toy") as folder:
        train(ToyTask(interrupted_at(12)), options, folder, CPU)
    assert len(list((tmp_path / "toy").glob("step-*.pt"))) == KEPT_CHECKPOINTS
    with open_checkpoints(tmp_path, "toy") as folder:
        rows = train(ToyTask(), options, folder, CPU)
    assert [row["step"] for row in rows] == list(range(1, 21))


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, caplog):
    with open_checkpoints(tmp_path, "toy") as folder:
        folder.save({"step": 3})
        folder.save({"step": 4})
        (folder.path / "step-000000004.pt").write_bytes(b"half a file")
        assert folder.load()["step"] == 3
    assert "damaged" in caplog.text


def test_a_checkpoint_with_a_flipped_bit_gives_way_to_the_one_before(tmp_path, caplog):
    with open_checkpoints(tmp_path, "toy") as folder:
        for step in (3, 4):
            folder.save({"step": step, "weights": torch.arange(float(step), 999.0)})
        newest = folder.path / "step-000000004.pt"
        damaged = bytearray(newest.read_bytes())
        damaged[damaged.index(torch.arange(500.0, 600.0).numpy().tobytes())] ^= 1
        newest.write_bytes(damaged)
        assert folder.load()["step"] == 3
    assert "the checksum of" in caplog.text


def test_fresh_forgets_what_there_is(tmp_path):
    with open_checkpoints(tmp_path, "toy") as folder:
        folder.save({"step": 3})
    with open_checkpoints(tmp_path, "toy", fresh=True) as folder:
        assert folder.load() is None


def test_a_second_trainer_is_refused_until_the_first_is_done(tmp_path):
    with open_checkpoints(tmp_path, "toy"):
        with (
            pytest.raises(TrainingError, match="another process is training here"),
            open_checkpoints(tmp_path, "toy"),
        ):
            pass
        with open_checkpoints(tmp_path, "other"):
            pass
    with open_checkpoints(tmp_path, "toy"):
        pass


@pytest.mark.parametrize(
    ("number", "stops"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
@pytest.mark.parametrize("last", [7, 20], ids=["in the middle", "in the last step"])
def test_a_signal_ends_training_after_its_step_with_a_checkpoint(
    tmp_path, caplog, number, stops, last
):
    def interrupt(step):
        if step == last:
            os.kill(os.getpid(), number)
        return 1.0

    before = signal.getsignal(number)
    with pytest.raises(stops) as stopped, open_checkpoints(tmp_path, "toy") as folder:
        train(ToyTask(interrupt), toy_options(), folder, CPU)
    if number == signal.SIGTERM:
        assert stopped.value.code == 143
    assert signal.getsignal(number) == before
    line = f"toy: {number.name}: checkpoint written at step {last} of 20; the same command goes on"
    assert line in caplog.text
    with open_checkpoints(tmp_path, "toy") as folder:
        assert folder.load()["step"] == last


def test_a_second_interrupt_does_not_wait_for_the_end_of_the_step(tmp_path):
    def interrupt(step):
        if step == 7:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return 1.0

    task = ToyTask(interrupt)
    with pytest.raises(KeyboardInterrupt), open_checkpoints(tmp_path, "toy") as folder:
        train(task, toy_options(), folder, CPU)
    assert task.step == 7 and not (tmp_path / "toy").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_at_its_step(tmp_path, value):
    task = ToyTask(lambda step: value if step == 5 else 1.0)
    with (
        pytest.raises(TrainingError, match=r"toy: the loss is (nan|inf) at step 5"),
        open_checkpoints(tmp_path, "toy") as folder,
    ):
        train(task, toy_options(), folder, CPU)


@pytest.mark.parametrize(
    ("start", "end"),
    [(1.0, 1000.0), (-0.4, -0.05)],
    ids=["explodes", "collapses to a plausible constant"],
)
def test_a_loss_that_runs_away_stops(tmp_path, start, end):
    task = ToyTask(lambda step: start if step <= 80 else end)
    with (
        pytest.raises(TrainingError, match=r"ran away: .* up to step"),
        open_checkpoints(tmp_path, "toy") as folder,
    ):
        train(task, toy_options(steps=400), folder, CPU)


def test_noise_is_no_runaway(tmp_path):
    noise = torch.randn(300, generator=torch.Generator().manual_seed(0))
    task = ToyTask(lambda step: 0.5 + 0.2 * float(noise[step - 1]))
    with open_checkpoints(tmp_path, "toy") as folder:
        assert len(train(task, toy_options(steps=300), folder, CPU)) == 300


def test_the_learning_rate_falls_over_the_last_part_only():
    options = toy_options(steps=100, decay_fraction=0.4)
    rates = [learning_rate(step / 100, options) for step in range(100)]
    assert rates[:61] == [0.1] * 61
    assert rates[80] == pytest.approx(0.05)
    assert 0 < rates[99] < 0.003
    assert learning_rate(0.99, toy_options(decay_fraction=0)) == 0.1


class Clock:
    """Stands in for `time`: a step of the task takes `seconds_per_step`, all else no time."""

    def __init__(self, start=1000.0, seconds_per_step=7.0):
        self.now, self.seconds_per_step = start, seconds_per_step

    def monotonic(self):
        return self.now

    def step(self, step):
        self.now += self.seconds_per_step
        return 1.0


def test_training_ends_by_the_clock_and_the_learning_rate_with_it(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(loop, "time", clock)
    options = toy_options(steps=1000, minutes=3.5, decay_fraction=0.4)
    with open_checkpoints(tmp_path, "toy") as folder:
        rows = train(ToyTask(clock.step), options, folder, CPU)
    assert len(rows) == 30 and rows[-1]["seconds"] == 210  # of 3.5 minutes
    rates = [row["learning_rate"] for row in rows]
    assert rates[:18] == [0.1] * 18
    assert rates[-1] == pytest.approx(0.1 / 12)  # one of the twelve falling steps is left


def test_minutes_before_an_interruption_count(tmp_path, monkeypatch):
    def interrupt(step):
        if step == 11:
            raise KeyboardInterrupt
        return clock.step(step)

    options = toy_options(steps=1000, minutes=3.5, checkpoint_every_s=1e-9)
    clock = Clock()
    monkeypatch.setattr(loop, "time", clock)
    with pytest.raises(KeyboardInterrupt), open_checkpoints(tmp_path, "toy") as folder:
        train(ToyTask(interrupt), options, folder, CPU)
    clock = Clock(start=3.0)  # another day, and the clock of another boot
    monkeypatch.setattr(loop, "time", clock)
    with open_checkpoints(tmp_path, "toy") as folder:
        rows = train(ToyTask(clock.step), options, folder, CPU)
    assert len(rows) == 30
    assert [row["seconds"] for row in rows] == [7.0 * n for n in range(1, 31)]
    # and taken up once more, there is nothing left to do
    with open_checkpoints(tmp_path, "toy") as folder:
        assert len(train(ToyTask(clock.step), options, folder, CPU)) == 30


def test_steps_end_a_training_that_has_minutes_left(tmp_path):
    options = toy_options(steps=20, minutes=60)
    with open_checkpoints(tmp_path, "toy") as folder:
        rows = train(ToyTask(), options, folder, CPU)
    assert len(rows) == 20
    assert rows[-1]["learning_rate"] == pytest.approx(0.1 / 8)


class TwoPlayers:
    """Two numbers, each drawn to 1 by its own player, one from the middle of the training on."""

    name = "two"

    def __init__(self):
        self.modules = {name: nn.Linear(1, 1, bias=False) for name in ("early", "late")}
        for module in self.modules.values():
            nn.init.zeros_(module.weight)
        self.players = (Player(("early",), rate_factor=0.5), Player(("late",), starts_at=0.5))
        self.seen = []

    def losses(self, rng):
        early, late = (m.weight.sum() for m in self.modules.values())
        self.seen.append((float(early.detach()), float(late.detach())))
        # the gradient of the late one is large: clipped together, the early one would not move
        return {"loss": (early - 1) ** 2 + 1e6 * (late - 1) ** 2}


def test_players_have_their_own_pace_start_and_clipping(tmp_path):
    task = TwoPlayers()
    options = toy_options(steps=20, learning_rate=0.01, decay_fraction=0.0)
    with open_checkpoints(tmp_path, "two") as folder:
        train(task, options, folder, CPU)
    early, late = zip(*task.seen, strict=True)
    assert early[1] == pytest.approx(0.005, rel=1e-3)  # Adam's first step is the learning rate
    assert late[:11] == (0.0,) * 11 and late[11] == pytest.approx(0.01, rel=1e-3)
    assert early[-1] > 0.09


def test_what_is_watched_tells_a_runaway_and_not_what_adversaries_win(tmp_path):
    class Game(ToyTask):
        watched = "error"

        def losses(self, rng):
            loss = super().losses(rng)["loss"]
            return {"loss": loss, "error": loss * 0 + self.error_at(self.step)}

    def play(folder, error_at):
        task = Game(lambda step: 1.0 if step <= 80 else 100.0)
        task.error_at = error_at
        return train(task, toy_options(steps=300), folder, CPU)

    with open_checkpoints(tmp_path, "game") as folder:
        assert len(play(folder, lambda step: 0.5)) == 300
    with (
        pytest.raises(TrainingError, match="ran away"),
        open_checkpoints(tmp_path, "lost") as folder,
    ):
        play(folder, lambda step: 0.5 if step <= 80 else 5.0)


def test_training_learns_and_zero_steps_change_nothing(tmp_path):
    task = ToyTask()
    with open_checkpoints(tmp_path, "toy") as folder:
        assert train(task, toy_options(steps=0), folder, CPU) == []
        assert float(task.module.weight.detach()) == 0
        train(task, toy_options(steps=200), folder, CPU)
    assert float(task.module.weight.detach()) == pytest.approx(3, abs=0.5)


def test_another_option_revision_or_data_is_another_folder():
    options = OPTIONS.model_dump(mode="json")
    changed = OPTIONS.model_copy(update={"smoothness": 0.5}).model_dump(mode="json")
    data = fingerprint(torch.zeros(3))
    keys = {
        checkpoint_key("s", 1, options, data),
        checkpoint_key("s", 1, changed, data),
        checkpoint_key("s", 2, options, data),
        checkpoint_key("s", 1, options, fingerprint(torch.zeros(3, 1))),
        checkpoint_key("s", 1, options, fingerprint(torch.ones(3))),
    }
    assert len(keys) == 5
    assert checkpoint_key("s", 1, dict(reversed(options.items())), data) in keys


def test_cuda_where_there_is_none_is_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == CPU
    with pytest.raises(TrainingError, match="cuda"):
        pick_device("cuda")


@pytest.mark.parametrize(
    ("device", "known", "picked"),
    [
        # imitated: more than ten times slower
        ("cpu", {"avx2": True, "avx512_bf16": False, "amx_bf16": False}, "float32"),
        ("cpu", {"avx512_bf16": True, "amx_bf16": False}, "bfloat16"),
        ("cpu", {"avx512_bf16": False, "amx_bf16": True}, "bfloat16"),
        ("cpu", {"neon": True}, "float32"),
        ("cuda", False, "float32"),
        ("cuda", True, "bfloat16"),
    ],
)
def test_half_precision_only_where_the_device_computes_in_it(monkeypatch, device, known, picked):
    if device == "cpu":
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    else:
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: known)
    assert pick_precision("auto", torch.device(device)) == picked
    assert pick_precision("float32", torch.device(device)) == "float32"
    assert pick_precision("bfloat16", torch.device(device)) == "bfloat16"


@pytest.mark.parametrize(
    ("known", "precision", "warned"),
    [
        ({"avx512_bf16": False, "amx_bf16": False}, "bfloat16", True),
        ({"avx512_bf16": False, "amx_bf16": False}, "auto", False),
        ({"avx512_bf16": True}, "bfloat16", False),
        ({}, "bfloat16", False),  # nothing is said of what is not known
    ],
)
def test_a_training_says_what_it_computes_in(
    tmp_path, caplog, monkeypatch, known, precision, warned
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    options = OPTIONS.model_copy(update={"steps": 1, "precision": precision})
    with open_checkpoints(tmp_path, "small") as folder:
        train(small_task(options), options, folder, CPU)
    said = caplog.text
    assert f"on cpu in {'float32' if precision == 'auto' else 'bfloat16'}" in said
    assert ("only imitates bfloat16" in said) == warned


def test_without_knowledge_of_the_processor_it_is_taken_for_a_plain_one(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert pick_precision("auto", CPU) == "float32"


def test_compilation_is_ignored_on_the_cpu_with_a_note(tmp_path, caplog):
    options = OPTIONS.model_copy(update={"steps": 1, "compile": True})
    with open_checkpoints(tmp_path, "small") as folder:
        train(small_task(options), options, folder, CPU)
    assert "ignored on the CPU" in caplog.text


def test_half_precision_trains_to_nearly_the_same_loss(tmp_path):
    last = {}
    for precision in ("float32", "bfloat16"):
        options = OPTIONS.model_copy(update={"precision": precision})
        with open_checkpoints(tmp_path, precision) as folder:
            task = small_task(options)
            last[precision] = train(task, options, folder, CPU)[-1]["loss"]
        assert all(p.dtype == torch.float32 for p in task.registrar.parameters())
    assert last["bfloat16"] == pytest.approx(last["float32"], abs=0.02)
    assert last["bfloat16"] != last["float32"]
