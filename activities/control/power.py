"""Power states that hosts report: an idle server follows its guest at once."""

from functools import partial
from uuid import uuid4

from sqlmodel import Session
from temporalio import activity

from activities.control.audit.facts import is_busy
from activities.control.audit.servers import FOLLOWED
from activities.control.events import write_events
from activities.interfaces.servers import EventLog
from hostler.contract.calls import REPORT_POWER_STATES, GuestPower, PowerReceipt, PowerReport
from hostler.contract.servers import OperationName, Step, StepStatus
from hostler.contract.states import PowerState, VmState, status
from models import Database, Host, Server, now, owes

STEP = "power-state"


class PowerReports:
    """Writes the rows of servers that no operation holds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @activity.defn(name=REPORT_POWER_STATES.name)
    def report_power_states(self, call: PowerReport) -> PowerReceipt:
        """Take over what a host sees of its own servers; a call of its worker, no step.

        A server that is busy is left to its operation, whose outcome the host cannot know. A report that was on its way
        while an operation came and went is no longer true: the row has another version then.
        """
        receipts = [self._database.run(partial(_take_over, call, guest)) for guest in call.guests]
        return PowerReceipt(
            busy=[server_id for one in receipts for server_id in one.busy],
            doubted={server_id: version for one in receipts for server_id, version in one.doubted.items()},
        )


def _take_over(call: PowerReport, guest: GuestPower, session: Session) -> PowerReceipt:
    """Let the server follow its guest, or say why not yet."""
    host_id = call.host_id
    server = session.get(Server, guest.server_id, with_for_update=True)
    if server is None or server.deleted_at is not None:
        return PowerReceipt()
    if is_busy(server) or owes(session, server.id, host_id):
        return PowerReceipt(busy=[server.id])
    if server.host_id != host_id or agrees(server, guest.power_state):
        return PowerReceipt()
    version = server.updated_at.isoformat()
    if call.confirms and guest.version != version:
        return PowerReceipt(doubted={server.id: version})
    follow(session, server, guest.power_state)
    return PowerReceipt()


def agrees(server: Server, power_state: PowerState) -> bool:
    """Whether the row says already what it would say by following its guest."""
    return (server.vm_state, server.power_state) == (_follows(server, power_state), power_state)


def follow(session: Session, server: Server, power_state: PowerState) -> None:
    """Let the row, which the caller has locked and found idle, follow its guest; its events say so."""
    follows = _follows(server, power_state)
    was, before, after = server.power_state, status(server.vm_state, None), status(follows, None)
    server.vm_state, server.power_state = follows, power_state
    host = session.get(Host, server.host_id)
    step = Step(
        name=STEP,
        status=StepStatus.DONE,
        host=host.name if host else server.host_id,
        started_at=now(),
        finished_at=now(),
        note=f"its guest is {power_state}, was {was}" + (f": {after}, was {before}" if after != before else ""),
    )
    write_events(
        session,
        EventLog(server_id=server.id, run_id=str(uuid4()), operation=OperationName.HYPERVISOR, steps=[step]),
    )


def _follows(server: Server, power_state: PowerState) -> VmState:
    return FOLLOWED.get((server.vm_state, power_state), server.vm_state)
