"""A server's history: written at the end of each operation, and when it holds or takes long; read by its owner."""

from sqlmodel import Session, col, select

from activities.interfaces.servers import EventLog
from hostler.contract.servers import ServerEvent, Step
from models import ServerEvent as Row


def write_events(session: Session, log: EventLog) -> None:
    """Write the steps of a run, over what was written of them while it went on."""
    query = select(Row).where(Row.server_id == log.server_id, Row.run_id == log.run_id)
    there = {row.position: row for row in session.exec(query)}
    for position, step in enumerate(log.steps):
        content = step.model_dump(mode="json")
        if position in there:
            there[position].step = content
        else:
            session.add(
                Row(
                    server_id=log.server_id,
                    run_id=log.run_id,
                    operation=log.operation,
                    position=position,
                    step=content,
                )
            )


def is_late(session: Session, log: EventLog) -> bool:
    """Whether more has been written of the run than the log knows of: it comes late, or again."""
    rows = session.exec(select(Row).where(Row.server_id == log.server_id, Row.run_id == log.run_id)).all()
    written = len(rows), sum(1 for row in rows if row.step["finished_at"] is not None)
    return (len(log.steps), sum(1 for step in log.steps if step.finished_at is not None)) < written


def read_events(session: Session, server_id: str) -> list[ServerEvent]:
    """All of a server's history, oldest first."""
    rows = session.exec(select(Row).where(Row.server_id == server_id).order_by(col(Row.id))).all()
    return [ServerEvent(operation=row.operation, run_id=row.run_id, step=Step.model_validate(row.step)) for row in rows]
