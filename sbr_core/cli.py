"""The command line: one subcommand per stage and tool; nothing heavy is imported for its help.

What the commands and their flags are is read from each `run` (`sbr_core.commands`).

Exit codes: 0 done; 2 a fault in what was given (one line, `SbrError`); 1 a fault of the program
(its traceback, since that is what a bug report needs); 130 interrupted; 143 terminated.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sbr_core import __version__
from sbr_core.commands import COMMANDS, KINDS, Command, Flag, command_of
from sbr_core.errors import TERMINATED, ConfigError, SbrError, StorageError, storage_fault


def build_parser() -> argparse.ArgumentParser:
    """The parser of every subcommand."""
    parser = argparse.ArgumentParser(
        prog="sbr",
        description="Histology sections and an MRI of the same brain, to one 3D volume.",
        epilog="`snakemake --cores all` runs these commands in order; `sbr COMMAND --help` lists "
        "the flags of one.",
    )
    parser.add_argument("--version", action="version", version=f"sbr {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        command = command_of(name)
        sub = commands.add_parser(name, help=command.summary, description=command.description)
        for flag in command.flags:
            _add_flag(sub, flag)
        if command.options:
            what = f"the section '{command.section}' of the configuration"
            if name == "train-shapes":
                what = f"what config/README.md lists under 'sbr {name}'"
            sub.add_argument(
                "--options",
                metavar="JSON",
                help=f"{what}: JSON, or the path of a .json or .yaml file (default: the defaults)",
            )
        sub.add_argument("--debug", action="store_true", help="show the traceback of any error")
    return parser


def _add_flag(parser: argparse.ArgumentParser, flag: Flag) -> None:
    how: dict[str, Any] = {"help": flag.help.replace("%", "%%")}
    how |= KINDS.get(flag.kind, {"metavar": "TEXT"})
    if flag.by_place:
        if not flag.required:
            how["nargs"] = "*"
        parser.add_argument(flag.keyword, **how | {"metavar": None})
        return
    if flag.kind != "bool":  # not given is False
        how["required"] = flag.required
    name = "--" + flag.keyword.rstrip("_").replace("_", "-")
    parser.add_argument(*filter(None, (flag.short, name)), dest=flag.keyword, **how)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = vars(build_parser().parse_args(argv))
    name, debug = arguments.pop("command"), arguments.pop("debug")
    # Snakemake tells every library but ITK how many threads it may use
    if threads := os.environ.get("OMP_NUM_THREADS"):
        os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", threads)
    # threads that wait soon go to sleep: on a machine that has other work as well, spinning ones
    # use up the turns that the one they wait for needs; idle it costs nothing
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    with _log_lines_on_stderr():
        return _run(name, arguments, "$ " + shlex.join(["sbr", *argv]), debug)


@contextmanager
def _log_lines_on_stderr() -> Iterator[None]:
    """Write what the package logs to stderr, line by line as it is.

    The handler exists for one call only and is the only one, whatever a library sets up for its
    own messages.
    """
    import logging  # takes as long as all of --help, which needs none

    package = logging.getLogger("sbr_core")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    before = package.level, package.propagate
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    package.propagate = False
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(before[0])
        package.propagate = before[1]


def _run(name: str, arguments: dict[str, Any], line: str, debug: bool) -> int:
    """Print the one line that reproduces this run when it is pasted, and run it; the exit code."""
    try:
        print(line, flush=True)
        with _signals_as_exceptions():
            _dispatch(command_of(name), arguments)
    except SbrError as error:
        if debug:
            raise
        return _fault(name, str(error), error.exit_code)
    except OSError as error:
        reason = storage_fault(error)
        if debug or not reason:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _fault(name, str(StorageError(f"{where}{reason}")), StorageError.exit_code)
    except KeyboardInterrupt:
        return _fault(name, "interrupted; the same command goes on", 130)
    except _Terminated:
        line = "SIGTERM: stopped; what is finished is kept, the same command goes on"
        return _fault(name, line, TERMINATED)
    # anything else is a bug: Python shows its traceback and exits with 1
    return 0


def _fault(name: str, line: str, exit_code: int) -> int:
    """Log what ended a command; its exit code."""
    import logging

    # a message that is true of its stage wherever it is read begins with the name already
    logging.getLogger(__name__).error(f"sbr {name}: {line.removeprefix(f'{name}: ')}")
    return exit_code


class _Terminated(BaseException):
    """SIGTERM; like KeyboardInterrupt no `Exception`, so that nothing takes it for a fault."""


@contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """SIGTERM and Ctrl-C as exceptions, so that nothing half-written is left behind.

    Ctrl-C too: the workflow's shell ignores both, so that logs are written to their end, and what
    is ignored is inherited.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return

    def terminate(*_: Any) -> None:
        raise _Terminated

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, terminate),
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _dispatch(command: Command, arguments: dict[str, Any]) -> None:
    options = options_of(command.name, arguments)
    for flag in command.flags:
        if flag.kind in _CONVERTERS and arguments[flag.keyword] is not None:
            arguments[flag.keyword] = _CONVERTERS[flag.kind](arguments[flag.keyword])
    _refuse_links(command, arguments)
    importlib.import_module(command.module).run(options, **arguments)


def _refuse_links(command: Command, arguments: Mapping[str, Any]) -> None:
    """StorageError where a folder of results that a command reads or writes has a link in it.

    Planning looks at whole brains; this is for commands that are given by hand. No folder is gone
    through twice. Folders of a user's own, which `demo` and most tools have, may contain links.
    """
    if command.name == "demo" or (".tools." in command.module and command.name != "apply"):
        return
    from sbr_core.artifacts.rows import stage_dir
    from sbr_core.io.files import refuse_links

    folders: set[Path] = set()
    for name in arguments.keys() & (_FOLDERS | _TABLES):
        given = arguments[name] or ()
        several = given.values() if isinstance(given, dict) else given
        paths = [given] if isinstance(given, Path) else several
        if name in _TABLES:
            # the folder that the user works in, or one above it, is no stage's
            here = Path.cwd()
            paths = [d for d in map(stage_dir, paths) if not here.is_relative_to(d.resolve())]
        folders.update(paths)
    for folder in sorted(folders):
        if not folders.intersection(folder.parents):
            refuse_links(folder)


def options_of(name: str, arguments: dict[str, Any]) -> Any:
    """The validated options of a call, taken out of its arguments (None for no section).

    Raises
    ------
    ConfigError
        No such method, none that the command has options for, or options that are not valid.
    """
    command = command_of(name)
    if not command.options:
        return None
    from sbr_core import config

    section, model = _section(command, arguments.get("method"))
    text = arguments.pop("options", None)
    if text is None:
        values = {}
    elif text.lstrip().startswith("{"):
        values = config.load_json(text, "--options")
    else:
        values = config.load_yaml(Path(text))  # JSON is YAML too
    return config.parse_options(model, values, section)


def _section(command: Command, method: str | None) -> tuple[str, type]:
    """The section of the configuration that a call takes its options from, and their class.

    The method's own section where the command accepts its class, otherwise the command's.
    """
    from sbr_core import config

    accepted = tuple(getattr(config, name) for name in command.options)
    if method is not None:
        from sbr_core.methods import METHODS, REGISTRY, imported

        if method not in METHODS:
            known = ", ".join(METHODS)
            raise ConfigError(f"--method: unknown method '{method}' (known: {known})")
        own = REGISTRY[method].options and imported(REGISTRY[method].options)
        if own and issubclass(own, accepted):
            return REGISTRY[method].section, own
        if "METHOD" in command.section:
            raise ConfigError(f"--method: there is nothing to {command.name} for '{method}'")
    return command.section, accepted[0]


def _rows(text: str) -> list[Any]:
    from sbr_core.io.manifests import rows_from

    return rows_from(text)


def _landmarks(text: str) -> list[Any]:
    from sbr_core.io.corrections import landmarks_from

    return landmarks_from(text)


def _methods(items: list[str]) -> dict[str, Path]:
    """``["sbr=results/b/sbr"]`` as ``{"sbr": Path("results/b/sbr")}``, in the order given."""
    folders: dict[str, Path] = {}
    for item in items:
        method, equals, folder = item.partition("=")
        if not (method and equals and folder):
            raise ConfigError(f"--methods: expected METHOD=FOLDER, found '{item}'")
        if method in folders:
            raise ConfigError(f"--methods: method '{method}' given twice")
        folders[method] = Path(folder)
    return folders


_CONVERTERS = {
    "Sequence[SectionRow]": _rows,
    "Sequence[Landmark]": _landmarks,
    "Mapping[str, Path]": _methods,
}
"""Kinds of flags -> what makes their values of words of the command line."""

_FOLDERS = {"out_dir", "results", "results_dir", "align_dir", "checkpoint_root", "methods"}
_TABLES = {"prepared", "planes", "affines", "sections", "measured", "receipt", "receipts"}
"""Flags that name folders of results, and receipts and tables in them."""
