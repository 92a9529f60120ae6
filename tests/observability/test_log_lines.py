"""Log lines of real workers say where they are from; each step and each operation tells its end once."""

from typing import Any

from tests.observability.conftest import FIRST, SECOND, SECRET, Observed


def lines(observed: Observed, **fields: Any) -> list[dict[str, Any]]:
    """The lines that have these fields."""
    return [line for line in observed.logs if fields.items() <= line.items()]


def test_every_line_of_a_step_says_where_it_is_from(observed: Observed) -> None:
    steps = [line for line in observed.logs if "step" in line and line.get("server") == observed.server_id]
    assert steps
    for line in steps:
        assert {"operation", "run", "attempt", "try"} <= line.keys(), line
        assert line["process"] == "control" or line["host"] in (FIRST, SECOND), line


def test_a_step_tells_its_end_once_with_its_duration(observed: Observed) -> None:
    ends = [line for line in lines(observed, server=observed.server_id, step="spawn") if "outcome" in line]
    assert [(line["attempt"], line["host"], line["outcome"]) for line in ends] == [
        (1, FIRST, "failed"), (2, SECOND, "done"),
    ]  # fmt: skip
    assert all(line["seconds"] >= 0 for line in ends)


def test_a_failure_is_told_once_with_its_reason(observed: Observed) -> None:
    [refusal] = lines(observed, step="spawn", level="warning")
    assert "no room after all" in refusal["message"]
    assert "exception" not in refusal, "a refusal is no defect"
    breaks = lines(observed, step="stop_guest", level="warning")
    assert [line["try"] for line in breaks] == [1, 2, 3]
    assert all("stop broke" in line["exception"] for line in breaks)


def test_an_operation_tells_its_end_once(observed: Observed) -> None:
    ends = [line for line in lines(observed, process="control", server=observed.server_id) if "step" not in line]
    outcomes = [(line["operation"], line["outcome"], line["attempt"]) for line in ends if "outcome" in line]
    assert outcomes == [("boot", "completed", 2), ("stop", "completed", 1)]


def test_no_line_carries_what_the_request_said(observed: Observed) -> None:
    assert not [line for line in observed.logs if SECRET in str(line)]
