"""What requests may hold, case by case."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from hostler.contract.errors import InvalidRequest
from hostler.contract.public_keys import fingerprint
from hostler.contract.resources import Flavor, ImageCreate, ImageProperties, KeyPair, Network, Quota, VolumeCreate
from hostler.contract.servers import (
    NEVER,
    BackupRequest,
    BlockDeviceMapping,
    BootRequest,
    ConfirmResizeRequest,
    EvacuateRequest,
    MigrateRequest,
    NetworkRequest,
    OperationRequest,
    RebootRequest,
    RebuildRequest,
    ResizeRequest,
    RevertResizeRequest,
    ShelveOffloadRequest,
    ShelveRequest,
    SnapshotRequest,
    StopRequest,
    UnshelveRequest,
)
from hostler.contract.validation import (
    check_boot,
    check_flavor,
    check_image,
    check_keypair,
    check_network,
    check_operation,
    check_quota,
    check_volume,
)

ID = "5b5c0f5e-0000-4000-8000-000000000001"
OTHER = "5b5c0f5e-0000-4000-8000-000000000002"
ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHdmp2CAYVRhgMU+FSSl0xR64i6G0hR/0LwJ9eH+nzS/"
BOOT = BootRequest(server_id=ID, request_id=ID, name="web", flavor="tiny", image="demo")
FLAVOR = Flavor(id=ID, name="tiny", vcpus=1, ram_mib=64, disk_gib=1)
NETWORK = Network(id=ID, name="private", cidr="10.0.0.0/24")
VOLUME = VolumeCreate(id=ID, size_gib=1)
IMAGE = ImageCreate(id=ID, name="demo", path="/srv/demo.qcow2")


def device(source: str, destination: str, **fields: Any) -> BlockDeviceMapping:
    """A mapping."""
    return BlockDeviceMapping(source_type=source, destination_type=destination, **fields)


def boots(*devices: BlockDeviceMapping, image: str | None = None) -> dict[str, Any]:
    """The fields of a boot request with these devices."""
    return {"image": image, "block_device_mapping": list(devices)}


ROOT = device("volume", "volume", uuid=ID, boot_index=0)

GOOD_BOOTS: list[dict[str, Any]] = [
    {},
    {"name": "x" * 255},
    {"name": "имя 名前"},
    {"user_data": "aGVsbG8="},
    {"user_data": "A" * 65532},
    {"metadata": {f"key {n}": "v" * 255 for n in range(128)}},
    {"metadata": {"k": ""}},
    {"networks": [NetworkRequest(network="a", fixed_ip="10.0.0.7"), NetworkRequest(network="a")]},
    {"max_attempts": 1},
    {"config_drive": False, "metadata": {"role": "web"}},
    boots(ROOT),
    boots(device("image", "local", uuid=ID, boot_index=0)),
    boots(device("image", "local", uuid=ID, boot_index=0), image=ID),
    boots(device("image", "volume", uuid=ID, boot_index=0, volume_size=10)),
    boots(ROOT, device("blank", "volume", volume_size=1), device("blank", "local", volume_size=1)),
    boots(ROOT, device("volume", "volume", uuid=OTHER, boot_index=1)),
    boots(ROOT, device("volume", "volume", uuid=OTHER, boot_index=-1)),
    boots(device("blank", "local"), device("blank", "local", guest_format="swap", volume_size=512), image="demo"),
    boots(device("image", "volume", uuid=ID, volume_size=1), image="demo"),
]

BAD_BOOTS: list[tuple[str, dict[str, Any]]] = [
    ("server_id", {"server_id": "web"}),
    ("server_id", {"server_id": ID.upper()}),
    ("server_id", {"server_id": f"{{{ID}}}"}),
    ("request_id", {"request_id": ""}),
    ("project", {"project": ""}),
    ("name", {"name": ""}),
    ("name", {"name": "   "}),
    ("name", {"name": " web"}),
    ("name", {"name": "x" * 256}),
    ("name", {"name": "we\nb"}),
    ("name", {"name": "\x1b[31mred"}),
    ("name", {"name": "web\u202e"}),
    ("flavor", {"flavor": ""}),
    ("image", {"image": ""}),
    ("image", {"image": None}),
    ("key_name", {"key_name": ""}),
    ("availability_zone", {"availability_zone": "z" * 256}),
    ("host", {"host": "a\tb"}),
    (
        "networks[1].fixed_ip",
        {"networks": [NetworkRequest(network="a"), NetworkRequest(network="b", fixed_ip="10.0.0")]},
    ),
    ("networks[0].fixed_ip", {"networks": [NetworkRequest(network="b", fixed_ip="fe80::1")]}),
    ("networks[0].network", {"networks": [NetworkRequest(network="")]}),
    ("user_data", {"user_data": "not base64!"}),
    ("user_data", {"user_data": "aGVsbG8"}),
    ("user_data", {"user_data": "A" * 65536}),
    ("user_data", {"user_data": "ключ"}),
    ("metadata", {"metadata": {f"k{n}": "" for n in range(129)}}),
    ("metadata", {"metadata": {"": "v"}}),
    ("metadata", {"metadata": {"k" * 256: "v"}}),
    ("metadata", {"metadata": {"a/b": "v"}}),
    ("metadata[k]", {"metadata": {"k": "v" * 256}}),
    ("max_attempts", {"max_attempts": 0}),
    ("max_attempts", {"max_attempts": 101}),
    ("block_device_mapping[0].source_type", boots(device("snapshot", "volume", uuid=ID))),
    ("block_device_mapping[0].destination_type", boots(device("volume", "tape", uuid=ID))),
    ("block_device_mapping[0]", boots(device("volume", "local", uuid=ID))),
    ("block_device_mapping[0].uuid", boots(device("volume", "volume", boot_index=0))),
    ("block_device_mapping[0].uuid", boots(device("volume", "volume", uuid="data", boot_index=0))),
    ("block_device_mapping[0].uuid", boots(device("image", "volume", boot_index=0, volume_size=1))),
    ("block_device_mapping[0].volume_size", boots(device("image", "volume", uuid=ID, boot_index=0))),
    ("block_device_mapping[0].volume_size", boots(device("image", "volume", uuid=ID, boot_index=0, volume_size=0))),
    ("block_device_mapping[1].volume_size", boots(ROOT, device("blank", "volume"))),
    ("block_device_mapping[1].volume_size", boots(ROOT, device("blank", "local", volume_size=-1))),
    ("block_device_mapping[0].boot_index", boots(device("image", "local", uuid=ID))),
    ("block_device_mapping[1].boot_index", boots(ROOT, device("image", "local", uuid=ID, boot_index=1))),
    ("block_device_mapping[0].boot_index", boots(device("blank", "volume", volume_size=1, boot_index=0))),
    ("block_device_mapping[1].uuid", boots(ROOT, device("blank", "local", uuid=ID))),
    ("block_device_mapping[1].guest_format", boots(ROOT, device("blank", "local", guest_format="ext4"))),
    (
        "block_device_mapping[1].guest_format",
        boots(ROOT, device("blank", "volume", volume_size=1, guest_format="swap")),
    ),
    ("block_device_mapping[0].guest_format", boots(device("volume", "volume", uuid=ID, guest_format="swap"))),
    ("block_device_mapping.boot_index", boots(ROOT, device("volume", "volume", uuid=OTHER, boot_index=0))),
    ("block_device_mapping.boot_index", boots(device("volume", "volume", uuid=ID, boot_index=1), image="demo")),
    ("block_device_mapping", boots(ROOT, device("volume", "volume", uuid=ID))),
    ("block_device_mapping", boots(*[device("blank", "local", guest_format="swap")] * 2, image="demo")),
    ("key_name", {"config_drive": False, "key_name": "mine"}),
    ("user_data", {"config_drive": False, "user_data": "aGVsbG8="}),
    ("image", boots(ROOT, image="demo")),
    ("image", boots(device("image", "local", uuid=ID, boot_index=0), image=OTHER)),
    ("image", boots(device("blank", "volume", volume_size=1))),
]


@pytest.mark.parametrize("change", GOOD_BOOTS)
def test_boots_that_are_right(change: dict[str, Any]) -> None:
    check_boot(BOOT.model_copy(update=change))


@pytest.mark.parametrize(("field", "change"), BAD_BOOTS)
def test_boots_that_are_wrong(field: str, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_boot(BOOT.model_copy(update=change))
    assert caught.value.detail.field == field


def test_user_data_is_never_shown() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_boot(BOOT.model_copy(update={"user_data": "password=hunter2"}))
    assert "hunter2" not in caught.value.detail.model_dump_json()


def test_values_are_shown_short_and_harmless() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_boot(BOOT.model_copy(update={"name": "\x1b[31m" + "x" * 1000}))
    shown = caught.value.detail.value
    assert shown is not None
    assert len(shown) < 100
    assert shown.isprintable()


@pytest.mark.parametrize("timeout", [timedelta(seconds=-1), timedelta(days=2)])
def test_timeouts_that_are_wrong(timeout: timedelta) -> None:
    for request in (
        StopRequest(server_id=ID, request_id="r", timeout=timeout),
        RebootRequest(server_id=ID, request_id="r", timeout=timeout),
    ):
        with pytest.raises(InvalidRequest) as caught:
            check_operation(request)
        assert caught.value.detail.field == "timeout"


def test_a_stop_may_pull_the_plug_at_once() -> None:
    check_operation(StopRequest(server_id=ID, request_id=str(uuid4()), timeout=timedelta(0)))


SNAPSHOT = SnapshotRequest(server_id=ID, request_id="r", image_id=OTHER, name="golden")
BACKUP = BackupRequest(server_id=ID, request_id="r", image_id=OTHER, name="golden", backup_type="daily", rotation=7)
REBUILD = RebuildRequest(server_id=ID, request_id="r")
SHELVE = ShelveRequest(server_id=ID, request_id="r")
UNSHELVE = UnshelveRequest(server_id=ID, request_id="r")
RESIZE = ResizeRequest(server_id=ID, request_id="r", flavor="small")
MIGRATE = MigrateRequest(server_id=ID, request_id="r")
EVACUATE = EvacuateRequest(server_id=ID, request_id="r")
YEAR = timedelta(days=365)

GOOD_OPERATIONS: list[tuple[OperationRequest, dict[str, Any]]] = [
    (SNAPSHOT, {}),
    (SNAPSHOT, {"name": "x" * 255, "quiesce": True}),
    (BACKUP, {}),
    (BACKUP, {"rotation": 0}),
    (REBUILD, {}),
    (REBUILD, {"image": "demo", "key_name": "mine", "user_data": "aGVsbG8=", "admin_password": "p"}),
    (REBUILD, {"key_name": "", "user_data": ""}),
    (REBUILD, {"admin_password": " пароль \\'\"$ " + "x" * 242}),
    (SHELVE, {}),
    (SHELVE, {"offload_after": timedelta(0)}),
    (SHELVE, {"offload_after": NEVER}),
    (SHELVE, {"offload_after": YEAR}),
    (UNSHELVE, {}),
    (UNSHELVE, {"availability_zone": "nova", "host": "node-1", "max_attempts": 100}),
    (RESIZE, {"max_attempts": 1, "confirm_after": timedelta(0)}),
    (RESIZE, {"confirm_after": YEAR}),
    (MIGRATE, {}),
    (MIGRATE, {"host": "node-2", "max_attempts": 1, "confirm_after": timedelta(hours=1)}),
    (EVACUATE, {}),
    (EVACUATE, {"host": "node-2", "max_attempts": 1}),
    (ShelveOffloadRequest(server_id=ID, request_id="r"), {}),
    (ConfirmResizeRequest(server_id=ID, request_id="r"), {}),
    (RevertResizeRequest(server_id=ID, request_id="r"), {}),
]

BAD_IMAGES: list[tuple[str, dict[str, Any]]] = [
    ("image_id", {"image_id": ""}),
    ("image_id", {"image_id": "golden"}),
    ("image_id", {"image_id": OTHER.replace("-", "")}),
    ("name", {"name": ""}),
    ("name", {"name": "x" * 256}),
    ("name", {"name": "gol\nden"}),
    ("name", {"name": "golden "}),
]
BAD_MOVES: list[tuple[str, dict[str, Any]]] = [
    ("max_attempts", {"max_attempts": 0}),
    ("max_attempts", {"max_attempts": 101}),
    ("confirm_after", {"confirm_after": timedelta(seconds=-1)}),
    ("confirm_after", {"confirm_after": YEAR + timedelta(seconds=1)}),
]
BAD_OPERATIONS: list[tuple[str, OperationRequest, dict[str, Any]]] = [
    *[(field, one, {field: ""}) for one, _ in GOOD_OPERATIONS for field in ("server_id", "request_id", "project")],
    *[(field, one, change) for one in (SNAPSHOT, BACKUP) for field, change in BAD_IMAGES],
    ("backup_type", BACKUP, {"backup_type": ""}),
    ("backup_type", BACKUP, {"backup_type": "x" * 256}),
    ("backup_type", BACKUP, {"backup_type": "dai\x1bly"}),
    ("rotation", BACKUP, {"rotation": -1}),
    ("rotation", BACKUP, {"rotation": 2**31}),
    ("image", REBUILD, {"image": ""}),
    ("key_name", REBUILD, {"key_name": " "}),
    ("key_name", REBUILD, {"key_name": "k" * 256}),
    ("user_data", REBUILD, {"user_data": "not base64!"}),
    ("user_data", REBUILD, {"user_data": "A" * 65536}),
    ("admin_password", REBUILD, {"admin_password": ""}),
    ("admin_password", REBUILD, {"admin_password": "x" * 256}),
    ("admin_password", REBUILD, {"admin_password": "two\nlines"}),
    ("offload_after", SHELVE, {"offload_after": timedelta(seconds=-2)}),
    ("offload_after", SHELVE, {"offload_after": YEAR + timedelta(seconds=1)}),
    ("availability_zone", UNSHELVE, {"availability_zone": ""}),
    ("host", UNSHELVE, {"host": "a\tb"}),
    ("max_attempts", UNSHELVE, {"max_attempts": 0}),
    ("max_attempts", UNSHELVE, {"max_attempts": 101}),
    ("flavor", RESIZE, {"flavor": ""}),
    ("flavor", RESIZE, {"flavor": "x" * 256}),
    ("host", MIGRATE, {"host": ""}),
    ("host", EVACUATE, {"host": ""}),
    ("max_attempts", EVACUATE, {"max_attempts": 0}),
    *[(field, one, change) for one in (RESIZE, MIGRATE) for field, change in BAD_MOVES],
]


@pytest.mark.parametrize(("wanted", "change"), GOOD_OPERATIONS)
def test_operations_that_are_right(wanted: OperationRequest, change: dict[str, Any]) -> None:
    check_operation(wanted.model_copy(update=change))


@pytest.mark.parametrize(("field", "wanted", "change"), BAD_OPERATIONS)
def test_operations_that_are_wrong(field: str, wanted: OperationRequest, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_operation(wanted.model_copy(update=change))
    detail = caught.value.detail
    assert detail.field == field
    assert detail.value is not None
    assert detail.remedy


@pytest.mark.parametrize("password", ["hunter2\n", "hunter2" * 40])
def test_a_password_is_never_shown(password: str) -> None:
    wrong = REBUILD.model_copy(update={"admin_password": password})
    with pytest.raises(InvalidRequest) as caught:
        check_operation(wrong)
    assert "hunter2" not in caught.value.detail.model_dump_json()
    assert "hunter2" not in f"{wrong!r} {wrong}"


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("id", {"id": "1"}),
        ("name", {"name": ""}),
        ("vcpus", {"vcpus": 0}),
        ("ram_mib", {"ram_mib": 0}),
        ("ram_mib", {"ram_mib": 2**31}),
        ("disk_gib", {"disk_gib": -1}),
        ("ephemeral_gib", {"ephemeral_gib": -1}),
        ("swap_mib", {"swap_mib": -1}),
    ],
)
def test_flavors_that_are_wrong(field: str, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_flavor(FLAVOR.model_copy(update=change))
    assert caught.value.detail.field == field


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"cidr": "10.0.0.0/8"},
        {"cidr": "192.168.1.8/29", "gateway": "192.168.1.14"},
        {"dns": ["1.1.1.1"], "mtu": 576},
        {"mtu": 9000},
    ],
)
def test_networks_that_are_right(change: dict[str, Any]) -> None:
    check_network(NETWORK.model_copy(update=change))


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("id", {"id": "1"}),
        ("name", {"name": "\n"}),
        ("cidr", {"cidr": ""}),
        ("cidr", {"cidr": "10.0.0.0"}),
        ("cidr", {"cidr": "10.0.0.1/24"}),
        ("cidr", {"cidr": "10.0.0.0/255.255.255.0"}),
        ("cidr", {"cidr": "fd00::/64"}),
        ("cidr", {"cidr": "10.0.0.0/30"}),
        ("cidr", {"cidr": "10.0.0.0/32"}),
        ("cidr", {"cidr": "0.0.0.0/0"}),
        ("cidr", {"cidr": "0.0.0.0/8"}),
        ("cidr", {"cidr": "127.0.0.0/24"}),
        ("cidr", {"cidr": "169.254.0.0/16"}),
        ("cidr", {"cidr": "224.0.0.0/24"}),
        ("gateway", {"gateway": "10.0.1.1"}),
        ("gateway", {"gateway": "10.0.0.0"}),
        ("gateway", {"gateway": "10.0.0.255"}),
        ("gateway", {"gateway": "gw"}),
        ("dns", {"dns": ["1.1.1.1", "dns.example"]}),
        ("mtu", {"mtu": 575}),
        ("mtu", {"mtu": 9001}),
    ],
)
def test_networks_that_are_wrong(field: str, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_network(NETWORK.model_copy(update=change))
    assert caught.value.detail.field == field


def test_the_remedy_of_a_host_address_is_its_network() -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_network(NETWORK.model_copy(update={"cidr": "10.0.0.9/24"}))
    assert caught.value.remedy == "use 10.0.0.0/24"


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("id", {"id": "data"}),
        ("name", {"name": "x" * 256}),
        ("size_gib", {"size_gib": 0}),
        ("size_gib", {"size_gib": -5}),
        ("image", {"image": ""}),
    ],
)
def test_volumes_that_are_wrong(field: str, change: dict[str, Any]) -> None:
    check_volume(VOLUME)
    with pytest.raises(InvalidRequest) as caught:
        check_volume(VOLUME.model_copy(update=change))
    assert caught.value.detail.field == field


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("id", {"id": ""}),
        ("name", {"name": ""}),
        ("path", {"path": "demo.qcow2"}),
        ("path", {"path": ""}),
        ("path", {"path": "/a\0b"}),
        ("disk_format", {"disk_format": "vmdk"}),
        ("checksum", {"checksum": "d41d8cd98f00b204e9800998ecf8427e"}),
        ("min_disk_gib", {"min_disk_gib": -1}),
        ("min_ram_mib", {"min_ram_mib": -1}),
        ("properties.architecture", {"properties": ImageProperties(architecture="")}),
        ("properties.hypervisor_type", {"properties": ImageProperties(hypervisor_type="a\nb")}),
        ("properties.image_type", {"properties": ImageProperties(image_type="snapshot")}),
        ("properties.image_type", {"properties": ImageProperties(image_type="")}),
        ("properties.backup_type", {"properties": ImageProperties(backup_type="daily")}),
        ("properties.instance_uuid", {"properties": ImageProperties(instance_uuid=OTHER)}),
    ],
)
def test_images_that_are_wrong(field: str, change: dict[str, Any]) -> None:
    check_image(IMAGE.model_copy(update={"checksum": "0" * 64}))
    with pytest.raises(InvalidRequest) as caught:
        check_image(IMAGE.model_copy(update=change))
    assert caught.value.detail.field == field


@pytest.mark.parametrize(
    "key",
    [
        "",
        "ssh-ed25519",
        "ssh-dss AAAAB3NzaC1kc3MAAACBAP",
        "ssh-ed25519 not-base64",
        ED25519[:-4],
        ED25519.replace("ssh-ed25519", "ssh-rsa"),
        f'command="id" {ED25519}',
        f"{ED25519}\n{ED25519}",
        f"{ED25519} \x1b[31m",
        f"{ED25519} {'x' * 20_000}",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAAA==",
    ],
)
def test_public_keys_that_are_wrong(key: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_keypair(KeyPair(name="me", public_key=key))
    assert caught.value.detail.field == "public_key"


def test_a_public_key_has_the_fingerprint_that_openssh_shows() -> None:
    shown = "SHA256:+SA8l+oI8nPYVUeUAE94ubSG/liEmWP3OFcsZ6fysuI"
    assert fingerprint(f"{ED25519} me@here") == shown
    check_keypair(KeyPair(name="me", public_key=ED25519, fingerprint=shown))
    with pytest.raises(InvalidRequest) as caught:
        check_keypair(KeyPair(name="me", public_key=ED25519, fingerprint="SHA256:other"))
    assert caught.value.detail.field == "fingerprint"


@pytest.mark.parametrize("name", ["", "../me", "a/b", "é"])
def test_key_pair_names_that_are_wrong(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_keypair(KeyPair(name=name, public_key=ED25519))
    assert caught.value.detail.field == "name"


@pytest.mark.parametrize("field", ["servers", "vcpus", "ram_mib", "volumes", "volume_gib"])
def test_quotas_below_none_are_wrong(field: str) -> None:
    check_quota(Quota().model_copy(update={field: -1}))
    with pytest.raises(InvalidRequest) as caught:
        check_quota(Quota().model_copy(update={field: -2}))
    assert caught.value.detail.field == field
