"""The agent in a guest, played by a domain that answers as libvirt does."""

import libvirt
import pytest

from drivers.hypervisor.libvirt.agent import THAWS, frozen
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


def in_block(domain: Domain, must: bool = False) -> None:
    with frozen(domain, must):
        domain.calls.append("block")


@pytest.mark.parametrize("must", [False, True])
def test_an_agent_that_answers_freezes_for_the_block_after_what_a_dead_worker_left_is_thawed(
    domain: Domain, must: bool
) -> None:
    in_block(domain, must)
    assert domain.calls == FROZEN_AND_THAWED


def test_what_fails_in_the_block_leaves_nothing_frozen(domain: Domain) -> None:
    with pytest.raises(RescheduleError), frozen(domain, must=True):
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
    domain: Domain, broken: dict[str, object], reason: str
) -> None:
    vars(domain).update(broken)
    in_block(domain)
    assert "freeze" not in domain.calls
    assert domain.calls[-1] == "block"
    with pytest.raises(InvalidState, match=reason) as caught:
        in_block(domain, must=True)
    assert "qemu-guest-agent" in str(caught.value.remedy)


def test_an_agent_that_refuses_to_freeze_is_told_to_thaw_all_the_same(domain: Domain) -> None:
    domain.fails = {"freeze"}
    in_block(domain)
    assert domain.calls == FROZEN_AND_THAWED
    with pytest.raises(InvalidState, match="freeze is not allowed"):
        in_block(domain, must=True)
    assert domain.calls[-2:] == ["freeze", "thaw"]


def test_a_thaw_that_fails_is_tried_again(domain: Domain, caplog: pytest.LogCaptureFixture) -> None:
    with frozen(domain, must=True):
        domain.fails = {"thaw"}
    assert domain.calls == ["thaw", "freeze"] + ["thaw"] * THAWS
    assert "may be frozen" in caplog.text
