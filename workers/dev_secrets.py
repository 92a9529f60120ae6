"""What each process of `hostler dev` is told, so that none holds a secret that it has no use for."""

import os
import socket
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from hostler.cli.config import toml
from hostler.contract.errors import InvalidRequest
from hostler.encryption import Key, keys_file, load_keys
from hostler.private_files import PRIVATE, write_private
from hostler.settings import DEFAULT_FILE, Settings

FIRST_KEY = "dev-1"
TEMPORAL_DATABASE = "temporal.db"


def prepare(settings: Settings) -> None:
    """Make the cloud's first encryption key, if it has none, and close what former versions left open.

    Raises:
        InvalidRequest: keys that cannot be used, or TLS, which Temporal's development server does not speak.
    """
    if settings.temporal.tls.enabled:
        raise InvalidRequest(
            "Temporal's development server speaks no TLS",
            field="temporal.tls.enabled",
            remedy="switch it off for `hostler dev`, or run a Temporal server and the workers yourself",
        )
    with suppress(FileNotFoundError):
        (settings.state_dir / TEMPORAL_DATABASE).chmod(PRIVATE)
    file = keys_file(settings)
    if settings.encryption.keys is None and not file.exists():
        write_private(file, f"{Key.generate(FIRST_KEY).line}\n")
    load_keys(settings)


def for_host(settings: Settings, common: Mapping[str, str]) -> dict[str, str]:
    """The variables of a host worker, `common` and what is ours: nothing of the database, nor of who may decrypt."""
    return _without(settings, common, "host", "database", "codec")


def for_codec(settings: Settings, common: Mapping[str, str], port: int) -> dict[str, str]:
    """Those of the codec endpoint: nothing of the database."""
    changes = {"HOSTLER_CODEC__PORT": str(port)}
    if "same_user" not in settings.codec.model_fields_set:
        changes["HOSTLER_CODEC__SAME_USER"] = "true"
    return _without(settings, common, "codec", "database") | changes


def codec_port(settings: Settings) -> int:
    """The codec endpoint's: the setting's, or when nobody chose it and it is taken, any that is free."""
    if "port" in settings.codec.model_fields_set:
        return settings.codec.port
    for port in (settings.codec.port, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((settings.codec.address, port))
            free: int = probe.getsockname()[1]
            return free
    return settings.codec.port


def codec_url(settings: Settings, port: int) -> str:
    """Where the UI finds it."""
    scheme = "https" if settings.codec.certificate else "http"
    return f"{scheme}://{settings.codec.address}:{port}"


def _without(settings: Settings, common: Mapping[str, str], process: str, *tables: str) -> dict[str, str]:
    """Our own variables without those tables, and a settings file without them where ours has one."""
    prefixes = tuple(f"HOSTLER_{table.upper()}" for table in tables)
    ours = {name: value for name, value in os.environ.items() if name.upper().startswith("HOSTLER_")}
    kept = {name: value for name, value in ours.items() if not name.upper().startswith(prefixes)} | dict(common)
    source = Path(kept.get("HOSTLER_CONFIG", DEFAULT_FILE))
    content: Mapping[str, object] = tomllib.loads(source.read_text()) if source.is_file() else {}
    if any(table in content for table in tables):
        source = (settings.state_dir / f"dev-{process}.toml").absolute()
        rest = {name: value for name, value in content.items() if name not in tables}
        write_private(source, "\n".join(toml(rest)) + "\n")
        kept["HOSTLER_CONFIG"] = str(source)
    return kept
