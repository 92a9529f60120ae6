"""Records the histories that `test_replay.py` replays, anew: one JSON file for each case, in `histories/`.

    python -m tests.workflows.record_histories

Record them when a workflow's steps have changed on purpose and no run of the former code may still be under way. Before
the first release that is always so; afterwards a change that breaks the replay needs `workflow.patched`, and the old
histories stay, beside new ones.
"""

import asyncio
import base64
import json
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import uuid4

from drivers.hypervisor.simulated_arrivals import Arrivals
from hostler.contract.audit import AUDIT, AuditRequest
from hostler.contract.errors import ImageRejected, RescheduleError
from hostler.contract.host_work import WATCH_HOSTS
from hostler.contract.names import (
    CONTROL_QUEUE,
    drain_workflow_id,
    host_failure_workflow_id,
    host_workflow_id,
    image_workflow_id,
    volume_workflow_id,
)
from hostler.contract.servers import NEVER
from hostler.contract.states import VmState
from models import Flavor, Server
from tests.cloud import Cloud, run_cloud
from tests.conftest import free_port, make_namespace, run_temporal
from tests.databases import make_tables
from tests.workflows.test_audit import on_host, plant
from tests.workflows.test_cut_short import lost
from tests.workflows.test_evacuate import declared_down
from tests.workflows.test_host_failure import begun, configure, dies, watched

DIRECTORY = Path(__file__).with_name("histories")


def main() -> None:
    """Record all of them."""
    with tempfile.TemporaryDirectory() as directory, run_temporal(free_port()) as address:
        asyncio.run(_record(address, Path(directory)))


async def _record(address: str, directory: Path) -> None:
    recorder = Recorder(directory)
    for story in STORIES:
        async with _cloud(address, directory / story.__name__) as cloud:
            await story(cloud, recorder)


@asynccontextmanager
async def _cloud(address: str, directory: Path) -> AsyncIterator[Cloud]:
    directory.mkdir()  # noqa: ASYNC240 - nobody waits for us
    tables, disk = directory / "tables.db", directory / "demo.qcow2"
    make_tables(f"sqlite:///{tables}")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "64M"], check=True)  # noqa: ASYNC221 - nor here
    namespace = await make_namespace(address)
    async with run_cloud(address, namespace, directory, tables, disk, hosts=3, volumes=True, encrypted=False) as cloud:
        yield cloud


class Recorder:
    """Writes histories, without what they say of this machine."""

    def __init__(self, secret: Path) -> None:
        self._secret = str(secret)

    async def save(self, cloud: Cloud, case: str, workflow_id: str, run_id: str | None = None) -> None:
        """Write the history of a run, once it has ended."""
        handle = cloud.temporal.get_workflow_handle(workflow_id, run_id=run_id)
        await asyncio.gather(handle.result(follow_runs=False), return_exceptions=True)
        history = await handle.fetch_history()
        record = {"workflow_id": workflow_id, **self._tidy(history.to_json_dict())}
        DIRECTORY.mkdir(exist_ok=True)
        (DIRECTORY / f"{case}.json").write_text(json.dumps(record, indent=1) + "\n")

    def _tidy(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._tidy(one) for one in value]
        if not isinstance(value, dict):
            return value
        blank = {"identity": "recorder", "stackTrace": ""}
        tidy = {key: blank.get(key) if key in blank else self._tidy(one) for key, one in value.items()}
        if tidy.get("kind") == "TASK_QUEUE_KIND_STICKY":
            tidy["name"] = "sticky"
        if isinstance(data := tidy.get("data"), str):
            content = base64.b64decode(data).replace(self._secret.encode(), b"/srv")
            tidy["data"] = base64.b64encode(content).decode()
        return tidy


async def servers(cloud: Cloud, recorder: Recorder) -> None:
    """A server's life."""
    boot = await cloud.boot()
    server_id = (await boot.result()).id
    await recorder.save(cloud, "boot-ok", f"server:{server_id}", boot.run_id)
    for name in ("stop", "start", "reboot", "delete"):
        operation = await getattr(cloud.client.servers, name)(server_id)
        await recorder.save(cloud, f"{name}-ok", f"server:{server_id}", operation.run_id)


async def operate(cloud: Cloud, recorder: Recorder, server_id: str, method: str, /, **options: Any) -> None:
    """Have an operation done, and record it under its own name."""
    operation = await getattr(cloud.client.servers, method)(server_id, **options)
    await recorder.save(cloud, f"{operation.operation}-ok", f"server:{server_id}", operation.run_id)


async def moves(cloud: Cloud, recorder: Recorder) -> None:
    """A server that is resized, and goes back; that migrates, and stays; that finds no other host."""
    cloud.add(Flavor(id=str(uuid4()), name="small", vcpus=2, ram_mib=256, disk_gib=2))
    server_id = (await cloud.booted()).id
    await operate(cloud, recorder, server_id, "resize", flavor="small")
    await operate(cloud, recorder, server_id, "revert_resize")
    await operate(cloud, recorder, server_id, "migrate", confirm_after=timedelta(hours=1))
    await operate(cloud, recorder, server_id, "confirm_resize")
    cloud.stage.fail("receive_disks", ImageRejected("not a disk"))
    failed = await cloud.client.servers.migrate(server_id)
    await recorder.save(cloud, "migrate-failed", f"server:{server_id}", failed.run_id)
    await operate(cloud, recorder, server_id, "migrate", confirm_after=timedelta(seconds=1))
    await cloud.becomes(server_id, "ACTIVE")
    await operate(cloud, recorder, server_id, "live_migrate")
    cloud.stage.fail("migrate_guest", ImageRejected("not a guest"))
    failed = await cloud.client.servers.live_migrate(server_id)
    await recorder.save(cloud, "live-migrate-failed", f"server:{server_id}", failed.run_id)
    await cloud.deleted(server_id)
    await cloud.temporal.get_workflow_handle(f"later:{server_id}").cancel()
    await recorder.save(cloud, "later-cancelled", f"later:{server_id}")


async def shelf(cloud: Cloud, recorder: Recorder) -> None:
    """A server on the shelf, at once and in two steps."""
    server_id = (await cloud.booted()).id
    await operate(cloud, recorder, server_id, "shelve")
    await operate(cloud, recorder, server_id, "unshelve")
    await (await cloud.client.servers.shelve(server_id, offload_after=NEVER)).result()
    await operate(cloud, recorder, server_id, "shelve_offload")


async def _terminate(cloud: Cloud, server_id: str, vm_state: VmState) -> None:
    """End what is done to the server, by force; its row says what the audit makes of that after a while."""
    await cloud.temporal.get_workflow_handle(f"server:{server_id}").terminate()
    with cloud.database.write() as session:
        row = session.get_one(Server, server_id)
        row.vm_state, row.task_state, row.operation_id = vm_state, None, None


async def left_on_a_host_that_is_down(cloud: Cloud, recorder: Recorder) -> None:
    """An unshelve after one that was terminated, of whose host somebody says that it is off."""
    server_id = (await cloud.booted(host="sim-1")).id
    await (await cloud.client.servers.shelve(server_id)).result()
    held = cloud.stage.hold("resume_guest")
    await cloud.client.servers.unshelve(server_id, host="sim-1")
    await held.reached.wait()
    await _terminate(cloud, server_id, VmState.SHELVED_OFFLOADED)
    held.go_on.set()
    await declared_down(cloud, "sim-1")
    await (await cloud.client.servers.unshelve(server_id)).result()
    await recorder.save(cloud, "unshelve-owes-on-down-host", f"server:{server_id}")


async def images(cloud: Cloud, recorder: Recorder) -> None:
    """What is made of a server's disk, and into it."""
    server_id = (await cloud.booted()).id
    await operate(cloud, recorder, server_id, "snapshot", name="saved")
    await operate(cloud, recorder, server_id, "backup", name="kept", backup_type="daily", rotation=1)
    await operate(cloud, recorder, server_id, "rebuild")


async def in_error(cloud: Cloud, recorder: Recorder) -> None:
    """A server in error whose guest runs, and which cannot be rebuilt."""
    server_id = (await cloud.booted()).id
    with cloud.database.write() as session:
        session.get_one(Server, server_id).vm_state = VmState.ERROR
    cloud.stage.fail("spawn", ImageRejected("not an image"))
    failed = await cloud.client.servers.rebuild(server_id)
    await recorder.save(cloud, "rebuild-in-error", f"server:{server_id}", failed.run_id)


async def unhappy_boots(cloud: Cloud, recorder: Recorder) -> None:
    """A host that refuses, and an image that all do."""
    for case, error in (("rescheduled", RescheduleError("no room")), ("failed", ImageRejected("not an image"))):
        cloud.stage.fail("spawn", error)
        boot = await cloud.boot()
        await recorder.save(cloud, f"boot-{case}", f"server:{boot.server_id}", boot.run_id)


async def preempted_boot(cloud: Cloud, recorder: Recorder) -> None:
    """A delete in the middle of a boot, which has a volume."""
    volume = await cloud.client.volumes.create(size_gib=1)
    held = cloud.stage.hold("spawn")
    mapping = {"source_type": "volume", "destination_type": "volume", "uuid": volume.id}
    boot = await cloud.boot(block_devices=[mapping])
    await held.reached.wait()
    delete = await cloud.client.servers.delete(boot.server_id)
    held.go_on.set()
    await delete.result()
    await recorder.save(cloud, "boot-preempted", f"server:{boot.server_id}", boot.run_id)
    await recorder.save(cloud, "delete-preempting", f"server:{boot.server_id}")


async def catalogue(cloud: Cloud, recorder: Recorder) -> None:
    """Images and volumes, made and removed."""
    image = await cloud.client.images.create("mine", cloud.settings.state_dir / "demo.qcow2")
    await recorder.save(cloud, "create-image-ok", image_workflow_id(image.id))
    volume = await cloud.client.volumes.create("data", size_gib=1, image="mine")
    await recorder.save(cloud, "create-volume-ok", volume_workflow_id(volume.id))
    await cloud.client.volumes.delete(volume.id)
    await recorder.save(cloud, "delete-volume-ok", volume_workflow_id(volume.id))


async def silent_host(cloud: Cloud, recorder: Recorder) -> None:
    """A host that is away while its server is deleted, and does what it owes when it is back."""
    server = await cloud.booted()
    await cloud.stop_host("sim-1")
    boot = await cloud.boot()
    await recorder.save(cloud, "boot-silent-host", f"server:{boot.server_id}", boot.run_id)
    delete = await cloud.client.servers.delete(server.id)
    await recorder.save(cloud, "delete-owed", f"server:{server.id}", delete.run_id)
    await cloud.start_host("sim-1")
    await recorder.save(cloud, "register-host-owed", host_workflow_id(cloud.machine("sim-1").id))


async def audited(cloud: Cloud, recorder: Recorder) -> None:
    """An audit that finds what a deleted server has left, and a server whose guest was shut down."""
    gone, off = await cloud.booted("gone"), await cloud.booted("off")
    await cloud.deleted(gone.id)
    await plant(cloud, "sim-1", gone.id)
    await on_host(cloud, off.host or "", "stop_guest", {"server_id": off.id, "timeout": 0})
    handle = await cloud.temporal.start_workflow(
        AUDIT, AuditRequest(heal=True, pause=timedelta(seconds=1)), id=f"{AUDIT}:recorded", task_queue=CONTROL_QUEUE
    )
    await recorder.save(cloud, "audit-healing", handle.id)


async def evacuations(cloud: Cloud, recorder: Recorder) -> None:
    """Servers of a host that is off: one is built elsewhere, one cannot be."""
    first, second = await cloud.booted("first", host="sim-2"), await cloud.booted("second", host="sim-2")
    await declared_down(cloud, "sim-2")
    await operate(cloud, recorder, first.id, "evacuate")
    cloud.stage.fail("spawn", ImageRejected("not an image"))
    failed = await cloud.client.servers.evacuate(second.id)
    await recorder.save(cloud, "evacuate-failed", f"server:{second.id}", failed.run_id)


async def lost_in_the_hand_over(cloud: Cloud, recorder: Recorder) -> None:
    """A live migration whose guest has come whole when somebody says that its source is off."""
    server_id = (await cloud.booted(host="sim-1")).id
    held = cloud.stage.hold("end_migration")
    with patch.object(Arrivals, "run", lambda *_: False):
        operation = await cloud.client.servers.live_migrate(server_id)
        await held.reached.wait()
        await lost(cloud, "sim-1")
    held.go_on.set()
    await cloud.reached(operation, "declared_down")
    await cloud.client.hosts.declare_down("sim-1", "its power supply burnt")
    await recorder.save(cloud, "live-migrate-keeps-what-came", f"server:{server_id}", operation.run_id)


async def lost_one_after_the_other(cloud: Cloud, recorder: Recorder) -> None:
    """An evacuation after one that was terminated, of whose target somebody says that it is off too."""
    server_id = (await cloud.booted(host="sim-1")).id
    await declared_down(cloud, "sim-1")
    held = cloud.stage.hold("resume_guest")
    await cloud.client.servers.evacuate(server_id)
    await held.reached.wait()
    await _terminate(cloud, server_id, VmState.ERROR)
    held.go_on.set()
    await declared_down(cloud, "sim-2")
    operation = await cloud.client.servers.evacuate(server_id)
    await recorder.save(cloud, "evacuate-clears-down-host", f"server:{server_id}", operation.run_id)


async def hosts(cloud: Cloud, recorder: Recorder) -> None:
    """A host that is drained with one server that cannot be moved; one that falls silent and is evacuated."""
    off = await cloud.booted("off", host="sim-1")
    await (await cloud.client.servers.stop(off.id)).result()
    waits = await cloud.booted("waits", host="sim-1")
    await (await cloud.client.servers.migrate(waits.id)).result()
    drain = await cloud.client.hosts.drain("sim-1", skip=True)
    await recorder.save(cloud, "drain-host-skipping", drain_workflow_id(drain.host_id))
    await cloud.client.hosts.enable("sim-1")
    await cloud.booted("web", host="sim-1", metadata={"hostler:evacuate": "true"})
    configure(cloud, ["true"])
    await dies(cloud, "sim-1")
    await watched(cloud)
    failure = await begun(cloud, "sim-1")
    await recorder.save(cloud, "host-failure-ok", host_failure_workflow_id(failure.host_id))
    configure(cloud, None, interval=timedelta(0))
    await recorder.save(cloud, "watch-hosts-ended", WATCH_HOSTS)


STORIES = (
    *(servers, moves, shelf, left_on_a_host_that_is_down, images, in_error, unhappy_boots, preempted_boot),
    *(catalogue, silent_host, audited, evacuations),
    *(lost_in_the_hand_over, lost_one_after_the_other, hosts),
)


if __name__ == "__main__":
    main()
