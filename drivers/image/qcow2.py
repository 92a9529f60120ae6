"""Reads a qcow2 file's own tables, to tell whether the file is long enough for what they point to.

qemu reads what lies beyond a file's end as zeros and `qemu-img check` forgives up to a cluster, so a download that
was cut short would give guests a disk with a hole in it. Python does this, not qemu: its work is bounded by the
file's size.

Source: docs/interop/qcow2.txt in QEMU.
"""

import os
import struct
import sys
from array import array
from dataclasses import dataclass
from typing import BinaryIO

HEADER = struct.Struct(">4sIQIIQIIQQIIQQ")
OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00
COMPRESSED = 1 << 62
CORRUPT = 1 << 1
ENTRY_BYTES = 8
SECTOR = 512
MAX_L1_BYTES = 32 << 20  # qemu's own limit


class Damaged(Exception):
    """The file's tables contradict the file; says how."""


@dataclass(frozen=True)
class Header:
    """The part of the header that leads to the data. Sizes and offsets in bytes, `l1_entries` a count."""

    cluster: int
    virtual_size: int
    encryption: int
    l1_offset: int
    l1_entries: int

    @property
    def l2_entries(self) -> int:
        """How many clusters one L2 table maps."""
        return self.cluster // ENTRY_BYTES


def read_header(file: BinaryIO) -> Header:
    """The header.

    Raises:
        Damaged: it is cut off, or holds what qemu would not accept.
    """
    file.seek(0)
    data = file.read(HEADER.size)
    if len(data) < HEADER.size:
        raise Damaged("its header is cut off")
    _, version, _, _, cluster_bits, size, encryption, l1_entries, l1_offset, *_, features = HEADER.unpack(data)
    if version >= 3 and features & CORRUPT:
        raise Damaged("it carries qemu's own mark of corruption")
    if not 9 <= cluster_bits <= 21:
        raise Damaged(f"its header asks for clusters of 2^{cluster_bits} bytes")
    header = Header(1 << cluster_bits, size, encryption, l1_offset, l1_entries)
    if l1_entries * ENTRY_BYTES > MAX_L1_BYTES or l1_offset % header.cluster:
        raise Damaged("its header asks for an impossible L1 table")
    if l1_entries * header.l2_entries * header.cluster < size:
        raise Damaged("its L1 table is too small for its virtual size")
    return header


def check_length(file: BinaryIO) -> None:
    """Check that all that the tables point to is in the file, to the sector.

    Raises:
        Damaged: something lies beyond the file's end.
    """
    header = read_header(file)
    available = -(-_size(file) // SECTOR) * SECTOR  # writers of compressed images may leave the last one unfilled
    seen: set[int] = set()  # many L1 entries that share one L2 table must not multiply the work
    for index, entry in enumerate(_table(file, header.l1_offset, header.l1_entries)):
        table = entry & OFFSET_MASK
        if table and table not in seen:
            seen.add(table)
            entries = _table(file, table, header.l2_entries)
            _require(available, _end_of_compressed(entries, header), "a compressed cluster")
            _require(available, _end_of_plain(entries, index, header), "a cluster")


def _table(file: BinaryIO, offset: int, entries: int) -> "array[int]":
    length = entries * ENTRY_BYTES
    _require(_size(file), offset + length, "a table")
    file.seek(offset)
    table = array("Q", file.read(length))
    if sys.byteorder == "little":
        table.byteswap()
    return table


def _end_of_compressed(entries: "array[int]", header: Header) -> int:
    """Where the last compressed cluster of an L2 table ends: an entry counts the sectors that follow its first."""
    offset_bits = 62 - (header.cluster.bit_length() - 1 - 8)
    sector_bits = COMPRESSED - (1 << offset_bits)
    starts = (1 << offset_bits) - SECTOR
    return max(
        ((e & starts) + ((e & sector_bits) >> offset_bits) * SECTOR + SECTOR for e in entries if e & COMPRESSED),
        default=0,
    )


def _end_of_plain(entries: "array[int]", index: int, header: Header) -> int:
    """Where the last plain cluster of the L2 table number `index` ends; the disk's own last one may be cut short."""
    plain = [0 if entry & COMPRESSED else entry & OFFSET_MASK for entry in entries]
    last = max(plain)
    if not last:
        return 0
    guest_offset = (index * header.l2_entries + plain.index(last)) * header.cluster
    return last + max(0, min(header.cluster, header.virtual_size - guest_offset))


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _require(available: int, end: int, what: str) -> None:
    if end > available:
        raise Damaged(f"{what} ends at byte {end}, but the file at byte {available}: the file is truncated")
