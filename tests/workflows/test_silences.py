"""How long a host has been silent, and what follows: decided by looks alone, whoever made them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from activities.interfaces.host_watch import HostsLook, Left, Missing
from hostler.contract.host_work import SilentHost, WatchState
from workflows.silences import FIRST, LONGEST, again, begun, due, note, tried

START = datetime(2026, 7, 1, 12, tzinfo=UTC)
INTERVAL, SILENCE = timedelta(seconds=15), timedelta(seconds=60)


def look(*names: str, wanted: int = 1, max_hosts: int = 1, **more: Any) -> HostsLook:
    """A look that misses these hosts."""
    missing = [Missing(id=name, name=name, servers=1, wanted=wanted) for name in names]
    return HostsLook(missing=missing, interval=INTERVAL, silence=SILENCE, max_hosts=max_hosts, **more)


class Watch:
    """A watch that is told the time."""

    def __init__(self) -> None:
        self.state, self.now = WatchState(), START

    def looks(self, *names: str, after: timedelta = INTERVAL, **more: Any) -> list[str]:
        """Who is due, when it has looked once more."""
        self.now += after
        seen = look(*names, **more)
        note(self.state, seen, self.now)
        found = due(self.state, seen, self.now)
        for host in found:
            begun(self.state, host, self.now)
        return [host.name for host in found]

    def sees(self, *names: str, times: int, **more: Any) -> list[list[str]]:
        """Who is due, look by look."""
        return [self.looks(*names, **more) for _ in range(times)]

    def retries(self, after: timedelta, **more: Any) -> bool:
        """Whether it tries again what is left on the host "dead", when it has looked once more."""
        self.now += after
        seen = look(**{"left": [Left(id="dead", name="dead", wanted=2, free=1)], **more})
        note(self.state, seen, self.now)
        found = again(self.state, seen, self.now)
        for host in found:
            tried(host, self.now)
        return bool(found)

    @property
    def silent(self) -> dict[str, SilentHost]:
        """Who is silent."""
        return {host.name: host for host in self.state.silent}


def test_a_host_is_due_when_it_has_been_silent_for_long_enough() -> None:
    assert Watch().sees("a", times=6) == [[], [], [], [], ["a"], []]


def test_a_host_that_is_heard_in_between_begins_anew() -> None:
    watch = Watch()
    watch.sees("a", times=4)
    watch.looks()
    assert watch.sees("a", times=4) == [[]] * 4


def test_what_was_not_looked_at_is_no_silence() -> None:
    watch = Watch()
    watch.sees("a", times=4)
    assert watch.looks("a", after=timedelta(minutes=10)) == []
    assert watch.silent["a"].since == watch.now
    assert watch.sees("a", times=4) == [[], [], [], ["a"]]


def test_a_gap_does_not_begin_twice_what_was_begun() -> None:
    watch = Watch()
    watch.sees("a", times=5)
    assert watch.looks("a", after=timedelta(minutes=10), under_way=["a"]) == []
    assert watch.sees("a", times=9, under_way=["a"]) == [[]] * 9


def test_the_state_survives_the_wire() -> None:
    watch = Watch()
    watch.sees("a", times=4)
    watch.state = WatchState.model_validate_json(watch.state.model_dump_json())
    assert watch.looks("a") == ["a"]


def test_when_too_many_are_lost_none_is_due() -> None:
    watch = Watch()
    assert watch.sees("a", "b", times=6) == [[]] * 6
    assert "2 hosts are lost at once (a, b)" in watch.state.alarm
    assert watch.looks("b") == ["b"]
    assert watch.state.alarm == ""


def test_as_many_as_may_be_lost_are_due() -> None:
    assert Watch().sees("a", "b", times=5, max_hosts=2)[-1] == ["a", "b"]


def test_one_that_is_due_waits_for_others_that_fall_silent_but_not_for_ever() -> None:
    watch = Watch()
    watch.sees("a", times=2)
    assert watch.sees("a", "b", times=6) == [[]] * 6
    assert watch.state.alarm
    restless = Watch()
    restless.sees("a", times=4)
    turns = [restless.looks("a", f"other-{number}") for number in range(5)]
    assert turns == [[], [], [], [], ["a"]]


def test_hosts_that_are_being_failed_over_count() -> None:
    watch = Watch()
    assert watch.sees("a", times=6, under_way=["dead"]) == [[]] * 6
    assert "2 hosts are lost at once (a, dead)" in watch.state.alarm


def test_operators_may_evacuate_as_many_as_they_like_without_an_alarm() -> None:
    watch = Watch()
    watch.sees(times=3, under_way=["a", "b"])
    assert watch.state.alarm == ""


def test_without_servers_to_evacuate_nothing_is_due() -> None:
    watch = Watch()
    assert watch.sees("a", "b", times=9, wanted=0) == [[]] * 9
    assert watch.state.alarm == ""


def test_what_came_to_nothing_is_not_begun_again_by_itself_and_goes_on_counting() -> None:
    watch = Watch()
    watch.sees("a", times=5)
    watch.looks("a", ended={"a": "the fence command failed"})
    assert watch.silent["a"].stuck == "the fence command failed"
    assert watch.sees("a", times=9) == [[]] * 9
    assert watch.sees("a", "b", times=6) == [[]] * 6
    assert watch.state.alarm
    watch.looks("b")
    assert watch.sees("a", times=5)[-1] == ["a"]


def test_a_host_that_was_left_alone_since_it_answered_begins_anew() -> None:
    watch = Watch()
    watch.sees("a", times=5)
    watch.looks("a", ended={"a": ""})
    assert watch.sees("a", times=4) == [[], [], [], ["a"]]


def test_hosts_without_servers_count_as_lost() -> None:
    watch = Watch()
    for _ in range(6):
        watch.now += INTERVAL
        seen = look("a", heard=1)
        seen.missing += [Missing(id="empty", name="empty", servers=0, wanted=0)]
        note(watch.state, seen, watch.now)
        assert due(watch.state, seen, watch.now) == []
    assert "2 hosts are lost at once (a, empty)" in watch.state.alarm


def test_when_no_host_is_heard_nothing_is_due() -> None:
    watch = Watch()
    assert watch.sees("a", times=6, heard=0, max_hosts=9) == [[]] * 6
    assert "no host is heard at all" in watch.state.alarm
    assert watch.looks("a", heard=1) == ["a"]
    assert watch.state.alarm == ""


def test_what_is_left_on_a_host_that_is_down_is_tried_again_later_and_later() -> None:
    watch = Watch()
    assert not watch.retries(INTERVAL)
    assert not watch.retries(FIRST - INTERVAL)
    assert watch.retries(INTERVAL)
    assert not watch.retries(FIRST)
    assert watch.retries(FIRST)
    for _ in range(9):
        watch.retries(LONGEST)
    assert not watch.retries(LONGEST - INTERVAL)
    assert watch.retries(INTERVAL)
    watch.looks()
    assert watch.state.left == []


def test_what_is_left_is_not_tried_again_while_somebody_does_something_or_we_are_cut_off() -> None:
    watch = Watch()
    watch.retries(INTERVAL)
    assert not watch.retries(LONGEST, under_way=["dead"])
    assert not watch.retries(INTERVAL, heard=0)
    assert not watch.retries(INTERVAL, left=[Left(id="dead", name="dead", wanted=1, free=0)])
    assert watch.retries(INTERVAL)


def test_a_host_that_is_tried_again_does_not_count_as_lost() -> None:
    watch = Watch()
    watch.retries(INTERVAL)
    watch.retries(FIRST)
    left = [Left(id="dead", name="dead", wanted=1, free=0)]
    assert watch.sees("a", times=5, left=left, under_way=["dead"])[-1] == ["a"]


HOUR = timedelta(hours=1)


def test_hosts_that_fail_one_after_the_other_are_too_many() -> None:
    watch = Watch()
    assert watch.sees("a", times=5, window=HOUR)[-1] == ["a"]
    watch.looks(window=HOUR)  # declared down; its servers are elsewhere
    assert watch.sees("b", times=9, window=HOUR) == [[]] * 9
    assert "2 hosts are lost within 1:00:00 (a, b), and at most 1 may be" in watch.state.alarm
    assert watch.looks("b", after=HOUR, window=HOUR) == []
    assert watch.sees("b", times=4, window=HOUR)[-1] == ["b"]


def test_as_many_as_may_fail_one_after_the_other_do() -> None:
    watch = Watch()
    watch.sees("a", times=5, window=HOUR, max_hosts=2)
    assert watch.sees("b", times=5, window=HOUR, max_hosts=2)[-1] == ["b"]
    assert watch.sees("c", times=6, window=HOUR, max_hosts=2) == [[]] * 6


def test_without_a_window_only_what_is_lost_at_once_counts() -> None:
    watch = Watch()
    watch.sees("a", times=5)
    assert watch.sees("b", times=5)[-1] == ["b"]


def test_a_host_that_fails_twice_is_one() -> None:
    watch = Watch()
    watch.sees("a", times=5, window=HOUR)
    watch.sees(times=2, window=HOUR)
    assert watch.sees("a", times=5, window=HOUR)[-1] == ["a"]


def test_a_failure_that_came_to_nothing_is_none() -> None:
    watch = Watch()
    watch.sees("a", times=5, window=HOUR)
    watch.looks("a", ended={"a": ""}, window=HOUR)
    assert watch.state.failed == []
    watch.looks(window=HOUR)
    assert watch.sees("b", times=5, window=HOUR)[-1] == ["b"]


def test_nor_is_one_whose_host_turned_out_to_be_there() -> None:
    watch = Watch()
    watch.sees("a", times=5, window=HOUR)
    watch.looks(window=HOUR, under_way=["a"])  # it is heard again
    assert [host.id for host in watch.state.failed] == ["a"]
    watch.looks(window=HOUR, ended={"a": ""}, spared=["a"])
    assert watch.state.failed == []


def test_who_failed_of_late_survives_the_wire() -> None:
    watch = Watch()
    watch.sees("a", times=5, window=HOUR)
    watch.state = WatchState.model_validate_json(watch.state.model_dump_json())
    assert watch.sees("b", times=6, window=HOUR) == [[]] * 6


# For what a person is called.


def calls(watch: Watch) -> list[tuple[str, str]]:
    """For what, and about which host, if it is one, a person is to be called with the next look."""
    return [(alarm.kind, alarm.host) for alarm in watch.state.calls]


def test_a_person_is_called_when_an_alarm_begins_and_not_as_long_as_it_lasts() -> None:
    watch = Watch()
    watch.sees("a", "b", times=4)
    assert calls(watch) == []
    watch.looks("a", "b")
    assert calls(watch) == [("hosts-lost", "")]
    [alarm] = watch.state.calls
    assert (alarm.since, alarm.message) == (watch.now, watch.state.alarm)
    watch.looks("a", "b", called=[alarm.key])
    watch.sees("a", "b", "c", times=9)
    assert ("3 hosts" in watch.state.alarm, calls(watch), watch.state.alarm_since) == (True, [], alarm.since)


def test_a_person_is_called_anew_when_it_begins_anew() -> None:
    watch = Watch()
    watch.sees("a", "b", times=5)
    [first] = watch.state.calls
    watch.looks(called=[first.key])
    assert (watch.state.alarm_since, calls(watch)) == (None, [])
    watch.sees("a", "b", times=5)
    [second] = watch.state.calls
    assert second.key != first.key


def test_a_call_that_was_not_seen_to_is_asked_for_again_as_long_as_the_alarm_lasts() -> None:
    watch = Watch()
    watch.sees("a", "b", times=5)
    [first] = watch.state.calls
    watch.sees("a", "b", times=3)  # looked at by a control worker of an older release, or Temporal did not take it
    assert [alarm.key for alarm in watch.state.calls] == [first.key]
    watch.looks()
    assert calls(watch) == []


def test_a_person_is_called_once_for_each_host_that_is_stuck_also_after_a_gap() -> None:
    watch = Watch()
    watch.sees("a", "b", times=5, max_hosts=9)
    watch.looks("a", "b", ended={"a": "no power", "b": ""}, max_hosts=9)
    assert calls(watch) == [("host-stuck", "a")]
    [alarm] = watch.state.calls
    assert alarm.message == "host a is silent, and its servers are not evacuated: no power"
    watch.looks("a", called=[alarm.key])
    watch.looks("a", after=timedelta(minutes=10))
    assert (calls(watch), watch.silent["a"].stuck_since) == ([], alarm.since)


def test_nobody_is_called_for_what_lasted_already_when_an_older_release_watched() -> None:
    watch = Watch()
    watch.sees("a", "b", times=5)
    older = watch.state.model_dump(exclude={"alarm_since", "calls"})
    watch.state = WatchState.model_validate(older)
    watch.sees("a", "b", times=3)
    assert (bool(watch.state.alarm), watch.state.alarm_since, calls(watch)) == (True, None, [])
