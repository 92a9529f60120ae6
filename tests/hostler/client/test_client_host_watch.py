"""What the watch over the hosts knows, as people are told."""

from datetime import UTC, datetime, timedelta

from hostler.client.host_watch import failures_of
from hostler.contract.host_work import FailedHost, HostFailures, LeftOnHost, SilentHost, WatchState

START = datetime(2026, 7, 1, 12, tzinfo=UTC)
SECONDS, MINUTE = timedelta(seconds=15), timedelta(minutes=1)
ALARM = "2 hosts are lost at once (a, b)"


def silent(name: str, **more: object) -> SilentHost:
    """A host that is missed, with two servers, one of which is to be evacuated."""
    return SilentHost.model_validate({"id": name, "name": name, "since": START, "servers": 2, "wanted": 1, **more})


def told(*hosts: SilentHost, after: timedelta = SECONDS, **more: object) -> HostFailures:
    """What is made of a watch that has looked at the start."""
    state = WatchState(looked_at=START, interval=SECONDS, limit=MINUTE, silent=list(hosts))
    return failures_of(state.model_copy(update=more), START, START + after)


def lines(found: HostFailures) -> dict[str, tuple[str, datetime | None, str]]:
    """What is said of each host."""
    return {host.name: (host.state, host.since, host.doing) for host in found.hosts}


def test_a_host_that_is_missed_says_what_it_waits_for() -> None:
    found = told(silent("a"), silent("empty", servers=0, wanted=0), silent("kept", wanted=0))
    assert lines(found) == {
        "a": ("silent", START, "waits whether it comes back, until 2026-07-01 12:01:00 or a little longer"),
        "empty": ("silent", START, "nothing: it has no servers"),
        "kept": (
            "silent",
            START,
            "nothing: none of its servers is evacuated by itself; hostler host evacuate does it",
        ),
    }
    assert not found.calls


def test_one_that_is_dealt_with_says_where_to_look_also_when_an_operator_asked_for_it() -> None:
    begun = START + MINUTE
    found = told(silent("a", begun=begun), silent("b", stuck="no power"), under_way=["a", "b", "c"])
    states = {name: (state, since) for name, (state, since, _) in lines(found).items()}
    assert states == {"a": ("evacuating", begun), "b": ("evacuating", START), "c": ("evacuating", None)}
    assert lines(found)["a"][2] == "is fenced and evacuated: hostler host evacuate a --status"
    assert not found.calls


def test_one_that_could_not_be_fenced_calls_a_person_since_then() -> None:
    found = told(silent("a", stuck="no power", stuck_since=START + MINUTE))
    assert lines(found) == {"a": ("stuck", START + MINUTE, "nothing, until a person has seen to it: no power")}
    assert found.calls


def test_an_alarm_keeps_all_else_from_being_done() -> None:
    left = LeftOnHost(id="dead", name="dead", wanted=1, tried=START, pause=MINUTE, times=2)
    found = told(silent("a"), silent("b"), left=[left], alarm=ALARM, alarm_since=START)
    assert {doing for _, _, doing in lines(found).values()} == {"nothing, as long as there is an alarm"}
    assert (found.calls, found.alarm, found.alarm_since) == (True, ALARM, START)


def test_one_that_is_down_for_sure_says_when_it_is_tried_again() -> None:
    left = LeftOnHost(id="dead", name="dead", wanted=1, tried=START, pause=MINUTE, times=2)
    doing = "it is down for sure; tried 2 times again, the next time after 2026-07-01 12:01:00"
    assert lines(told(left=[left])) == {"dead": ("left", START, doing)}


def test_one_whose_failure_is_over_is_named_since_it_counts_and_each_host_once() -> None:
    failed = [FailedHost(id=name, name=name, begun=START) for name in ("a", "b")]
    found = told(silent("a", begun=START), failed=failed)
    assert [(host.name, host.state) for host in found.hosts] == [("a", "evacuating"), ("b", "counts")]


def test_a_watch_that_does_not_look_is_late_unless_its_release_does_not_say_how_often_it_looks() -> None:
    hour = timedelta(hours=1)
    assert (told().late, told(after=hour).late) == (False, True)
    assert not told(after=hour, interval=timedelta(0)).late


def test_a_watch_whose_first_look_never_ends_is_late() -> None:
    assert not told(looked_at=None, interval=timedelta(0)).late
    assert told(after=timedelta(hours=1), looked_at=None, interval=timedelta(0)).late
