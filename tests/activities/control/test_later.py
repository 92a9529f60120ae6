"""What is asked for later: not where somebody has decided otherwise meanwhile."""

from typing import cast

import pytest
from temporalio.client import Client

from activities.control.later import Asking
from activities.interfaces.later import LaterCall
from hostler.contract.errors import InvalidState
from hostler.contract.servers import MigrationStatus, OperationName
from hostler.contract.states import VmState
from hostler.settings import Settings
from models import Database
from tests.activities.control.test_guest_plans import a_host_with_a_server
from tests.activities.control.test_migrations import RUN, a_migration
from tests.activities.given import uuid
from tests.rows import add


async def test_a_move_whose_revert_was_cut_short_does_not_confirm_itself(database: Database) -> None:
    server = a_host_with_a_server(database, vm_state=VmState.ERROR)
    add(database, a_migration(server, MigrationStatus.FINISHED))
    call = LaterCall(
        operation=OperationName.CONFIRM_RESIZE,
        server_id=server.id,
        project=server.project,
        subject=RUN,
        request_id=uuid(),
    )

    with pytest.raises(InvalidState, match="no longer wanted"):
        await Asking(database, cast(Client, None), Settings()).ask_for_operation(call)
