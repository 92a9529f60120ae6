"""The end of a console log, also when virtlogd has begun a new part."""

from pathlib import Path

import pytest

from drivers.hypervisor.libvirt.console import read_end
from hostler.contract.errors import NotFound


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of three parts."""
    for name, text in (("console.log.1", "one two "), ("console.log.0", "three four "), ("console.log", "five")):
        (tmp_path / name).write_text(text)
    return tmp_path / "console.log"


@pytest.mark.parametrize(
    ("max_bytes", "expected"),
    [(2, "ve"), (4, "five"), (9, "four five"), (18, "wo three four five"), (99, "one two three four five")],
)
def test_takes_as_many_parts_as_it_needs(log: Path, max_bytes: int, expected: str) -> None:
    assert read_end(log, max_bytes) == expected


def test_replaces_what_is_not_text(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes("größe \x07".encode() + b"\xff")
    assert read_end(log, 7) == "\ufffd\u00dfe \x07\ufffd".replace("\u00df", "ß")


def test_a_guest_that_is_not_there_has_none(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_end(tmp_path / "console.log", 10)
