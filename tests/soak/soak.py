"""The soak: every operation, many in flight, while every process is killed at random. Then nothing may be amiss."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from hostler.settings import SimulatedSettings
from tests.processes.cloud import ProcessCloud, process_cloud
from tests.soak import audit
from tests.soak.chaos import Chaos
from tests.soak.journal import Journal
from tests.soak.model import Model
from tests.soak.operator import Operator
from tests.soak.repertoire import LARGER, missing, workflow_types
from tests.soak.tenant import Tenant

TENANTS = 20
HOSTS = (2, 2, 2)
CONTROLS = 2
SETTLE = timedelta(minutes=4)
AUDIT_S = 20
LATENCY = {"spawn": timedelta(seconds=0.5), "*": timedelta(milliseconds=20)}


@dataclass
class Report:
    """What came of it. `faults` is empty when the product kept its promises."""

    seed: int
    seconds: float = 0.0
    settled_s: float = 0.0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)
    outages: int = 0
    faults: list[str] = field(default_factory=list)

    def text(self) -> str:
        """For people."""
        lines = [f"seed {self.seed}: {self.seconds:.0f} s of kills, settled {self.settled_s:.0f} s after the last one"]
        lines.append(f"{sum(self.kills.values())} kills: {_counts(self.kills)}")
        if self.deaths:
            lines.append(f"{sum(self.deaths.values())} ended by themselves: {_counts(self.deaths)}")
        lines.append(f"{sum(self.outcomes.values())} operations; {self.outages} calls repeated after an outage")
        lines += [f"  {name:14} {outcome:16} {n:5}" for (name, outcome), n in sorted(self.outcomes.items())]
        lines.append(f"{sum(self.runs.values())} workflow runs: {_counts(self.runs)}")
        lines.append(f"{sum(self.decisions.values())} decisions about held operations: {_counts(self.decisions)}")
        lines.append(f"audits during the kills found: {_counts(self.findings) or 'nothing'}")
        lines += [f"  {n:4} × {reason[:200]}" for reason, n in self.reasons.most_common(12)]
        lines.append(f"{len(self.faults)} faults" + ":" * bool(self.faults))
        return "\n".join(lines + [f"  {fault}" for fault in self.faults])


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counter.items()))


async def soak(directory: Path, minutes: float, seed: int, tenants: int = TENANTS) -> Report:
    """Run it in a directory, where its log is afterwards: soak.log.

    Raises:
        AssertionError: the product has an operation that the soak does not know.
    """
    assert not missing(), f"tests/soak/repertoire.py does not have {', '.join(sorted(missing()))}"
    rng = random.Random(seed)
    journal = Journal(directory / "soak.log")
    report, model = Report(seed), Model()
    kind = SimulatedSettings(volumes=True, latency=LATENCY)
    audited = {"HOSTLER_AUDIT__INTERVAL": str(AUDIT_S)}
    async with process_cloud(
        directory, hosts=HOSTS, controls=CONTROLS, postgres=True, simulated=kind, environment=audited
    ) as cloud:
        await cloud.client.flavors.create(LARGER, vcpus=2, ram_mib=256, disk_gib=2)
        closing = asyncio.Event()
        chaos = Chaos(cloud.processes, random.Random(rng.random()), journal)
        crowd = [
            Tenant(
                f"tenant-{number}",
                cloud.client,
                directory / "disk.qcow2",
                model,
                journal,
                random.Random(rng.random()),
                closing,
            )
            for number in range(1, tenants + 1)
        ]
        operator = Operator(cloud.client, journal, random.Random(rng.random()))
        async with _background(chaos.supervise()), _background(operator.work()):
            lives = [asyncio.create_task(tenant.live(), name=tenant.name) for tenant in crowd]
            async with _background(chaos.rage()):
                began = journal.seconds
                await asyncio.wait(lives, timeout=60 * minutes, return_when=asyncio.FIRST_EXCEPTION)
            closing.set()
            report.seconds = journal.seconds - began
            journal.note("calm", "all", "no more kills")
            await _settle(cloud, crowd, lives, model, journal)
            report.settled_s = journal.seconds - began - report.seconds
            report.findings = await audit.past(cloud, journal)
            report.runs = await _runs(cloud)
    for tenant in crowd:
        report.outcomes += tenant.outcomes
        report.reasons += tenant.reasons
        report.outages += tenant.outages
    report.decisions = operator.decisions
    report.kills, report.deaths, report.faults = chaos.kills, chaos.deaths, journal.faults
    return report


async def _settle(
    cloud: ProcessCloud,
    crowd: list[Tenant],
    lives: "list[asyncio.Task[None]]",
    model: Model,
    journal: Journal,
) -> None:
    """Wait for every answer and for the end of every workflow; then audit and compare."""
    _, unanswered = await asyncio.wait(lives, timeout=SETTLE.total_seconds())
    for tenant, life in zip(crowd, lives, strict=True):
        if life in unanswered:
            journal.fault(tenant.name, f"no answer: {tenant.doing}")
            life.cancel()
        elif error := life.exception():
            journal.fault(tenant.name, f"{tenant.doing}: {error!r}")
    try:
        await cloud.settled(SETTLE)
    except AssertionError as error:
        journal.fault("cloud", str(error))
    await audit.final(cloud, model, journal)
    for difference in await model.differences(cloud):
        journal.fault("world", difference)


async def _runs(cloud: ProcessCloud) -> Counter[str]:
    """How often each workflow ran, by Temporal's word."""
    runs: Counter[str] = Counter(dict.fromkeys(workflow_types(), 0))
    async for one in cloud.temporal_client.list_workflows():
        runs[one.workflow_type] += 1
    return runs


@asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Done meanwhile. What it fails with is raised at the end."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
