"""Settings: a TOML file, then `HOSTLER_*` environment variables, then flags, each over the one before.

The file is `--config`, else `$HOSTLER_CONFIG`, else `/etc/hostler/hostler.toml` where it exists. Nested settings use
two underscores in the environment: `HOSTLER_TEMPORAL__ADDRESS`.
"""

import os
import socket
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from hostler.contract.names import DEFAULT_PROJECT, DEFAULT_ZONE

DEFAULT_FILE = Path("/etc/hostler/hostler.toml")


def default_state_dir() -> Path:
    """`/var/lib/hostler` for root, the XDG state directory for others."""
    if os.geteuid() == 0:
        return Path("/var/lib/hostler")
    return Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local/state")) / "hostler"


def _seconds(value: Any) -> Any:
    """A number in an environment variable is a text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Duration = Annotated[timedelta, BeforeValidator(_seconds)]
"""Seconds, or ISO 8601 ("PT20S")."""


class Section(BaseModel):
    """A table of settings; one that it does not know is a mistake."""

    model_config = ConfigDict(extra="forbid")


class TlsSettings(Section):
    """TLS to Temporal. With `client_cert` and `client_key` it is mutual; `server_ca` None trusts the system's roots.

    `server_name` is what the server's certificate must say where that is not the address. Files are PEM.
    """

    enabled: bool = False
    server_ca: Path | None = None
    server_name: str | None = None
    client_cert: Path | None = None
    client_key: Path | None = None


class TemporalSettings(Section):
    """Where Temporal is. `heartbeat_interval` is how often workers tell it that they live."""

    address: str = "127.0.0.1:7233"
    namespace: str = "default"
    ui_url: str = "http://127.0.0.1:8233"
    heartbeat_interval: Duration = timedelta(seconds=5)
    tls: TlsSettings = TlsSettings()


class EncryptionSettings(Section):
    """The keys that encrypt all that Temporal keeps, and user data in the database.

    One key a line, `<id>:<base64 of 32 bytes>`: the first encrypts, all decrypt. `keys` over `keys_file`; with neither
    the file `encryption.keys` in the state directory is taken where it exists.
    """

    keys: SecretStr | None = None
    keys_file: Path | None = None


class CodecSettings(Section):
    """The endpoint with which Temporal's UI and CLI read what is encrypted (`hostler worker codec`), and who may.

    `tokens`: one a line, `<name>:<token>`; over `tokens_file`. `same_user`: whoever runs a browser on this machine
    as the user that the endpoint runs as needs no token. `origins`: pages that may ask, besides those of
    `temporal.ui_url`. With `certificate` and `certificate_key`, PEM files, it speaks HTTPS.
    """

    address: str = "127.0.0.1"
    port: int = 8234
    tokens: SecretStr | None = None
    tokens_file: Path | None = None
    same_user: bool = False
    origins: list[str] = []
    certificate: Path | None = None
    certificate_key: Path | None = None


class OperationSettings(Section):
    """What an operation does that cannot go on, and when somebody is told that it lasts.

    `on_failure` is what requests get that do not say; `hold` how long one waits for a decision before it gives up;
    `overdue` after how long an operation of this name raises an alert ("*": any other). `confirm_after` is when a
    resize or a migration confirms itself (0: never), `resize_on_same_host` whether a resize may stay on its host,
    `offload_after` how long a shelved server keeps its host (0: not at all, -1: for good).
    """

    on_failure: Literal["give-up", "hold"] = "give-up"
    hold: Duration = timedelta(days=1)
    overdue: dict[str, Duration] = {"boot": timedelta(minutes=10), "*": timedelta(minutes=30)}
    confirm_after: Duration = timedelta(0)
    resize_on_same_host: bool = False
    offload_after: Duration = timedelta(0)


class LiveMigrationSettings(Section):
    """How guests move while they run.

    `downtime` is how long a guest may stand still at the hand-over, which waits until that is enough, at first for 60 %
    of it; `bandwidth_mib` how many MiB a second it may take of the network (0: all). `completion_timeout` is how long
    it may take for each GiB of its memory and local disks, at least 2, as in Nova (0: no limit); then `timeout_action`.
    `auto_converge` slows a guest down that writes faster than its memory travels; `post_copy` lets a forced one run on
    its new host before all of its memory is there, where a lost network would cost it its life.
    """

    downtime: Duration = timedelta(milliseconds=500)
    bandwidth_mib: int = Field(default=0, ge=0)
    completion_timeout: Duration = timedelta(seconds=800)
    timeout_action: Literal["abort", "force-complete"] = "abort"
    auto_converge: bool = False
    post_copy: bool = False


class AuditSettings(Section):
    """The audit: how often it runs by itself (0: never), and whether it then heals what is safe to heal."""

    interval: Duration = timedelta(minutes=10)
    heal: bool = True


class DrainSettings(Section):
    """Drains of hosts: `parallel` servers at a time; for `patience` one that is busy is asked again."""

    parallel: PositiveInt = 2
    patience: Duration = timedelta(minutes=10)


class HostFailureSettings(Section):
    """What is done about a host that falls silent.

    Every `interval` (0: never) somebody looks. A host that has been silent for `silence` is fenced: `fence_command` is
    run with its name and UUID, and status 0 within `fence_timeout` says that it is surely off. Then its servers are
    evacuated, `parallel` at a time; for `patience` one that is busy is asked again. `evacuate` is the last word on
    which: servers, and aggregates of hosts, have theirs before. When more than `max_hosts` are lost at once it is
    rather we who are cut off: nothing is done, and a person called. So it is when they are lost one after the other,
    within `window`: then what is evacuated may take its next host along. `alarm_command`, which has `alarm_timeout`, is
    how a person is called, also when a host could not be fenced.
    """

    evacuate: bool = False
    interval: Duration = timedelta(seconds=15)
    silence: Duration = timedelta(seconds=60)
    fence_command: list[str] | None = Field(default=None, min_length=1)
    fence_timeout: Duration = timedelta(seconds=60)
    alarm_command: list[str] | None = Field(default=None, min_length=1)
    alarm_timeout: Duration = timedelta(seconds=60)
    max_hosts: PositiveInt = 1
    window: Duration = timedelta(hours=1)
    parallel: PositiveInt = 10
    patience: Duration = timedelta(minutes=10)


class MetricsSettings(Section):
    """Prometheus metrics of each worker, at `address`; port 0 is none."""

    address: str = "127.0.0.1"
    control_port: int = 0
    host_port: int = 0


class TracingSettings(Section):
    """OpenTelemetry traces, to the OTLP/HTTP endpoint of a collector; None: off."""

    endpoint: str | None = None


class DatabaseSettings(Section):
    """The control worker's database; None is a SQLite file in the state directory."""

    url: SecretStr | None = None


class SchedulerSettings(Section):
    """How hosts are chosen. `spread` is the number of best hosts among which the choice is random."""

    max_attempts: PositiveInt = 3
    alternates: int = Field(default=4, ge=0)
    spread: PositiveInt = 3


class TimeoutSettings(Section):
    """How long what may take. `stop` is less than the hour that a step has which stops a guest on its way to more."""

    host_answer: Duration = timedelta(seconds=20)
    vif_plugged: Duration = timedelta(seconds=60)
    stop: Duration = Field(default=timedelta(seconds=60), le=timedelta(minutes=50))


class SimulatedFault(Section):
    """Makes a driver call fail: `call` is a driver method's name, `times` -1 means always.

    `kind`: "reschedule" refuses as a real host would, "error" fails as a bug would, "hang" never answers, "kill" ends
    the process at once, as a power cut would.
    """

    host: str
    call: str
    kind: Literal["reschedule", "error", "hang", "kill"] = "reschedule"
    message: str = "simulated fault"
    times: int = 1


class SimulatedSettings(Section):
    """Hosts that exist only as numbers. `latency` is slept in each driver call, by method name or "*".

    `volumes`: whether they keep volumes, which no real guest could reach.
    """

    hosts: int = Field(default=0, ge=0)
    name_prefix: str = "sim-"
    vcpus: int = 32
    ram_mib: int = 65536
    disk_gib: int = 1000
    zone: str = DEFAULT_ZONE
    volumes: bool = False
    latency: dict[str, Duration] = {}
    faults: list[SimulatedFault] = []


class LibvirtSettings(Section):
    """The real hypervisor. `virt_type` "auto" uses KVM only where a guest really starts under it.

    `cpu_model` is libvirt's name of the processor that guests get (None: under KVM all that the host's own has).
    `shared_disks` is a directory that all hosts of the cloud see, for the guests' disks (None: on each host).
    """

    uri: str = "qemu:///system"
    virt_type: Literal["auto", "kvm", "qemu"] = "auto"
    cpu_model: str | None = None
    shared_disks: Path | None = None


class HostSettings(Section):
    """This host.

    `overlay_address` is its address in the network over which hosts join their guests' networks (None: each network is
    the host's own); all hosts of a cloud have one or none has. `overlay_group` is the cloud's multicast group there.
    `parallel_live_migrations` is how many guests leave it at the same time while they run.
    """

    name: str = Field(default_factory=socket.gethostname)
    zone: str = DEFAULT_ZONE
    driver: Literal["libvirt", "simulated"] = "libvirt"
    reserved_ram_mib: int = Field(default=512, ge=0)
    reserved_disk_gib: int = Field(default=2, ge=0)
    cpu_ratio: float = Field(default=4.0, gt=0)
    ram_ratio: float = Field(default=1.0, gt=0)
    disk_ratio: float = Field(default=1.0, gt=0)
    volumes: bool = True
    volume_address: str = "127.0.0.1"
    migration_address: str = "127.0.0.1"
    overlay_address: str | None = None
    overlay_group: str = "239.72.83.84"
    concurrency: PositiveInt = 20
    parallel_live_migrations: PositiveInt = 2
    libvirt: LibvirtSettings = LibvirtSettings()
    simulated: SimulatedSettings = SimulatedSettings()


class LogSettings(Section):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Settings(BaseSettings):
    """All settings. `images` is the directory of the local image store (None: in the state directory)."""

    model_config = SettingsConfigDict(env_prefix="HOSTLER_", env_nested_delimiter="__", extra="forbid")

    state_dir: Path = Field(default_factory=default_state_dir)
    project: str = DEFAULT_PROJECT
    images: Path | None = None
    temporal: TemporalSettings = TemporalSettings()
    encryption: EncryptionSettings = EncryptionSettings()
    codec: CodecSettings = CodecSettings()
    database: DatabaseSettings = DatabaseSettings()
    scheduler: SchedulerSettings = SchedulerSettings()
    timeouts: TimeoutSettings = TimeoutSettings()
    operations: OperationSettings = OperationSettings()
    live_migration: LiveMigrationSettings = LiveMigrationSettings()
    audit: AuditSettings = AuditSettings()
    drain: DrainSettings = DrainSettings()
    host_failure: HostFailureSettings = HostFailureSettings()
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()
    host: HostSettings = HostSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def database_url(self) -> str:
        """The effective database URL, password included."""
        if self.database.url is not None:
            return self.database.url.get_secret_value()
        return f"sqlite:///{self.state_dir / 'hostler.db'}"

    @property
    def images_dir(self) -> Path:
        """The effective image directory."""
        return self.images or self.state_dir / "images"


def load(config: Path | None = None, **overrides: Any) -> Settings:
    """The effective settings.

    Raises:
        FileNotFoundError: `config` was named but is not there.
        pydantic.ValidationError: a setting is unknown or has a bad value.
    """
    file = config or (Path(os.environ["HOSTLER_CONFIG"]) if "HOSTLER_CONFIG" in os.environ else None)
    if file is not None and not file.is_file():
        raise FileNotFoundError(f"no settings file at {file}")

    class Loaded(Settings):
        model_config = SettingsConfigDict(toml_file=file or DEFAULT_FILE)

    return Loaded(**overrides)
