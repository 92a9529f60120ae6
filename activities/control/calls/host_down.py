"""The declaration that a host is down: its machine is off, and its servers may be built elsewhere."""

import asyncio
from functools import partial

from sqlmodel import Session
from temporalio import activity

from activities.control.calls.hosts import HostCalls
from activities.control.hosts import end_account
from activities.control.temporal import Temporal
from hostler.contract.calls import DECLARE_DOWN, HostDown, Ref
from hostler.contract.checks import check_text
from hostler.contract.errors import InvalidState
from hostler.contract.names import host_workflow_id
from hostler.contract.resources import Host
from models import Database, bump_generation, now
from models import Host as Row
from scheduler.liveness import Alive


class HostDownCalls:
    """Writes the declaration; the host's registration takes it back."""

    def __init__(self, database: Database, alive: Alive, temporal: Temporal) -> None:
        self._database = database
        self._alive = alive
        self._temporal = temporal
        self._hosts = HostCalls(database, alive)

    @activity.defn(name=DECLARE_DOWN.name)
    async def declare_down(self, call: HostDown) -> Host:
        """Declare a host down of which nothing is heard; again, to change the reason.

        A registration that still waits for it is ended: what that has asked of the host could start a guest, should
        the host return. What the host owes it goes on owing.

        Raises:
            InvalidState: its worker answers.
        """
        check_text("reason", call.reason)
        host = await asyncio.to_thread(self._hosts.show_host, Ref(ref=call.ref))
        if host.up:
            raise _answers(host)
        await self._temporal.terminate(host_workflow_id(host.id), "the host is declared down")
        await asyncio.to_thread(self._database.run, partial(self._declare, host=host, call=call))
        return await asyncio.to_thread(self._hosts.show_host, Ref(ref=host.id))

    def _declare(self, session: Session, host: Host, call: HostDown) -> None:
        bump_generation(session, host.id)
        row = session.get_one(Row, host.id)
        if row.registered_at != host.registered_at or row.id in self._alive():
            raise _answers(host)
        row.down_since, row.down_reason, row.fenced = row.down_since or now(), call.reason, call.fenced
        end_account(session, host.id)


def _answers(host: Host) -> InvalidState:
    return InvalidState(
        f"host {host.name} is up: its worker answers, so its guests may be running",
        field="host",
        value=host.name,
        remedy="move its servers while it is there (hostler server migrate); or power the machine off, and wait until "
        "hostler host list has it as down",
    )
