"""Files from the web by pooch: checked, tried again, and whole or absent.

A file is written under another name and renamed once its sha256 is right, so that an interrupted
call goes on with the files that are missing.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import pooch
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from sbr_core.errors import DownloadError
from sbr_core.io.files import sha256_file

logger = logging.getLogger(__name__)
pooch.get_logger().setLevel(logging.WARNING)  # it has two lines for each file

_TRIES = 5
"""For one file. The waits between them are 10 s in all: a router that starts anew takes longer,
but who waits before the screen sees the reason soon, and the same command goes on."""
_TIMEOUT_S = 30.0
"""Silence after which a connection counts as dropped; GitHub answers within a second."""
_LONGEST_WAIT_S = 60
"""No wait is longer, whatever the server asks for; GitHub's limit is counted by the minute."""
_PASSING_STATUSES = (408, 425, 429, 500, 502, 503, 504)
"""Answers that may be another one soon (RFC 9110, sections 15.5 and 15.6; RFC 6585; RFC 8470)."""
_PASSING_FAULTS = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)
"""What a connection that drops raises; other exceptions of `requests` are faults of the address."""
_REPORT_EVERY_S = 2.0
"""Between two lines of progress: seldom enough for a log, often enough to see that it goes on."""


@dataclass(frozen=True)
class RemoteFile:
    """Where a file comes from, and what it must be."""

    url: str
    size_bytes: int
    sha256: str


def fetch_files(files: Mapping[str, RemoteFile], folder: Path, *, connections: int = 4) -> int:
    """Bring every file to its place; those that are there and right are left alone.

    Parameters
    ----------
    files : path below `folder` -> file.
    connections : files under way at once, each on a connection that is kept open.

    Returns
    -------
    How many files were not there before, or not right.

    Raises
    ------
    DownloadError
        A file that the server does not have, that does not arrive, or that has another content
        than it should have, each time it is tried; a disk that is full or not writable. Files that
        have arrived stay.
    """
    missing = {name: file for name, file in files.items() if not _is_right(folder / name, file)}
    if not missing:
        return 0
    _require_space(folder, sum(file.size_bytes for file in missing.values()))
    left = dict(missing)
    downloader = _Downloader(connections)
    fetcher = pooch.Pooch(
        folder,
        base_url="",
        registry={name: f"sha256:{file.sha256}" for name, file in missing.items()},
        urls={name: file.url for name, file in missing.items()},
        retry_if_failed=_TRIES - 1,
    )
    reported_s = time.monotonic()
    with ThreadPoolExecutor(connections) as pool:
        futures = {pool.submit(_fetch, fetcher, name, downloader): name for name in missing}
        try:
            for future in as_completed(futures):
                future.result()
                del left[futures[future]]
                if time.monotonic() - reported_s > _REPORT_EVERY_S:
                    reported_s = time.monotonic()
                    _report(files, left)
        except BaseException:
            downloader.stop.set()
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            downloader.session.close()
            _report(files, left)
    return len(missing)


def _is_right(path: Path, file: RemoteFile) -> bool:
    return (
        path.is_file()
        and path.stat().st_size == file.size_bytes
        and sha256_file(path) == file.sha256
    )


def _require_space(folder: Path, size_bytes: int) -> None:
    """Refuse at once what would fill the disk."""
    existing = next(p for p in (folder, *folder.absolute().parents) if p.is_dir())
    free = shutil.disk_usage(existing).free
    if free < size_bytes:
        raise DownloadError(
            f"{existing}: {size_bytes / 1e6:.1f} MB are to be written, {free / 1e6:.1f} MB are free"
        )


def _report(files: Mapping[str, RemoteFile], left: Mapping[str, RemoteFile]) -> None:
    total, missing = (sum(file.size_bytes for file in some.values()) for some in (files, left))
    logger.info(
        f"fetch: {len(files) - len(left)}/{len(files)} files,"
        f" {(total - missing) / 1e6:.1f} of {total / 1e6:.1f} MB"
    )


class _Downloader:
    """What pooch downloads with, in several threads: it keeps connections open between files.

    A status that may pass is asked for again here, after the wait that the server names; a dropped
    connection and a wrong file are tried again by pooch.
    """

    def __init__(self, connections: int) -> None:
        self.stop = threading.Event()
        self.session = requests.Session()
        statuses = Retry(
            total=_TRIES - 1,
            connect=0,
            read=False,
            status_forcelist=_PASSING_STATUSES,
            backoff_factor=0.5,
            backoff_max=_LONGEST_WAIT_S,
            retry_after_max=_LONGEST_WAIT_S,
            raise_on_status=False,
        )
        adapter = HTTPAdapter(pool_maxsize=connections, max_retries=statuses)
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, adapter)

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Write one file; an exception of `requests` where another try may bring it."""
        if self.stop.is_set():
            raise DownloadError(f"{url}: stopped")
        try:
            reply = self.session.get(url, timeout=_TIMEOUT_S)
        except _PASSING_FAULTS:
            raise
        except requests.RequestException as error:
            raise DownloadError(f"{url}: {error}") from None
        if reply.status_code != requests.codes.ok:
            passing = reply.status_code in _PASSING_STATUSES
            often = (
                ", each time it was asked; the same command goes on from here" if passing else ""
            )
            raise DownloadError(
                f"{url}: the server answers {reply.status_code} {reply.reason}{often}"
            )
        Path(output_file).unlink()  # pooch made it for its owner alone to read
        Path(output_file).write_bytes(reply.content)


def _fetch(fetcher: pooch.Pooch, name: str, downloader: _Downloader) -> None:
    """Bring one file to its place."""
    url, path = fetcher.get_url(name), Path(fetcher.path) / name
    try:
        # pooch would, but fails where another thread made the folder at the same time
        path.parent.mkdir(parents=True, exist_ok=True)
        fetcher.fetch(name, downloader=downloader)
    except requests.RequestException as error:
        raise DownloadError(
            f"{url}: no connection, or it dropped ({type(error).__name__}), {_TRIES} times in a"
            " row; the same command goes on from here"
        ) from None
    except ValueError:
        raise DownloadError(
            f"{url}: came {_TRIES} times with another sha256 than"
            f" {fetcher.registry[name].removeprefix('sha256:')}: damaged on its way, or not the"
            " file it was"
        ) from None
    except OSError as error:
        raise DownloadError(f"{path}: not writable: {error.strerror}") from None
