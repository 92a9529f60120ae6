"""Which servers are evacuated, and in which order."""

import pytest

from hostler.contract.errors import InvalidRequest
from hostler.contract.evacuation import check_policy, evacuated, priority

YES, NO, NOTHING = {"hostler:evacuate": "true"}, {"hostler:evacuate": "false"}, {"rack": "7"}


@pytest.mark.parametrize("default", [True, False])
def test_the_servers_own_word_is_over_all(default: bool) -> None:
    assert evacuated(YES, [NO], default)
    assert not evacuated(NO, [YES], default)


@pytest.mark.parametrize("default", [True, False])
def test_then_its_hosts_aggregates_of_which_one_that_says_no_decides(default: bool) -> None:
    assert evacuated({}, [NOTHING, YES], default)
    assert not evacuated({}, [YES, NO], default)


@pytest.mark.parametrize("default", [True, False])
def test_then_the_setting(default: bool) -> None:
    assert evacuated({}, [NOTHING], default) is default
    assert evacuated({"hostler:evacuate": "perhaps"}, [], default) is default


def test_priorities() -> None:
    key = "hostler:evacuation_priority"
    assert [priority(one) for one in ({key: "10"}, {key: "-5"}, {}, {key: "high"})] == [10, -5, 0, 0]
    assert [priority({key: number}) for number in ("101", "-999999999999", "9" * 9999)] == [100, -100, 0]


@pytest.mark.parametrize("metadata", [{"hostler:evacuate": "yes"}, {"hostler:evacuation_priority": "1.5"}])
def test_what_is_not_understood_is_refused(metadata: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_policy(metadata)
    assert caught.value.remedy
