"""Downloads against a server of this machine with the faults of real ones."""

import hashlib
import os
import threading
from collections import Counter

import pytest

from sbr_core.errors import DownloadError
from sbr_core.io import downloads
from sbr_core.io.downloads import Patience, RemoteFile, fetch_files

QUICK = Patience(tries=3, backoff_s=0.01, timeout_s=5)
FILES = {
    "data/one.png": os.urandom(1 << 18),  # many blocks
    "data/deep/two two.txt": b"2" * 1000,
    "data/three.txt": b"3",
}
ONE = "data/one.png"


def remote(server, folder, files=FILES):
    """The files as `fetch_files` is asked for them."""
    return [
        RemoteFile(server.url + path, folder / path, len(b), hashlib.sha256(b).hexdigest())
        for path, b in files.items()
    ]


def only(server, folder, path=ONE):
    return remote(server, folder, {path: FILES[path]})


def found(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_file_arrives_once_and_a_second_time_none(serve, tmp_path, capsys):
    server = serve(FILES)
    files = remote(server, tmp_path)
    assert fetch_files(files, patience=QUICK) == 3
    assert found(tmp_path) == FILES
    assert Counter(server.requests) == {(path, 0): 1 for path in FILES}
    assert "fetch: 3/3 files, 0.3 of 0.3 MB" in capsys.readouterr().err
    assert fetch_files(files, patience=QUICK) == 0
    assert len(server.requests) == 3


# half, then half of the rest, then the rest; or each time from the first byte
@pytest.mark.parametrize(("ranges", "third"), [(True, 3 << 16), (False, 1 << 17)])
def test_a_dropped_connection_is_gone_on_with(serve, tmp_path, ranges, third):
    server = serve(FILES, faults={ONE: ["drop", "drop"]}, ranges=ranges)
    fetch_files(only(server, tmp_path), patience=QUICK)
    assert found(tmp_path) == {ONE: FILES[ONE]}
    assert [start for _, start in server.requests] == [0, 1 << 17, third]


def test_drops_do_not_wear_out_patience_while_bytes_arrive(serve, tmp_path):
    server = serve(FILES, faults={ONE: ["drop"] * 8})
    fetch_files(only(server, tmp_path), patience=QUICK)
    assert found(tmp_path) == {ONE: FILES[ONE]}


def test_an_interrupted_run_is_gone_on_with(serve, tmp_path):
    server = serve(FILES, faults={ONE: ["drop", 503, 503]})
    with pytest.raises(DownloadError, match="one.png: the server answers 503 .* 3 times in a row"):
        fetch_files(only(server, tmp_path), patience=QUICK)
    assert found(tmp_path) == {f"{ONE}.part": FILES[ONE][: 1 << 17]}
    server.requests.clear()
    fetch_files(only(server, tmp_path), patience=QUICK)
    assert server.requests == [(ONE, 1 << 17)]
    assert found(tmp_path) == {ONE: FILES[ONE]}


def test_a_part_that_is_whole_already_needs_no_server(serve, tmp_path):
    server = serve({})
    (tmp_path / "data").mkdir()
    (tmp_path / f"{ONE}.part").write_bytes(FILES[ONE])
    fetch_files(only(server, tmp_path), patience=QUICK)
    assert found(tmp_path) == {ONE: FILES[ONE]} and server.requests == []


@pytest.mark.parametrize(
    "left", [b"not this file" * 9, FILES[ONE] + b"more"], ids=["other bytes", "too long"]
)
def test_a_part_of_another_file_is_thrown_away(serve, tmp_path, left):
    server = serve(FILES)
    (tmp_path / "data").mkdir()
    (tmp_path / f"{ONE}.part").write_bytes(left)
    fetch_files(only(server, tmp_path), patience=QUICK)
    assert found(tmp_path) == {ONE: FILES[ONE]}


def test_a_file_damaged_on_its_way_is_fetched_again_and_twice_refused(serve, tmp_path):
    server = serve(FILES, faults={ONE: ["corrupt"]})
    fetch_files(only(server, tmp_path), patience=QUICK)
    assert found(tmp_path) == {ONE: FILES[ONE]}
    server = serve(FILES, faults={ONE: ["corrupt"] * 2})
    with pytest.raises(DownloadError, match="one.png: came twice with another sha256"):
        fetch_files(only(server, tmp_path / "b"), patience=QUICK)
    assert found(tmp_path / "b") == {} and len(server.requests) == 2


def test_a_file_longer_than_it_should_be_is_refused(serve, tmp_path):
    server = serve(FILES | {ONE: FILES[ONE] + bytes(10_000_000)})
    with pytest.raises(DownloadError, match="one.png: came twice with another sha256"):
        fetch_files(only(server, tmp_path), patience=QUICK)
    assert found(tmp_path) == {}


def test_a_shorter_file_in_its_place_is_refused(serve, tmp_path):
    """As the page of a network that asks for a password is."""
    server = serve(FILES | {ONE: b"please log in"}, ranges=False)
    with pytest.raises(DownloadError, match="one.png: ended after 13 of 262144 bytes"):
        fetch_files(only(server, tmp_path), patience=QUICK)


def test_a_file_spoilt_after_its_download_is_fetched_again(serve, tmp_path):
    server = serve(FILES)
    fetch_files(remote(server, tmp_path), patience=QUICK)
    (tmp_path / ONE).write_bytes(FILES[ONE][:-1] + b"?")
    assert fetch_files(remote(server, tmp_path), patience=QUICK) == 1
    assert found(tmp_path) == FILES


@pytest.mark.parametrize("fault", [429, 500, 502, 503, 504, "shift"])
def test_what_may_pass_is_tried_again(serve, tmp_path, fault):
    server = serve(FILES, faults={ONE: ["drop", fault]})
    fetch_files(only(server, tmp_path), patience=QUICK)
    assert found(tmp_path) == {ONE: FILES[ONE]}


def test_the_server_may_say_how_long_to_wait(monkeypatch):
    reply = downloads.requests.Response()
    assert downloads._retry_after_s(reply) is None
    reply.headers["Retry-After"] = "7"
    assert downloads._retry_after_s(reply) == 7.0
    waits = []
    fetcher = downloads._Fetcher(Patience(longest_wait_s=60.0), progress=None)
    monkeypatch.setattr(fetcher.stop, "wait", lambda seconds: waits.append(seconds))
    fetcher._pause(7.0)
    fetcher._pause(3600.0)
    assert waits == [7.0, 60.0]


@pytest.mark.parametrize("code", [403, 404, 410])
def test_what_will_not_pass_is_one_line_at_once(serve, tmp_path, code):
    server = serve(FILES, faults={ONE: [code] * 9})
    with pytest.raises(DownloadError, match=f"one.png: the server answers {code}"):
        fetch_files(only(server, tmp_path), patience=QUICK)
    assert len(server.requests) == 1


def test_no_server_and_no_address(serve, tmp_path):
    server = serve(FILES)
    gone = remote(server, tmp_path)
    server.__exit__()
    with pytest.raises(DownloadError, match="no connection, or it dropped .* 3 times in a row"):
        fetch_files(gone, patience=QUICK)
    server.__enter__()  # for the end of the test
    strange = RemoteFile("no-address/one.png", tmp_path / "one.png", 1, "")
    with pytest.raises(DownloadError, match="no-address/one.png: Invalid URL"):
        fetch_files([strange], patience=QUICK)


def test_one_fault_stops_the_rest(serve, tmp_path):
    many = {f"{i:03d}": b"x" for i in range(200)}
    server = serve(many, faults={"000": [404]})
    with pytest.raises(DownloadError, match="404"):
        fetch_files(remote(server, tmp_path, many), connections=2, patience=QUICK)
    assert len(server.requests) < 200


def test_files_travel_side_by_side(serve, tmp_path):
    """Each of three requests is answered only once all three are there."""
    together = threading.Barrier(3, timeout=10)

    class Waits(dict):
        def get(self, path, default=None):
            together.wait()
            return super().get(path, default)

    server = serve(Waits(FILES))
    fetch_files(remote(server, tmp_path), connections=3, patience=QUICK)
    assert found(tmp_path) == FILES


def test_a_full_disk_is_one_line(serve, tmp_path, monkeypatch):
    server = serve(FILES)
    (tmp_path / "data").mkdir()
    (tmp_path / f"{ONE}.part").symlink_to("/dev/full")
    with pytest.raises(DownloadError, match="one.png.part: not writable: No space left on device"):
        fetch_files(only(server, tmp_path), patience=QUICK)
    usage = downloads.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: usage._replace(free=200_000))
    server.requests.clear()
    with pytest.raises(DownloadError, match="0.3 MB are to be written, 0.2 MB are free"):
        fetch_files(remote(server, tmp_path / "b"), patience=QUICK)
    assert server.requests == []


def test_a_place_that_cannot_be_written_is_one_line(serve, tmp_path):
    server = serve(FILES)
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(DownloadError, match="one.png.part: not writable: "):
        fetch_files(only(server, tmp_path), patience=QUICK)


def test_an_interrupt_stops_all_and_the_next_run_goes_on(serve, tmp_path, monkeypatch):
    many = {f"{i:03d}": b"x" for i in range(200)}
    server = serve(many)

    def interrupted(futures):
        yield futures[0]
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(downloads, "as_completed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch_files(remote(server, tmp_path, many), connections=2, patience=QUICK)
    assert len(server.requests) < 200
    fetch_files(remote(server, tmp_path, many), connections=2, patience=QUICK)
    assert found(tmp_path) == many
    assert len(server.requests) <= 202  # the two that were under way may have been asked for again
