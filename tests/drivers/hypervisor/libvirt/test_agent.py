"""The agent in a guest, played by a domain that answers as libvirt does."""

from pathlib import Path

import libvirt
import pytest

from drivers.hypervisor.libvirt.agent import THAWS, frozen
from drivers.hypervisor.libvirt.files import GuestFiles
from drivers.hypervisor.libvirt.snapshots import Snapshots
from hostler.contract.errors import InvalidState, RescheduleError

XML = "<domain><devices><channel><target name='org.qemu.guest_agent.0' state='{}'/></channel></devices></domain>"
FROZEN_AND_THAWED = ["thaw", "freeze", "block", "thaw"]


class Domain:
    """A guest with an agent. `fails` are the calls that it refuses."""

    def __init__(self) -> None:
        self.channel = "connected"
        self.running = libvirt.VIR_DOMAIN_RUNNING
        self.fails: set[str] = set()
        self.calls: list[str] = []

    def UUIDString(self) -> str:  # noqa: N802, libvirt's name
        return "2f8a"

    def XMLDesc(self) -> str:  # noqa: N802, libvirt's name
        return XML.format(self.channel)

    def state(self) -> tuple[int, int]:
        return self.running, 0

    def agentSetResponseTimeout(self, seconds: int) -> None:  # noqa: N802, libvirt's name
        assert 0 < seconds <= 60

    def fsFreeze(self) -> None:  # noqa: N802, libvirt's name
        self.call("freeze")

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
        ({"fails": {"thaw"}}, "does not answer"),
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


def test_a_thaw_that_fails_is_tried_again(domain: Domain, mark: Path, caplog: pytest.LogCaptureFixture) -> None:
    with frozen(domain, must=True, mark=mark):
        domain.fails = {"thaw"}
    assert domain.calls == ["thaw", "freeze"] + ["thaw"] * THAWS
    assert "may be frozen" in caplog.text
    assert mark.exists()


class TestWhatADeadWorkerLeft:
    @pytest.fixture
    def files(self, tmp_path: Path) -> GuestFiles:
        files = GuestFiles(tmp_path / "guest")
        files.directory.mkdir()
        files.freezing.touch()
        return files

    def thaw(self, domain: Domain, files: GuestFiles, *, off: bool = False) -> None:
        class Domains:
            def is_off(self, server_id: str) -> bool:
                return off

            def get(self, server_id: str) -> Domain:
                return domain

        Snapshots(Domains(), None).thaw(files)  # type: ignore[arg-type]  # they are played

    def test_is_thawed_once(self, domain: Domain, files: GuestFiles) -> None:
        self.thaw(domain, files)
        self.thaw(domain, files)
        assert (domain.calls, files.freezing.exists()) == (["thaw"], False)

    def test_is_thawed_by_the_next_worker_when_the_agent_says_no(self, domain: Domain, files: GuestFiles) -> None:
        domain.fails = {"thaw"}
        self.thaw(domain, files)
        domain.fails = set()
        self.thaw(domain, files)
        assert not files.freezing.exists()

    def test_is_nothing_in_a_guest_that_is_off(self, domain: Domain, files: GuestFiles) -> None:
        self.thaw(domain, files, off=True)
        assert (domain.calls, files.freezing.exists()) == ([], False)
