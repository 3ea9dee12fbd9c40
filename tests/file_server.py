"""A web server for tests: files from memory, and the faults a real one has, in a given order."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


@dataclass
class FileServer:
    """Serves `files` at `url` while it is open.

    Attributes
    ----------
    files : path, as after the first slash -> content.
    faults : path -> what happens to the next requests for it, first to last: ``drop`` (half of it,
        then the connection ends), ``corrupt`` (the right number of other bytes), or an HTTP
        status; 429 asks to wait an hour.
    requests : path of every request, in order.
    """

    files: Mapping[str, bytes]
    faults: dict[str, list[str | int]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def __enter__(self) -> FileServer:
        self._server = _QuietServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/"


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that leaves in the middle."""


def _handler(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 5
        wbufsize = 1 << 16  # head and body of a short file leave together, without a wait between

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            path = unquote(self.path).lstrip("/")
            server.requests.append(path)
            faults = server.faults.get(path, [])
            fault = faults.pop(0) if faults else None
            content = server.files.get(path)
            if isinstance(fault, int) or content is None:
                self._answer(404 if content is None else fault)
                return
            if fault == "corrupt":
                content = bytes(255 - b for b in content)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if fault == "drop":
                content = content[: len(content) // 2]
                self.close_connection = True
            self.wfile.write(content)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            if status == 429:
                self.send_header("Retry-After", "3600")
            self.end_headers()

    return Handler
