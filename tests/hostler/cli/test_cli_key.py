"""`hostler key`: the key file is made, rotated and never shown."""

import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hostler.cli.app import app
from hostler.cli.exits import Exit
from hostler.encryption import Key, parse_keys


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the keys will be."""
    monkeypatch.setenv("HOSTLER_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state" / "encryption.keys"


def key(*words: str) -> Result:
    return CliRunner().invoke(app, ["key", *words])


def ids(file: Path) -> list[str]:
    return parse_keys(file.read_text(), "file").ids


def test_keys_are_rotated(file: Path) -> None:
    assert key("create", "--id", "old").exit_code == Exit.DONE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    added = key("create", "--id", "new")
    assert ids(file) == ["old", "new"], "a new one does not encrypt before all have it"
    assert "hostler key use new" in added.stderr
    assert key("use", "new").exit_code == Exit.DONE
    assert ids(file) == ["new", "old"]
    assert json.loads(key("list", "-f", "json").stdout) == [
        {"id": "new", "encrypts": True},
        {"id": "old", "encrypts": False},
    ]
    assert key("delete", "old").exit_code == Exit.DONE
    assert ids(file) == ["new"]


def test_a_file_keeps_the_mode_and_group_that_it_was_given(file: Path) -> None:
    key("create", "--id", "old")
    file.chmod(0o640)
    key("create")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [one.name for one in file.parent.iterdir()] == [file.name]


def test_a_key_is_shown_only_to_who_asks_for_it(file: Path) -> None:
    printed = key("create", "--id", "one", "--print")
    assert parse_keys(printed.stdout, "output").ids == ["one"]
    assert not file.exists()
    shown = [
        key(*words) for words in (["create"], ["create"], ["list"], ["list", "-f", "value"], ["list", "-f", "json"])
    ]
    for line in file.read_text().splitlines():
        assert all(line.partition(":")[2] not in one.output + one.stderr for one in shown)


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["create", "--id", "old"], Exit.CONFLICT, "has a key old already"),
        (["create", "--id", "a b"], Exit.INVALID, "an ID has"),
        (["use", "lost"], Exit.NOT_FOUND, "has no key lost"),
        (["delete", "lost"], Exit.NOT_FOUND, "has no key lost"),
        (["delete", "old"], Exit.CONFLICT, "the one that encrypts"),
    ],
)
def test_what_makes_no_sense_is_refused(file: Path, words: list[str], code: Exit, what: str) -> None:
    key("create", "--id", "old")
    before = file.read_text()
    refused = key(*words)
    assert (refused.exit_code, what in " ".join(refused.stderr.split())) == (code, True)
    assert file.read_text() == before


def test_keys_from_the_environment_are_not_changed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTLER_ENCRYPTION__KEYS", Key.generate("env").line)
    assert "env" in key("list").stdout
    assert key("create").exit_code == Exit.INVALID
    assert not file.exists()


@pytest.mark.parametrize(
    "content", ['[encryption]\nkeys = ["hunter2"]', '[database]\npassword = "hunter2"', '[codec]\ntoken = "hunter2"']
)
def test_a_mistyped_secret_is_not_shown(content: str, tmp_path: Path) -> None:
    config = tmp_path / "hostler.toml"
    config.write_text(content)
    refused = CliRunner().invoke(app, ["--config", str(config), "config", "show"])
    assert refused.exit_code == Exit.INVALID
    assert "hunter2" not in refused.output + refused.stderr
