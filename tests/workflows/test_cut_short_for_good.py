"""Operations that were terminated by force, of which a host then dies that never comes back: a delete is not all that
is left.
"""

import pytest

from hostler.contract.errors import InvalidState
from hostler.contract.servers import Server
from hostler.contract.states import PowerState
from tests.cloud import LIMIT, Cloud
from tests.workflows.conftest import StartCloud
from tests.workflows.test_cut_short import (
    audited_at_once,
    comes_back,
    cut_at,
    cut_with,
    dies,
    evacuated,
    is_on_alone,
    owe,
    remedy,
)
from tests.workflows.test_evacuate import migrations, settled
from tests.workflows.test_move import SMALL, power_on


@pytest.fixture
async def cloud(start_cloud: StartCloud, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """Two hosts and a larger flavor."""
    return await audited_at_once(start_cloud, monkeypatch)


async def resized(cloud: Cloud, server: Server, target: str) -> None:
    """From sim-1; it waits to be decided on."""
    other = "sim-1" if target == "sim-2" else "sim-2"
    await cloud.client.hosts.disable(other)
    await (await cloud.client.servers.resize(server.id, SMALL)).result(LIMIT)
    await cloud.client.hosts.enable(other)


async def test_a_confirmation_that_had_removed_what_was_before_is_made_good_by_an_evacuation(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await resized(cloud, server, "sim-2")
    shown = await cut_at(cloud, "unbind_ports", cloud.client.servers.confirm_resize(server.id))
    assert shown.status == "VERIFY_RESIZE"
    await dies(cloud, "sim-2")

    there = await evacuated(cloud, server)

    assert (there.status, there.host, there.flavor) == ("ACTIVE", "sim-1", SMALL)
    assert migrations(cloud) == [("resize", "confirmed"), ("evacuation", "completed")]
    await comes_back(cloud, "sim-2")
    await settled(cloud)
    await is_on_alone(cloud, "sim-1", server)


@pytest.mark.parametrize(("target", "step"), [("sim-2", "unbind_ports"), ("sim-1", "start_guest")])
async def test_a_revert_whose_source_is_lost_ends_in_an_evacuation_of_what_the_server_was(
    cloud: Cloud, target: str, step: str
) -> None:
    server = await cloud.booted(host="sim-1")
    quota = (await cloud.world()).quota
    await resized(cloud, server, target)
    shown = await cut_at(cloud, step, cloud.client.servers.revert_resize(server.id))
    assert shown.status == "ERROR"
    assert f"hostler server evacuate {server.id}" in remedy(shown)
    await dies(cloud, "sim-1")

    there = await evacuated(cloud, server)

    assert (there.status, there.host, there.flavor) == ("ACTIVE", "sim-2", server.flavor)
    assert (await cloud.world()).quota == quota
    assert migrations(cloud) == [("resize", "error"), ("evacuation", "completed")]
    await comes_back(cloud, "sim-1")
    await is_on_alone(cloud, "sim-2", server)


async def test_but_where_its_target_has_the_guest_still_that_is_confirmed(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await resized(cloud, server, "sim-2")
    shown = await cut_with(cloud, "sim-2", "expect_guest", cloud.client.servers.revert_resize(server.id))
    assert shown.status == "ERROR"
    await comes_back(cloud, "sim-2")
    with pytest.raises(InvalidState, match="cut short"):
        await cloud.client.servers.confirm_resize(server.id)
    await dies(cloud, "sim-1")
    with pytest.raises(InvalidState, match="host sim-2 may have the guest") as refused:
        await cloud.client.servers.evacuate(server.id)
    assert f"hostler server confirm {server.id}" in (refused.value.detail.remedy or "")

    confirmed = await (await cloud.client.servers.confirm_resize(server.id)).result(LIMIT)

    assert (confirmed.status, confirmed.host, confirmed.flavor) == ("SHUTOFF", "sim-2", SMALL)
    await comes_back(cloud, "sim-1")
    await is_on_alone(cloud, "sim-2", server)


@pytest.mark.parametrize(
    ("step", "owed", "host"), [("prepare_incoming", "keep_guest", "sim-1"), ("drop_claim", "destroy_guest", "sim-2")]
)
async def test_a_live_migration_is_ended_though_its_source_that_is_lost_owes_something_of_it(
    cloud: Cloud, step: str, owed: str, host: str
) -> None:
    server = await cloud.booted(host="sim-1")
    await cut_at(cloud, step, cloud.client.servers.live_migrate(server.id))
    await dies(cloud, "sim-1")
    owe(cloud, "sim-1", server, owed)

    ended = await (await cloud.client.servers.revert_resize(server.id)).result(LIMIT)

    assert (ended.status, ended.host) == ("ACTIVE", host)
    if host == "sim-1":
        assert (await evacuated(cloud, server)).host == "sim-2"
    assert await power_on(cloud, "sim-2", server) is PowerState.RUNNING
    await comes_back(cloud, "sim-1")
    await is_on_alone(cloud, "sim-2", server)


async def test_but_what_it_removes_is_not_relied_on_while_the_target_is_lost_too(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await cut_at(cloud, "drop_claim", cloud.client.servers.live_migrate(server.id))
    for name in ("sim-1", "sim-2"):
        await dies(cloud, name)
    owe(cloud, "sim-1", server, "destroy_guest")

    ended = await (await cloud.client.servers.revert_resize(server.id)).result(LIMIT)

    assert ended.host == "sim-2"
    await comes_back(cloud, "sim-1")
    await comes_back(cloud, "sim-2")
    assert (await cloud.world()).guests == {("sim-2", server.id)}


async def test_one_whose_revert_was_cut_short_is_not_given_up_with_its_host(cloud: Cloud) -> None:
    server = await cloud.booted(host="sim-1")
    await resized(cloud, server, "sim-2")
    await cut_with(cloud, "sim-2", "expect_guest", cloud.client.servers.revert_resize(server.id))

    result = await (await cloud.client.hosts.evacuate("sim-2")).result(LIMIT)

    assert f"hostler server revert {server.id}" in (result.skipped[0].reason or "")
    back = await (await cloud.client.servers.revert_resize(server.id)).result(LIMIT)
    assert (back.status, back.host, back.flavor) == ("ACTIVE", "sim-1", server.flavor)
