"""What became of work on all servers of a host."""

from typing import Any

from hostler.contract.host_work import HostProgress, MoveState


def outcome_of(progress: HostProgress) -> dict[str, Any]:
    """The fields of a `HostOutcome`."""
    by_state = {state: [one for one in progress.servers if one.state is state] for state in MoveState}
    return {
        "host_id": progress.host_id,
        "host": progress.host,
        "moved": by_state[MoveState.MOVED],
        "skipped": by_state[MoveState.SKIPPED],
        "failed": by_state[MoveState.FAILED],
        "left": by_state[MoveState.PENDING] + by_state[MoveState.MOVING],
        "stopped": progress.stopped,
    }
