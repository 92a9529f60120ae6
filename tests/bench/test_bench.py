"""What `make bench` does before it measures anything."""

import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

from deploy.bench import bench

USER = 1000


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The parts that were run, with no part that measures."""
    parts: list[str] = []

    def part(name: str) -> Mapping[str, object]:
        parts.append(name)
        assert "HOSTLER_TEMPORAL__ADDRESS" not in os.environ
        return {"figure": 1}

    for name in bench.PARTS:
        monkeypatch.setitem(bench.PARTS, name, partial(part, name))
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr(bench, "OUTPUT", tmp_path / ".cache" / "bench.json")
    return parts


def call(monkeypatch: pytest.MonkeyPatch, *words: str, user: int = 0) -> int:
    monkeypatch.setattr("sys.argv", ["bench.py", *words])
    monkeypatch.setattr(os, "geteuid", lambda: user)
    return bench.main()


@pytest.mark.parametrize("words", [(), ("guest",), ("memory",), ("boots", "live")])
def test_what_needs_real_hosts_is_refused_to_who_is_not_root_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ran: list[str], words: tuple[str, ...]
) -> None:
    assert call(monkeypatch, *words, user=USER) == 2
    assert "sudo make bench" in capsys.readouterr().out
    assert ran == []


def test_the_rest_may_be_measured_by_anybody(monkeypatch: pytest.MonkeyPatch, ran: list[str]) -> None:
    rest = [part for part in bench.PARTS if part not in bench.AS_ROOT]
    assert call(monkeypatch, *rest, user=USER) == 0
    assert ran == rest
    assert json.loads(bench.OUTPUT.read_text()).keys() == set(rest)


def test_root_measures_all(monkeypatch: pytest.MonkeyPatch, ran: list[str]) -> None:
    assert call(monkeypatch) == 0
    assert ran == list(bench.PARTS)


def test_settings_for_another_cloud_do_not_count(monkeypatch: pytest.MonkeyPatch, ran: list[str]) -> None:
    monkeypatch.setenv("HOSTLER_TEMPORAL__ADDRESS", "temporal.example.org:7233")
    assert call(monkeypatch, "moves") == 0
    assert ran == ["moves"]  # which looked


def test_a_part_that_there_is_not_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ran: list[str]
) -> None:
    assert call(monkeypatch, "boot") == 2
    assert "no part boot" in capsys.readouterr().out
    assert ran == []
