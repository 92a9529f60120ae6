"""Post-copy for real: a guest that is forced runs on its next host before its memory is there."""

import re
from collections.abc import Iterator

import pytest

from deploy.lab import control
from deploy.lab.host import Host
from drivers.hypervisor.libvirt.qemu_user import SYSCTL
from hostler import Client
from hostler.contract.errors import NoValidHost
from tests.lab.conftest import Lab
from tests.lab.guests import COUNTS, boot, counted, on_its_way, qemus

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("slow")]
SETTING = "\n[live_migration]\npost_copy = true\n"


@pytest.fixture(scope="module")
def the_lab(the_lab: Lab) -> Iterator[Lab]:
    """The lab, whose control plane has it on; its hosts were up before that."""
    before = the_lab.site.config.read_text()
    for settings in (before + SETTING, before):
        control.kill(the_lab.site)
        the_lab.site.config.write_text(settings)
        the_lab("up")
        if settings != before:
            yield the_lab


@pytest.fixture
def kernel() -> Iterator[None]:
    """Whatever the kernel lets QEMU do is as before afterwards: it is one for all."""
    before = SYSCTL.read_text()
    yield
    SYSCTL.write_text(before)


@pytest.mark.usefixtures("kernel")
async def test_a_guest_that_is_forced_goes_on_there_while_its_memory_follows(
    the_lab: Lab, client: Client, one: Host, other: Host
) -> None:
    server = await boot(client, "early", one, metadata=COUNTS)
    SYSCTL.write_text("0")
    with pytest.raises(NoValidHost) as refusal:
        await (await client.servers.live_migrate(server.id, host=other.name)).result()
    assert "vm.unprivileged_userfaultfd is 0" in str(refusal.value.detail.attempts)
    assert qemus(the_lab.hosts) == [1, 0, 0]

    SYSCTL.write_text("1")
    reached = await counted(client, server, beyond=1)
    operation = await client.servers.live_migrate(server.id, host=other.name)
    await on_its_way(operation)
    await client.operations.force_complete(server.id)
    await on_its_way(operation, said="fetches the rest of its memory")

    assert (await operation.result()).host == other.name
    assert qemus(the_lab.hosts) == [0, 1, 0]
    await counted(client, server, beyond=reached)
    said = [progress async for progress in operation.follow()][-1]
    [sent] = [step.note or "" for step in said.steps if step.name == "migrate_guest"]
    assert re.match(r"[1-9]\d* MiB in ", sent)
    assert not (await client.audit(heal=False)).findings
