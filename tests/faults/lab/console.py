"""What a guest of the demo image says on its console, and whether it is what must have become of that guest.

The log is a file of the guest's: a guest that is set aside takes it along, and what it says when it is brought back
comes after all that it has said before. So a boot is known by the number that the guest keeps on its disk, ticks count
only behind the last boot, and a guest counts when it is seen to: what the log has had all along says nothing.
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

BOOTED = re.compile(r"=== source=.* uuid=(\S+) first_boot=(yes|no) boots=(\d+) .*\n")
"""What deploy/guest/root/etc/boot says."""
TICK = re.compile(r"^tick (\d+)\r?\n", re.MULTILINE)


class Life(StrEnum):
    """What must have become of a guest, unless its host has lost its power."""

    GOES_ON = "must not have noticed"
    FROM_ITS_DISK = "must have booted once more, from its own disk, or have stayed at home and not noticed"
    ANEW = "must have booted elsewhere, from a new disk"


@dataclass(frozen=True)
class Boot:
    """A boot: of which server, and which one from this disk."""

    server_id: str
    first: bool
    number: int


@dataclass(frozen=True)
class Said:
    """What a guest has said on a host: its boots there, and how far it has counted since the last of them."""

    host: str
    boots: tuple[Boot, ...] = ()
    tick: int = 0

    @classmethod
    def read(cls, host: str, log: str) -> Self:
        """What a console log says."""
        found = list(BOOTED.finditer(log))
        boots = tuple(Boot(one[1], one[2] == "yes", int(one[3])) for one in found)
        ticks = TICK.findall(log, found[-1].end() if found else 0)
        return cls(host, boots, int(ticks[-1]) if ticks else 0)

    def counts_since(self, earlier: "Said") -> bool:
        """Whether it has counted on since."""
        return self.tick > earlier.tick > 0 and (self.host, self.boots) == (earlier.host, earlier.boots)


def is_right(life: Life, was: Said, now: Said, *, lost_power: bool = False) -> bool:
    """Whether this has become of a guest that had said that; with `lost_power` it may have booted more often."""
    before, last = was.boots[-1], now.boots[-1] if now.boots else None
    stayed = now.host == was.host
    went_on = now.tick > was.tick and now.boots == (was.boots if stayed else ())
    if lost_power and last is not None and last.server_id == before.server_id:
        return True
    match life:
        case Life.GOES_ON:
            return went_on
        case Life.FROM_ITS_DISK:
            return last == replace(before, first=False, number=before.number + 1) or (stayed and went_on)
        case Life.ANEW:
            return last == replace(before, first=True, number=1) and not stayed
