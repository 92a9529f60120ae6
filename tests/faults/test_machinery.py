"""The matrix itself: it can fail, it says why, and it does not pass over what it does not know."""

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import BaseModel
from temporalio import workflow

import workers.control
from hostler.contract.errors import OperationFailed
from hostler.contract.host_work import HostOutcome, HostProgress, MoveState, ServerMove
from tests.faults import defects
from tests.faults.case import Case, Faultless, Result, has_orphaned_images, left_off, run_case
from tests.faults.files import held, stored
from tests.faults.host_work import half_way, of_failure, of_outcome, where_they_run
from tests.faults.machine import rules
from tests.faults.matrix import Matrix, of_steps, of_undos, sample
from tests.faults.operations import BESIDE, SERVER, WITHOUT_END, NoFiller, Scene, operations
from tests.faults.plan import OF_STEPS, OF_UNDOS, Fault, Plan, Step, Strike
from tests.faults.report import render
from tests.faults.site import Site
from tests.faults.world import Roles, World, has_failed, is_gone

BOOT, IMPORT, FAILURE = (
    next(one for one in operations() if one.name == name) for name in ("boot", "create-image", "host-failure")
)
WORLD = World({})


def struck(activity: str, fault: Fault, occurrence: int = 1) -> Case:
    """A boot that is struck there."""
    return Case("boot", activity, fault, (Strike(activity, occurrence, fault),))


@pytest.fixture(scope="module")
def faultless(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Faultless:
    """How a boot goes."""
    directory = tmp_path_factory.mktemp("boot") / "case"
    result = asyncio.run(run_case(site, directory, 0, BOOT, Case("boot", "", "")))
    assert result.passed, result.problems
    assert result.faultless is not None
    return result.faultless


# It can fail.


async def test_an_undo_that_does_nothing_is_found(site: Site, faultless: Faultless, tmp_path: Path) -> None:
    broken = replace(site, defect=defects.guests_are_not_destroyed)

    result = await run_case(broken, tmp_path / "case", 0, BOOT, struck("resume_guest", Fault.BEFORE_FINAL), faultless)

    assert not result.passed
    assert any(line.startswith("+ ") and "guests/<server>.json" in line for line in result.differences)


async def test_a_row_that_leaks_is_found(site: Site, faultless: Faultless, tmp_path: Path) -> None:
    broken = replace(site, defect=defects.ports_are_not_released)

    result = await run_case(broken, tmp_path / "case", 0, BOOT, struck("spawn", Fault.CANCELLED), faultless)

    assert any(line.startswith("+ port: ") for line in result.differences), (
        f"{result.outcome}, {result.problems}, {result.differences}, {chr(10).join(result.history)}"
    )


async def test_a_file_that_stays_in_the_image_store_is_found(site: Site, tmp_path: Path) -> None:
    broken = replace(site, defect=defects.images_stay_in_the_store)
    known = (await run_case(broken, tmp_path / "known", 0, IMPORT, Case(IMPORT.name, "", ""))).faultless
    strike = Strike("import_image", 1, Fault.AFTER_FINAL)
    case = Case(IMPORT.name, strike.activity, strike.fault, (strike,))

    result = await run_case(broken, tmp_path / "case", 0, IMPORT, case, known)

    assert not result.problems
    [line] = result.differences
    assert line.startswith(f"+ image store: {Scene(site.name, '').id(IMPORT.name)}: ")


async def test_a_server_that_runs_on_two_hosts_is_found(site: Site, tmp_path: Path) -> None:
    broken = replace(site, defect=defects.hosts_are_not_fenced)

    result = await run_case(broken, tmp_path / "case", 0, FAILURE, Case(FAILURE.name, "", ""))

    assert "+ web runs on first-1, second-1" in result.differences


def test_work_on_a_host_leaves_each_server_as_before_or_as_afterwards() -> None:
    on = {
        (name, host): [f"guests/<{name}>.json: {power}", f"ports/<port 0 of {name}>.json: {host}"]
        for name, power in ((SERVER, '"running"'), (BESIDE, '"shutdown"'))
        for host in ("first", "second")
    }

    def world(one: str, other: str, row: str = "enabled=False") -> World:
        sections: dict[str, list[str]] = {"host": [row]}
        for name, host in ((SERVER, one), (BESIDE, other)):
            sections.setdefault(f"<{host}>: files", []).extend(on[name, host])
        return World(sections)

    former, ended, between = (
        world("first", "first", "enabled=True"),
        world("second", "second"),
        world("first", "second"),
    )
    doubled = World({where: [*between.sections[where], *ended.sections.get(where, [])] for where in between.sections})
    assert half_way(between, former, ended, complete=False) == []
    assert half_way(between, former, ended, complete=True) == between.differences(ended) != []
    assert half_way(world("second", "first", "enabled=maybe"), former, ended, complete=False) == [
        "+ host: enabled=maybe"
    ]
    assert half_way(World({}), former, former, complete=False)
    assert where_they_run(between, ["first", "second"], complete=True) == []
    assert half_way(doubled, former, ended, complete=False)
    assert where_they_run(doubled, ["first", "second"], complete=False) == [f"+ {SERVER} runs on first, second"]
    assert where_they_run(World({}), ["first"], complete=True) == [f"+ {SERVER} runs on no host"]


def test_work_on_a_host_that_has_failed_says_why_to_whoever_follows_it() -> None:
    error, silent = OperationFailed("no power"), HostProgress(host_id="1", stage="moves the servers")

    assert len(of_failure(error, silent).problems) == 2
    assert of_failure(error, silent.model_copy(update={"done": True, "stopped": "no power"})).problems == []
    assert of_failure(error, silent.model_copy(update={"stage": "refused: no power"})).problems == []


def test_a_server_that_stays_on_its_host_says_why() -> None:
    stays = ServerMove(server_id="1", name=SERVER, project="default", state=MoveState.FAILED)
    outcome = HostOutcome(host_id="1", host="first", failed=[stays])

    assert of_outcome(outcome).problems == [f"nobody says why {SERVER} stays"]
    assert of_outcome(outcome.model_copy(update={"stopped": "no power"})).problems == []


async def test_a_fault_that_strikes_nothing_is_a_failure(site: Site, faultless: Faultless, tmp_path: Path) -> None:
    result = await run_case(site, tmp_path / "case", 0, BOOT, struck("spawn", Fault.BEFORE, 7), faultless)

    assert result.outcome == "completed"
    assert result.problems == ["before did not strike spawn: it did not run"]


def test_a_difference_says_what_is_too_much_and_what_is_missing() -> None:
    here, there = World({"port": ["a", "a"], "claim": ["c"]}), World({"port": ["a"], "volume": ["v"]})

    assert here.differences(there) == ["+ claim: c", "+ port: a", "- volume: v"]


def test_a_server_that_failed_holds_nothing_and_says_why() -> None:
    row = {"vm_state": "error", "task_state": "none", "host_id": "<first-1>", "fault": "none"}

    assert has_failed(row) == ["+ server: host_id=<first-1>", "- server: host_id=none", "- server: a fault"]
    assert is_gone({"vm_state": "deleted", "operation_id": "4711"}) == [
        "+ server: operation_id=4711",
        "- server: operation_id=none",
    ]


# It looks at what is in files, and at rules.

IMAGE = "0f2c9a52-94c5-4a43-a8a1-64b1b9a3c2de"
MAC, LEASE = "fa:16:3e:00:00:01", "1763748000 fa:16:3e:00:00:01 10.11.0.5 web *"
ROLES = Roles({IMAGE: "<image demo>", MAC: "<mac 0>", "10.11.0.": "<net-a.>", "brhaa": "<a>", "brhbb": "<b>"})


def write(path: Path, content: str | bytes) -> None:
    """Write a file, and make its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def test_the_image_store_is_compared_by_content(tmp_path: Path) -> None:
    write(tmp_path / IMAGE, "image")
    write(tmp_path / f".{IMAGE}.part", "")

    part, whole = sorted(stored(tmp_path, ROLES))

    assert part.startswith(".<image demo>.part: 0 bytes, ")
    assert whole == f"<image demo>: 5 bytes, SHA-256 {hashlib.sha256(b'image').hexdigest()}"


def test_only_a_whole_image_that_there_is_may_be_in_a_cache(tmp_path: Path) -> None:
    images = {IMAGE: hashlib.sha256(b"image").hexdigest()}
    write(tmp_path / "cache" / IMAGE, "image")
    assert held(tmp_path, ROLES, images) == []

    write(tmp_path / "cache" / f".{IMAGE}.part", "")
    assert held(tmp_path, ROLES, images) == ["cache/.<image demo>.part: empty"]
    (tmp_path / "cache" / f".{IMAGE}.part").unlink()

    assert held(tmp_path, ROLES, {}) == ["cache/<image demo>: image"]  # its row has gone
    write(tmp_path / "cache" / IMAGE, "im")
    assert held(tmp_path, ROLES, images) == ["cache/<image demo>: im"]


def test_an_image_that_has_gone_is_the_audits_where_nothing_else_is_wrong() -> None:
    orphan = "+ <first-1>: files: simulated/cache/<former image of device 0>"
    part = "+ <first-1>: files: simulated/cache/.<former image of device 0>.part: empty"
    unknown = "+ <first-1>: files: simulated/cache/0f2c9a52-94c5-4a43-a8a1-64b1b9a3c2de"

    assert has_orphaned_images([orphan, "+ <first-1>: files: cache/<image demo>: image"])
    for others in ([], [part], [unknown], [orphan, "+ port: a"], [orphan.replace("+", "-")]):
        assert not has_orphaned_images(others)


def test_a_server_that_had_no_guest_has_none_when_it_is_left_off() -> None:
    for power, then in (("running", "shutdown"), ("shutdown", "shutdown"), ("nostate", "nostate")):
        left = left_off(World({}, {"power_state": power, "vm_state": "active"}))
        assert left.server == {"power_state": then, "vm_state": "error"}


def test_what_a_dhcp_server_was_told_is_compared(tmp_path: Path) -> None:
    write(tmp_path / "hosts", f"{MAC},10.11.0.5,web\n")
    write(tmp_path / "leases", f"{LEASE}\n")
    there = World({"files": held(tmp_path, ROLES, {})})

    write(tmp_path / "leases", f"{LEASE.replace('1763748000', '1763748360')}\n")
    assert World({"files": held(tmp_path, ROLES, {})}).differences(there) == []

    write(tmp_path / "hosts", f"{MAC},10.11.0.6,web\n")
    write(tmp_path / "leases", "")
    assert World({"files": held(tmp_path, ROLES, {})}).differences(there) == [
        "+ files: hosts: <mac 0>,<net-a.>6,web",
        "+ files: leases: empty",
        "- files: hosts: <mac 0>,<net-a.>5,web",
        "- files: leases: <mac 0> <net-a.>5 web *",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pid", "4711\n"),
        ("volume-1.pid", "4711\n"),
        ("console.log", "login: "),
        ("console.log.0", "login: "),
        ("disk", b"QFI\xfb"),
        ("volume.raw", bytes(512)),
        ("large", b"x" * 100_000),
    ],
)
def test_what_varies_and_disks_are_compared_by_name(tmp_path: Path, name: str, content: str | bytes) -> None:
    write(tmp_path / name, content)

    assert held(tmp_path, ROLES, {}) == [name]


RULESET = """\
table inet another {
	chain input {
		type filter hook input priority filter; policy accept;
	}
}
table inet hostler-1 {
	set bridges {
		type ifname
		elements = { "brhbb",
				"brhaa" }
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname != @bridges ip saddr 10.11.0.0/24 masquerade
	}
}
"""


def test_nftables_rules_are_compared_with_their_order_and_without_that_of_names() -> None:
    there = World({"nftables": rules(RULESET, ["hostler-1"], ROLES)})

    assert there.sections["nftables"] == [
        "chain postrouting { type nat hook postrouting priority srcnat; policy accept; "
        "oifname != @bridges ip saddr <net-a.>0/24 masquerade }",
        'set bridges { type ifname elements = { "<a>", "<b>" } }',
        "table inet hostler-1",
    ]
    assert rules(RULESET, ["brhaa"], ROLES) == there.sections["nftables"]
    lost = RULESET.replace("oifname != @bridges ip saddr 10.11.0.0/24 masquerade", "")
    assert World({"nftables": rules(lost, ["hostler-1"], ROLES)}).differences(there) == [
        "+ nftables: chain postrouting { type nat hook postrouting priority srcnat; policy accept; }",
        f"- nftables: {there.sections['nftables'][0]}",
    ]


# It passes nothing over.


class Unheard(BaseModel):
    """A request that the matrix has never seen."""

    server_id: str
    warp_factor: float


@workflow.defn(name="accelerate")
class Accelerate:
    """An operation that the matrix has never seen."""

    @workflow.run
    async def run(self, request: Unheard) -> None:
        """Do it."""


def test_every_operation_of_the_control_worker_can_be_asked_for() -> None:
    scene = Scene("test", "/image")

    for operation in operations():
        if not operation.is_its_hosts:
            operation.request(scene)
            operation.way(scene)
    assert {one.workflow for one in operations()} == {
        workflow._Definition.must_from_class(one).name for one in workers.control.WORKFLOWS
    } - WITHOUT_END


def test_a_field_that_it_cannot_fill_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.control, "WORKFLOWS", [*workers.control.WORKFLOWS, Accelerate])
    accelerate = operations()[-1]

    with pytest.raises(NoFiller, match=r'"accelerate": the field Unheard.warp_factor \(float\) lacks a filler'):
        accelerate.request(Scene("test", "/image"))


async def test_an_operation_that_it_cannot_ask_for_fails_the_matrix(
    monkeypatch: pytest.MonkeyPatch, site: Site, tmp_path: Path
) -> None:
    monkeypatch.setattr(workers.control, "WORKFLOWS", [*workers.control.WORKFLOWS, Accelerate])

    results = await Matrix(site, tmp_path, only=["accelerate/*"]).run()

    assert [one.case.name for one in results] == ["accelerate/faultless"]
    assert "warp_factor" in results[0].problems[0]


def test_a_flag_of_a_request_makes_another_operation() -> None:
    assert {"reboot", "reboot+hard"} <= {one.name for one in operations()}


def test_a_server_gets_into_the_state_that_an_operation_wants() -> None:
    by_name, scene = {one.name: one for one in operations()}, Scene("test", "/image")

    assert [one.name for one in by_name["start"].way(scene)] == ["boot", "stop"]
    assert [one.name for one in by_name["stop"].way(scene)] == ["boot"]
    assert by_name["boot"].way(scene) == []


# It finds its cases.


def test_every_step_meets_every_fault() -> None:
    steps = [Step("begin", 1, "hostler-control"), Step("stop_guest", 1, "hostler-host-1")]

    cases = of_steps("stop", steps, OF_STEPS)

    assert len(cases) == len(steps) * len(OF_STEPS)
    assert "stop/stop_guest/killed" in {case.name for case in cases}


def test_nobody_deletes_the_server_of_a_volume() -> None:
    cases = of_steps("create-volume", [Step("accept_volume", 1, "hostler-control")], OF_STEPS)

    assert Fault.DELETED not in {case.fault for case in cases}


def test_undos_are_struck_after_the_failure_that_has_the_most_to_undo() -> None:
    usual = [Step("claim", 1, "h"), Step("spawn", 1, "h")]
    few = Result(struck("claim", Fault.BEFORE_FINAL), outcome="failed", aftermath=[Step("drop_claim", 1, "h")])
    undone = [Step("destroy", 1, "h"), Step("drop_claim", 1, "h")]
    many = Result(struck("spawn", Fault.BEFORE_FINAL), outcome="failed", aftermath=undone)

    cases = of_undos([few, many], {"boot": Faultless(usual, WORLD, WORLD, WORLD)})

    assert {case.step for case in cases} == {"undo:destroy", "undo:drop_claim"}
    assert all(case.strikes[0].activity == "spawn" for case in cases)
    assert len(cases) == 2 * len(OF_UNDOS)
    assert "boot/undo:drop_claim/fails-once" in {case.name for case in cases}


def test_where_it_goes_on_only_what_is_unusual_is_an_undo() -> None:
    after = [Step("drop_claim", 1, "h"), Step("claim", 2, "h")]
    result = Result(struck("claim", Fault.BEFORE_FINAL), outcome="completed", aftermath=after)

    cases = of_undos([result], {"boot": Faultless([Step("claim", 1, "h")], WORLD, WORLD, WORLD)})

    assert {case.step for case in cases} == {"retreat:drop_claim"}


def test_a_sample_is_the_same_every_time_and_has_every_fault_and_operation() -> None:
    steps = [Step(name, 1, "h") for name in ("one", "two", "three", "four")]
    cases = [case for name in ("boot", "stop", "start") for case in of_steps(name, steps, OF_STEPS)]

    chosen = sample(cases, 20)

    assert chosen == sample(cases[::-1], 20)
    assert {case.fault for case in chosen} == set(OF_STEPS)
    assert {case.operation for case in chosen} == {"boot", "stop", "start"}
    assert len(chosen) == 20


def test_a_plan_strikes_one_occurrence() -> None:
    plan = Plan("boot", "server:1", (Strike("fetch_image", 2, Fault.HANG),))

    assert plan.find("fetch_image", 1) is None
    assert plan.find("fetch_image", 2) == 0


# It tells.


def test_the_page_shows_a_failure_and_how_to_run_it_again() -> None:
    failed = Result(struck("spawn", Fault.KILLED), differences=["+ claim: <server>"], outcome="failed")
    from tests.faults import report

    page = render([report._record("simulated", failed)], 75.0)

    assert "+ claim: &lt;server&gt;" in page
    assert "--site simulated 'boot/spawn/killed'" in page
    assert "1:15" in page
