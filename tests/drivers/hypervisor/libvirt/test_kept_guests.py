"""What a host makes of a guest that is its own after all: the other one, to which it was sent, has nothing of it.

libvirt's own test driver has the domain. It moves none, so that what a migration leaves is played.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import libvirt
import pytest

from drivers.hypervisor.libvirt import LibvirtHypervisor, migration_call
from drivers.hypervisor.libvirt.domain_xml import KEPT, NAMESPACE, Mark, domain_name
from hostler.contract.guests import MigrationLimits, Whereabouts
from hostler.contract.states import PowerState
from hostler.settings import HostSettings, LibvirtSettings

PLAYED = "test:///default"
PAUSED = libvirt.VIR_DOMAIN_PAUSED
BROKEN = [PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED]
MIGRATED = [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED]


class Guest:
    """A guest of the host that runs."""

    def __init__(self, host: LibvirtHypervisor, directory: Path, host_id: str) -> None:
        self.server_id, self.host = str(uuid4()), host
        self.connection = libvirt.open(PLAYED)
        mark = f"directory='{directory / 'guests' / self.server_id}' spec='1f' host='{host_id}'"
        self.domain = self.connection.defineXML(
            f"<domain type='test'><name>{domain_name(self.server_id)}</name><uuid>{self.server_id}</uuid>"
            f"<metadata><hostler:guest xmlns:hostler='{NAMESPACE}' {mark}/></metadata>"
            "<memory>32768</memory><os><type>hvm</type></os></domain>"
        )
        self.domain.create()

    def spec(self, where: int = libvirt.VIR_DOMAIN_AFFECT_CURRENT) -> str:
        return Mark.read(self.domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE, where)).spec

    def is_left_by_a_migration(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.domain.destroy()
        monkeypatch.setattr(libvirt.virDomain, "state", lambda _domain: MIGRATED)

    async def is_kept_and_started(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as meanwhile:
            self.is_left_by_a_migration(meanwhile)
            assert await self.host.end_migration(self.server_id) is Whereabouts.HANDED_OVER
            await self.host.keep(self.server_id)
            assert await self.host.end_migration(self.server_id) is Whereabouts.OFF
            await self.host.start(self.server_id)
        assert self.domain.isActive()


@pytest.fixture
async def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Guest]:
    monkeypatch.setattr(libvirt.virDomain, "jobStats", lambda *_arguments: {})
    monkeypatch.setattr(libvirt.virDomain, "migrateSetMaxDowntime", lambda *_arguments: 0)
    host_id = str(uuid4())
    host = LibvirtHypervisor(LibvirtSettings(uri=PLAYED), HostSettings(), tmp_path, host_id)
    guest = Guest(host, tmp_path, host_id)
    yield guest
    if guest.domain.isActive():
        guest.domain.destroy()
    guest.domain.undefine()
    await host.close()


async def test_what_post_copy_has_left_when_it_broke_off_is_powered_off_so_that_the_guest_can_be_started_anew(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(libvirt.virDomain, "state", lambda _domain: BROKEN)
        assert await guest.host.end_migration(guest.server_id) is Whereabouts.HANDED_OVER
        await guest.host.keep(guest.server_id)
    assert not guest.domain.isActive()
    for _ in range(2):
        await guest.host.keep(guest.server_id)
    assert await guest.host.end_migration(guest.server_id) is Whereabouts.OFF
    await guest.host.start(guest.server_id)
    assert await guest.host.power_state(guest.server_id) is PowerState.RUNNING


@pytest.mark.parametrize(
    "state",
    [
        [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED],
        [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY_FAILED],
        [PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY],
        [PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION],
        [PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER],
    ],
)
async def test_one_that_runs_or_may_yet_run_on_is_left_as_it_is(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, state: list[int]
) -> None:
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(libvirt.virDomain, "state", lambda _domain: state)
        await guest.host.keep(guest.server_id)
    assert guest.domain.isActive()
    assert guest.spec() == "1f"


async def test_one_that_was_kept_once_and_leaves_again_is_known_to_have_left_though_no_worker_lived_to_note_it(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    await guest.is_kept_and_started(monkeypatch)
    migration_call.make_ready(guest.domain, MigrationLimits())
    guest.is_left_by_a_migration(monkeypatch)
    assert await guest.host.end_migration(guest.server_id) is Whereabouts.HANDED_OVER


async def test_that_it_was_kept_is_forgotten_where_it_runs_and_where_it_is_defined(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    await guest.is_kept_and_started(monkeypatch)
    both = (libvirt.VIR_DOMAIN_AFFECT_LIVE, libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    assert [guest.spec(where) for where in both] == [KEPT, KEPT]
    migration_call.make_ready(guest.domain, MigrationLimits())
    assert [guest.spec(where) for where in both] == ["", ""]
    assert await guest.host.guests() == [guest.server_id]


async def test_no_other_mark_is_changed_before_a_guest_leaves(guest: Guest) -> None:
    migration_call.make_ready(guest.domain, MigrationLimits())
    assert guest.spec() == "1f"


async def test_one_that_goes_off_in_that_moment_is_still_kept(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    await guest.is_kept_and_started(monkeypatch)
    guest.is_left_by_a_migration(monkeypatch)
    migration_call.make_ready(guest.domain, MigrationLimits())
    assert guest.spec() == KEPT
