"""The Markdown that the Temporal UI shows of a running operation."""

from collections.abc import Sequence

from hostler.contract.errors import AttemptReport
from hostler.contract.servers import Progress, Step, StepStatus

SPACE = "\N{NO-BREAK SPACE}"  # the UI's tables have no padding
SIGNS = {
    StepStatus.PENDING: "○",
    StepStatus.RUNNING: "▶",
    StepStatus.HELD: "‖",
    StepStatus.DONE: "✔",
    StepStatus.FAILED: "✘",
    StepStatus.UNDOING: "↶",
    StepStatus.UNDONE: "↩",
    StepStatus.OWED: "⧗",
}


def markdown(progress: Progress, title: str, failed: Sequence[AttemptReport]) -> str:
    """Where the operation stands: its steps, done, running and to come, attempt by attempt, with why one failed."""
    lines = [f"**{title}**", *_hold(progress)]
    reasons = {report.attempt: report for report in failed}
    for attempt in range(1, progress.attempt + 1):
        pending = attempt == progress.attempt
        steps = [step for step in progress.steps if _belongs(step, attempt, pending)]
        host = next((step.host for step in steps if step.host), None)
        lines += ["", f"Attempt {attempt}" + (f" on **{host}**" if host else "")]
        if report := reasons.get(attempt):
            lines[-1] += f" failed at `{report.step}`: {report.reason}"
        lines += ["", "| | step | took |", "|:-:|---|--:|", *(_row(step) for step in steps)]
    return "\n".join(lines)


def _hold(progress: Progress) -> list[str]:
    """What a held operation waits for, and how to decide, also from this page: by the update `decide`."""
    hold = progress.hold
    if hold is None:
        return []
    choices = "|".join(hold.choices)
    return [
        "",
        f"**Holds at `{hold.step}`**: {hold.error.message}",
        "",
        f"Decide until {hold.until:%Y-%m-%d %H:%M} UTC: `hostler operation {choices} {progress.server_id}`, or send "
        f'the update `decide` with `{{"choice": "{hold.choices[0]}", "by": "...", "note": "..."}}`. '
        "Afterwards it gives up.",
    ]


def _belongs(step: Step, attempt: int, last: bool) -> bool:
    return last if step.status is StepStatus.PENDING else step.attempt == attempt


def _row(step: Step) -> str:
    took = ""
    if step.started_at and step.finished_at:
        took = f"{(step.finished_at - step.started_at).total_seconds():.2f}{SPACE}s"
    words = ": ".join(text for text in (step.name, step.error, step.note) if text)
    return f"| {SIGNS[step.status]}{SPACE} | {words}{SPACE} | {took} |"
