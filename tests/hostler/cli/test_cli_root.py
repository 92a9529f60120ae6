"""The root of the command line: help, settings, plugins, unexpected errors."""

import json
import subprocess
import sys
import tomllib
from datetime import timedelta
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from hostler.cli import lazy
from hostler.cli.app import app
from hostler.cli.exits import MEANINGS, Exit, exit_code
from hostler.cli.pairs import duration, pairs, truth
from hostler.contract.errors import ERRORS, InvalidRequest
from hostler.settings import load
from tests.hostler.cli.conftest import Hostler
from tests.hostler.peers import Catalogue


@pytest.fixture
def runner() -> CliRunner:
    """Runs the command line without a cloud."""
    return CliRunner()


def plug(monkeypatch: pytest.MonkeyPatch, **plugins: str) -> None:
    """Install these plugins, and no others."""
    points = {name: EntryPoint(name, value, lazy.GROUP) for name, value in plugins.items()}
    monkeypatch.setattr(lazy, "_plugins", lambda: points)


def greet(name: str) -> None:
    """Greet somebody."""
    typer.echo(f"hello {name}")


def test_help_tells_the_commands_and_the_exit_codes(runner: CliRunner) -> None:
    shown = runner.invoke(app, ["--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == Exit.DONE
    for part in ("server", "keypair", *(f"{code.value} {meaning}" for code, meaning in MEANINGS.items())):
        assert part in " ".join(shown.stdout.split())


def test_help_imports_neither_temporal_nor_the_contract() -> None:
    code = (
        "import sys; from hostler.cli.app import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = [m for m in sys.modules if m.startswith(('temporalio', 'pydantic_settings', 'hostler.contract'))]\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_version(runner: CliRunner) -> None:
    assert runner.invoke(app, ["--version"]).stdout.startswith("hostler ")


@pytest.mark.parametrize("words", [["nope"], ["server", "nope"], ["server", "list", "--nope"]])
def test_bad_usage(runner: CliRunner, words: list[str]) -> None:
    assert runner.invoke(app, words).exit_code == Exit.INVALID


def test_a_plugin_is_a_function_or_an_app(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    plug(monkeypatch, greet=f"{__name__}:greet", hosts="hostler.cli.host:app")
    assert runner.invoke(app, ["greet", "you"]).stdout == "hello you\n"
    assert "disable" in runner.invoke(app, ["hosts", "--help"]).stdout
    assert "From a plugin." in runner.invoke(app, ["--help"]).stdout


def test_a_broken_plugin_shows_only_when_it_is_used(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    plug(monkeypatch, worker="not_there.at_all:app")
    assert "worker" in runner.invoke(app, ["--help"]).stdout
    failed = runner.invoke(app, ["worker"])
    assert failed.exit_code == Exit.UNEXPECTED
    assert "`hostler worker` cannot be loaded" in failed.stderr
    assert "not_there" in failed.stderr


def test_what_is_not_installed_is_named(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    plug(monkeypatch)
    failed = runner.invoke(app, ["dev"])
    assert failed.exit_code == Exit.UNEXPECTED
    assert "hostler-server" in failed.stderr


def test_config_show_is_a_settings_file(runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "hostler.toml"
    file.write_text(
        'database.url = "postgresql://hostler:hunter2@db/hostler"\n'
        "host.simulated.latency.spawn = 2\n"
        '[[host.simulated.faults]]\nhost = "sim-1"\ncall = "spawn"\n'
    )
    monkeypatch.setenv("HOSTLER_SCHEDULER__SPREAD", "7")
    words = ["--config", str(file), "--temporal", "temporal:7233", "config", "show"]
    shown = runner.invoke(app, words)
    assert "hunter2" not in shown.output
    assert f"# file: {file}" in shown.stdout
    assert "# environment: HOSTLER_SCHEDULER__SPREAD" in shown.stdout
    content = tomllib.loads(shown.stdout)
    assert content["temporal"]["address"] == "temporal:7233"
    assert content["scheduler"]["spread"] == 7

    again = tmp_path / "again.toml"
    again.write_text(shown.stdout)
    assert load(again).host == load(file).host

    as_json = json.loads(runner.invoke(app, [*words, "-f", "json"]).stdout)
    assert as_json["settings"]["scheduler"] == content["scheduler"]
    assert as_json["sources"]["file"] == str(file)


def test_settings_that_are_wrong(runner: CliRunner, tmp_path: Path) -> None:
    missing = runner.invoke(app, ["--config", str(tmp_path / "nope.toml"), "config", "show"])
    assert missing.exit_code == Exit.INVALID
    assert "nope.toml" in missing.stderr
    wrong = runner.invoke(app, ["config", "show"], env={"HOSTLER_HOST__DRIVER": "xen"})
    assert wrong.exit_code == Exit.INVALID
    assert "host.driver" in wrong.stderr


def test_temporal_is_not_there(runner: CliRunner) -> None:
    failed = runner.invoke(app, ["--temporal", "127.0.0.1:1", "server", "list"])
    assert failed.exit_code == Exit.UNAVAILABLE
    assert "127.0.0.1:1" in failed.stderr
    assert "hostler dev" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert "Traceback" in runner.invoke(app, ["--debug", "--temporal", "127.0.0.1:1", "server", "list"]).stderr


async def test_a_defect_in_the_cloud_is_no_traceback(hostler: Hostler, catalogue: Catalogue) -> None:
    failed = await hostler("image", "list")
    assert failed.exit_code == Exit.FAILED
    assert "the database is on fire" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_every_error_has_an_exit_code() -> None:
    assert all(exit_code(code) > Exit.UNEXPECTED for code in ERRORS)


def test_pairs() -> None:
    known = {"net": "network", "net-id": "network", "ip": "fixed_ip"}
    assert pairs("--network", "a", known, bare="network") == {"network": "a"}
    assert pairs("--network", "net=a, ip=b=c", known) == {"network": "a", "fixed_ip": "b=c"}
    for wrong in ("net", "net=a,", "mac=a", "net=a,net-id=b"):
        with pytest.raises(InvalidRequest):
            pairs("--network", wrong, known)
    with pytest.raises(InvalidRequest):
        truth("--block-device", "delete_on_termination", "maybe")


def test_durations() -> None:
    assert duration("--after", None) is None
    for text, seconds in {"0": 0, "90": 90, "1.5": 1.5, "PT20M": 1200, "P1D": 86400}.items():
        assert duration("--after", text) == timedelta(seconds=seconds)
    for wrong in ("", "soon", "nan", "1e400", "20 minutes"):
        with pytest.raises(InvalidRequest) as caught:
            duration("--after", wrong)
        assert caught.value.detail.field == "--after"
