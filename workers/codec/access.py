"""Who may have payloads decrypted: the holder of a token, a browser that showed one, or the endpoint's own user.

The last is told by the kernel, which knows the user of both ends of a connection over loopback.
"""

import hashlib
import hmac
import os
import time
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from aiohttp import web

from hostler.contract.errors import InvalidRequest
from hostler.private_files import named_lines, read_private
from hostler.settings import CodecSettings

COOKIE = "hostler_codec"
COOKIE_LIFE = timedelta(hours=12)
MIN_TOKEN = 20
BEARER = "Bearer "
SAME_USER = "the same user"
Address = tuple[IPv4Address | IPv6Address, int]


class Access:
    """The tokens, and how requests show one."""

    def __init__(self, tokens: dict[str, str], same_user: bool) -> None:
        """`tokens` by the name of who has them."""
        self._tokens = tokens
        self._same_user = same_user

    def who(self, request: web.Request) -> str | None:
        """The name of who asks, None for somebody who may not."""
        header = request.headers.get("Authorization", "")
        name = self.holder(header.removeprefix(BEARER)) if header.startswith(BEARER) else None
        name = name or self._cookie_holder(request.cookies.get(COOKIE, ""))
        if name is None and self._same_user and _is_own_user(request):
            return SAME_USER
        return name

    def holder(self, token: str) -> str | None:
        """Whose token it is. Every one is compared, in constant time, so that no time tells how near a guess was."""
        found = [name for name, known in self._tokens.items() if hmac.compare_digest(known.encode(), token.encode())]
        return found[0] if found else None

    def cookie(self, name: str) -> str:
        """What a browser is given that showed the token of `name`: good for `COOKIE_LIFE`, and while the token is."""
        until = int(time.time() + COOKIE_LIFE.total_seconds())
        return f"{until}.{self._signature(name, until)}"

    def _cookie_holder(self, cookie: str) -> str | None:
        until, _, signature = cookie.partition(".")
        if not until.isascii() or not until.isdigit() or int(until) < time.time():
            return None
        expected = {name: self._signature(name, int(until)) for name in self._tokens}
        found = [name for name, one in expected.items() if hmac.compare_digest(one.encode(), signature.encode())]
        return found[0] if found else None

    def _signature(self, name: str, until: int) -> str:
        return hmac.new(self._tokens[name].encode(), f"cookie {until}".encode(), hashlib.sha256).hexdigest()


def load_tokens(settings: CodecSettings) -> dict[str, str]:
    """The tokens of `codec.tokens`, else of its file; none where neither is set.

    Raises:
        InvalidRequest: a line that is none, or a file that cannot be read or that others can read.
    """
    if settings.tokens is not None:
        return _parse(settings.tokens.get_secret_value(), "codec.tokens")
    if settings.tokens_file is None:
        return {}
    return _parse(read_private(settings.tokens_file, "codec.tokens_file"), "codec.tokens_file")


def _parse(text: str, setting: str) -> dict[str, str]:
    tokens: dict[str, str] = {}
    for number, name, token in named_lines(text):
        if not name or len(token) < MIN_TOKEN or name in tokens:
            raise InvalidRequest(
                f"{setting}, line {number}: it is no <name>:<token>, the token is shorter than {MIN_TOKEN} characters, "
                "or the name is an earlier line's",
                field=setting,
                remedy="write <name>:<token>, the token from: openssl rand -hex 32",
            )
        tokens[name] = token
    return tokens


def _is_own_user(request: web.Request) -> bool:
    """Whether the other end of the connection is a socket of our own user on this machine."""
    transport = request.transport
    peer = transport.get_extra_info("peername") if transport else None
    own = transport.get_extra_info("sockname") if transport else None
    if not peer or not own or not ip_address(peer[0]).is_loopback:
        return False
    return _owner((ip_address(peer[0]), peer[1]), (ip_address(own[0]), own[1])) == os.geteuid()


def _owner(local: Address, remote: Address) -> int | None:
    """The user of the TCP socket with these ends, as `/proc/net/tcp` has it."""
    table = Path("/proc/net/tcp" if local[0].version == 4 else "/proc/net/tcp6")
    wanted = [_hex(local), _hex(remote)]
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == wanted:
            return int(fields[7])
    return None


def _hex(end: Address) -> str:
    """An address as the kernel prints it: each 32 bits in the machine's own order."""
    packed = end[0].packed
    words = [packed[start : start + 4] for start in range(0, len(packed), 4)]
    return "".join(f"{int.from_bytes(word, 'little'):08X}" for word in words) + f":{end[1]:04X}"
