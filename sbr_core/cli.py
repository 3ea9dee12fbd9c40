"""The command line: one subcommand per stage, and nothing heavy imported before one is chosen.

``COMMANDS`` is the whole interface. Each flag becomes a keyword argument of ``run`` in
``sbr_core.stages.<verb>``; the options of the stage's section in the configuration come first.

Exit codes: 0 done; 2 a fault in what was given (one line, `SbrError`); 1 a fault of the program
(its traceback, since that is what a bug report needs); 130 interrupted; 143 terminated.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sbr_core.errors import TERMINATED, ConfigError, SbrError, StorageError, storage_fault

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Flag:
    """One flag of a command.

    Attributes
    ----------
    name : as typed, ``--out-dir``; its keyword argument is ``out_dir``. A word without dashes is
        given by its place on the command line.
    short : another name, of one letter.
    kind : ``path``, ``paths`` (one or more), ``text``, ``texts``, ``number``,
        ``switch`` (False unless given), ``rows`` (list of manifest rows) or ``methods`` (dict from
        method to folder).
    """

    name: str
    kind: str
    help: str
    required: bool = True
    short: str = ""

    @property
    def keyword(self) -> str:
        return self.name.lstrip("-").replace("-", "_")


def _optional(name: str, kind: str, help: str) -> Flag:
    return Flag(name, kind, help, required=False)


@dataclass(frozen=True)
class Command:
    """One subcommand: ``sbr_core.stages.<name>`` with the options of one config section.

    Attributes
    ----------
    section : of the configuration; ``{method}`` stands for what ``--method`` names.
    own_sections : methods that have a section of their own name instead.
    """

    name: str
    help: str
    section: str | None
    flags: tuple[Flag, ...]
    own_sections: tuple[str, ...] = ()

    def section_of(self, method: str | None) -> str | None:
        """The section whose options a call has.

        Raises
        ------
        ConfigError
            There is none for this method.
        """
        if method is None or self.section is None:
            return self.section
        from sbr_core.config import Config
        from sbr_core.methods import METHODS

        if method not in METHODS:
            known = ", ".join(METHODS)
            raise ConfigError(f"--method: unknown method '{method}' (known: {known})")
        section = method if method in self.own_sections else self.section.format(method=method)
        if section not in Config.model_fields:
            raise ConfigError(f"--method: there is nothing to {self.name} for '{method}'")
        return section


_OUT_DIR = Flag("--out-dir", "path", "folder the results go to")
_RECEIPT = Flag("--receipt", "path", "table to write: each section, its files and their sha256")
_ROWS = Flag(
    "--rows",
    "rows",
    "manifest rows: a JSON list, its path (.json), or a manifest (.tsv)",
)
_STRICT = _optional("--strict", "switch", "stop at the first section that cannot be used")
_BRAIN = Flag("--brain", "text", "name of the brain")
_METHOD = Flag("--method", "text", "name of the method")
_METHODS = Flag("--methods", "methods", "one or more METHOD=FOLDER")
_PREPARED = Flag("--prepared", "path", "table written by prepare")
_PLANES = Flag("--planes", "path", "table written by resample")
_ALIGN_DIR = _optional("--align-dir", "path", "folder written by align")
_FRESH = _optional("--fresh", "switch", "forget the checkpoints and start anew")
_CHECKPOINTS = Flag("--checkpoint-root", "path", "folder of the checkpoints of all trainings")
_WORKING_PIXEL = Flag("--working-pixel-mm", "number", "pixel size of the prepared sections, mm")

COMMANDS = (
    Command("demo", "make the demo brain and the truth behind it", "demo", (_OUT_DIR,)),
    Command(
        "fetch",
        "download a data set of the paper and write its manifest",
        None,
        (
            Flag("dataset", "text", "allen or bigbrain"),
            _optional("--out-dir", "path", "folder it comes to (default: data/DATASET)"),
            _optional("--base-url", "text", "where the repository's files are (default: GitHub)"),
        ),
    ),
    Command(
        "manifest",
        "write the manifest of a folder of section images, or of a stack in a 3D NIfTI",
        None,
        (
            Flag("source", "path", "the folder, or the NIfTI"),
            Flag(
                "--out",
                "path",
                "manifest to write (default: sections.tsv beside them)",
                required=False,
                short="-o",
            ),
            _optional("--section-spacing-mm", "number", "from one section to the next, mm"),
            _optional("--thickness-mm", "number", "what 1 in the names' numbers stands for, mm"),
            _optional("--pixel-size-mm", "number", "pixel of all files, instead of what they say"),
            _optional("--slice-axis", "text", "i, j or k: the axis a NIfTI is cut along"),
            _optional("--image-channel", "text", "which channel of all files: number or name"),
        ),
    ),
    Command(
        "import-landmarks",
        "points of napari, QuPath and 3D Slicer to a table of landmarks",
        None,
        (
            _ROWS,
            Flag("--points", "paths", "points on the sections, a file each, named SECTION.…"),
            _optional("--mri-points", "paths", "the same points in the MRI (3D Slicer)"),
            _optional("--plane-points", "paths", "prealigned: the same points on the MRI planes"),
            _optional("--scale", "number", "file pixels per pixel of the annotated sections"),
            _optional("--plane-scale", "number", "file pixels per pixel of the annotated planes"),
            _optional("--by-order", "switch", "pair by the order in the files, not by name"),
            Flag("--out", "path", "table to write"),
        ),
    ),
    Command(
        "prepare",
        "section images to working-resolution intensity and tissue mask",
        "prepare",
        (_ROWS, _OUT_DIR, _RECEIPT, _STRICT),
    ),
    Command(
        "prepare-mri",
        "check the MRI and its mask",
        "prepare",
        (
            Flag("--mri", "path", "the MRI, 3D NIfTI"),
            _optional("--mri-mask", "path", "its brain mask, on the same grid"),
            _OUT_DIR,
        ),
    ),
    Command(
        "collect",
        "gather receipts of one stage into one table, sorted by position",
        None,
        (
            Flag("--receipts", "paths", "receipts of the chunks"),
            Flag("--table", "path", "table to write"),
        ),
    ),
    Command(
        "doctor",
        "what seems wrong with the sections: a table of findings and a contact sheet",
        "doctor",
        (
            _PREPARED,
            _optional("--prealigned", "switch", "the sections lie on their MRI planes already"),
            _OUT_DIR,
        ),
    ),
    Command(
        "apply-findings",
        "an edited copy of a manifest, with what the doctor suggests",
        None,
        (
            Flag("findings", "path", "findings.tsv written by doctor"),
            Flag("--manifest", "path", "the manifest; it stays as it is"),
            Flag("--out", "path", "manifest to write", short="-o"),
            _optional("--min-confidence", "number", "leave out what is less sure, from 0 to 1"),
        ),
    ),
    Command(
        "align",
        "fit the 3D similarity between stack and MRI",
        "align",
        (
            Flag("--sections", "path", "table written by prepare"),
            Flag("--mri", "path", "MRI written by prepare-mri"),
            Flag("--mri-mask", "path", "mask written by prepare-mri"),
            Flag(
                "--orientation", "text", "direction of column, row and position, e.g. LIA, or auto"
            ),
            _WORKING_PIXEL,
            _OUT_DIR,
        ),
    ),
    Command(
        "resample",
        "the MRI plane of every section",
        "resample",
        (
            _ROWS,
            _ALIGN_DIR,
            _optional("--mri", "path", "MRI written by prepare-mri"),
            _optional("--mri-mask", "path", "mask written by prepare-mri"),
            _optional("--working-pixel-mm", "number", "pixel size of a prealigned brain, mm"),
            _OUT_DIR,
            _RECEIPT,
            _STRICT,
        ),
    ),
    Command(
        "align-sections",
        "one 2D affine per section: the linear result",
        "align_sections",
        (
            Flag("--prepared", "path", "receipt of prepare"),
            Flag("--planes", "path", "receipt of resample"),
            _ALIGN_DIR,
            _optional("--prealigned", "switch", "the sections lie on their MRI planes already"),
            _OUT_DIR,
            _RECEIPT,
            _STRICT,
        ),
    ),
    Command(
        "train-registrar",
        "train the intra-modality registration network on MRI planes",
        "train_registrar",
        (
            _PLANES,
            _optional("--source", "text", "shipped, finetune or train (default: train)"),
            _OUT_DIR,
            _CHECKPOINTS,
            _FRESH,
        ),
    ),
    Command(
        "train-shapes",
        "train the registration network that ships, on synthetic shapes only; the same command goes"
        " on from its last checkpoint",
        "train_shapes",
        (_OUT_DIR, _CHECKPOINTS, _FRESH),
    ),
    Command(
        "train",
        "train the networks of a method on sections and their MRI planes",
        "train_{method}",
        (
            _METHOD,
            _PLANES,
            Flag("--sections", "path", "table written by align-sections"),
            _optional("--registrar", "path", "weights of the shared registration network"),
            _optional("--prepared", "path", "table written by prepare, for labels of sections"),
            _ALIGN_DIR,
            _optional("--mri-labels", "path", "labels of the MRI, on its grid"),
            _optional("--rows", "rows", "manifest rows, for the mri_labels of a prealigned brain"),
            _optional("--start", "path", "weights of the method on another brain, to train on"),
            _OUT_DIR,
            _CHECKPOINTS,
            _FRESH,
            _STRICT,
        ),
    ),
    Command(
        "infer",
        "deformations and pictures of each section",
        "infer",
        (
            _METHOD,
            Flag("--prepared", "path", "receipt of prepare"),
            Flag("--planes", "path", "receipt of resample"),
            Flag("--affines", "path", "receipt of align-sections"),
            _optional("--registrar", "path", "weights of the registration network"),
            _optional("--weights", "path", "weights of the method's own networks"),
            _OUT_DIR,
            _RECEIPT,
            _STRICT,
        ),
        own_sections=("syn_mi",),
    ),
    Command(
        "reassemble",
        "the 3D histology volume in the space of the MRI",
        "reassemble",
        (
            _BRAIN,
            _METHOD,
            Flag("--sections", "path", "table of infer"),
            _PREPARED,
            _ALIGN_DIR,
            _optional("--mri", "path", "MRI written by prepare-mri"),
            _OUT_DIR,
        ),
    ),
    Command(
        "evaluate",
        "tables of accuracy",
        "evaluate",
        (
            _BRAIN,
            _METHODS,
            _PREPARED,
            _PLANES,
            _ALIGN_DIR,
            _optional("--landmarks", "path", "table of landmarks"),
            _optional("--mri-labels", "path", "labels of the MRI, on its grid"),
            _optional("--rows", "rows", "manifest rows, for the mri_labels of a prealigned brain"),
            _optional("--excluded", "texts", "ids of excluded sections"),
            _OUT_DIR,
            _STRICT,
        ),
    ),
    Command(
        "compare",
        "all methods beside each other: tables, tests, figures",
        "compare",
        (
            _BRAIN,
            _METHODS,
            Flag("--measured", "path", "sections.tsv written by evaluate"),
            _PREPARED,
            _PLANES,
            _optional("--registrar", "path", "loss.tsv written by train-registrar"),
            _ALIGN_DIR,
            _optional("--mri-labels", "path", "labels of the MRI, on its grid"),
            _optional("--rows", "rows", "manifest rows, for the mri_labels of a prealigned brain"),
            _OUT_DIR,
        ),
    ),
    Command(
        "simulate",
        "pairs with a known deformation, from a brain's own sections and MRI planes",
        "simulate",
        (
            Flag("--rows", "rows", "the brain's manifest (.tsv), or its rows as a JSON list"),
            _PREPARED,
            _PLANES,
            Flag("--sections", "path", "table written by align-sections"),
            _ALIGN_DIR,
            _optional("--mri-labels", "path", "labels of the MRI, on its grid"),
            _OUT_DIR,
            _STRICT,
        ),
    ),
    Command(
        "report",
        "one self-contained HTML page",
        "report",
        (
            _BRAIN,
            _METHODS,
            Flag("--results-dir", "path", "folder of the brain's results"),
            Flag("--out", "path", "page to write"),
        ),
    ),
)

TOOLS = ("fetch", "manifest", "import-landmarks", "apply-findings", "train-shapes")
"""Commands without a rule."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of every subcommand."""
    parser = argparse.ArgumentParser(
        prog="sbr",
        description="Histology sections and an MRI of the same brain, to one 3D volume.",
        epilog="`snakemake --cores all` runs these commands in order; `sbr COMMAND --help` lists "
        "the flags of one.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.help, description=command.help)
        for flag in command.flags:
            kwargs: dict[str, Any] = {"help": flag.help}
            if not flag.name.startswith("-"):
                kind = {"type": Path} if flag.kind == "path" else {}
                sub.add_argument(flag.name, **kind, **kwargs)
                continue
            kwargs["dest"] = flag.keyword
            if flag.kind == "switch":
                sub.add_argument(flag.name, action="store_true", **kwargs)
                continue
            if flag.kind in ("paths", "texts", "methods"):
                kwargs["nargs"] = "+"
            if flag.kind in ("path", "paths"):
                kwargs |= {"type": Path, "metavar": "PATH"}
            elif flag.kind == "number":
                kwargs |= {"type": float, "metavar": "X"}
            else:
                kwargs["metavar"] = flag.kind.upper()
            names = (flag.short, flag.name) if flag.short else (flag.name,)
            sub.add_argument(*names, required=flag.required, **kwargs)
        if command.section:
            section = command.section.format(method="METHOD")
            what = f"the section '{section}' of the configuration"
            if command.name == "train-shapes":
                what = f"what config/README.md lists under 'sbr {command.name}'"
            sub.add_argument(
                "--options",
                metavar="JSON",
                help=f"{what}: JSON, or the path of a .json or .yaml file (default: the defaults)",
            )
        sub.add_argument("--debug", action="store_true", help="show the traceback of any error")
    return parser


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
            _dispatch(name, arguments)
    except SbrError as error:
        if debug:
            raise
        return _fault(name, error)
    except OSError as error:
        reason = storage_fault(error)
        if debug or not reason:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _fault(name, StorageError(f"{where}{reason}"))
    except KeyboardInterrupt:
        logger.error(f"sbr {name}: interrupted; the same command goes on")
        return 130
    except _Terminated:
        logger.error(
            f"sbr {name}: SIGTERM: stopped; what is finished is kept, the same command goes on"
        )
        return TERMINATED
    # anything else is a bug: Python shows its traceback and exits with 1
    return 0


def _fault(name: str, error: SbrError) -> int:
    """Log what was wrong with what was given; its exit code."""
    logger.error(f"sbr {name}: {error}")
    return error.exit_code


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


def options_of(name: str, arguments: dict[str, Any]) -> Any:
    """The validated options of a call, taken out of its arguments (None for no section)."""
    command = next(c for c in COMMANDS if c.name == name)
    section = command.section_of(arguments.get("method"))
    return _options(section, arguments.pop("options", None))


def _dispatch(name: str, arguments: dict[str, Any]) -> None:
    command = next(c for c in COMMANDS if c.name == name)
    options = options_of(name, arguments)
    for flag in command.flags:
        value = arguments[flag.keyword]
        if value is None:
            continue
        if flag.kind == "rows":
            arguments[flag.keyword] = _rows(value)
        elif flag.kind == "methods":
            arguments[flag.keyword] = _methods(value)
    importlib.import_module(module_of(name)).run(options, **arguments)


def module_of(name: str) -> str:
    """The module whose `run` is a command."""
    room = "tools" if name in TOOLS else "stages"
    return f"sbr_core.{room}.{name.replace('-', '_')}"


def _options(section: str | None, text: str | None) -> Any:
    """The validated options of a section of the configuration (None for no section)."""
    if section is None:
        return None
    from sbr_core.config import Config, ShapesOptions, load_yaml, parse_options

    # no stage of a brain, so no section of the configuration
    model = {"train_shapes": ShapesOptions}.get(section) or Config.model_fields[section].annotation
    if text is None:
        values = {}
    elif text.lstrip().startswith("{"):
        values = _json(text, "--options")
    else:
        values = load_yaml(Path(text))  # JSON is YAML too
    return parse_options(model, values, section)


def _rows(text: str) -> Any:
    """Manifest rows from a JSON list or from a manifest."""
    from sbr_core.io.manifests import rows_from

    return rows_from(text)


def _methods(items: list[str]) -> dict[str, Path]:
    """``["sbr=results/b/sbr"]`` as ``{"sbr": Path("results/b/sbr")}``, in the order given."""
    found: dict[str, Path] = {}
    for item in items:
        method, equals, folder = item.partition("=")
        if not (method and equals and folder):
            raise ConfigError(f"--methods: expected METHOD=FOLDER, found '{item}'")
        if method in found:
            raise ConfigError(f"--methods: method '{method}' given twice")
        found[method] = Path(folder)
    return found


def _json(text: str, flag: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{flag}: not readable as JSON: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
