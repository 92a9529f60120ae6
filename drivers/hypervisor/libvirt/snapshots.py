"""Writes a guest's root disk, as it is at one moment, into an image file that stands alone.

For a guest that is on, QEMU copies while the guest goes on (a full backup in push mode); one that is off is converted.
"""

import asyncio
import json
import os
import shutil
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple
from weakref import WeakValueDictionary

import libvirt
from lxml import etree
from lxml.builder import E

from drivers.blocking import BlockingCalls
from drivers.converting import convert, patience
from drivers.hypervisor.base import Report
from drivers.hypervisor.libvirt import agent
from drivers.hypervisor.libvirt.connection import ignoring, libvirt_errors
from drivers.hypervisor.libvirt.disks import PRIVATE, run_tool, virtual_size
from drivers.hypervisor.libvirt.domains import GONE, Domains
from drivers.hypervisor.libvirt.files import GuestFiles
from drivers.hypervisor.reporting import reporting
from hostler.contract.errors import HostlerError, NotFound, RescheduleError, Unavailable
from hostler.contract.resources import DiskFormat

MIB = 1 << 20
POLL_INTERVAL = timedelta(seconds=0.2)
ABORT_LIMIT = timedelta(seconds=30)


class Progress(NamedTuple):
    """How many of how many bytes QEMU has looked at."""

    done: int
    total: int

    def __str__(self) -> str:
        return f"snapshot: {100 * self.done // max(self.total, 1)} % of {self.total // MIB} MiB"


class Snapshots:
    """Takes snapshots. One at a time of a guest."""

    def __init__(self, domains: Domains, blocking: BlockingCalls) -> None:
        self._domains = domains
        self._blocking = blocking
        self._agents: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def take(self, files: GuestFiles, target: Path, quiesce: bool, report: Report) -> DiskFormat:
        """See `HypervisorDriver.snapshot`."""
        try:
            if await self._blocking.run(self._domains.is_off, files.directory.name):
                await self._convert(files, target, report)
            else:
                await self._back_up(files, target, quiesce, report)
            async with reporting(report, lambda: "snapshot: writing to the disk"):
                await self._blocking.run(_sync, target)
        except BaseException:
            await self._blocking.run(target.unlink, missing_ok=True)
            raise
        return DiskFormat.QCOW2

    async def thaw(self, files: GuestFiles) -> str:
        """Let a guest go on whose file systems were left frozen. Answers why that cannot be, or nothing.

        What a snapshot freezes at this very moment is left to it, but not what it has left while it copies.
        """
        agent_of_guest = self._agent(files)
        if agent_of_guest.locked():
            return ""
        async with agent_of_guest:
            return await self._blocking.run(self._thaw, files)

    def _thaw(self, files: GuestFiles) -> str:
        server_id = files.directory.name
        with suppress(NotFound, FileNotFoundError):  # it is being removed
            if files.freezing.exists() and not self._domains.is_off(server_id):
                return agent.thaw_left(self._domains.get(server_id), files.freezing)
        files.freezing.unlink(missing_ok=True)  # what is off has no file systems
        return ""

    def _agent(self, files: GuestFiles) -> asyncio.Lock:
        """Held by whoever has the guest's agent freeze and thaw."""
        return self._agents.setdefault(files.directory.name, asyncio.Lock())

    async def _convert(self, files: GuestFiles, target: Path, report: Report) -> None:
        size = await self._blocking.run(virtual_size, files.root_disk)
        done = Progress(0, size)

        def progress(percent: int) -> None:
            nonlocal done
            done = Progress(size * percent // 100, size)
            report(str(done))

        async with reporting(report, lambda: str(done)):
            await self._blocking.run(_make_anew, target, size)  # in the room that an earlier try took
            await self._blocking.run(_check_room, target, files.root_disk)
            how = ["-n", "--target-is-zero", "-f", DiskFormat.QCOW2, "-O", DiskFormat.QCOW2]
            disks = str(files.root_disk), str(target)
            complaint = await convert(*how, *disks, progress=progress, silence=patience(size))
        if complaint:
            raise RescheduleError(f"qemu-img could not write the snapshot: {complaint}")

    async def _back_up(self, files: GuestFiles, target: Path, quiesce: bool, report: Report) -> None:
        domain = await self._blocking.run(self._domains.get, files.directory.name)
        said = "snapshot: beginning"
        async with reporting(report, lambda: said):
            await self._blocking.run(abort_backup, domain)  # what an earlier try, that is dead, left running
            disk, size = await self._blocking.run(_root_disk, domain, files)
            await self._blocking.run(_make_anew, target, size)
            await self._blocking.run(_check_room, target, files.root_disk)
            try:
                async with self._agent(files):
                    await self._blocking.run(_begin, domain, disk, target, quiesce, files.freezing)
                while progress := await self._blocking.run(_progress, domain):
                    said = str(progress)
                    report(said)
                    await asyncio.sleep(POLL_INTERVAL.total_seconds())
                await self._blocking.run(_check, domain)
            except BaseException:
                with suppress(HostlerError):  # libvirt may be gone: the next try aborts it
                    await self._blocking.run(abort_backup, domain)
                    await self._blocking.run(_let_run_on, domain)
                raise


def _let_run_on(domain: libvirt.virDomain) -> None:
    """QEMU stops a guest whose write had to wait for a copy that failed. Without the job the write is done again."""
    with libvirt_errors(Unavailable), ignoring(*GONE):
        if domain.state() == [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR]:
            domain.resume()


def _check_room(target: Path, disk: Path) -> None:
    """A copy that finds the store full would break the writes of every guest that is being copied there."""
    free, size = shutil.disk_usage(target.parent).free, _size_of_copy(disk)
    store = target.parent.parent  # which takes the copy in by one of its own
    needed = 2 * size if _share_room(store, target.parent) else size
    if free < needed:
        raise RescheduleError(
            f"no room in {target.parent} for a snapshot of {size} bytes: it takes {needed} there, and {free} are free",
            remedy="free space in the image store",
        )


def _share_room(one: Path, other: Path) -> bool:
    """Whether they are on one file system, if only where that is: it may be mounted from there by two exports."""
    first, second = os.statvfs(one), os.statvfs(other)
    same = (first.f_frsize, first.f_blocks, first.f_files) == (second.f_frsize, second.f_blocks, second.f_files)
    return same or one.stat().st_dev == other.stat().st_dev


def _size_of_copy(disk: Path) -> int:
    """How long the file of a copy becomes, which has what the image beneath has, too; a guest may be writing."""
    how = ["--force-share", "--output=json", "-f", DiskFormat.QCOW2, "-O", DiskFormat.QCOW2]
    required: int = json.loads(run_tool("qemu-img", "measure", *how, str(disk)))["required"]
    return required


def _make_anew(target: Path, size: int) -> None:
    """An empty image, made here so that this worker owns it; libvirt lends it to QEMU."""
    try:
        target.unlink(missing_ok=True)
        target.touch(PRIVATE)
    except OSError as error:
        raise RescheduleError(f"cannot write the snapshot: {error}") from error
    run_tool("qemu-img", "create", "-q", "-f", DiskFormat.QCOW2, str(target), str(size))


def _root_disk(domain: libvirt.virDomain, files: GuestFiles) -> tuple[str, int]:
    """The name of the root disk in the domain, and its size."""
    with libvirt_errors(Unavailable):
        devices = etree.fromstring(domain.XMLDesc()).find("devices")
        for disk in [] if devices is None else devices.findall("disk"):
            source, target = disk.find("source"), disk.find("target")
            if source is not None and target is not None and source.get("file") == str(files.root_disk):
                name = target.get("dev", "")
                return name, domain.blockInfo(name)[0]
    raise NotFound("the guest has no root disk on this host", field="server_id", value=files.directory.name)


def _begin(domain: libvirt.virDomain, disk: str, target: Path, quiesce: bool, freezing: Path) -> None:
    """Begin the copy; what the guest writes from now on is not in it.

    The file systems are frozen for this moment only, and on one thread: nothing but the worker's death comes between.
    """
    backup = E.domainbackup(
        E.disks(
            E.disk(E.driver(type=DiskFormat.QCOW2), E.target(file=str(target)), name=disk, backup="yes", type="file")
        ),
        mode="push",
    )
    with agent.frozen(domain, must=quiesce, mark=freezing), libvirt_errors(RescheduleError):
        with suppress(libvirt.libvirtError):
            domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)  # forgets that of an earlier job
        flags = libvirt.VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL
        domain.backupBegin(etree.tostring(backup, encoding="unicode"), None, flags)


def _progress(domain: libvirt.virDomain) -> Progress | None:
    """How far the copy is; None when it has ended."""
    with libvirt_errors(Unavailable):
        job = domain.jobStats()
    if job["type"] == libvirt.VIR_DOMAIN_JOB_NONE:
        return None
    return Progress(job.get("disk_processed", 0), job.get("disk_total", 0))


def _check(domain: libvirt.virDomain) -> None:
    """Make sure that the copy is whole."""
    with libvirt_errors(Unavailable):
        job = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    if job["type"] == libvirt.VIR_DOMAIN_JOB_NONE:
        raise Unavailable("nothing says how the snapshot ended: libvirt was restarted, or the guest was")
    if not job.get("success", False):
        raise RescheduleError(f"QEMU could not write the snapshot: {job.get('errmsg', 'it gives no reason')}")


def abort_backup(domain: libvirt.virDomain) -> None:
    """End a copy that runs, and wait until QEMU has let go of its file."""
    off = (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN)  # or the copy has ended meanwhile
    with libvirt_errors(Unavailable), ignoring(*off):
        if domain.jobStats().get("operation") != libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP:
            return
        domain.abortJob()
        end = time.monotonic() + ABORT_LIMIT.total_seconds()
        while domain.jobStats()["type"] != libvirt.VIR_DOMAIN_JOB_NONE:
            if time.monotonic() > end:
                raise Unavailable(f"QEMU has not ended an earlier snapshot within {ABORT_LIMIT}")
            time.sleep(POLL_INTERVAL.total_seconds())


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
