"""What the files of hosts and of the image store say, in lines that can be compared.

A small text says what it says: claims, ports, DHCP entries, leases. What else there is says that it is there.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

# What says when, how often and by whom, but not what is held.
VOLATILE = {
    "generation",
    "request_fingerprint",
    "machine_id",
    "reason",
    "down_since",
    "down_reason",
    "boots",
    "console",
    "port",
    "host_port",
}
IGNORED = re.compile(r"(^|/)(host_id|faults\.log|[^/]*\.lock|[^/]*\.db(-wal|-shm)?)$")
# The PIDs of daemons are others every time; what a guest writes to its console depends on when it is looked at; a
# domain's XML is libvirt's own, with ports and paths of the case.
ONLY_NAMED = re.compile(r"(^|/)([^/]*\.)?pid$|\.log(\.\d+)?$|(^|/)domain\.xml$")
LEASE_END = re.compile(r"^\d+ (?=[0-9a-f]{2}(:[0-9a-f]{2}){5} )")
SMALL_BYTES = 64 << 10

Replace = Callable[[str], str]
"""Puts roles for identifiers."""


def held(directory: Path, roles: Replace, images: Mapping[str, str | None]) -> list[str]:
    """What a host's files say. `images` are the checksums of the images that there are, by ID."""
    return _each(directory, roles, lambda path, name: [] if _is_cached(path, images) else _lines(path, name))


def stored(directory: Path, roles: Replace) -> list[str]:
    """What the image store has: whole images and parts, each with its size and checksum."""
    return _each(
        directory, roles, lambda path, name: [f"{name}: {path.stat().st_size} bytes, SHA-256 {_checksum(path)}"]
    )


def _each(directory: Path, roles: Replace, lines: Callable[[Path, str], list[str]]) -> list[str]:
    """The lines of every file below the directory, by its path and its name there."""
    found: list[str] = []
    for root, _, names in os.walk(directory):
        for path in (Path(root) / file for file in names):
            name = str(path.relative_to(directory))
            if not IGNORED.search(name):
                with suppress(FileNotFoundError):  # it has gone since
                    found += lines(path, name)
    return [roles(line) for line in found]


def _is_cached(path: Path, images: Mapping[str, str | None]) -> bool:
    """Whether it is a whole image in a cache. That is nobody's: it stays for whoever comes next."""
    return path.parent.name == "cache" and path.name in images and images[path.name] == _checksum(path)


def _lines(path: Path, name: str) -> list[str]:
    """The lines of a small text, each after the file's name; of anything else its name alone."""
    if path.suffix == ".json":
        return [f"{name}: {_json(path)}"]
    text = None if ONLY_NAMED.search(name) else _text(path)
    if text is None:
        return [name]
    # A lease ends so long after the guest asked for it, whenever that was.
    return [f"{name}: {LEASE_END.sub('', line)}" for line in text.splitlines()] or [f"{name}: empty"]


def _json(path: Path) -> str:
    try:
        return json.dumps(_steady(json.loads(path.read_text())), sort_keys=True)
    except ValueError:
        return "not whole"


def _steady(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _steady(value) for key, value in content.items() if key not in VOLATILE}
    return content


def _text(path: Path) -> str | None:
    """What is in a small text; None for sockets, disks and all else."""
    if not path.is_file() or path.stat().st_size > SMALL_BYTES:
        return None
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
