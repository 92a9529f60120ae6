"""Headless Chromium, spoken to over a pipe in its DevTools protocol: enough of it to take pictures of web pages."""

import base64
import fcntl
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",  # Chromium refuses to run as root with one
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
COMMANDS, ANSWERS = 3, 4
"""The descriptors at which Chromium reads commands and writes answers."""
HIGH = 10
WAIT_SECONDS, POLL_SECONDS, SETTLE_SECONDS = 30, 0.2, 1.5


def find() -> str | None:
    """Chromium's command, if there is one."""
    return next((path for program in PROGRAMS if (path := shutil.which(program))), None)


class Browser:
    """A browser with one page of `width` × `height`."""

    def __init__(self, program: str, width: int, height: int) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="hostler-browser-", ignore_cleanup_errors=True)
        commands, self._commands = _pipe()
        self._answers, answers = _pipe()

        def connect() -> None:
            os.dup2(commands, COMMANDS)
            os.dup2(answers, ANSWERS)

        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={self._profile.name}", f"--window-size={width},{height}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=connect,
            pass_fds=(COMMANDS, ANSWERS),
            start_new_session=True,
        )
        os.close(commands)
        os.close(answers)
        self._reader = os.fdopen(self._answers, "rb")
        self._numbers = itertools.count(1)
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session: str = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait()
        os.close(self._commands)
        self._reader.close()
        self._profile.cleanup()

    def open(self, url: str, shown: str) -> None:
        """Go to a page, and return when it shows the text.

        Raises:
            TimeoutError: it does not.
        """
        self._call("Page.navigate", url=url)
        deadline = time.monotonic() + WAIT_SECONDS
        while shown not in self.text():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url} does not show {shown!r}")
            time.sleep(POLL_SECONDS)
        time.sleep(SETTLE_SECONDS)

    def text(self) -> str:
        """What the page says."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def evaluate(self, script: str) -> Any:
        """What a piece of JavaScript gives."""
        return self._call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def picture(self, path: Path, *, top: int = 0, left: int = 0, width: int, height: int) -> None:
        """Write a part of the page as a PNG file."""
        clip = {"x": left, "y": top, "width": width, "height": height, "scale": 1}
        data = self._call("Page.captureScreenshot", format="png", clip=clip)["data"]
        path.write_bytes(base64.b64decode(data))

    def _call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": parameters}
        if hasattr(self, "_session"):
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        for message in self._messages():
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"Chromium refuses {method}: {message['error']['message']}")
                return message["result"]
        raise RuntimeError("Chromium has ended")

    def _messages(self) -> Iterator[Any]:
        text = bytearray()
        while byte := self._reader.read(1):
            if byte != b"\0":
                text += byte
                continue
            yield json.loads(text)
            text.clear()


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are not among the descriptors that Chromium wants to find something at."""
    ends = os.pipe()
    reading, writing = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, HIGH) for end in ends)
    for end in ends:
        os.close(end)
    return reading, writing
