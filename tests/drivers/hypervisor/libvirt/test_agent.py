"""The agent in a guest, played by a domain that answers as libvirt does. test_snapshots.py has one of a real guest."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import libvirt
import pytest

from drivers.blocking import BlockingCalls
from drivers.hypervisor.libvirt import snapshots
from drivers.hypervisor.libvirt.agent import THAWS, frozen
from drivers.hypervisor.libvirt.files import GuestFiles
from drivers.hypervisor.libvirt.snapshots import Snapshots
from hostler.contract.errors import InvalidState, NotFound, RescheduleError

XML = "<domain><devices><channel><target name='org.qemu.guest_agent.0' state='{}'/></channel></devices></domain>"
FROZEN_AND_THAWED = ["thaw", "freeze", "block", "thaw"]


class Domain:
    """A guest with an agent. `fails` are the calls that it refuses."""

    def __init__(self) -> None:
        self.channel = "connected"
        self.running = libvirt.VIR_DOMAIN_RUNNING
        self.fails: set[str] = set()
        self.calls: list[str] = []
        self.starts = 1
        self.file_systems = 2

    def ID(self) -> int:  # noqa: N802, libvirt's name
        return self.starts

    def UUIDString(self) -> str:  # noqa: N802, libvirt's name
        return "2f8a"

    def XMLDesc(self) -> str:  # noqa: N802, libvirt's name
        return XML.format(self.channel)

    def state(self) -> tuple[int, int]:
        return self.running, 0

    def agentSetResponseTimeout(self, seconds: int) -> None:  # noqa: N802, libvirt's name
        assert 0 < seconds <= 60

    def fsFreeze(self) -> int:  # noqa: N802, libvirt's name
        self.call("freeze")
        return self.file_systems

    def fsThaw(self) -> None:  # noqa: N802, libvirt's name
        self.call("thaw")

    def call(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fails:
            raise libvirt.libvirtError(f"agent: {name} is not allowed")


@pytest.fixture
def domain() -> Domain:
    return Domain()


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "freezing"


def in_block(domain: Domain, mark: Path, must: bool = False) -> None:
    with frozen(domain, must, mark):
        assert mark.exists() == ("freeze" in domain.calls)
        domain.calls.append("block")


@pytest.mark.parametrize("must", [False, True])
def test_an_agent_that_answers_freezes_for_the_block_after_what_a_dead_worker_left_is_thawed(
    domain: Domain, mark: Path, must: bool
) -> None:
    in_block(domain, mark, must)
    assert domain.calls == FROZEN_AND_THAWED


def test_what_fails_in_the_block_leaves_nothing_frozen(domain: Domain, mark: Path) -> None:
    with pytest.raises(RescheduleError), frozen(domain, must=True, mark=mark):
        raise RescheduleError("no")
    assert domain.calls == ["thaw", "freeze", "thaw"]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"channel": "disconnected"}, "no guest agent runs"),
        ({"running": libvirt.VIR_DOMAIN_PAUSED}, "the guest is paused"),
    ],
)
def test_a_guest_that_cannot_be_asked_is_not_frozen_and_refused_only_if_it_must_be(
    domain: Domain, mark: Path, broken: dict[str, object], reason: str
) -> None:
    vars(domain).update(broken)
    in_block(domain, mark)
    assert "freeze" not in domain.calls
    assert domain.calls[-1] == "block"
    with pytest.raises(InvalidState, match=reason) as caught:
        in_block(domain, mark, must=True)
    assert "qemu-guest-agent" in str(caught.value.remedy)


def test_an_agent_that_refuses_to_freeze_is_told_to_thaw_all_the_same(domain: Domain, mark: Path) -> None:
    domain.fails = {"freeze"}
    in_block(domain, mark)
    assert domain.calls == FROZEN_AND_THAWED
    with pytest.raises(InvalidState, match="freeze is not allowed"):
        in_block(domain, mark, must=True)
    assert domain.calls[-2:] == ["freeze", "thaw"]


def test_an_agent_that_has_nothing_to_freeze_has_not_quiesced_the_guest(domain: Domain, mark: Path) -> None:
    domain.file_systems = 0
    in_block(domain, mark)
    assert domain.calls == FROZEN_AND_THAWED
    with pytest.raises(InvalidState, match="no file system that it can freeze"):
        in_block(domain, mark, must=True)
    assert not mark.exists()


def test_a_thaw_that_fails_is_tried_again(domain: Domain, mark: Path, caplog: pytest.LogCaptureFixture) -> None:
    with frozen(domain, must=True, mark=mark):
        domain.fails = {"thaw"}
    assert domain.calls == ["thaw", "freeze"] + ["thaw"] * THAWS
    assert "may be frozen" in caplog.text
    assert mark.exists()


class Domains:
    """The domains of a libvirtd with one guest."""

    def __init__(self, domain: Domain) -> None:
        self.domain: Domain | None = domain
        self.off = False

    def is_off(self, server_id: str) -> bool:
        self.get(server_id)
        return self.off

    def get(self, server_id: str) -> Domain:
        if self.domain is None:
            raise NotFound("no such guest")
        return self.domain


class TestWhatIsLeftFrozen:
    @pytest.fixture
    def files(self, tmp_path: Path) -> GuestFiles:
        files = GuestFiles(tmp_path / "guest")
        files.directory.mkdir()
        return files

    @pytest.fixture
    def domains(self, domain: Domain) -> Domains:
        return Domains(domain)

    @pytest.fixture
    async def snapshots(self, domains: Domains) -> AsyncIterator[Snapshots]:
        blocking = BlockingCalls("test", 2)
        yield Snapshots(domains, blocking)  # type: ignore[arg-type]  # they are played
        await blocking.close()

    @pytest.fixture
    def left(self, domain: Domain, files: GuestFiles) -> None:
        """A snapshot has frozen the guest, and could not thaw it."""
        with frozen(domain, must=True, mark=files.freezing):
            domain.fails = {"thaw"}
        assert files.freezing.exists()
        domain.calls, domain.fails = [], set()

    @pytest.mark.usefixtures("left")
    async def test_is_thawed_once(self, domain: Domain, files: GuestFiles, snapshots: Snapshots) -> None:
        assert [await snapshots.thaw(files), await snapshots.thaw(files)] == ["", ""]
        assert (domain.calls, files.freezing.exists()) == (["thaw"], False)

    @pytest.mark.parametrize("what_it_wrote", ["", "1"])
    async def test_is_thawed_though_the_worker_that_froze_it_has_died(
        self, domain: Domain, files: GuestFiles, snapshots: Snapshots, what_it_wrote: str
    ) -> None:
        files.freezing.write_text(what_it_wrote)
        assert await snapshots.thaw(files) == ""
        assert (domain.calls, files.freezing.exists()) == (["thaw"], False)

    @pytest.mark.usefixtures("left")
    async def test_is_asked_for_once_a_time_until_the_agent_does_it(
        self, domain: Domain, files: GuestFiles, snapshots: Snapshots
    ) -> None:
        domain.fails = {"thaw"}
        assert "thaw is not allowed" in await snapshots.thaw(files)
        assert (domain.calls, files.freezing.exists()) == (["thaw"], True)
        domain.fails = set()
        assert await snapshots.thaw(files) == ""
        assert not files.freezing.exists()

    @pytest.mark.usefixtures("left")
    async def test_is_thawed_by_libvirtd_as_it_is_now_and_not_by_the_one_that_froze_it(
        self, domain: Domain, domains: Domains, files: GuestFiles, snapshots: Snapshots
    ) -> None:
        domain.fails, domains.domain = {"thaw"}, Domain()
        assert await snapshots.thaw(files) == ""
        assert (domain.calls, domains.domain.calls) == ([], ["thaw"])

    @pytest.mark.usefixtures("left")
    async def test_is_nothing_in_a_guest_that_is_off(
        self, domain: Domain, domains: Domains, files: GuestFiles, snapshots: Snapshots
    ) -> None:
        domains.off = True
        assert await snapshots.thaw(files) == ""
        assert (domain.calls, files.freezing.exists()) == ([], False)

    @pytest.mark.usefixtures("left")
    async def test_is_nothing_in_a_guest_that_was_started_since(
        self, domain: Domain, files: GuestFiles, snapshots: Snapshots
    ) -> None:
        """Which may have no agent any more."""
        domain.starts += 1
        assert await snapshots.thaw(files) == ""
        assert (domain.calls, files.freezing.exists()) == ([], False)

    @pytest.mark.usefixtures("left")
    async def test_is_nothing_where_there_is_no_guest(
        self, domains: Domains, files: GuestFiles, snapshots: Snapshots
    ) -> None:
        domains.domain = None
        assert await snapshots.thaw(files) == ""
        assert not files.freezing.exists()


class TestASnapshotThatRuns:
    """Its copy goes on long after the moment in which the guest was to be frozen."""

    @pytest.fixture
    def files(self, tmp_path: Path) -> GuestFiles:
        files = GuestFiles(tmp_path / "guest")
        files.directory.mkdir()
        return files

    @pytest.fixture
    async def taking(
        self, domain: Domain, files: GuestFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator["Taking"]:
        taking = Taking(domain, files, monkeypatch)
        taking.task = asyncio.create_task(taking.snapshots.take(files, tmp_path / "image", False, lambda said: None))
        await taking.frozen.wait()
        yield taking
        taking.go_on.set()
        taking.copied.set()
        await taking.task
        await taking.blocking.close()

    async def test_is_left_alone_while_it_freezes_the_guest_on_purpose(
        self, domain: Domain, files: GuestFiles, taking: "Taking"
    ) -> None:
        assert files.freezing.exists()
        assert await taking.snapshots.thaw(files) == ""
        assert domain.calls == ["thaw", "freeze"]

    async def test_keeps_no_guest_frozen_that_it_could_not_thaw(
        self, domain: Domain, files: GuestFiles, taking: "Taking"
    ) -> None:
        domain.fails = {"thaw"}
        taking.go_on.set()
        await taking.copying.wait()
        assert files.freezing.exists()

        domain.fails = set()
        assert await taking.snapshots.thaw(files) == ""

        assert not taking.task.done()
        assert not files.freezing.exists()


class Taking:
    """A snapshot of a guest that is on, with libvirt's part of the copy played."""

    def __init__(self, domain: Domain, files: GuestFiles, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = asyncio.get_running_loop()
        self.frozen, self.copying = asyncio.Event(), asyncio.Event()
        self.go_on, self.copied = threading.Event(), threading.Event()
        self.blocking = BlockingCalls("test", 2)
        self.snapshots = Snapshots(Domains(domain), self.blocking)  # type: ignore[arg-type]  # they are played
        self.task: asyncio.Task[object] = asyncio.create_task(asyncio.sleep(0))
        for name in ("abort_backup", "_make_anew", "_check_room", "_check", "_sync"):
            monkeypatch.setattr(snapshots, name, lambda *_: None)
        monkeypatch.setattr(snapshots, "_root_disk", lambda *_: ("vda", 1))
        monkeypatch.setattr(snapshots, "_begin", self.begin)
        monkeypatch.setattr(snapshots, "_progress", self.progress)

    def begin(self, domain: Domain, disk: str, target: Path, quiesce: bool, freezing: Path) -> None:
        with frozen(domain, quiesce, freezing):
            self.loop.call_soon_threadsafe(self.frozen.set)
            assert self.go_on.wait(30)

    def progress(self, domain: Domain) -> snapshots.Progress | None:
        self.loop.call_soon_threadsafe(self.copying.set)
        return None if self.copied.wait(0.01) else snapshots.Progress(0, 1)
