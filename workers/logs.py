"""Logging of all processes: readable lines, or JSON objects one a line, on standard error.

Every line of an activity or a workflow, whoever logs it, has where it is from as plain fields: server, operation, run,
step, attempt, try, host. So has a line what its caller passes in `extra`.
"""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

from temporalio import activity, workflow
from temporalio.runtime import LogForwardingConfig, LoggingConfig, TelemetryFilter

from activities.telemetry import Place, place
from hostler.contract.names import HOST_QUEUE_PREFIX, SUBJECTS
from hostler.settings import LogSettings
from workflows.showing import Shown

Fields = dict[str, object]

# What every record has, or what Temporal adds and `fields` flattens, and so is no field of its own.
_STANDARD = set(vars(logging.makeLogRecord({}))) | {
    "message", "asctime", "taskName", "temporal_activity", "temporal_workflow", "temporal_log", "activity_info",
}  # fmt: skip
_LEVEL = {"WARNING": "WARN", "CRITICAL": "FATAL"}


def configure(settings: LogSettings, process: str) -> None:
    """Send all logs of this process to standard error, marked as those of `process`. Calling it again replaces it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process) if settings.format == "json" else TextFormatter(process))
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    # These libraries say at "info" and below what interests only their own developers.
    for chatty in ("alembic", "asyncio", "pyroute2", "temporalio.worker", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # What it says of an activity's begin and end is said already, with more fields, by activities/telemetry.py.
    logging.getLogger("temporalio.activity").addFilter(_is_news)
    activity.logger.activity_info_on_message = False
    workflow.logger.workflow_info_on_message = False


def core_logging() -> LoggingConfig:
    """The logging of Temporal's Rust core for the runtime's `TelemetryConfig`: warnings, into the same lines."""
    return LoggingConfig(
        filter=TelemetryFilter(core_level="WARN", other_level="ERROR"),
        forwarding=LogForwardingConfig(
            logger=logging.getLogger("temporalio.core"),
            append_target_to_name=False,
            prepend_target_on_message=False,
        ),
    )


class TextFormatter(logging.Formatter):
    """`07:24:37.120 INFO  host: message  field=value ...`, in local time."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback where there is one."""
        time = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")[11:23]
        level = _LEVEL.get(record.levelname, record.levelname)
        line = f"{time} {level:5} {self._process}: {record.getMessage()}"
        shown = "  ".join(f"{name}={_text(value)}" for name, value in fields(record).items())
        return "\n".join(filter(None, (f"{line}  {shown}".rstrip(), self._traceback(record))))

    def _traceback(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""


class JsonFormatter(logging.Formatter):
    """One JSON object a line; times are UTC, in ISO 8601."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """One line, the traceback in the field `exception`."""
        line: Fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in fields(record).items() if name not in line}
        if record.exc_info and record.exc_info[0]:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def fields(record: logging.LogRecord) -> Fields:
    """The fields of a record: what Temporal knows of the context, then the caller's own, which win."""
    own = {name: value for name, value in vars(record).items() if name not in _STANDARD and name[:2] != "__"}
    return _context(record) | own


def _is_news(record: logging.LogRecord) -> bool:
    told = getattr(record, "__temporal_error_identifier", None) == "ActivityFailure"
    return not told and record.levelno > logging.DEBUG


def _context(record: logging.LogRecord) -> Fields:
    known = _known(record)
    workflow_id = str(known.get("workflow_id") or "")
    kind, _, thing = workflow_id.partition(":")
    queue, here = str(known.get("task_queue", "")), place.get() or Place()
    found: Fields = {
        kind if kind in SUBJECTS else "workflow": thing if kind in SUBJECTS else workflow_id,
        "operation": known.get("workflow_type"),
        "run": known.get("workflow_run_id") or known.get("run_id"),
        "step": known.get("activity_type"),
        "attempt": here.attempt,
        # Of the same step on the same host; an attempt is a host.
        "try": known.get("attempt") if "activity_type" in known else None,
        "host": here.host or (queue.removeprefix(HOST_QUEUE_PREFIX) if queue.startswith(HOST_QUEUE_PREFIX) else None),
        "update": known.get("update_name"),
    }
    if workflow.in_workflow() and isinstance(run := workflow.instance(), Shown):
        found |= {"attempt": run.state.attempt, "host": run.state.host}
    return {name: value for name, value in found.items() if value}


def _known(record: logging.LogRecord) -> Mapping[str, object]:
    """What Temporal knows of the record's activity or workflow; its own loggers have noted it in the record."""
    noted = {**getattr(record, "temporal_workflow", {}), **getattr(record, "temporal_activity", {})}
    if noted or not activity.in_activity():
        return noted
    info = activity.info()
    return {
        "workflow_id": info.workflow_id,
        "workflow_type": info.workflow_type,
        "workflow_run_id": info.workflow_run_id,
        "activity_type": info.activity_type,
        "attempt": info.attempt,
        "task_queue": info.task_queue,
    }


def _text(value: object) -> str:
    text = str(value)
    return text if text and text.isprintable() and " " not in text and '"' not in text else json.dumps(text)
