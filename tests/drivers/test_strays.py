"""Strays: what lies in a directory, belongs to nothing there, and is not being made."""

import os
import time
from pathlib import Path

from drivers.strays import SETTLED, strays


def aged(path: Path) -> str:
    """A file that nobody has written to for long."""
    path.touch()
    long_ago = time.time() - 2 * SETTLED.total_seconds()
    os.utime(path, (long_ago, long_ago))
    return str(path)


def test_what_belongs_is_no_stray_and_neither_is_what_is_new(tmp_path: Path) -> None:
    old, other = aged(tmp_path / ".x.part"), aged(tmp_path / "also")
    aged(tmp_path / "mine.json")
    (tmp_path / "new.part").touch()
    assert strays(tmp_path, lambda path: path.suffix == ".json") == sorted([old, other])


def test_a_link_to_nowhere_is_a_stray(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    os.utime(link, (0, 0), follow_symlinks=False)
    assert strays(tmp_path, lambda _: False) == [str(link)]


def test_without_a_directory_there_are_none(tmp_path: Path) -> None:
    assert strays(tmp_path / "none", lambda _: False) == []
