"""One trace leads from a client's call through the workflow to the steps on the hosts; it carries no secret."""

import pytest

from tests.observability.collector import Span
from tests.observability.conftest import SECRET, Observed

BEGIN = "StartUpdateWithStartWorkflow:boot"


@pytest.fixture
def tree(observed: Observed) -> dict[str, Span]:
    """The spans of the trace that the client's call for the server began, by ID."""
    [call] = [
        span
        for span in observed.collector.spans
        if span.name == BEGIN and span.attributes["hostler.server"] == observed.server_id
    ]
    return {span.id: span for span in observed.collector.spans if span.trace == call.trace}


def path(tree: dict[str, Span], span: Span) -> list[str]:
    """The names from the root to the span."""
    above = path(tree, tree[span.parent]) if span.parent else []
    return [*above, span.name]


def runs(tree: dict[str, Span], step: str) -> list[Span]:
    """The spans of a step's tries, in order of their attempts."""
    found = [span for span in tree.values() if span.name == f"RunActivity:{step}"]
    return sorted(found, key=lambda span: span.attributes["hostler.attempt"])


def test_all_of_a_boot_is_one_tree_with_the_clients_call_at_its_root(tree: dict[str, Span]) -> None:
    roots = {path(tree, span)[0] for span in tree.values()}
    assert roots == {BEGIN}
    assert {span.service for span in tree.values()} == {"hostler-client", "hostler-control", "hostler-host"}


def test_a_step_on_a_host_hangs_below_the_workflow(tree: dict[str, Span]) -> None:
    for span in runs(tree, "spawn"):
        assert span.service == "hostler-host"
        assert path(tree, span) == [BEGIN, "StartActivity:spawn", "RunActivity:spawn"]
        assert tree[span.parent].service == "hostler-control", "it is the workflow that started it"


def test_spans_say_which_server_operation_step_and_attempt(observed: Observed, tree: dict[str, Span]) -> None:
    spawns = runs(tree, "spawn")
    assert [span.attributes["hostler.attempt"] for span in spawns] == [1, 2]
    assert len({span.attributes["hostler.host"] for span in spawns}) == 2
    for span in spawns:
        assert span.attributes["hostler.server"] == observed.server_id
        assert (span.attributes["hostler.operation"], span.attributes["hostler.step"]) == ("boot", "spawn")
        assert span.attributes["hostler.try"] == 1


def test_the_workflows_spans_say_so_too(observed: Observed, tree: dict[str, Span]) -> None:
    [first, second] = [span for span in tree.values() if span.name == "StartActivity:spawn"]
    assert {first.attributes["hostler.attempt"], second.attributes["hostler.attempt"]} == {1, 2}
    assert first.attributes["hostler.server"] == observed.server_id


def test_following_an_operation_makes_no_traces(observed: Observed) -> None:
    assert not [span.name for span in observed.collector.spans if span.name.startswith("QueryWorkflow")]


def test_no_span_carries_what_the_request_said(observed: Observed) -> None:
    assert b"RunActivity:spawn" in observed.collector.raw
    assert SECRET.encode() not in observed.collector.raw
