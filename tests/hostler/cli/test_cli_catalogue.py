"""The other groups of commands."""

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hostler.cli.completion import _names
from hostler.cli.exits import Exit
from hostler.cli.session import Session
from hostler.contract.resources import Owed
from hostler.contract.servers import MigrationKind, MigrationStatus, ServerMigration
from tests.hostler.cli.conftest import Hostler
from tests.hostler.peers import HOST_ID, MOVED, Catalogue


def files(directory: Path) -> list[str]:
    """What is in it."""
    return sorted(path.name for path in directory.iterdir())


async def test_flavors(hostler: Hostler, catalogue: Catalogue) -> None:
    made = await hostler("flavor", "create", "tiny", "--vcpus", "1", "--ram", "64", "-f", "json")
    assert json.loads(made.stdout)["ram_mib"] == 64
    listed = await hostler("flavor", "list", "-f", "value", "-c", "name", "-c", "ram_mib")
    assert listed.stdout == "tiny 64\n"
    assert (await hostler("flavor", "delete", "tiny")).exit_code == Exit.DONE
    assert (await hostler("flavor", "show", "tiny")).exit_code == Exit.NOT_FOUND


async def test_networks(hostler: Hostler, catalogue: Catalogue) -> None:
    made = await hostler("network", "create", "private", "--cidr", "10.0.0.0/24", "--dns", "1.1.1.1", "-f", "json")
    assert json.loads(made.stdout)["dns"] == ["1.1.1.1"]
    refused = await hostler("network", "create", "private", "--cidr", "10.0.0.9/24")
    assert refused.exit_code == Exit.INVALID
    assert "remedy: use 10.0.0.0/24" in refused.stderr


async def test_hosts(hostler: Hostler, catalogue: Catalogue) -> None:
    disabled = await hostler("host", "disable", "node-1", "--reason", "new memory")
    assert "new memory" in disabled.stdout
    listed = await hostler("host", "list", "-f", "value", "-c", "name", "-c", "state", "-c", "enabled", "-c", "vcpus")
    assert listed.stdout == "node-1 up no 0/32\n"


async def test_a_host_is_declared_down_by_who_is_sure(hostler: Hostler, catalogue: Catalogue) -> None:
    asked = await hostler("host", "declare-down", "node-1", "--reason", "burnt")
    assert "Is the machine of host node-1 off" in asked.output
    assert asked.exit_code != Exit.DONE
    assert catalogue.host.down_since is None

    done = await hostler("host", "declare-down", "node-1", "--reason", "burnt", "--yes", "-f", "json")

    shown = json.loads(done.stdout)
    assert (shown["down_reason"], shown["fenced"]) == ("burnt", False)
    listed = await hostler("host", "list", "-f", "value", "-c", "name", "-c", "state")
    assert listed.stdout == "node-1 down (declared down)\n"
    empty = await hostler("host", "declare-down", "node-1", "--reason", "", "--yes")
    assert (empty.exit_code, "reason" in empty.stderr) == (Exit.INVALID, True)


async def test_a_host_is_shown_with_what_it_owes(hostler: Hostler, catalogue: Catalogue) -> None:
    assert "Owes" not in (await hostler("host", "show", "node-1")).stdout
    owed = Owed(
        activity="destroy_guest", server_id="web", since=datetime(2026, 1, 2, 3, 4, tzinfo=UTC), reason="silent"
    )
    catalogue.host = catalogue.host.model_copy(update={"owed": 1, "owes": [owed]})
    shown = (await hostler("host", "show", "node-1")).stdout
    assert "Owes, before it gets new servers:" in shown
    assert shown.splitlines()[-1].split() == ["destroy_guest", "web", "2026-01-02", "03:04:00", "silent"]
    as_json = json.loads((await hostler("host", "show", "node-1", "-f", "json")).stdout)
    assert [work["reason"] for work in as_json["owes"]] == ["silent"]
    assert (await hostler("host", "show", "node-1", "-f", "value", "-c", "owed")).stdout == "1\n"


async def test_another_machine_may_be_the_host(hostler: Hostler, catalogue: Catalogue) -> None:
    told = await hostler("host", "new-machine", "node-1", "-f", "value", "-c", "name")
    assert (told.exit_code, told.stdout) == (Exit.DONE, "node-1\n")


async def test_moves_of_servers(hostler: Hostler, catalogue: Catalogue) -> None:
    ended = datetime(2026, 7, 1, 12, 5, tzinfo=UTC)
    waits = ServerMigration(**MOVED.model_dump(), server_id=HOST_ID, server_name="web", project="default")
    update = {"status": MigrationStatus.ERROR, "target": None, "ended_at": ended}
    catalogue.migrations = [waits, waits.model_copy(update=update)]

    table = (await hostler("migration", "list")).stdout.splitlines()
    assert table[0].split() == ["Began", "Server", "Name", "Kind", "Source", "Target", "Status", "Ended", "Run"]
    began = ["2026-07-01", "12:00:00", HOST_ID, "web", "resize", "node-1"]
    assert table[2].split() == [*began, "node-2", "finished", "-", MOVED.id]
    assert table[3].split() == [*began, "-", "error", "2026-07-01", "12:05:00", MOVED.id]

    wanted = ("--host", "node-1", "--server", "web", "--kind", "resize", "--status", "error", "--limit", "1")
    picked = await hostler("migration", "list", *wanted, "--all-projects", "-f", "value", "-c", "new_flavor")
    assert picked.stdout == "small\n"
    asked = catalogue.asked_migrations[-1]
    assert (asked.host, asked.server, asked.kind, asked.status, asked.limit, asked.all_projects) == (
        *("node-1", "web", MigrationKind.RESIZE, MigrationStatus.ERROR),
        *(1, True),
    )
    [whole] = json.loads((await hostler("migration", "list", "--limit", "1", "-f", "json")).stdout)
    assert (whole["server_name"], whole["target"], whole["old_flavor"]) == ("web", "node-2", "tiny")

    answered = len(catalogue.asked_migrations)
    for option, value, told in (
        ("--status", "failed", "'failed' is not one of 'migrating', 'finished'"),
        ("--kind", "cold", "'cold' is not one of 'resize', 'migration'"),
        ("--limit", "0", "'--limit'"),
        ("-c", "nope", "there is no 'nope', but Began, Server"),
    ):
        refused = await hostler("migration", "list", option, value)
        assert refused.exit_code == Exit.INVALID
        assert told in " ".join(refused.stderr.replace("│", "").split())
    assert len(catalogue.asked_migrations) == answered


async def test_quotas(hostler: Hostler, catalogue: Catalogue) -> None:
    changed = await hostler("quota", "set", "--servers", "5", "--vcpus", "-1")
    assert "2 of 5" in changed.stdout
    assert "0 of any number" in changed.stdout


async def test_images_and_volumes_wait(hostler: Hostler, catalogue: Catalogue, tmp_path: Path) -> None:
    image = await hostler("image", "create", "demo", "--file", str(tmp_path / "demo.qcow2"), "-f", "json")
    assert json.loads(image.stdout)["status"] == "active"
    assert "demo: " in image.stderr
    volume = await hostler("volume", "create", "data", "--size", "500")
    assert volume.exit_code == Exit.FAILED
    assert "no host has the room" in volume.stderr


async def test_an_image_tells_of_which_server_it_is_a_backup(hostler: Hostler, catalogue: Catalogue) -> None:
    columns = ("-c", "type", "-c", "backup_type", "-c", "server")
    shown = await hostler("image", "show", "monday", "-f", "value", *columns)
    assert shown.stdout.splitlines() == ["backup", "daily", HOST_ID]


async def test_a_key_pair_is_made_here(
    hostler: Hostler, catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = await hostler("keypair", "create", "me")
    private = tmp_path / "me.pem"
    assert made.exit_code == Exit.DONE, made.output
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert "PRIVATE KEY" in private.read_text()
    assert catalogue.keypairs["me"].public_key.startswith("ssh-ed25519 ")

    again = await hostler("keypair", "create", "me")
    assert again.exit_code == Exit.CONFLICT
    assert "never overwritten" in again.stderr
    assert (await hostler("keypair", "create", "../me")).exit_code == Exit.INVALID
    assert files(tmp_path) == ["me.pem"]


async def test_a_private_key_without_a_cloud_is_not_left_behind(
    hostler: Hostler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    failed = await hostler("--temporal", "127.0.0.1:1", "keypair", "create", "me")
    assert failed.exit_code == Exit.UNAVAILABLE
    assert files(tmp_path) == []


async def test_without_ssh_keygen(hostler: Hostler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    failed = await hostler("keypair", "create", "me")
    assert failed.exit_code == Exit.INVALID
    assert "install openssh-client" in failed.stderr


async def test_names_are_completed(
    hostler: Hostler, catalogue: Catalogue, temporal_server: str, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTLER_TEMPORAL__NAMESPACE", namespace)
    await hostler("flavor", "create", "tiny", "--vcpus", "1", "--ram", "64")
    assert await _names(Session(temporal=temporal_server), "flavors") == ["tiny"]
