"""A guest's domain: valid for libvirt, and made of what the guest asked for."""

from pathlib import Path
from typing import Literal
from uuid import uuid4

import pytest
from lxml import etree

from drivers.hypervisor.libvirt.domain_xml import NAMESPACE, Mark, domain_xml, with_processor
from drivers.hypervisor.libvirt.files import GuestFiles
from drivers.hypervisor.libvirt.tcg_memory import QEMU
from hostler.contract.errors import InvalidRequest
from hostler.contract.guests import DiskKind, GuestDisk, GuestSpec, VolumeConnection
from hostler.contract.names import bridge_name, tap_name
from hostler.contract.resources import DiskFormat
from tests.drivers.hypervisor.libvirt.guests import MIB, guest, image_ref, port, root_disk

GUESTS = Path("/srv/guests")
SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
VOLUME_ID = str(uuid4())
HOST = str(uuid4())


def render(
    spec: GuestSpec,
    base: Path | None = None,
    virt_type: str = "qemu",
    direct_io: bool = True,
    cpu_model: str | None = None,
) -> etree._Element:
    files = GuestFiles.of(GUESTS, spec.server_id)
    assert virt_type in ("qemu", "kvm")
    mark = Mark.of(spec, files, HOST)
    kind: Literal["kvm", "qemu"] = "kvm" if virt_type == "kvm" else "qemu"
    return etree.fromstring(domain_xml(spec, mark, files, base, kind, direct_io, cpu_model))


def volume() -> GuestDisk:
    connection = VolumeConnection(volume_id=VOLUME_ID, host="192.0.2.9", port=10809, export="data")
    return GuestDisk(kind=DiskKind.DATA, device="vdb", size_bytes=MIB, volume_id=VOLUME_ID, connection=connection)


@pytest.fixture
def full(tmp_path: Path) -> GuestSpec:
    """A guest with one of everything."""
    file = tmp_path / "image"
    file.touch()
    return guest(
        root_disk(image_ref(file, DiskFormat.QCOW2, MIB)),
        volume(),
        GuestDisk(kind=DiskKind.EPHEMERAL, device="vdc", size_bytes=MIB),
        GuestDisk(kind=DiskKind.EPHEMERAL, device="vdd", size_bytes=MIB),
        GuestDisk(kind=DiskKind.SWAP, device="/dev/vde", size_bytes=MIB),
        GuestDisk(kind=DiskKind.DATA, device="vdf", size_bytes=MIB),
        ports=[port()],
        config_drive=True,
    )


@pytest.mark.parametrize("virt_type", ["kvm", "qemu"])
def test_libvirt_schema_accepts_it(full: GuestSpec, virt_type: str) -> None:
    schema = etree.RelaxNG(file=str(SCHEMA))
    schema.assertValid(render(full, Path("/srv/base"), virt_type))


def test_names_the_server_so_that_operators_and_audits_find_it(full: GuestSpec) -> None:
    domain = render(full)
    assert domain.findtext("name") == f"hostler-{full.server_id}"
    assert domain.findtext("uuid") == full.server_id
    metadata = domain.find("metadata")
    assert metadata is not None
    assert [child.text for child in metadata[0]] == ["web 1", "default", "tiny"]
    expected = Mark.of(full, GuestFiles.of(GUESTS, full.server_id), HOST)
    assert expected.host == HOST
    assert Mark.read(etree.tostring(metadata[0], encoding="unicode")) == expected


def test_the_mark_tells_another_spec_from_the_same(full: GuestSpec) -> None:
    files = GuestFiles.of(GUESTS, full.server_id)
    assert Mark.of(full.model_copy(), files, HOST) == Mark.of(full, files, HOST)
    assert Mark.of(full.model_copy(update={"ram_mib": 64}), files, HOST) != Mark.of(full, files, HOST)


def test_a_mark_of_before_hosts_were_recorded_names_none(full: GuestSpec) -> None:
    assert Mark.read(f'<guest xmlns="{NAMESPACE}" directory="/srv/guests/x" spec="y"/>').host == ""


def test_local_disks_are_files_named_as_nova_names_them(full: GuestSpec) -> None:
    domain = render(full, Path("/srv/base"))
    sources = [source.get("file") for source in domain.findall("devices/disk[@type='file']/source")]
    targets = [target.get("dev") for target in domain.findall("devices/disk[@type='file']/target")]
    names = {"vda": "disk", "vdc": "disk.eph0", "vdd": "disk.eph1", "vde": "disk.swap", "vdf": "disk.vdf"}
    names["hda"] = "disk.config"
    directory = GUESTS / full.server_id
    assert dict(zip(targets, sources, strict=True)) == {device: str(directory / name) for device, name in names.items()}


def test_the_shared_image_is_never_given_to_qemus_user(full: GuestSpec) -> None:
    label = render(full, Path("/srv/base")).find("devices/disk/backingStore/source[@file='/srv/base']/seclabel")
    assert label is not None
    assert label.get("relabel") == "no"


def test_a_volume_is_reached_over_nbd_and_found_by_its_id(full: GuestSpec) -> None:
    disk = render(full).find("devices/disk[@type='network']")
    assert disk is not None
    assert disk.findtext("serial") == VOLUME_ID
    source, host = disk.find("source"), disk.find("source/host")
    assert source is not None
    assert host is not None
    assert dict(source.attrib) == {"protocol": "nbd", "name": "data"}
    assert dict(host.attrib) == {"name": "192.0.2.9", "port": "10809"}


def test_boots_from_the_bootable_disks_in_their_order() -> None:
    first, second = volume(), root_disk(size_bytes=MIB)
    domain = render(guest(first.model_copy(update={"bootable": True}), second))
    found = [domain.xpath(f"string(devices/disk[boot/@order={number}]/target/@dev)") for number in (1, 2)]
    assert found == ["vdb", "vda"]


def test_an_interface_is_a_tap_in_the_networks_bridge(full: GuestSpec) -> None:
    interface = render(full).find("devices/interface")
    assert interface is not None
    attributes = {child.tag: dict(child.attrib) for child in interface}
    assert attributes["source"] == {"bridge": bridge_name(full.ports[0].network_id)}
    assert attributes["target"] == {"dev": tap_name(full.ports[0].port_id)}
    assert attributes["mac"] == {"address": "fa:16:3e:00:00:01"}
    assert attributes["mtu"] == {"size": "1450"}


def test_the_page_cache_is_bypassed_where_the_file_system_can(full: GuestSpec) -> None:
    caches = {direct: render(full, direct_io=direct).find("devices/disk/driver") for direct in (True, False)}
    assert {direct: driver.get("cache") for direct, driver in caches.items() if driver is not None} == {
        True: "none",
        False: "writeback",
    }


def test_what_only_translation_needs_is_left_out_under_kvm(full: GuestSpec) -> None:
    assert render(full, virt_type="qemu").find("features/tcg") is not None
    assert render(full, virt_type="kvm").find("features/tcg") is None


def test_qemu_is_told_more_only_of_a_guest_without_acceleration(full: GuestSpec) -> None:
    told = f"{{{QEMU}}}commandline"
    assert render(full, virt_type="qemu").find(told) is not None
    assert render(full, virt_type="kvm").find(told) is None


@pytest.mark.parametrize(
    ("virt_type", "cpu_model", "expected"),
    [
        ("kvm", None, '<cpu mode="host-model"/>'),
        ("qemu", None, '<cpu mode="custom" match="exact"><model fallback="forbid">Nehalem</model></cpu>'),
        ("kvm", "Haswell", '<cpu mode="custom" match="exact"><model fallback="forbid">Haswell</model></cpu>'),
        ("qemu", "Westmere", '<cpu mode="custom" match="exact"><model fallback="forbid">Westmere</model></cpu>'),
    ],
)
def test_the_processor_is_the_hosts_own_but_for_one_that_the_settings_name(
    full: GuestSpec, virt_type: str, cpu_model: str | None, expected: str
) -> None:
    domain = render(full, Path("/srv/base"), virt_type, cpu_model=cpu_model)
    etree.RelaxNG(file=str(SCHEMA)).assertValid(domain)
    found = domain.find("cpu")
    assert found is not None
    assert etree.canonicalize(etree.tostring(found, encoding="unicode"), strip_text=True) == etree.canonicalize(
        expected
    )


def test_only_a_guest_that_has_another_processor_gets_the_one_of_the_settings(full: GuestSpec) -> None:
    xml = etree.tostring(render(full, virt_type="kvm"), encoding="unicode")
    # As libvirt gives it back.
    checked = xml.replace('mode="host-model"', 'mode="host-model" check="partial"')
    assert with_processor(checked, "kvm", None) is None
    assert with_processor(checked, "qemu", "Westmere") is None
    named = with_processor(checked, "kvm", "Westmere")
    assert named is not None
    assert etree.fromstring(named).findtext("cpu/model") == "Westmere"
    assert with_processor(named, "kvm", "Westmere") is None
    assert with_processor(named, "kvm", None) is not None


@pytest.mark.parametrize("server_id", ["", "..", "/", "A6F1C3C0-0000-4000-8000-000000000000"])
def test_no_path_is_made_of_what_is_not_a_uuid(server_id: str) -> None:
    with pytest.raises(InvalidRequest):
        GuestFiles.of(GUESTS, server_id)
