"""The Markdown that the Temporal UI shows of a running operation."""

from collections.abc import Sequence

from hostler.contract.errors import AttemptReport
from hostler.contract.servers import Progress, Step, StepStatus

SIGNS = {
    StepStatus.PENDING: "○",
    StepStatus.RUNNING: "▶",
    StepStatus.DONE: "✔",
    StepStatus.FAILED: "✘",
    StepStatus.UNDOING: "↶",
    StepStatus.UNDONE: "↩",
    StepStatus.OWED: "⧗",
}


def markdown(progress: Progress, title: str, failed: Sequence[AttemptReport]) -> str:
    """Where the operation stands: former attempts with their reasons, then its steps, done, running and to come."""
    lines = [f"**{title}** (attempt {progress.attempt}{f' on {progress.host}' if progress.host else ''})", ""]
    lines += [f"- attempt {one.attempt} on **{one.host}** failed at `{one.step}`: {one.reason}" for one in failed]
    if failed:
        lines.append("")
    lines += ["| | step | host | attempt | took |", "|---|---|---|---|---|"]
    lines += [_row(step) for step in progress.steps]
    return "\n".join(lines)


def _row(step: Step) -> str:
    took = ""
    if step.started_at and step.finished_at:
        took = f"{(step.finished_at - step.started_at).total_seconds():.2f} s"
    error = f": {step.error}" if step.error else ""
    attempt = "" if step.status is StepStatus.PENDING else step.attempt
    return f"| {SIGNS[step.status]} | {step.name}{error} | {step.host or ''} | {attempt} | {took} |"
