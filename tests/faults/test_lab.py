"""The fault matrix on the lab: how cases are made, and a sample of them.

`make faults` runs all of it.
"""

from pathlib import Path

import pytest

from tests.faults.lab.case import MOVES, UNFENCED, Move, run_case
from tests.faults.lab.cloud import temporary_lab
from tests.faults.lab.console import Boot, Life, Said, is_right
from tests.faults.lab.matrix import make_case, of_step
from tests.faults.lab.watcher import IS_OFF, RUNS, STANDS_STILL, TWICE, Watcher
from tests.faults.plan import Fault, Step

MIGRATE = Step("migrate_guest", 1, "hostler-host-1")
LIVE = MOVES["live-migrate"]
EMPTY_HANDED = Move(LIVE.name, LIVE.ask)
"""Of a guest that has no system to count in, which is there sooner."""


class TestCases:
    def test_a_long_step_between_hosts_is_struck_at_each_moment_and_on_both_sides(self) -> None:
        cases = {case.name: case.strikes[0].delay for case in of_step("live-migrate", MIGRATE, 3.0)}

        assert cases["live-migrate/migrate_guest/power-cut"] == 0
        assert cases["live-migrate/migrate_guest@half/power-cut-opposite"] == 1.5
        assert cases["live-migrate/migrate_guest@end/cable-out"] is None
        assert "live-migrate/migrate_guest@handover/cable-out-opposite" in cases

    def test_a_short_one_at_one_on_its_own(self) -> None:
        cases = [case.fault for case in of_step("resize", Step("claim_resources", 1, "hostler-host-1"), 0.1)]

        assert cases == [Fault.AFTER, Fault.KILLED, Fault.POWER_CUT, Fault.CABLE_OUT]

    def test_while_control_is_at_work_the_guest_s_host_is_cut_off(self) -> None:
        cases = [case.fault for case in of_step("resize", Step("settle", 1, "c"), 9.0)]

        assert cases == [Fault.AFTER, Fault.KILLED, Fault.CABLE_OUT_OPPOSITE]

    def test_where_that_is_off_the_next_is(self) -> None:
        cases = [case.fault for case in of_step("evacuate", Step("settle", 1, "c"), 9.0)]

        assert cases == [Fault.AFTER, Fault.KILLED, Fault.CABLE_OUT_OPPOSITE, Fault.RETURNED]

    def test_a_host_that_was_given_up_returns_at_every_step(self) -> None:
        for queue in ("hostler-control", "hostler-host-1"):
            assert Fault.RETURNED in {case.fault for case in of_step("evacuate", Step("spawn", 1, queue), 0.1)}

    def test_of_one_that_was_given_up_wrongly_that_is_all(self) -> None:
        cases = [case.name for case in of_step(UNFENCED, Step("spawn", 1, "hostler-host-1"), 9.0)]

        assert cases == ["evacuate-unfenced/spawn/returned"]


BOOT_LINE = "[ 1.2] x=== source=config-drive hostname=web uuid=u first_boot={} boots={} cpus=1 disks=vda:1024MiB\r\n"
HOME_LOG = BOOT_LINE.format("yes", 1) + "tick 1\r\ntick 2\r\nweb login: tick 3\r\n"
FIRST, SECOND = Boot("u", True, 1), Boot("u", False, 2)
WAS = Said("home", (FIRST,), 2)


class TestConsole:
    def test_of_a_log_the_boots_count_and_the_ticks_behind_the_last(self) -> None:
        assert Said.read("home", HOME_LOG) == WAS
        assert Said.read("home", HOME_LOG + BOOT_LINE.format("no", 2)) == Said("home", (FIRST, SECOND), 0)
        assert Said.read("next", "ck 6\r\ntick 7\r\ntick 8") == Said("next", (), 7)

    @pytest.mark.parametrize("later", [WAS, Said("home", (FIRST, SECOND), 5), Said("next", (FIRST,), 5)])
    def test_a_guest_counts_when_it_is_seen_to_and_not_by_what_the_log_has_had(self, later: Said) -> None:
        assert Said("home", (FIRST,), 3).counts_since(WAS)
        assert not later.counts_since(WAS)

    @pytest.mark.parametrize(
        ("life", "now", "right"),
        [
            (Life.GOES_ON, Said("next", (), 9), True),
            (Life.GOES_ON, Said("home", (FIRST,), 9), True),
            (Life.GOES_ON, Said("home", (FIRST,), 2), False),
            (Life.GOES_ON, Said("next", (SECOND,), 9), False),
            (Life.FROM_ITS_DISK, Said("next", (SECOND,), 1), True),
            (Life.FROM_ITS_DISK, Said("next", (FIRST,), 9), False),
            (Life.FROM_ITS_DISK, Said("next", (), 9), False),
            (Life.FROM_ITS_DISK, Said("home", (FIRST, SECOND), 1), True),
            (Life.FROM_ITS_DISK, Said("home", (FIRST,), 9), True),
            (Life.FROM_ITS_DISK, Said("home", (FIRST, SECOND, Boot("u", False, 3)), 1), False),
            (Life.ANEW, Said("next", (FIRST,), 1), True),
            (Life.ANEW, Said("next", (SECOND,), 1), False),
            (Life.ANEW, Said("next", (Boot("other", True, 1),), 1), False),
            (Life.ANEW, Said("home", (FIRST,), 9), False),
        ],
    )
    def test_what_must_have_become_of_a_guest(self, life: Life, now: Said, right: bool) -> None:
        assert is_right(life, WAS, now) is right

    def test_one_whose_host_has_lost_its_power_may_have_booted_more_often(self) -> None:
        often = Said("next", (SECOND, Boot("u", False, 3)), 1)

        assert is_right(Life.FROM_ITS_DISK, WAS, often, lost_power=True)
        assert not is_right(Life.FROM_ITS_DISK, WAS, often)
        assert not is_right(Life.FROM_ITS_DISK, WAS, Said("next", (Boot("other", False, 2),), 1), lost_power=True)


class FakeEye:
    def __init__(self, *looks: dict[str, str]) -> None:
        self.looks = list(looks)

    def look(self) -> dict[str, str]:
        return self.looks.pop(0)


class TestWatcher:
    @pytest.fixture
    def log(self, tmp_path: Path) -> Path:
        return tmp_path / "seen.jsonl"

    def watch(self, log: Path, **eyes: FakeEye) -> str:
        Watcher(eyes, log).look()
        return log.read_text()

    def test_one_guest_on_two_hosts_is_told(self, log: Path) -> None:
        assert TWICE in self.watch(log, one=FakeEye({"g": RUNS}, {"g": RUNS}), two=FakeEye({"g": RUNS}))

    @pytest.mark.parametrize("later", [IS_OFF, STANDS_STILL])
    def test_one_that_has_just_moved_is_not(self, log: Path, later: str) -> None:
        assert TWICE not in self.watch(log, one=FakeEye({"g": RUNS}, {"g": later}), two=FakeEye({"g": RUNS}))

    def test_nor_is_one_that_stands_still_on_the_other(self, log: Path) -> None:
        assert TWICE not in self.watch(log, one=FakeEye({"g": RUNS}), two=FakeEye({"g": STANDS_STILL}))


@pytest.mark.real
async def test_whatever_befalls_the_hosts_of_a_guest_on_its_way_it_runs_on_one_of_them() -> None:
    befalls = [(LIVE, Fault.CABLE_OUT), (EMPTY_HANDED, Fault.POWER_CUT)]
    async with temporary_lab() as cloud:
        results = [(await run_case(cloud, move, make_case(move.name, MIGRATE, fault)))[0] for move, fault in befalls]

    assert {one.case.name: [*one.problems, *one.differences] for one in results if not one.passed} == {}
