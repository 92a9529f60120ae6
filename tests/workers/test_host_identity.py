"""A host keeps its UUID, whatever it is called and however often it starts."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hostler.contract.errors import Conflict
from hostler.contract.names import is_uuid
from workers.host_identity import forget_admission, host_id, machine_id, note_admission, was_admitted


def test_the_first_start_makes_a_uuid_and_the_next_ones_find_it(tmp_path: Path) -> None:
    first = host_id(tmp_path / "state")
    assert is_uuid(first)
    assert host_id(tmp_path / "state") == first
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["host_id"], "nothing else is left behind"


def test_each_directory_is_a_host_of_its_own(tmp_path: Path) -> None:
    assert len({host_id(tmp_path / name) for name in "abc"}) == 3


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(lambda _: host_id(tmp_path), range(64)))) == 1


@pytest.mark.parametrize("content", ["", "sim-1\n", "not-a-uuid", "3F0E8A52-6F0B-4F6E-9D0E-0D8F5F1F9B10"])
def test_a_malformed_file_is_an_error_and_is_left_alone(tmp_path: Path, content: str) -> None:
    file = tmp_path / "host_id"
    file.write_text(content)
    with pytest.raises(Conflict, match="should hold this host's UUID") as caught:
        host_id(tmp_path)
    assert caught.value.remedy
    assert str(file) in caught.value.remedy
    assert file.read_text() == content


def test_white_space_around_the_uuid_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "host_id").write_text(" 3f0e8a52-6f0b-4f6e-9d0e-0d8f5f1f9b10 \n\n")
    assert host_id(tmp_path) == "3f0e8a52-6f0b-4f6e-9d0e-0d8f5f1f9b10"


# Which machine it is.


def test_a_machine_is_told_by_its_id_which_stays_on_it(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("3d1219c7c4c5404aaa1f6d2a48adfda4\n")
    other.write_text("00000000000000000000000000000000\n")
    assert machine_id(one) == machine_id(one) != machine_id(other)
    assert "3d1219" not in str(machine_id(one))


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_machine_may_have_no_id(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "machine-id"
    if content is not None:
        file.write_text(content)
    assert machine_id(file) is None


def test_an_admission_is_of_one_host_on_one_machine(tmp_path: Path) -> None:
    assert not was_admitted(tmp_path, "host", "machine")
    note_admission(tmp_path, "host", "machine")
    assert was_admitted(tmp_path, "host", "machine")
    assert not was_admitted(tmp_path, "host", "other machine")
    assert not was_admitted(tmp_path, "other host", "machine")
    forget_admission(tmp_path)
    forget_admission(tmp_path)
    assert not was_admitted(tmp_path, "host", "machine")
