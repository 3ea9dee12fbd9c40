"""A headless Chromium, driven over the pipe of its DevTools protocol.

The protocol is JSON between two file descriptors (``--remote-debugging-pipe``), so that no driver,
no socket and no package is needed: https://chromedevtools.github.io/devtools-protocol/.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

PROGRAM = "chromium"
WAIT_S = 60
"""For an answer of the browser, on a machine that is busy."""
_KEYS = {
    "Enter": ("Enter", 13, "\r"),
    "Escape": ("Escape", 27, ""),
    "Backspace": ("Backspace", 8, ""),
}
_KEYS |= {
    f"Arrow{side}": (f"Arrow{side}", 37 + i, "")
    for i, side in enumerate(("Left", "Up", "Right", "Down"))
}


class Refused(Exception):
    """What the browser would not do."""


class Chrome:
    """One page in a browser of its own; what the page logs and asks for is kept.

    Parameters
    ----------
    folder : for its profile and downloads.
    size : (width, height) of the window.
    """

    def __init__(self, folder: Path, size: tuple[int, int] = (1400, 1000)) -> None:
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._sent, self._rest, self._answers = 0, b"", {}
        self._session: str | None = None
        child_in, self._out = os.pipe()
        self._in, child_out = os.pipe()
        command = [shutil.which(PROGRAM), "--headless", "--remote-debugging-pipe", "--no-first-run"]
        command += [f"--user-data-dir={folder / 'profile'}", f"--window-size={size[0]},{size[1]}"]
        command += ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]

        def pipes() -> None:  # where Chromium looks for them
            for kept, at in ((os.dup(child_in), 3), (os.dup(child_out), 4)):
                os.dup2(kept, at)

        with (folder / "chromium.log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                preexec_fn=pipes,
                close_fds=False,
                stdout=log,
                stderr=log,
            )
        os.close(child_in)
        os.close(child_out)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Network", "Log", "Performance"):
            self.call(f"{domain}.enable")
        self.resize(*size)
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError, OSError, EOFError):
            self._session = None
            self.call("Browser.close")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol, and its result."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        until = time.monotonic() + WAIT_S
        while self._sent not in self._answers:
            self._read(until)
        answer = self._answers.pop(self._sent)
        if "error" in answer:
            raise Refused(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _read(self, until: float) -> None:
        """Take in what the browser has said, and wait for something if it has not."""
        if not select.select([self._in], [], [], max(0, until - time.monotonic()))[0]:
            raise TimeoutError("Chromium does not answer")
        data = os.read(self._in, 1 << 20)
        if not data:
            raise EOFError("Chromium has ended")
        *messages, self._rest = (self._rest + data).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self._take(message["method"], message.get("params", {}))

    def _take(self, method: str, said: Mapping[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(said["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(said["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and said["type"] in (
            "error",
            "warning",
            "assert",
        ):
            self.complaints.append(str(said["args"]))
        elif method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.complaints.append(said["entry"]["text"])
        elif method == "Page.javascriptDialogOpening":
            self.complaints.append(f"dialog: {said['message']}")

    def open(self, page: Path | str) -> None:
        """Open a file and wait until it is there."""
        url = page.as_uri() if isinstance(page, Path) else page
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def reload(self) -> None:
        self.run("window.isOld = true")
        self.call("Page.reload")
        self.until("!window.isOld && document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of an expression on the page, awaited where it is a promise."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, (script, answer)
        return answer["result"].get("value")

    def until(self, script: str, seconds: float = WAIT_S) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + seconds
        while True:
            with contextlib.suppress(Refused):  # the page of before has just gone
                if self.run(script):
                    return
            assert time.monotonic() < until, f"never became true: {script}"
            time.sleep(0.03)

    def text(self, selector: str) -> str:
        return self.run(f"document.querySelector({json.dumps(selector)}).textContent")

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """(left, top, width, height) of an element, once it was scrolled into view."""
        name = json.dumps(selector)
        return tuple(
            self.run(
                f"(() => {{ const e = document.querySelector({name});"
                " e.scrollIntoView({ block: 'center', behavior: 'instant' });"
                " const b = e.getBoundingClientRect();"
                " return [b.left, b.top, b.width, b.height]; })()"
            )
        )

    def click(self, selector: str, at: tuple[float, float] = (0.5, 0.5)) -> None:
        """Click an element with the mouse, at a share of its width and height."""
        left, top, width, height = self.box(selector)
        assert width and height, f"{selector} is not to be seen"
        self.drag((left + at[0] * width, top + at[1] * height))

    def drag(self, *points: tuple[float, float]) -> None:
        """Press at the first point, move to the others, and let go."""
        mouse = {"button": "left", "clickCount": 1}
        x, y = points[0]
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, **mouse)
        for x, y in points[1:]:
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, **mouse)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, **mouse)

    def press(self, *keys: str) -> None:
        """Press keys, one after the other: letters, or names such as ``ArrowLeft``."""
        for key in keys:
            code, number, text = _KEYS.get(key, ("", ord(key[0].upper()), key))
            named = {"key": key, "code": code, "windowsVirtualKeyCode": number}
            down = {"type": "keyDown" if text else "rawKeyDown", "text": text, **named}
            self.call("Input.dispatchKeyEvent", **down)
            self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def write(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def choose_file(self, selector: str, path: Path) -> None:
        document = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=document, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def heap_mb(self) -> float:
        """What the scripts of the page hold."""
        self.call("HeapProfiler.collectGarbage")
        metrics = self.call("Performance.getMetrics")["metrics"]
        return next(m["value"] for m in metrics if m["name"] == "JSHeapUsedSize") / 1e6

    def memory_mb(self) -> tuple[float, float]:
        """Of the page's process, and of all the browser's; what is shared counts in parts."""
        root = psutil.Process(self._process.pid)
        page, total = 0, 0
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                size = process.memory_full_info().pss
                total += size
                if "--type=renderer" in process.cmdline():  # some are spare, and small
                    page = max(page, size)
        return page / 1e6, total / 1e6
