"""What a host's worker does beside its activities."""

import asyncio
from types import SimpleNamespace

import pytest

import workers.host
from hostler.contract.errors import Unavailable
from workers.host import restore


class Hypervisor:
    """One that has a guest that hangs. `answers` are what it says of it, one after the other, and then the last."""

    def __init__(self) -> None:
        self.answers: list[dict[str, str] | Exception] = []
        self.asked = 0
        self.again = asyncio.Event()

    async def restore(self) -> dict[str, str]:
        self.asked += 1
        if self.asked > 3:
            self.again.set()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
async def hypervisor(monkeypatch: pytest.MonkeyPatch) -> Hypervisor:
    monkeypatch.setattr(workers.host, "RESTORE_SECONDS", 0.01)
    return Hypervisor()


async def asked_often(hypervisor: Hypervisor) -> None:
    """Let the worker ask a few times."""
    machine = SimpleNamespace(name="host-1", hypervisor=hypervisor)
    duty = asyncio.create_task(restore(machine))  # type: ignore[arg-type]  # as much of one as it needs
    async with asyncio.timeout(10):
        await hypervisor.again.wait()
    assert not duty.done()
    duty.cancel()
    await asyncio.wait([duty])


async def test_a_guest_that_hangs_is_seen_to_again_and_again_and_said_once_a_minute(
    hypervisor: Hypervisor, caplog: pytest.LogCaptureFixture
) -> None:
    hypervisor.answers = [{}, {"2f8a": "its file systems may be frozen"}]
    await asked_often(hypervisor)
    assert caplog.text.count("guest 2f8a may hang: its file systems may be frozen") == 1


async def test_it_is_said_again_when_a_minute_has_passed(
    hypervisor: Hypervisor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.host, "SAY_SECONDS", 0.0)
    hypervisor.answers = [{"2f8a": "its file systems may be frozen"}]
    await asked_often(hypervisor)
    assert caplog.text.count("may hang") > 1


async def test_a_hypervisor_that_does_not_answer_is_asked_again(
    hypervisor: Hypervisor, caplog: pytest.LogCaptureFixture
) -> None:
    hypervisor.answers = [Unavailable("libvirt does not answer"), {}]
    await asked_often(hypervisor)
    assert "could not see to guests that may hang" in caplog.text
