"""What happened, line by line, in a file; and what went wrong."""

import time
from pathlib import Path


class Journal:
    """The log of a soak. `faults` are what the product must answer for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.faults: list[str] = []
        self._began = time.monotonic()
        self._file = path.open("w", buffering=1)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    def note(self, kind: str, subject: str, text: str) -> None:
        """One line: a kind of event, whose, and what."""
        self._file.write(f"{self.seconds:8.2f} {kind:8} {subject:36} {text}\n")

    def fault(self, subject: str, text: str) -> None:
        """The product is wrong."""
        self.faults.append(f"{subject}: {text}")
        self.note("FAULT", subject, text)
