"""The domain of a guest that moves: the guest does not notice, and nothing points to its former host."""

from pathlib import Path
from uuid import uuid4

import pytest
from lxml import etree

from drivers.hypervisor.libvirt.domain_xml import NAMESPACE, Mark, domain_xml
from drivers.hypervisor.libvirt.files import GuestFiles
from drivers.hypervisor.libvirt.migration_xml import (
    LocalDisk,
    local_disks,
    machine,
    obstacles,
    processor,
    rewritten,
    virt_type_of,
)
from hostler.contract.errors import RescheduleError
from hostler.contract.guests import DiskKind, GuestDisk, GuestSpec, VolumeConnection
from hostler.contract.resources import DiskFormat
from tests.drivers.hypervisor.libvirt.guests import MIB, guest, image_ref, port, root_disk

HERE, THERE = Path("/srv/here/guests"), Path("/srv/there/guests")
HOST, NEXT_HOST = str(uuid4()), str(uuid4())


@pytest.fixture
def full(tmp_path: Path) -> GuestSpec:
    """A guest with one of everything."""
    file = tmp_path / "image"
    file.touch()
    volume = VolumeConnection(volume_id=str(uuid4()), host="192.0.2.9", port=10809, export="data")
    return guest(
        root_disk(image_ref(file, DiskFormat.RAW, MIB)),
        GuestDisk(kind=DiskKind.DATA, device="vdb", size_bytes=MIB, volume_id=volume.volume_id, connection=volume),
        GuestDisk(kind=DiskKind.EPHEMERAL, device="vdc", size_bytes=MIB),
        GuestDisk(kind=DiskKind.SWAP, device="vdd", size_bytes=MIB),
        ports=[port()],
        config_drive=True,
    )


def xml_of(spec: GuestSpec, guests: Path = HERE, host: str = HOST, direct_io: bool = True) -> str:
    files = GuestFiles.of(guests, spec.server_id)
    return domain_xml(spec, Mark.of(spec, files, host), files, guests / "base", "qemu", direct_io)


def moved(spec: GuestSpec, base: Path | None, direct_io: bool = True) -> str:
    files = GuestFiles.of(THERE, spec.server_id)
    return rewritten(xml_of(spec), files, Mark.of(spec, files, NEXT_HOST), base, direct_io)


def canonical(xml: str) -> bytes:
    return etree.tostring(etree.fromstring(xml, etree.XMLParser(remove_blank_text=True)), method="c14n")


class TestLocalDisks:
    def test_all_that_the_guest_writes_here(self, full: GuestSpec) -> None:
        assert local_disks(xml_of(full)) == [
            LocalDisk("vda", "disk", DiskFormat.QCOW2, DiskFormat.RAW, "none"),
            LocalDisk("vdc", "disk.eph0", DiskFormat.RAW, None, "none"),
            LocalDisk("vdd", "disk.swap", DiskFormat.RAW, None, "none"),
        ]


class TestWhatItIs:
    def test_as_the_next_host_compares_it(self, full: GuestSpec) -> None:
        xml = xml_of(full)
        assert virt_type_of(xml) == "qemu"
        assert machine(xml) == ("", "pc")
        assert processor(xml).startswith("<cpu ")
        assert "Nehalem" in processor(xml)


class TestRewritten:
    def test_is_what_the_next_host_would_have_made(self, full: GuestSpec) -> None:
        assert canonical(moved(full, THERE / "base")) == canonical(xml_of(full, THERE, NEXT_HOST))

    def test_has_the_next_host_s_way_to_write(self, full: GuestSpec) -> None:
        assert canonical(moved(full, THERE / "base", direct_io=False)) == canonical(
            xml_of(full, THERE, NEXT_HOST, direct_io=False)
        )

    def test_leaves_nothing_of_the_former_host(self, full: GuestSpec) -> None:
        assert str(HERE.parent) not in moved(full, THERE / "base")
        assert HOST not in moved(full, THERE / "base")

    def test_its_mark_is_that_of_a_guest_made_there(self, full: GuestSpec) -> None:
        element = etree.fromstring(moved(full, None)).find(f"metadata/{{{NAMESPACE}}}guest")
        assert element is not None
        files = GuestFiles.of(THERE, full.server_id)
        assert Mark.read(etree.tostring(element, encoding="unicode")) == Mark.of(full, files, NEXT_HOST)

    def test_without_an_image_the_disk_stands_alone(self, full: GuestSpec) -> None:
        disk = etree.fromstring(moved(full, None)).find("devices/disk")
        assert disk is not None
        backing = disk.find("backingStore")
        assert backing is not None
        assert len(backing) == 0

    def test_the_shared_image_stays_whose_it_is(self, full: GuestSpec) -> None:
        label = etree.fromstring(moved(full, THERE / "base")).find("devices/disk/backingStore/source/seclabel")
        assert label is not None
        assert label.get("relabel") == "no"

    def test_a_domain_of_somebody_else_is_refused(self, full: GuestSpec) -> None:
        files = GuestFiles.of(THERE, full.server_id)
        with pytest.raises(RescheduleError, match="not marked"):
            rewritten("<domain/>", files, Mark.of(full, files, NEXT_HOST), None, direct_io=True)


class TestObstacles:
    def test_a_guest_of_ours_has_none(self, full: GuestSpec) -> None:
        assert obstacles(xml_of(full), GuestFiles.of(HERE, full.server_id)) == []

    @pytest.mark.parametrize(
        ("device", "found"),
        [
            ("<hostdev mode='subsystem' type='pci'/>", "a hostdev device"),
            ("<filesystem type='mount'/>", "a filesystem device"),
            ("<disk type='block'><source dev='/dev/sdb'/><target dev='vdx'/></disk>", "disk vdx, which is a block"),
            ("<disk type='file'><source file='/srv/a.iso'/><target dev='hdb'/></disk>", "disk hdb, whose file"),
            ("<interface type='direct'/>", "a network interface of type direct"),
        ],
    )
    def test_what_is_bound_to_its_host(self, full: GuestSpec, device: str, found: str) -> None:
        xml = xml_of(full).replace("</devices>", f"{device}</devices>")
        [obstacle] = obstacles(xml, GuestFiles.of(HERE, full.server_id))
        assert obstacle.startswith(found)

    def test_an_empty_drive_is_none(self, full: GuestSpec) -> None:
        xml = xml_of(full).replace("</devices>", "<disk type='file' device='cdrom'/></devices>")
        assert obstacles(xml, GuestFiles.of(HERE, full.server_id)) == []
