"""Which kind of guest runs here: tried out, not believed."""

import json
from pathlib import Path

import pytest

from drivers.hypervisor.libvirt import VirtType, probe, probe_virt_type
from drivers.hypervisor.libvirt.boot_sector import GREETING, boot_disk
from drivers.hypervisor.libvirt.connection import Connection
from drivers.hypervisor.libvirt.probe import KVM, guest_trouble
from hostler.contract.errors import Unavailable
from hostler.settings import LibvirtSettings

AUTO = LibvirtSettings()


def test_the_settings_have_the_last_word(tmp_path: Path) -> None:
    assert probe_virt_type(LibvirtSettings(virt_type="kvm"), tmp_path).type == "kvm"


def test_without_kvm_nothing_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "KVM", tmp_path / "kvm")
    found = probe_virt_type(LibvirtSettings(uri="qemu:///nowhere"), tmp_path)
    assert found.type == "qemu"
    assert "there is no" in found.reason


def test_the_boot_disk_is_what_a_firmware_takes() -> None:
    disk = boot_disk()
    assert disk[510:512] == b"\x55\xaa"
    assert GREETING in disk[:510]


@pytest.mark.real
def test_a_guest_runs_without_kvm_and_is_gone_afterwards(state_dir: Path) -> None:
    connection = Connection(AUTO.uri)
    assert guest_trouble(connection.get(), "qemu", state_dir) is None
    assert list(state_dir.iterdir()) == []
    assert not [domain for domain in connection.get().listAllDomains() if str(state_dir) in domain.XMLDesc()]
    connection.close()


@pytest.mark.real
@pytest.mark.skipif(not KVM.exists(), reason="this machine has no /dev/kvm to try")
def test_the_answer_has_a_reason_and_is_kept(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = probe_virt_type(AUTO, state_dir)
    assert found.reason
    monkeypatch.setattr(probe, "guest_trouble", None)  # calling it would fail
    assert probe_virt_type(AUTO, state_dir) == found


@pytest.mark.real
@pytest.mark.skipif(not KVM.exists(), reason="this machine has no /dev/kvm to try")
@pytest.mark.parametrize(
    ("troubles", "expected"),
    [
        ({"kvm": None}, VirtType("kvm", "a guest ran under KVM")),
        ({"kvm": "no sign", "qemu": None}, VirtType("qemu", f"{KVM} is there, but no guest runs under it: no sign")),
    ],
)
def test_kvm_is_chosen_only_if_a_guest_ran_under_it(
    state_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    troubles: dict[str, str | None],
    expected: VirtType,
) -> None:
    monkeypatch.setattr(probe, "guest_trouble", lambda _connection, virt_type, _directory: troubles[virt_type])
    assert probe_virt_type(AUTO, state_dir) == expected


@pytest.mark.real
@pytest.mark.skipif(not KVM.exists(), reason="this machine has no /dev/kvm to try")
def test_a_host_on_which_nothing_runs_gets_no_answer(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "guest_trouble", lambda *_: "no virtlogd")
    with pytest.raises(Unavailable, match="no virtlogd"):
        probe_virt_type(AUTO, state_dir)
    assert list(state_dir.iterdir()) == []


@pytest.mark.real
@pytest.mark.skipif(not KVM.exists(), reason="this machine has no /dev/kvm to try")
@pytest.mark.parametrize("kept", ["", "{}", json.dumps({"key": "another boot", "type": "kvm", "reason": "old"})])
def test_what_was_kept_from_another_boot_does_not_count(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    (state_dir / probe.CACHE).write_text(kept)
    monkeypatch.setattr(probe, "guest_trouble", lambda *_: None)
    assert probe_virt_type(AUTO, state_dir).reason == "a guest ran under KVM"
