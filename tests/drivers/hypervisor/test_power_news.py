"""News of power states: every change that was not asked for, however the hints come, and no other."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from drivers.hypervisor.power import PowerNews
from hostler.contract.errors import Unavailable
from hostler.contract.states import PowerState

RUNNING, SHUTDOWN, PAUSED, NOSTATE = PowerState.RUNNING, PowerState.SHUTDOWN, PowerState.PAUSED, PowerState.NOSTATE


class Host:
    """Guests in states, some of which are busy, as a driver knows them."""

    def __init__(self, **states: PowerState) -> None:
        self.states = states
        self.busy: set[str] = set()
        self.broken = False
        self.news = PowerNews()

    async def guests(self) -> list[str]:
        if self.broken:
            raise Unavailable("away")
        return list(self.states)

    async def look(self, server_id: str) -> PowerState:
        if self.broken:
            raise Unavailable("away")
        return self.states.get(server_id, NOSTATE)

    def follow(self) -> AsyncGenerator[frozenset[str]]:
        return self.news.follow(self.guests, self.look, lambda one: one in self.busy)


@pytest.fixture
def host() -> Host:
    return Host(a=RUNNING, b=SHUTDOWN)


async def after_all(host: Host) -> AsyncGenerator[frozenset[str]]:
    """The news once all have been told."""
    following = host.follow()
    host.news.look_at_all()
    assert await anext(following) == set(host.states)
    return following


async def quiet(host: Host, following: AsyncGenerator[frozenset[str]]) -> bool:
    """Whether there is no news: the next is that of a guest which changes only now."""
    host.states["witness"] = RUNNING
    host.news.look_at("witness")
    return await anext(following) == {"witness"}


async def test_a_change_is_told_once_however_often_it_is_hinted_at(host: Host) -> None:
    following = await after_all(host)
    host.states["a"] = SHUTDOWN
    for _ in range(3):
        host.news.look_at("a")
    assert await anext(following) == {"a"}
    host.news.look_at("a")
    assert await quiet(host, following)


async def test_what_counts_is_the_state_when_it_is_looked_at(host: Host) -> None:
    following = await after_all(host)
    host.news.look_at("a")  # it went off and came back before anybody looked
    host.news.look_at("b")
    assert await quiet(host, following)


async def test_what_the_driver_did_itself_is_no_news(host: Host) -> None:
    following = await after_all(host)
    host.states["a"] = SHUTDOWN
    host.news.told("a", SHUTDOWN)
    del host.states["b"]
    host.news.told("b", NOSTATE)
    host.news.look_at("a")
    host.news.look_at("b")
    assert await quiet(host, following)


async def test_a_busy_guest_is_looked_at_when_it_is_no_longer(host: Host) -> None:
    following = await after_all(host)
    host.busy = {"a"}
    host.states["a"] = PAUSED
    host.news.look_at("a")
    assert await quiet(host, following)
    host.busy = set()
    host.news.look_again()
    assert await anext(following) == {"a"}


async def test_one_that_is_gone_is_news_and_one_that_never_was_is_not(host: Host) -> None:
    following = await after_all(host)
    del host.states["a"]
    host.news.look_at("a")
    assert await anext(following) == {"a"}
    host.news.look_at("somebody else's")
    assert await quiet(host, following)


async def test_looking_at_all_tells_all_and_those_that_have_gone(host: Host) -> None:
    following = await after_all(host)
    del host.states["a"]
    host.news.look_at_all()
    assert await anext(following) == {"a", "b"}


async def test_what_could_not_be_seen_is_seen_later(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    following = await after_all(host)
    host.broken = True
    host.states["a"] = PAUSED
    host.news.look_at("a")
    waiting = asyncio.ensure_future(anext(following))
    while "cannot be seen" not in caplog.text:  # noqa: ASYNC110 - the log is what there is to see
        await asyncio.sleep(0)
    host.broken = False
    host.news.look_at_all()
    assert await waiting == {"a", "b"}


async def test_closing_ends_it(host: Host) -> None:
    following = await after_all(host)
    host.news.close()
    assert [news async for news in following] == []
