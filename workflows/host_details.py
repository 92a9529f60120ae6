"""The Markdown that the Temporal UI shows of work on all servers of a host."""

from collections import Counter

from hostler.contract.host_work import HostProgress, MoveState, ServerMove
from workflows.details import SPACE

SIGNS = {
    MoveState.PENDING: "○",
    MoveState.MOVING: "▶",
    MoveState.MOVED: "✔",
    MoveState.SKIPPED: "–",
    MoveState.FAILED: "✘",
}
LISTED = 50
ORDER = (MoveState.FAILED, MoveState.SKIPPED, MoveState.MOVING, MoveState.PENDING, MoveState.MOVED)
"""What deserves attention comes first: the rest may not fit."""


def markdown(title: str, progress: HostProgress) -> str:
    """How far it is, and where each server stands."""
    counts = Counter(server.state for server in progress.servers)
    lines = [f"**{title}**", "", progress.stage]
    if progress.stopped:
        lines += ["", f"**Stopped**: {_cell(progress.stopped)}"]
    if progress.volumes:
        kept = ", ".join(
            f"{volume.name or volume.volume_id} of {volume.server}" for volume in progress.volumes[:LISTED]
        )
        lines += ["", f"**It must stay on**: it keeps {len(progress.volumes)} volumes in use ({_cell(kept)})"]
    if progress.servers:
        lines += ["", ", ".join(f"{counts[state]} {state}" for state in MoveState if counts[state])]
        lines += ["", "| | server | operation | to | why |", "|:-:|---|---|---|---|"]
        ordered = sorted(progress.servers, key=lambda server: ORDER.index(server.state))
        lines += [_row(server) for server in ordered[:LISTED]]
    return "\n".join(lines)


def _row(server: ServerMove) -> str:
    cells = (server.name, server.operation or "", server.to or "", server.reason)
    return f"| {SIGNS[server.state]}{SPACE} | " + " | ".join(f"{_cell(cell)}{SPACE}" for cell in cells) + " |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
