"""Files served by real qemu-nbd processes: to all, or over TLS to whoever has the key."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.nbd import TLS_ID, NbdServers, psk_credentials, read_key, write_key
from tests.drivers.observing import names

LOOPBACK = "127.0.0.1"
PORTS = range(22810, 22812)
KEY = "0123456789abcdef" * 4
CONTENT = b"served" * 1000


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[NbdServers]:
    servers = NbdServers(tmp_path / "servers", LOOPBACK, PORTS)
    yield servers
    for name in servers.started():
        servers.stop(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """One whose size is no multiple of a sector."""
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    return file


def qemu_io(port: int, command: str, keys: Path | None = None) -> str:
    """What qemu-io says to a command, as a client with these keys or without TLS."""
    options = f"driver=nbd,server.type=inet,server.host={LOOPBACK},server.port={port},export=one"
    credentials = []
    if keys is not None:
        options += f",tls-creds={TLS_ID}"
        credentials = ["--object", psk_credentials(keys, "client")]
    read_only = [] if "write" in command else ["-r"]
    done = subprocess.run(
        ["qemu-io", *read_only, *credentials, "-c", command, "--image-opts", options],
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.stdout + done.stderr


def test_a_key_is_written_for_its_owner_only_and_read_back(tmp_path: Path) -> None:
    assert read_key(tmp_path / "tls") is None
    write_key(tmp_path / "tls", KEY)
    assert read_key(tmp_path / "tls") == KEY
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "tls" / "keys.psk").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "tls" / "keys.psk").read_text() == f"hostler:{KEY}\n"


def test_what_is_served_with_a_key_is_for_those_who_have_it_and_only_to_be_read(
    servers: NbdServers, file: Path, tmp_path: Path
) -> None:
    keys, others = tmp_path / "tls", tmp_path / "others"
    write_key(keys, KEY)
    write_key(others, KEY[::-1])
    port = servers.serve("one", file, keys=keys)
    assert "read 512/512" in qemu_io(port, "read 0 512", keys)
    assert "handshake failed" in qemu_io(port, "read 0 512", others)
    assert "TLS negotiation required" in qemu_io(port, "read 0 512")
    assert "Permission denied" in qemu_io(port, "write 0 512", keys)
    assert file.read_bytes() == CONTENT


def test_what_is_served_without_a_key_is_for_all_and_to_be_written(servers: NbdServers, file: Path) -> None:
    port = servers.serve("one", file)
    assert "wrote 512/512" in qemu_io(port, "write -P 0x61 0 512")
    assert file.read_bytes()[:512] == b"a" * 512


def test_a_directory_with_a_comma_in_its_name_holds_keys_too(servers: NbdServers, file: Path, tmp_path: Path) -> None:
    keys = tmp_path / "one,two"
    write_key(keys, KEY)
    assert "read 512/512" in qemu_io(servers.serve("one", file, keys=keys), "read 0 512", keys)


def test_a_server_whose_record_was_lost_is_still_known(servers: NbdServers, file: Path, tmp_path: Path) -> None:
    servers.serve("one", file)
    (tmp_path / "servers" / "one.json").unlink()
    assert (servers.wanted(), servers.started()) == ([], ["one"])
    servers.stop("one")
    assert names(tmp_path / "servers") == []
