"""What reading a damaged file may end in: a result, or one clear line; soon, and in little memory.

Anything else is an `Escape`. Bounds are those of this process, so that thousands of files can be
read in a minute: a timer, the largest resident size since the call began, the address space.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sbr_core.errors import SbrError, storage_fault

SECONDS = 10
"""Of the processor, for a file of at most some hundred kilobytes; other work does not count."""
RESIDENT_MIB = 400
"""Touched more than before; the largest that a good case of these sizes takes is about 60."""
ADDRESS_MIB = 3072
"""Reserved more than before: what is touched only later, in C, ends in a MemoryError here."""
LINE = 2000
"""Characters of the one line; longer ones repeat what is in the file."""


class Escape(AssertionError):
    """A file that ended in something else than a result or one line.

    Attributes
    ----------
    key : what went wrong and where in the package, the same for all files of the same fault.
    """

    def __init__(self, key: str, details: str) -> None:
        super().__init__(f"{key}\n{details}")
        self.key = key


class _TooLong(BaseException):
    """The timer; no `Exception`, so that nothing takes it for a fault of the file."""


@dataclass(frozen=True)
class Outcome:
    """How reading a file ended: with `line` "" in a result."""

    line: str


def outcome_of(read: Callable[[], object]) -> Outcome:
    """Call `read` within the bounds.

    Raises
    ------
    Escape
        An exception that is no fault of the user's, a line that is none, no end, too much memory.
    """
    try:
        return _outcome_of(read)
    except _TooLong as error:  # rang while a fault was handled
        raise _escape(f"more than {SECONDS} s", error) from error


def _outcome_of(read: Callable[[], object]) -> Outcome:
    line = ""
    before_mib = _reset_peak_mib()
    with _bounded(), contextlib.redirect_stdout(io.StringIO()):
        try:
            read()
        except SbrError as error:
            if out_of_memory := _cause(error, MemoryError):
                raise _escape("MemoryError", out_of_memory) from error
            line = str(error)
        except _TooLong as error:
            raise _escape(f"more than {SECONDS} s", error) from error
        except SystemExit as error:
            if error.code != SbrError.exit_code:
                raise _escape(f"exit {error.code}", error) from error
            line = "exit"
        except OSError as error:
            if not (reason := storage_fault(error)):
                raise _escape(type(error).__name__, error) from error
            line = reason
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) or type(error).__module__ == "hypothesis":
                raise
            raise _escape(type(error).__name__, error) from error
    used_mib = _peak_mib() - before_mib
    if used_mib > RESIDENT_MIB:
        raise Escape(f"more than {RESIDENT_MIB} MiB", f"{used_mib:.0f} MiB, then: {line or 'done'}")
    if len(line) > LINE:
        raise Escape("a line that is too long", f"{len(line)} characters: {line[:200]}…")
    return Outcome(line)


def _escape(what: str, error: BaseException) -> Escape:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if f"{os.sep}sbr_core{os.sep}" in f.filename] or frames[-1:]
    where = f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else "?"
    text = "".join(traceback.format_exception(error, limit=-12))
    return Escape(f"{what} in {where}", text[-6000:])


def _cause(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, kind):
        cause = cause.__cause__ or cause.__context__
    return cause


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise _TooLong

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGPROF, ring)
    resource.setrlimit(
        resource.RLIMIT_AS, (_status_kib("VmSize") * 1024 + ADDRESS_MIB * 2**20, hard)
    )
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _status_kib(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    return 0


def _reset_peak_mib() -> float:
    """Forget the largest resident size so far; the present one."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status_kib("VmRSS") / 1024


def _peak_mib() -> float:
    return _status_kib("VmHWM") / 1024
