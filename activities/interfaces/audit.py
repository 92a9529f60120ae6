"""The audit, on the control worker: looks, and what heals a finding.

A look compares the database with one host, or with Temporal. It only suspects: a server may be on its way. A suspicion
that a second look repeats unchanged is a finding, and what heals one checks again first.
"""

from abc import ABC, abstractmethod
from datetime import datetime
from typing import Any

from pydantic import BaseModel
from temporalio import activity

from activities.interfaces.holdings import Holdings
from activities.interfaces.servers import HostRef
from hostler.contract.audit import AuditRequest, Finding, FindingKind, NotAudited
from hostler.contract.states import PowerState


class AuditPlan(BaseModel):
    """Whom to ask. `limit` is how many suspicions one look may list, so that all of them together stay small."""

    heal: bool
    hosts: list[HostRef]
    not_audited: list[NotAudited] = []
    everything: bool = True
    limit: int = 50


class Evidence(BaseModel):
    """What a suspicion rests on. Another value in the second look means that something is going on.

    `updated_at` and `operation_id` are those of the server's row. `shared`: several hosts have it.
    """

    updated_at: datetime | None = None
    operation_id: str | None = None
    power_state: PowerState | None = None
    guest: bool = False
    claim: bool = False
    former: bool = False
    allocation: bool = False
    shared: bool = False
    ports: list[str] = []


class Suspicion(BaseModel):
    """A finding to be, with what it rests on."""

    finding: Finding
    evidence: Evidence = Evidence()


class LookAtHost(BaseModel):
    """Compare this host with the database."""

    host: HostRef
    limit: int = 50


class JudgeHoldings(BaseModel):
    """Compare what a host says that it has with the database: for a host that has just said it."""

    host: HostRef
    holdings: Holdings
    limit: int = 50


class LookAtRecords(BaseModel):
    """Compare what is on no host: the database with itself, the image store, Temporal, and with who is up."""

    limit: int = 50


class Look(BaseModel):
    """What one look suspects: `suspicions`, those that can be healed first, and `more` of a kind that are not listed.

    `not_audited` says why the host could not be judged. `strangers`: it has guests that the database does not know.
    """

    suspicions: list[Suspicion] = []
    more: dict[FindingKind, int] = {}
    strangers: bool = False
    not_audited: NotAudited | None = None


class Heal(BaseModel):
    """Heal this, for the run `run_id`. `complete`: every host was asked, and none has a guest that is not known."""

    suspicion: Suspicion
    run_id: str
    complete: bool = False


class HostStep(BaseModel):
    """An activity that the host is to run."""

    activity: str
    argument: dict[str, Any]


class Treatment(BaseModel):
    """What became of it: healed, or what `host` must do for that, or the `reason` why not.

    `holds`: the server's row is held by the audit's run meanwhile, and must be given back.
    """

    healed: bool = False
    reason: str = ""
    host: HostRef | None = None
    steps: list[HostStep] = []
    holds: bool = False


class Treated(BaseModel):
    """The host has done its steps, or not."""

    suspicion: Suspicion
    run_id: str
    done: bool


class Audit(ABC):
    """Compares and heals."""

    @activity.defn(name="plan_audit")
    @abstractmethod
    def plan_audit(self, call: AuditRequest) -> AuditPlan:
        """The hosts to ask, and those that are down.

        Raises:
            NotFound, Conflict: there is no such host, or several.
        """

    @activity.defn(name="look_at_host")
    @abstractmethod
    async def look_at_host(self, call: LookAtHost) -> Look:
        """Ask the host what it has, and judge it."""

    @activity.defn(name="judge_holdings")
    @abstractmethod
    async def judge_holdings(self, call: JudgeHoldings) -> Look:
        """Judge what the host has said."""

    @activity.defn(name="look_at_records")
    @abstractmethod
    async def look_at_records(self, call: LookAtRecords) -> Look:
        """Judge what no host needs to be asked for."""

    @activity.defn(name="heal_finding")
    @abstractmethod
    async def heal_finding(self, call: Heal) -> Treatment:
        """Check again, and heal what is in the database; answer what the host must do."""

    @activity.defn(name="finish_healing")
    @abstractmethod
    def finish_healing(self, call: Treated) -> None:
        """Give back what was held, and release what the host no longer has."""
