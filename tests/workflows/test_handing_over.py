"""Where a guest is, by what its two hosts say."""

import pytest

from hostler.contract.guests import Arrival, Whereabouts
from workflows.handing_over import Place, decide
from workflows.unwinding import LONGEST_PAUSE, SHORTEST_PAUSE, pause

HERE, THERE, OFF = Place.HERE, Place.THERE, Place.OFF
W, A = Whereabouts, Arrival


@pytest.mark.parametrize(
    ("said", "seen", "place"),
    [
        *((W.HERE, seen, HERE) for seen in (None, *A)),
        *((said, A.RUNS, THERE) for said in (None, W.HANDED_OVER, W.OFF, W.GONE)),
        *((said, seen, THERE) for said in (W.HANDED_OVER, W.GONE) for seen in (A.COME, A.OFF)),
        *((said, A.NOTHING, OFF) for said in (W.HANDED_OVER, W.OFF, W.GONE)),
        *((W.OFF, seen, OFF) for seen in (A.COME, A.OFF)),
        (None, A.NOTHING, HERE),
        *((None, seen, None) for seen in (None, A.COME, A.OFF)),
        *((said, None, None) for said in (W.HANDED_OVER, W.OFF, W.GONE)),
    ],
)
def test_what_they_say(said: Whereabouts | None, seen: Arrival | None, place: Place | None) -> None:
    assert decide(said, seen) is place


@pytest.mark.parametrize(
    ("said", "seen", "down", "place"),
    [
        (None, A.COME, ["source"], THERE),
        (None, A.OFF, ["source"], THERE),
        (None, None, ["source"], None),
        (None, None, ["target"], None),
        (None, None, ["source", "target"], HERE),
        (W.HANDED_OVER, None, ["target"], OFF),
        (W.GONE, None, ["target"], THERE),
        (W.OFF, None, ["target"], OFF),
        (W.HANDED_OVER, None, ["source"], None),
    ],
)
def test_what_a_declaration_adds(
    said: Whereabouts | None, seen: Arrival | None, down: list[str], place: Place | None
) -> None:
    assert decide(said, seen, down) is place


def test_a_copy_that_may_be_the_newer_one_is_never_given_up_for_silence_alone() -> None:
    for seen in (A.COME, A.OFF):
        assert decide(None, seen) is None
        assert decide(None, seen, ["target"]) is None


def test_a_pause_is_of_limited_length_after_any_number_of_tries() -> None:
    assert pause(0) == SHORTEST_PAUSE
    assert pause(10_000) == LONGEST_PAUSE
