"""Downloads against a server of this machine with the faults of real ones."""

import errno
import hashlib
import os
import threading
from collections import Counter
from pathlib import Path

import pytest

from sbr_core.errors import DownloadError
from sbr_core.io import downloads
from sbr_core.io.downloads import RemoteFile, fetch_files

FILES = {
    "data/one.png": os.urandom(1 << 18),
    "data/deep/two two.txt": b"2" * 1000,
    "data/three.txt": b"3",
}
ONE = "data/one.png"


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """Seconds that were to be waited for; nothing waits."""
    seconds = []
    monkeypatch.setattr("time.sleep", seconds.append)
    return seconds


def remote(server, files=FILES):
    """The files as `fetch_files` is asked for them."""
    return {
        path: RemoteFile(server.url + path, len(b), hashlib.sha256(b).hexdigest())
        for path, b in files.items()
    }


def only_one(server):
    return remote(server, {ONE: FILES[ONE]})


def found(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_file_arrives_once_and_a_second_time_none(serve, tmp_path, caplog):
    caplog.set_level("INFO", "sbr_core")
    server = serve(FILES)
    assert fetch_files(remote(server), tmp_path) == 3
    assert found(tmp_path) == FILES
    assert Counter(server.requests) == dict.fromkeys(FILES, 1)
    assert caplog.messages == ["fetch: 3/3 files, 0.3 of 0.3 MB"]
    (tmp_path / "other").touch()
    modes = {p.stat().st_mode for p in tmp_path.rglob("*") if p.is_file()}
    assert len(modes) == 1, "who may read them is the user's choice, as of any file"
    assert fetch_files(remote(server), tmp_path) == 0
    assert len(server.requests) == 3


@pytest.mark.parametrize("fault", ["drop", "corrupt", 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(serve, tmp_path, fault, waits):
    server = serve(FILES, faults={ONE: [fault] * 4})
    fetch_files(only_one(server), tmp_path)
    assert found(tmp_path) == {ONE: FILES[ONE]}
    assert server.requests == [ONE] * 5
    if fault == 429:
        assert waits == [60] * 4, "the server asks for an hour each time"
    else:
        assert 4 <= sum(waits) <= 10


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("drop", "no connection, or it dropped .*, 5 times in a row"),
        ("corrupt", "came 5 times with another sha256"),
        (503, "the server answers 503"),
    ],
)
def test_what_does_not_pass_is_one_line_and_the_next_run_goes_on(serve, tmp_path, fault, said):
    server = serve(FILES, faults={ONE: [fault] * 5})
    fetch_files(remote(server, {k: v for k, v in FILES.items() if k != ONE}), tmp_path)
    server.requests.clear()
    with pytest.raises(DownloadError, match=f"one.png: {said}"):
        fetch_files(remote(server), tmp_path)
    assert ONE not in found(tmp_path) and server.requests == [ONE] * 5
    server.requests.clear()
    fetch_files(remote(server), tmp_path)
    assert found(tmp_path) == FILES and server.requests == [ONE]


@pytest.mark.parametrize(
    "content", [FILES[ONE] + bytes(1_000_000), b"please log in"], ids=["longer", "login page"]
)
def test_another_file_in_its_place_is_refused(serve, tmp_path, content):
    server = serve(FILES | {ONE: content})
    with pytest.raises(DownloadError, match="one.png: came 5 times with another sha256"):
        fetch_files(only_one(server), tmp_path)
    assert found(tmp_path) == {}


def test_a_file_spoilt_after_its_download_is_fetched_again(serve, tmp_path):
    server = serve(FILES)
    fetch_files(remote(server), tmp_path)
    (tmp_path / ONE).write_bytes(FILES[ONE][:-1] + b"?")
    assert fetch_files(remote(server), tmp_path) == 1
    assert found(tmp_path) == FILES


@pytest.mark.parametrize("code", [403, 404, 410])
def test_what_will_not_pass_is_one_line_at_once(serve, tmp_path, code):
    server = serve(FILES, faults={ONE: [code] * 9})
    with pytest.raises(DownloadError, match=f"one.png: the server answers {code}"):
        fetch_files(only_one(server), tmp_path)
    assert len(server.requests) == 1


def test_no_server_and_no_address(serve, tmp_path):
    server = serve(FILES)
    gone = remote(server)
    server.__exit__()
    with pytest.raises(DownloadError, match="no connection, or it dropped .* 5 times in a row"):
        fetch_files(gone, tmp_path)
    server.__enter__()  # for the end of the test
    with pytest.raises(DownloadError, match="no-address/one.png: Invalid URL"):
        fetch_files({"one.png": RemoteFile("no-address/one.png", 1, "")}, tmp_path)


def test_one_fault_stops_the_rest(serve, tmp_path):
    many = {f"{i:03d}": b"x" for i in range(200)}
    server = serve(many, faults={"000": [404]})
    with pytest.raises(DownloadError, match="404"):
        fetch_files(remote(server, many), tmp_path, connections=2)
    assert len(server.requests) < 200


def test_files_travel_side_by_side(serve, tmp_path):
    """Each of three requests is answered only once all three are there."""
    together = threading.Barrier(3, timeout=10)

    class Waits(dict):
        def get(self, path, default=None):
            together.wait()
            return super().get(path, default)

    server = serve(Waits(FILES))
    fetch_files(remote(server), tmp_path, connections=3)
    assert found(tmp_path) == FILES


def test_a_full_disk_is_one_line(serve, tmp_path, monkeypatch):
    server = serve(FILES)

    def full(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(DownloadError, match="one.png: not writable: No space left on device"):
            fetch_files(only_one(server), tmp_path)
    assert found(tmp_path) == {}
    usage = downloads.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: usage._replace(free=200_000))
    server.requests.clear()
    with pytest.raises(DownloadError, match="0.3 MB are to be written, 0.2 MB are free"):
        fetch_files(remote(server), tmp_path / "b")
    assert server.requests == []


def test_a_place_that_cannot_be_written_is_one_line(serve, tmp_path):
    server = serve(FILES)
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(DownloadError, match="one.png: not writable: "):
        fetch_files(only_one(server), tmp_path)


def test_an_interrupt_stops_all_and_the_next_run_goes_on(serve, tmp_path, monkeypatch):
    many = {f"{i:03d}": b"x" for i in range(200)}
    server = serve(many)

    def interrupted(futures):
        yield next(iter(futures))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(downloads, "as_completed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch_files(remote(server, many), tmp_path, connections=2)
    assert len(server.requests) < 200
    fetch_files(remote(server, many), tmp_path, connections=2)
    assert found(tmp_path) == many
    assert len(server.requests) <= 202  # the two that were under way may have been asked for again
