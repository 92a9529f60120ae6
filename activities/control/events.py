"""A server's history: written at the end of each operation, read by its owner."""

from sqlmodel import Session, col, select

from activities.interfaces.servers import EventLog
from hostler.contract.servers import ServerEvent, Step
from models import ServerEvent as Row
from models import now


def write_events(session: Session, log: EventLog) -> None:
    """Write the steps of a run; those that are there already stay. The last one is the step that writes."""
    log.steps[-1].finished_at = now()
    there = set(
        session.exec(select(Row.position).where(Row.server_id == log.server_id, Row.run_id == log.run_id)).all()
    )
    session.add_all(
        Row(
            server_id=log.server_id,
            run_id=log.run_id,
            operation=log.operation,
            position=position,
            step=step.model_dump(mode="json"),
        )
        for position, step in enumerate(log.steps)
        if position not in there
    )


def read_events(session: Session, server_id: str) -> list[ServerEvent]:
    """All of a server's history, oldest first."""
    rows = session.exec(select(Row).where(Row.server_id == server_id).order_by(col(Row.id))).all()
    return [ServerEvent(operation=row.operation, run_id=row.run_id, step=Step.model_validate(row.step)) for row in rows]
