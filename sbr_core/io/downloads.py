"""Files from the web: gone on with where they stopped, tried again, checked, and whole or absent.

A file grows as ``NAME.part`` beside its place and is renamed when its size and sha256 are those
it should have. What an interrupted run left is gone on with by HTTP Range (RFC 9110, section 14),
or begun again where the server knows no ranges.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import requests

from sbr_core.errors import DownloadError
from sbr_core.io.files import sha256_file

_BLOCK_BYTES = 1 << 10  # of a block that a dropped connection cuts short, nothing is kept
_LATER = {408, 425, 429, 500, 502, 503, 504}
"""Answers that may be another one soon (RFC 9110, sections 15.5 and 15.6; RFC 6585; RFC 8470)."""
_REPORT_EVERY_S = 2.0


@dataclass(frozen=True)
class RemoteFile:
    """One file: where it comes from, where it goes, and what it must be."""

    url: str
    path: Path
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Patience:
    """How often and how long to wait for a server.

    Attributes
    ----------
    tries : times in a row that a file may fail without one more byte of it arriving.
    backoff_s : wait after the first failure; doubled after each further one.
    longest_wait_s : no wait is longer, whatever the server asks for.
    timeout_s : silence after which a connection counts as dropped.
    """

    tries: int = 5
    backoff_s: float = 0.5
    longest_wait_s: float = 60.0
    timeout_s: float = 30.0


class _Later(Exception):
    """A failure that may pass; `wait_s` is what the server asked for, if anything."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class _Stopped(Exception):
    """Another file's fault, or the user, ended the whole."""


def fetch_files(
    files: Sequence[RemoteFile], *, connections: int = 4, patience: Patience = Patience()
) -> int:
    """Bring every file to its place; those that are there and right are left alone.

    Parameters
    ----------
    connections : files under way at once, each on a connection that is kept open.

    Returns
    -------
    How many files were not there before, or not right.

    Raises
    ------
    DownloadError
        A file that the server does not have, that arrives twice with another content than it
        should have, or that no patience brings; a disk that takes no more. What had arrived stays,
        and the same call goes on from there.
    """
    missing = [file for file in files if not _is_right(file)]
    if not missing:
        return 0
    _require_space(missing)
    progress = _Progress(files, missing)
    fetcher = _Fetcher(patience, progress)
    with ThreadPoolExecutor(connections) as pool:
        futures = [pool.submit(fetcher.fetch, file) for file in missing]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            fetcher.stop.set()
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            fetcher.close()
            progress.say()
    return len(missing)


def _is_right(file: RemoteFile) -> bool:
    return (
        file.path.is_file()
        and file.path.stat().st_size == file.size_bytes
        and sha256_file(file.path) == file.sha256
    )


def _part(file: RemoteFile) -> Path:
    return file.path.with_name(file.path.name + ".part")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _require_space(files: Sequence[RemoteFile]) -> None:
    """Refuse at once what cannot end well."""
    wanted = sum(max(0, file.size_bytes - _size(_part(file))) for file in files)
    folder = next(p for p in (files[0].path, *files[0].path.parents) if p.is_dir())
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise DownloadError(
            f"{folder}: {wanted / 1e6:.1f} MB are to be written, {free / 1e6:.1f} MB are free"
        )


class _Progress:
    """How far the whole is, said on stderr every other second."""

    def __init__(self, files: Sequence[RemoteFile], missing: Sequence[RemoteFile]) -> None:
        self._total, self._total_bytes = len(files), sum(f.size_bytes for f in files)
        self._files = self._total - len(missing)
        self._bytes = self._total_bytes - sum(f.size_bytes for f in missing)
        self._lock, self._said_s = threading.Lock(), time.monotonic()

    def done(self, file: RemoteFile) -> None:
        """Count a file that is in its place."""
        with self._lock:
            self._files += 1
            self._bytes += file.size_bytes
            if time.monotonic() - self._said_s > _REPORT_EVERY_S:
                self.say()

    def say(self) -> None:
        """Print the numbers."""
        self._said_s = time.monotonic()
        print(
            f"fetch: {self._files}/{self._total} files,"
            f" {self._bytes / 1e6:.1f} of {self._total_bytes / 1e6:.1f} MB",
            file=sys.stderr,
        )


class _Fetcher:
    """Fetches one file at a time in each of several threads, until told to stop."""

    def __init__(self, patience: Patience, progress: _Progress) -> None:
        self.stop = threading.Event()
        self._patience, self._progress = patience, progress
        self._own = threading.local()
        self._sessions: list[requests.Session] = []

    def close(self) -> None:
        """Close every connection that was kept open."""
        for session in self._sessions:
            session.close()

    def fetch(self, file: RemoteFile) -> None:
        """Bring one file to its place."""
        part = _part(file)
        failures = wrong = furthest = 0
        while True:
            try:
                if _size(part) != file.size_bytes:
                    self._receive(file, part)
                if sha256_file(part) == file.sha256:
                    os.replace(part, file.path)
                    self._progress.done(file)
                    return
                part.unlink()
            except _Later as fault:
                arrived = _size(part)
                # a connection that drops every so often still brings the file to its end
                failures = 1 if arrived > furthest else failures + 1
                furthest = max(furthest, arrived)
                if failures >= self._patience.tries:
                    raise DownloadError(
                        f"{file.url}: {fault}, {failures} times in a row; the same command goes on"
                        " from here"
                    ) from None
                self._pause(fault.wait_s or self._patience.backoff_s * 2 ** (failures - 1))
            except OSError as error:
                raise DownloadError(f"{part}: not writable: {error.strerror}") from None
            else:
                wrong += 1
                if wrong > 1:
                    raise DownloadError(
                        f"{file.url}: came twice with another sha256 than {file.sha256}: damaged on"
                        " its way, or not the file it was"
                    )

    def _receive(self, file: RemoteFile, part: Path) -> None:
        """Append to `part` what is missing of it, or write it anew; `_Later` if it stays short."""
        if _size(part) > file.size_bytes:
            part.unlink()
        part.parent.mkdir(parents=True, exist_ok=True)
        start = _size(part)
        # ranges count the bytes that travel, so these must be the file's own
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        try:
            with self._session().get(
                file.url, headers=headers, stream=True, timeout=self._patience.timeout_s
            ) as reply:
                continues = self._continues(file, part, reply, start)
                with open(part, "ab" if continues else "wb") as stream:
                    for block in reply.iter_content(_BLOCK_BYTES):
                        if self.stop.is_set():
                            raise _Stopped
                        stream.write(block)
                        if stream.tell() > file.size_bytes:
                            return  # too long already, so its sha256 will be another one
        except (
            requests.exceptions.ConnectionError,
            requests.exceptions.ChunkedEncodingError,
            requests.exceptions.Timeout,
        ) as error:
            raise _Later(f"no connection, or it dropped ({type(error).__name__})") from None
        except requests.exceptions.RequestException as error:
            raise DownloadError(f"{file.url}: {error}") from None
        if (arrived := _size(part)) < file.size_bytes:
            raise _Later(f"ended after {arrived} of {file.size_bytes} bytes")

    def _continues(
        self, file: RemoteFile, part: Path, reply: requests.Response, start: int
    ) -> bool:
        """Whether the reply begins where `part` ends; an exception if it is not the file at all."""
        code = reply.status_code
        if code in _LATER:
            raise _Later(f"the server answers {code} {reply.reason}", _retry_after_s(reply))
        if code == 206 and reply.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            return True
        if code in (206, 416):  # another range than was asked for, or none that it has
            part.unlink(missing_ok=True)
            raise _Later(f"the server answers {code} {reply.reason} to a range")
        if code != 200:
            raise DownloadError(f"{file.url}: the server answers {code} {reply.reason}")
        return False

    def _session(self) -> requests.Session:
        """This thread's own session, so that its connection is kept open from file to file."""
        if not hasattr(self._own, "session"):
            self._own.session = requests.Session()
            self._sessions.append(self._own.session)
        return self._own.session

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(min(seconds, self._patience.longest_wait_s)):
            raise _Stopped


def _retry_after_s(reply: requests.Response) -> float | None:
    """Seconds of the reply's Retry-After; None where it has none, or a date."""
    text = reply.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None
