"""The config drive, read back as a guest would."""

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pycdlib
import pytest
import yaml  # type: ignore[import-untyped]  # it ships no types

from drivers.hypervisor.libvirt.config_drive import hostname, write_config_drive
from hostler.contract.errors import InvalidRequest
from hostler.contract.guests import GuestSpec
from tests.drivers.hypervisor.libvirt.guests import guest, port

LATEST = "/openstack/latest"


def read(file: Path, name: str, view: str = "rr_path") -> bytes:
    iso = pycdlib.PyCdlib()
    iso.open(str(file))
    content = BytesIO()
    iso.get_file_from_iso_fp(content, **{view: f"{LATEST}/{name}"})
    iso.close()
    return content.getvalue()


def drive_of(spec: GuestSpec, tmp_path: Path) -> Path:
    file = tmp_path / "disk.config"
    write_config_drive(spec, file)
    return file


def document(spec: GuestSpec, tmp_path: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(read(drive_of(spec, tmp_path), name))
    return content


def test_is_a_volume_that_guests_look_for(tmp_path: Path) -> None:
    file = drive_of(guest(), tmp_path)
    assert file.read_bytes()[0x8028:0x8048].strip() == b"config-2"  # where ISO 9660 has the volume's name
    assert file.stat().st_mode & 0o077 == 0


def test_tells_the_guest_what_it_is(tmp_path: Path) -> None:
    spec = guest(
        project="p1", availability_zone="z1", metadata={"role": "db"}, public_keys={"mine": "ssh-ed25519 AAAA me"}
    )
    assert document(spec, tmp_path, "meta_data.json") == {
        "uuid": spec.server_id,
        "name": "web 1",
        "hostname": "web-1",
        "project_id": "p1",
        "availability_zone": "z1",
        "launch_index": 0,
        "meta": {"role": "db"},
        "public_keys": {"mine": "ssh-ed25519 AAAA me"},
        "keys": [{"name": "mine", "type": "ssh", "data": "ssh-ed25519 AAAA me"}],
        "devices": [],
    }


def test_tells_the_guest_a_password_where_one_was_set(tmp_path: Path) -> None:
    spec = guest(admin_password="correct horse")
    assert document(spec, tmp_path, "meta_data.json")["admin_pass"] == "correct horse"


@pytest.mark.parametrize(
    "password", ["correct horse", "no", "007", " '\"\\: #{%@ ", "пароль", "\U0001f434", "x" * 255], ids=str.__repr__
)
def test_cloud_init_reads_the_password_from_the_vendors_cloud_config(tmp_path: Path, password: str) -> None:
    config = document(guest(admin_password=password), tmp_path, "vendor_data.json")["cloud-init"]
    assert config.startswith("#cloud-config\n")
    assert yaml.safe_load(config) == {"password": password, "chpasswd": {"expire": False}}


def test_without_a_password_the_vendor_has_nothing_to_say(tmp_path: Path) -> None:
    assert document(guest(), tmp_path, "vendor_data.json") == {}


def test_tells_the_guest_its_networks(tmp_path: Path) -> None:
    attached = port()
    data = document(guest(ports=[attached]), tmp_path, "network_data.json")
    link = f"tap{attached.port_id[:11]}"
    dns = [{"type": "dns", "address": "192.0.2.2"}]
    assert data["links"] == [
        {
            "id": link,
            "vif_id": attached.port_id,
            "type": "bridge",
            "mtu": 1450,
            "ethernet_mac_address": "fa:16:3e:00:00:01",
        }
    ]
    assert data["networks"] == [
        {
            "id": "network0",
            "type": "ipv4",
            "link": link,
            "ip_address": "192.0.2.7",
            "netmask": "255.255.255.192",
            "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "192.0.2.1"}],
            "network_id": attached.network_id,
            "services": dns,
        }
    ]
    assert data["services"] == dns


@pytest.mark.parametrize("view", ["rr_path", "joliet_path"])
def test_carries_user_data_byte_for_byte(tmp_path: Path, view: str) -> None:
    content = b"#!/bin/sh\n\x00\xff"
    spec = guest(user_data=base64.b64encode(content).decode())
    assert read(drive_of(spec, tmp_path), "user_data", view) == content


def test_has_no_user_data_where_none_was_given(tmp_path: Path) -> None:
    file = drive_of(guest(), tmp_path)
    with pytest.raises(pycdlib.pycdlibexception.PyCdlibInvalidInput):
        read(file, "user_data")


def test_refuses_user_data_that_is_not_base64(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="base64"):
        write_config_drive(guest(user_data="#!/bin/sh"), tmp_path / "disk.config")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Web_Server 1", "web-server-1"),
        ("a.example", "a.example"),
        ("Größe!", "gre"),
        ("-x-", "x"),
        ("x" * 99, "x" * 63),
    ],
)
def test_makes_a_host_name_of_the_servers_name(name: str, expected: str) -> None:
    assert hostname(guest(name=name)) == expected


def test_a_name_without_a_usable_character_gives_way_to_the_uuid() -> None:
    spec = guest(name="数据库")
    assert hostname(spec) == f"server-{spec.server_id}"


def test_the_networks_name_for_the_guest_is_its_host_name() -> None:
    assert hostname(guest(ports=[port(), port(hostname="db-7")])) == "db-7"
