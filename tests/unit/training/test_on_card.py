"""What trainings and predictions ask of a graphics card, on one that only pretends to be there.

Every method, precision and stage is run so by `benchmarks/card_counts.py`.
"""

import signal
from contextlib import nullcontext

import pytest
import torch
from card_trainings import (
    count_a_step,
    method_training,
    predict_and_refine,
    registrar_training,
    train_and_resume,
)
from pretend_card import CARD, WrongDevice, card
from torch import nn

from sbr_core.config import TrainOptions
from sbr_core.errors import TrainingError
from sbr_core.nn.generator import Generator
from sbr_core.nn.registrar import PyramidRegistrar, correlation
from sbr_core.training.checkpoints import open_checkpoints
from sbr_core.training.devices import Reading, upload
from sbr_core.training.loop import train


def test_what_a_card_refuses_is_refused():
    with card():
        on, off = torch.ones(3, device="cuda"), torch.ones(3)
        for wrong in (
            lambda: on + off,
            lambda: on.numpy(),
            lambda: off[torch.zeros(1, dtype=torch.long, device="cuda")],
            lambda: torch.cat((on, off)),
            lambda: torch.rand(3, device="cuda", generator=torch.Generator()),
            lambda: on.to("cpu", non_blocking=True).tolist(),
        ):
            with pytest.raises(WrongDevice):
                wrong()
        assert (on + torch.tensor(1.0)).is_cuda  # a number may be anywhere
        assert torch.equal((on * 2).cpu(), 2 * off)


@pytest.mark.parametrize(
    ("waits", "what"),
    [
        (1, lambda on, off: float(on.sum())),
        (1, lambda on, off: off.to("cuda")),
        (1, lambda on, off: off.to("cuda", non_blocking=True)),
        (0, lambda on, off: off.pin_memory().to("cuda", non_blocking=True)),
        (1, lambda on, off: on.nonzero()),
        (1, lambda on, off: on[on > 0]),
        (1, lambda on, off: torch.tensor([1.0], device="cuda")),
        (0, lambda on, off: torch.linspace(0, 1, 2, device="cuda") * on[:2]),
    ],
)
def test_what_makes_the_processor_wait_is_counted(waits, what):
    with card() as seen:
        on, off = torch.ones(3, device="cuda"), torch.ones(3)
        seen.clear()
        what(on, off)
        assert seen.syncs.total() == waits


def test_tensors_travel_together_and_arrive_as_they_were():
    sent = [
        torch.randn(2, 3),
        torch.randint(9, (5,)),
        torch.tensor(1.5, dtype=torch.float64),
        torch.zeros(0, 4),
        torch.rand(3, 2, 2) > 0.5,
        torch.arange(6.0).view(2, 3).T,  # not as its memory lies
    ]
    assert upload(sent, "cpu") == sent
    with card() as seen:
        seen.clear()
        arrived = upload(sent, CARD)
        assert not seen.syncs
        assert all(t.is_cuda for t in arrived)
        back = [t.cpu() for t in arrived]
        assert upload(arrived, CARD) == arrived
    for one, other in zip(sent, back, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_correlation_on_a_card_is_that_of_the_processor(dtype):
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(2, 2, 8, 9, 12, generator=rng).to(dtype)
    weights = torch.randn(2, 25, 9, 12, generator=rng).to(dtype)
    found = {}
    for device in ("cpu", "cuda"):
        with card() if device == "cuda" else nullcontext() as seen:
            a, b = (t.to(device).requires_grad_() for t in features)
            out = correlation(a, b, 2)
            out.backward(weights.to(device))
            found[device] = [t.detach().cpu() for t in (out, a.grad, b.grad)]
    assert seen.launches.total() < 60  # two for each of 25 offsets would be 100 more
    close = {torch.float64: 1e-12, torch.bfloat16: 0.05}[dtype]
    for one, other in zip(*found.values(), strict=True):
        assert one.dtype == other.dtype == dtype
        torch.testing.assert_close(one, other, atol=close, rtol=close)


def test_a_reading_waits_only_if_nothing_was_started_since():
    numbers = [torch.tensor(0.1), torch.tensor(3.0, dtype=torch.float64)]
    assert Reading(numbers).values() == [float(n) for n in numbers]
    with card() as seen:
        early = Reading([n.to("cuda") for n in numbers])
        torch.ones(3, device="cuda") + 1
        seen.clear()
        assert early.values() == [float(n) for n in numbers]
        assert not seen.syncs
        late = Reading([n.to("cuda") for n in numbers])
        seen.clear()
        late.values()
        assert seen.syncs.total() == 1


TRAININGS = {
    "sbr in bfloat16": method_training("sbr", precision="bfloat16"),
    "nmiw": method_training("nmiw", precision="auto", registrar_start="shared"),
    "cgan": method_training("cgan", warmup_fraction=0.6, warmup_start="section"),
    "the registrar": registrar_training(),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_runs_on_a_card_and_goes_on_from_its_checkpoint(name, tmp_path):
    with card() as seen:
        train_and_resume(TRAININGS[name], tmp_path)
    assert set(seen.autocasts) <= {"cuda"}


def test_what_is_read_a_step_later_is_what_the_processor_reads(tmp_path):
    """The pretended card computes what the processor does, so the histories must be the same."""
    histories = {}
    for device in ("cuda", "cpu"):
        with (
            card() if device == "cuda" else nullcontext(),
            open_checkpoints(tmp_path, "it") as kept,
        ):
            task, options = method_training("nmiw", precision="float32")(torch.device(device))
            rows = train(task, options, kept, torch.device(device))
            kept.clear()
        seconds = [row.pop("seconds") for row in rows]
        assert seconds[0] > 0 and seconds == sorted(seconds)
        histories[device] = rows
    assert histories["cuda"] == histories["cpu"]


class Line:
    """Fits a line on the card; the loss of its third step is no number."""

    name = "line"

    def __init__(self, stopped):
        self.modules = {"line": nn.Linear(1, 1, device=CARD)}
        self.stopped, self.step = stopped, 0

    def losses(self, rng):
        self.step += 1
        loss = (self.modules["line"](torch.ones(1, 1, device=CARD)) - 3).square().mean()
        if self.step == 3:
            if self.stopped:
                signal.raise_signal(signal.SIGTERM)
            loss = loss * float("nan")
        return {"loss": loss}


@pytest.mark.parametrize("stopped", [False, True], ids=["on its own", "stopped in that step"])
def test_a_step_that_goes_wrong_on_a_card_is_named_and_never_written(stopped, tmp_path):
    options = TrainOptions(steps=9, batch_size=1, learning_rate=0.1)
    with card():
        task = Line(stopped)
        with (
            pytest.raises(TrainingError, match="line: the loss is nan at step 3"),
            open_checkpoints(tmp_path, "it") as folder,
        ):
            train(task, options, folder, CARD)
    assert task.step == (3 if stopped else 4)
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.parametrize(("asked", "mode"), [(True, None), ("graphs", "reduce-overhead")])
def test_everything_that_a_step_calls_is_compiled_where_that_is_asked_for(
    asked, mode, tmp_path, monkeypatch
):
    compiled, modes = [], set()

    def compile_it(call, **how):
        modes.add(how.get("mode"))
        return compiled.append(call) or call

    monkeypatch.setattr(torch, "compile", compile_it)
    with card(), open_checkpoints(tmp_path, "it") as folder:
        task, options = method_training("sbr", compile=asked)(CARD)
        train(task, options.model_copy(update={"steps": 1}), folder, CARD)
        folder.clear()
    found = {(type(call.__self__).__name__, call.__name__) for call in compiled}
    assert found >= {("PyramidRegistrar", "displacement"), ("PyramidRegistrar", "_call_impl")}
    assert found >= {("Generator", "synthesise"), ("Generator", "encode")}
    assert ("Projection", "_call_impl") in found
    assert modes == {mode}


def test_a_compiler_that_fails_is_done_without(tmp_path, monkeypatch, caplog):
    """With one warning; the training is the one that nobody compiled."""

    def broken(call, **how):
        def fail(*args, **kwargs):
            raise RuntimeError("no compiler here\nfor pages")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    losses = []
    for asked in (False, "graphs"):
        with card(), open_checkpoints(tmp_path, str(asked)) as folder:
            task, options = method_training("sbr", compile=asked)(CARD)
            rows = train(task, options.model_copy(update={"steps": 2}), folder, CARD)
            folder.clear()
        losses.append([row["loss"] for row in rows])
    assert losses[0] == losses[1]
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    why = "compile: graphs: goes on without, since RuntimeError: no compiler here"
    assert said == [f"train sbr: {why}"]


@pytest.mark.slow
def test_what_is_compiled_has_no_break_and_computes_the_same():
    """As one graph each, forwards and backwards; the compiler's own code is left out."""
    torch.manual_seed(0)
    registrar = PyramidRegistrar(encoder_channels=(4, 4), estimator_channels=(4, 4))
    generator = Generator(channels=4, residual_blocks=1)
    fixed, moving = torch.rand(2, 1, 1, 32, 48)

    def step():
        for module in (registrar, generator):
            module.zero_grad()
        image, features = generator.synthesise(moving)
        shift = registrar.displacement(registrar(fixed, image), (32, 48))
        parts = [shift, image, *features, *generator.encode(image)]
        loss = sum(part.float().square().mean() for part in parts)
        loss.backward()
        grads = [p.grad for m in (registrar, generator) for p in m.parameters()]
        return loss.item(), torch.cat([g.flatten() for g in grads if g is not None])

    loss, gradient = step()
    for module in (registrar, generator):
        module.compile(backend="aot_eager", fullgraph=True)
    again, same = step()
    assert again == pytest.approx(loss, rel=1e-5)
    assert (same - gradient).abs().max() <= 1e-5 * gradient.abs().max()


@pytest.mark.parametrize("with_generator", [True, False])
def test_prediction_and_refinement_run_on_a_card(with_generator):
    with card() as seen:
        velocity, image = predict_and_refine(with_generator=with_generator)
    # the box of each of four sections, for the synthesis and at two levels, and the results
    assert sum(n for line, n in seen.syncs.items() if "upload" not in line) <= 3 * 4 + 4
    assert velocity.isfinite().all() and image.isfinite().all()


BOUNDS = {
    "sbr of preset paper": (method_training("sbr", "paper"), 4, 950),
    "sbr of preset cpu": (method_training("sbr", "cpu", warmup_fraction=0.0), 4, 1460),
    "the registrar of preset paper": (registrar_training("paper"), 4, 430),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_a_step_waits_and_launches_no_more_than_this(name):
    make, waits, launches = BOUNDS[name]
    with card() as seen:
        found = count_a_step(make, seen)
    assert found[0] <= waits, dict(seen.syncs)
    assert found[1] <= launches
