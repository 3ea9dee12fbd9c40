"""The command line: what it says, what it exits with, what it imports."""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sbr_core import cli, commands
from sbr_core.commands import COMMANDS, KINDS, command_of
from sbr_core.errors import ConfigError, SbrError
from sbr_core.io.files import atomic_path
from sbr_core.io.weights import load_weights
from sbr_core.stages import collect
from sbr_core.training import shapes


def sbr(*arguments: str, **kwargs) -> subprocess.CompletedProcess:
    """Run the command as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "sbr_core", *arguments], capture_output=True, text=True, **kwargs
    )


def test_help_imports_nothing_heavy():
    script = (
        "import sys; from sbr_core.cli import build_parser; build_parser().format_help();"
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    heavy = {"torch", "numpy", "pydantic", "ants", "SimpleITK", "nibabel", "pandas", "snakemake"}
    assert loaded.returncode == 0 and not heavy & set(loaded.stdout.split())


def test_every_stage_and_every_tool_is_a_command():
    package = Path(cli.__file__).parent
    modules = [p.stem for room in ("stages", "tools") for p in (package / room).glob("[!_]*.py")]
    assert sorted(modules) == sorted(name.replace("-", "_") for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_read_as_text_is_what_python_reads(name):
    """Flags, defaults and annotations are those of the imported `run`, and each has its help."""
    command = command_of(name)
    run = importlib.import_module(command.module).run
    first, *parameters = inspect.signature(run).parameters.values()
    assert first.name == "options" and (first.annotation != "None") == bool(command.options)
    assert [flag.keyword for flag in command.flags] == [p.name for p in parameters]
    for p, flag in zip(parameters, command.flags, strict=True):
        assert flag.by_place == (p.kind is p.POSITIONAL_OR_KEYWORD)
        assert flag.required == (p.default is p.empty)
        assert p.default in ((False,) if flag.kind == "bool" else (p.empty, None))
        assert flag.help, f"{name}: no help for {flag.keyword}"
        known = flag.kind in KINDS or flag.kind in ("str", "RegistrarSource")
        assert known, f"{name}: {flag.keyword}: {flag.kind}"
    assert command.summary and inspect.getdoc(run).startswith(command.summary)


def test_a_command_is_read_from_the_signature_and_docstring(monkeypatch, tmp_path):
    """A word by its place, a short name, a keyword of Python, a help of two lines."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "copy_all.py").write_text(
        "import torch\n\n\ndef run(\n    options: None, source: Path, *, from_: str,\n"
        '    out: Annotated[Path | None, "-o"] = None, fast: bool = False\n) -> None:\n'
        '    """Copy `all`.\n\n    Or less.\n\n    Parameters\n    ----------\n'
        "    source, from_ : what is copied,\n        100% of it.\n    out : where to.\n"
        "    fast : at once.\n\n    Raises\n    ------\n    OSError : never.\n"
        '    """\n    return torch\n'
    )
    monkeypatch.setattr(commands, "__file__", str(tmp_path / "commands.py"))
    monkeypatch.setattr(cli, "COMMANDS", ("copy-all",))
    assert command_of("copy-all").description == "Copy all. Or less."
    said = " ".join(cli.build_parser().format_help().split())
    assert "copy-all Copy all" in said
    read = cli.build_parser().parse_args(["copy-all", "a", "--from", "b", "-o", "c"])
    values = {"source": Path("a"), "from_": "b", "out": Path("c"), "fast": False, "debug": False}
    assert vars(read) == {"command": "copy-all"} | values
    assert command_of("copy-all").flags[0].help == "what is copied, 100% of it"


def test_each_method_has_the_options_of_its_own_section():
    """SyN those of `syn_mi`, not those of the networks' inference; a method trains by its own."""

    def options(name, method):
        values = {"method": method, "options": None}
        return type(cli.options_of(name, values)).__name__

    assert options("infer", "syn_mi") == "SynOptions"
    assert options("infer", "coherent") == options("cohere", None) == "CoherentOptions"
    assert options("infer", "sbr") == options("infer", "linear") == "InferOptions"
    assert (options("train", "sbr"), options("train", "nmi")) == ("SbrOptions", "NmiOptions")
    assert options("reassemble", "rot") == "ReassembleOptions"
    for name in ("infer", "train", "reassemble"):
        with pytest.raises(ConfigError, match="--method: unknown method 'magic' .known: linear, "):
            options(name, "magic")
    with pytest.raises(ConfigError, match="there is nothing to train for 'linear'"):
        options("train", "linear")


def test_unknown_option_is_one_line_and_exit_2(tmp_path):
    done = sbr("demo", "--out-dir", str(tmp_path / "d"), "--options", '{"sections": 3}')
    assert done.returncode == 2
    assert done.stderr == "sbr demo: config: unknown key 'demo.sections'\n"
    assert not (tmp_path / "d").exists()
    debug = sbr("demo", "--out-dir", "d", "--options", '{"sections": 3}', "--debug", cwd=tmp_path)
    assert debug.returncode == 1 and "Traceback" in debug.stderr


def test_first_line_reproduces_the_call(tmp_path, capsys):
    table = tmp_path / "a folder" / "it's.tsv"
    done = sbr("collect", "--receipts", str(tmp_path / "none.tsv"), "--table", str(table))
    assert done.returncode == 2
    dollar, name, *words = shlex.split(done.stdout.splitlines()[0])
    assert (dollar, name) == ("$", "sbr")
    assert cli.main(words) == 2
    assert tuple(capsys.readouterr()) == (done.stdout, done.stderr)
    assert f"{tmp_path / 'none.tsv'}: no such file" in done.stderr


def run_as(monkeypatch, function) -> int:
    """The exit code of `sbr collect` when its stage is `function`."""
    monkeypatch.setattr(collect, "run", function)
    return cli.main(["collect", "--receipts", "a.tsv", "--table", "t.tsv"])


def test_exit_codes(monkeypatch, capsys):
    def faulty(options, **_):
        raise SbrError("a.tsv: row 3:\n expected a number")

    def interrupted(options, **_):
        raise KeyboardInterrupt

    def broken(options, **_):
        raise ZeroDivisionError("a bug")

    assert run_as(monkeypatch, lambda options, **_: None) == 0
    assert run_as(monkeypatch, faulty) == 2
    assert capsys.readouterr().err == "sbr collect: a.tsv: row 3: expected a number\n"
    assert run_as(monkeypatch, interrupted) == 130
    with pytest.raises(ZeroDivisionError):  # a bug keeps its traceback; Python exits with 1
        run_as(monkeypatch, broken)


def test_a_message_that_names_its_command_names_it_once(tmp_path, capsys):
    (tmp_path / "one" / "plan").mkdir(parents=True)
    assert cli.main(["clean", str(tmp_path), "everything"]) == 2
    assert capsys.readouterr().err.startswith("sbr clean: unknown kind 'everything' (known: ")


def test_each_log_line_is_on_stderr_once_and_as_it_is(monkeypatch, capsys):
    """Also after several calls in one process, and where a library set up the root logger."""

    def logs(options, **_):
        logging.getLogger("sbr_core.stages.collect").info("collect: 50% done")
        logging.getLogger("sbr_core.stages.collect").debug("not shown")

    monkeypatch.setattr(logging.root, "handlers", [logging.StreamHandler(sys.stderr)])
    for _ in range(2):
        assert run_as(monkeypatch, logs) == 0
        assert capsys.readouterr().err == "collect: 50% done\n"


def test_sigterm_ends_a_stage_with_a_line_and_nothing_half_written(tmp_path, monkeypatch, capsys):
    def terminated(options, **_):
        with atomic_path(tmp_path / "table.tsv") as temporary:
            temporary.write_text("half a")
            os.kill(os.getpid(), signal.SIGTERM)
            temporary.write_text("half a table")

    # as under the workflow, whose shell ignores it
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert run_as(monkeypatch, terminated) == 143
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sbr collect: SIGTERM: stopped")
    assert list(tmp_path.iterdir()) == []


def test_options_may_be_json_or_a_file(tmp_path, monkeypatch):
    seen = []
    demo = importlib.import_module("sbr_core.stages.demo")
    monkeypatch.setattr(demo, "run", lambda options, *, out_dir: seen.append(options))
    (tmp_path / "o.yaml").write_text("seed: 5\n")
    (tmp_path / "o.json").write_text(json.dumps({"seed": 5}))
    for given in ('{"seed": 5}', str(tmp_path / "o.yaml"), str(tmp_path / "o.json")):
        assert cli.main(["demo", "--out-dir", "d", "--options", given]) == 0
    assert cli.main(["demo", "--out-dir", "d"]) == 0
    assert [options.seed for options in seen] == [5, 5, 5, 1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["sbr"], "expected METHOD=FOLDER, found 'sbr'"),
        (["sbr=a", "sbr=b"], "method 'sbr' given twice"),
    ],
)
def test_methods_are_checked(given, said, capsys):
    arguments = ["report", "--brain", "b", "--results-dir", "r", "--out", "o", "--methods", *given]
    assert cli.main(arguments) == 2
    assert said in capsys.readouterr().err


def test_the_command_behind_the_shipped_registrar_runs(tmp_path, capsys):
    options = {
        "steps": 1,
        "batch_size": 1,
        "sizes_px": [[64, 64]],
        "encoder_channels": [4, 4],
        "estimator_channels": [4, 4],
    }
    folders = ["--out-dir", str(tmp_path / "out"), "--checkpoint-root", str(tmp_path / "ck")]
    assert cli.main(["train-shapes", "--options", json.dumps(options), *folders]) == 0
    assert (tmp_path / "out" / "weights.safetensors").is_file()
    with pytest.raises(SystemExit):
        cli.main(["train-shapes", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "config/README.md lists under 'sbr train-shapes'" in said
    assert "goes on from its last checkpoint" in said


def test_an_interrupted_training_on_shapes_goes_on_with_the_same_command(tmp_path, monkeypatch):
    """And ends with the weights of one that was not interrupted."""
    options = {
        "steps": 4,
        "batch_size": 1,
        "sizes_px": [[64, 64]],
        "encoder_channels": [4, 4],
        "estimator_channels": [4, 4],
        "checkpoint_every_s": 1e-6,
    }
    done = []

    def trained(folder, stop_at=None):
        losses = shapes.ShapesTask.losses

        def interrupted(task, rng):
            done.append(folder)
            if done.count(folder) == stop_at:
                raise KeyboardInterrupt
            return losses(task, rng)

        monkeypatch.setattr(shapes.ShapesTask, "losses", interrupted)
        folders = ["--out-dir", f"{tmp_path}/{folder}", "--checkpoint-root", f"{tmp_path}/ck"]
        code = cli.main(["train-shapes", "--options", json.dumps(options), *folders])
        monkeypatch.setattr(shapes.ShapesTask, "losses", losses)
        return code

    assert trained("whole") == 0 and done.count("whole") == 4
    assert trained("again", stop_at=3) == 130
    assert not (tmp_path / "again").exists()
    done.clear()
    assert trained("again") == 0 and done.count("again") == 2, "the first two steps are kept"
    whole, again = (
        load_weights(tmp_path / f / "weights.safetensors")[0] for f in ("whole", "again")
    )
    for name, tensor in whole.items():
        assert torch.equal(tensor, again[name]), name


LINKED = {
    "collect": ["--receipts", "b/sbr/chunks/1of1.tsv", "--table", "b/sbr/sections.tsv"],
    "doctor": ["--prepared", "b/sbr/sections.tsv", "--out-dir", "b/doctor"],
    "prepare-mri": ["--mri", "m.nii.gz", "--out-dir", "b/sbr"],
    "report": [*("--brain", "b", "--methods", "sbr=b/sbr"), *("--results-dir", "b", "--out", "p")],
    "apply": [*("x.png", "--results", "b", "--from", "a", "--to", "mri", "-o", "out")],
}


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *((command, "quality.json") for command in LINKED),
        *(("collect", name) for name in ("sections", "chunks/.sums", "chunks/1of1.tsv")),
    ],
)
def test_a_link_in_results_stops_a_command_given_by_hand(
    tmp_path, monkeypatch, capsys, command, name
):
    monkeypatch.chdir(tmp_path)
    Path("outside").mkdir()
    link = Path("b/sbr") / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / "outside")
    assert cli.main([command, *LINKED[command]]) == 2
    assert (
        f"sbr {command}: {link}: is a link, and results may contain none" in capsys.readouterr().err
    )
    assert not any(Path("outside").iterdir()) and sorted(os.listdir()) == ["b", "outside"]


def test_a_folder_of_results_is_gone_through_once(tmp_path, monkeypatch):
    gone_through = []
    monkeypatch.setattr("sbr_core.io.files.refuse_links", gone_through.append)
    arguments = {
        "methods": {"sbr": Path("r/b/sbr"), "linear": Path("r/b/linear")},
        "results_dir": Path("r/b"),
        "receipts": [Path(f"r/c/prepare/chunks/{i}of2.tsv") for i in (1, 2)],
        "prepared": Path("r/c/prepare/sections.tsv"),
        "align_dir": None,
        "out": Path("page.html"),
    }
    cli._refuse_links(command_of("report"), arguments)
    assert gone_through == [Path("r/b"), Path("r/c/prepare")]
    cli._refuse_links(command_of("demo"), {"out_dir": Path("d")})  # a user's own may be a link
    cli._refuse_links(command_of("train-shapes"), {"out_dir": Path("d")})
    assert len(gone_through) == 2
