"""Names that every part agrees on: task queues, workflow IDs, search attributes, devices on a host."""

from uuid import UUID

from temporalio.common import SearchAttributeKey

CONTROL_QUEUE = "hostler-control"
HOST_QUEUE_PREFIX = "hostler-host-"

DEFAULT_PROJECT = "default"
DEFAULT_ZONE = "nova"


SERVER_ID = SearchAttributeKey.for_keyword("HostlerServer")
SERVER_NAME = SearchAttributeKey.for_keyword("HostlerServerName")
PROJECT = SearchAttributeKey.for_keyword("HostlerProject")
HOST = SearchAttributeKey.for_keyword("HostlerHost")
OPERATION = SearchAttributeKey.for_keyword("HostlerOperation")
STEP = SearchAttributeKey.for_keyword("HostlerStep")
ATTEMPT = SearchAttributeKey.for_int("HostlerAttempt")
HELD = SearchAttributeKey.for_bool("HostlerHeld")
OVERDUE = SearchAttributeKey.for_bool("HostlerOverdue")
SEARCH_ATTRIBUTES = (SERVER_ID, SERVER_NAME, PROJECT, HOST, OPERATION, STEP, ATTEMPT, HELD, OVERDUE)

ATTEMPT_HEADER = "hostler-attempt"
"""The header of an activity that says at which of its hosts the operation is, from 1."""


def host_queue(host_id: str) -> str:
    """The task queue of one host's worker."""
    return f"{HOST_QUEUE_PREFIX}{host_id}"


def server_workflow_id(server_id: str) -> str:
    """The ID under which every operation on a server runs: it is the server's lock."""
    return f"server:{server_id}"


def image_workflow_id(image_id: str) -> str:
    """The ID under which an image is imported or removed."""
    return f"image:{image_id}"


def volume_workflow_id(volume_id: str) -> str:
    """The ID under which every operation on a volume runs."""
    return f"volume:{volume_id}"


def later_workflow_id(server_id: str) -> str:
    """The ID under which an operation on a server waits for its time."""
    return f"later:{server_id}"


def host_workflow_id(host_id: str) -> str:
    """The ID under which a host registers."""
    return f"host:{host_id}"


def drain_workflow_id(host_id: str) -> str:
    """The ID under which a host is drained."""
    return f"drain:{host_id}"


def host_failure_workflow_id(host_id: str) -> str:
    """The ID under which a host that failed is evacuated."""
    return f"host-failure:{host_id}"


SUBJECTS = ("server", "image", "volume", "host")
"""What a workflow may be about, as its ID says before the colon."""


def is_uuid(value: str) -> bool:
    """Whether `value` is a UUID in its canonical, lower-case form."""
    try:
        return str(UUID(value)) == value
    except ValueError:
        return False


# Linux limits interface names to 15 characters; eleven of a UUID's are Neutron's choice too.
def bridge_name(network_id: str) -> str:
    """The Linux bridge of a network, the same on every host."""
    return f"brh{network_id[:11]}"


def tap_name(port_id: str) -> str:
    """The tap device of a port."""
    return f"tap{port_id[:11]}"
