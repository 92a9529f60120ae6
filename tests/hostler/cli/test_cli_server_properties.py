"""`hostler server set` and `unset`."""

import json

from hostler.cli.exits import Exit
from tests.cloud import Cloud
from tests.hostler.cli.conftest import Hostler


async def test_properties_are_set_and_taken_away(hostler: Hostler, cloud: Cloud) -> None:
    await cloud.booted(metadata={"role": "db"})

    done = await hostler(
        *("server", "set", "web", "--property", "hostler:evacuate=true", "--property", "note=a=b", "-f", "json")
    )
    assert done.exit_code == Exit.DONE, done.output
    metadata = {"role": "db", "hostler:evacuate": "true", "note": "a=b"}
    assert json.loads(done.stdout)["metadata"] == metadata
    shown = await hostler("server", "show", "web", "-f", "json")
    assert json.loads(shown.stdout)["metadata"] == metadata

    gone = await hostler("server", "unset", "web", "--property", "role", "--property", "note")
    assert gone.exit_code == Exit.DONE, gone.output
    shown = await hostler("server", "show", "web", "-f", "value", "-c", "properties")
    assert shown.stdout == "hostler:evacuate=true\n"


async def test_a_change_that_makes_no_sense_is_refused(hostler: Hostler, cloud: Cloud) -> None:
    server = await cloud.booted(metadata={"role": "db"})
    for words, code, told in (
        (("set", "web"), Exit.INVALID, "give at least one --property"),
        (("unset", "web"), Exit.INVALID, "give at least one --property"),
        (("set", "web", "--property", "role"), Exit.INVALID, "write it like role=db"),
        (("set", "web", "--property", "=db"), Exit.INVALID, "rename it"),
        (("set", "web", "--property", f"role={'x' * 256}"), Exit.INVALID, "shorten it"),
        (("set", "web", "--property", "hostler:evacuate=perhaps"), Exit.INVALID, "write true or false"),
        (("unset", "web", "--property", "role", "--property", "rack"), Exit.NOT_FOUND, "it has: role"),
        (("set", "db", "--property", "role=web"), Exit.NOT_FOUND, "hostler server list"),
    ):
        refused = await hostler("server", *words)
        assert (refused.exit_code, refused.stdout) == (code, ""), refused.output
        assert told in " ".join(refused.stderr.split())
    assert await cloud.client.servers.show(server.id) == server

    await cloud.deleted(server.id)
    refused = await hostler("server", "set", server.id, "--property", "role=web")
    assert (refused.exit_code, refused.stdout) == (Exit.NOT_FOUND, "")
    assert "hostler server list" in refused.stderr
