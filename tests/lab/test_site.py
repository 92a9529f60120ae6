"""What a lab may be called, and which one is in a directory."""

import re
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from deploy.lab.site import Refused, Site


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    return tmp_path / "lab"


def test_one_that_was_saved_is_found_again(directory: Path) -> None:
    site = Site(directory, "blue", IPv4Network("198.18.5.0/24"), 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deploy.lab.site.first_closed", lambda _: None)  # pytest's directories are closed
        site.save()
    assert Site.load(directory) == site
    assert Site.choose(directory, None, None, None) == site
    site.remove()
    assert not directory.exists()


def test_the_machine_has_the_last_address(directory: Path) -> None:
    assert str(Site(directory, "blue", IPv4Network("198.18.5.0/24"), 2).address) == "198.18.5.254"


@pytest.mark.parametrize(
    ("name", "subnet", "hosts", "complaint"),
    [
        ("a-name-too-long", None, None, "cannot be a bridge's name"),
        ("a/b", None, None, "cannot be a bridge's name"),
        (None, "198.18.5.0/30", None, "too few addresses for 3 hosts"),
        (None, "198.18.5.1/24", None, "is no IPv4 subnet"),
        (None, None, 10, "a lab of 10 hosts"),
        (None, None, -1, "a lab of -1 hosts"),
    ],
)
def test_one_that_cannot_be(
    directory: Path, name: str | None, subnet: str | None, hosts: int | None, complaint: str
) -> None:
    with pytest.raises(Refused, match=re.escape(complaint)) as refusal:
        Site.choose(directory, name, subnet, hosts)
    assert refusal.value.remedy


def test_a_directory_that_qemu_cannot_get_through(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(Refused, match="cannot get through"):
        Site(tmp_path / "lab").save()
