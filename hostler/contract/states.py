"""Nova's states, by name and meaning, and the status that derives from them.

Source: nova/compute/{vm_states,task_states,power_state}.py and nova/api/openstack/common.py.
"""

from enum import StrEnum


class VmState(StrEnum):
    """What the server is, as far as its owner is concerned."""

    BUILDING = "building"
    ACTIVE = "active"
    STOPPED = "stopped"
    RESIZED = "resized"
    SHELVED = "shelved"
    SHELVED_OFFLOADED = "shelved_offloaded"
    ERROR = "error"
    DELETED = "deleted"


class TaskState(StrEnum):
    """What is being done to it right now."""

    SCHEDULING = "scheduling"
    NETWORKING = "networking"
    BLOCK_DEVICE_MAPPING = "block_device_mapping"
    SPAWNING = "spawning"
    POWERING_ON = "powering-on"
    POWERING_OFF = "powering-off"
    REBOOTING = "rebooting"
    REBOOTING_HARD = "rebooting_hard"
    IMAGE_SNAPSHOT = "image_snapshot"
    IMAGE_BACKUP = "image_backup"
    REBUILDING = "rebuilding"
    SHELVING = "shelving"
    SHELVING_OFFLOADING = "shelving_offloading"
    UNSHELVING = "unshelving"
    MIGRATING = "migrating"
    RESIZE_PREP = "resize_prep"
    RESIZE_MIGRATING = "resize_migrating"
    RESIZE_FINISH = "resize_finish"
    RESIZE_CONFIRMING = "resize_confirming"
    RESIZE_REVERTING = "resize_reverting"
    DELETING = "deleting"


class PowerState(StrEnum):
    """What the hypervisor says."""

    NOSTATE = "nostate"
    RUNNING = "running"
    PAUSED = "paused"
    SHUTDOWN = "shutdown"
    CRASHED = "crashed"


STATUS_BY_VM_STATE = {
    VmState.BUILDING: "BUILD",
    VmState.ACTIVE: "ACTIVE",
    VmState.STOPPED: "SHUTOFF",
    VmState.RESIZED: "VERIFY_RESIZE",
    VmState.SHELVED: "SHELVED",
    VmState.SHELVED_OFFLOADED: "SHELVED_OFFLOADED",
    VmState.ERROR: "ERROR",
    VmState.DELETED: "DELETED",
}
_MOVING = dict.fromkeys((TaskState.RESIZE_PREP, TaskState.RESIZE_MIGRATING, TaskState.RESIZE_FINISH), "RESIZE")
_CHANGING = {**_MOVING, TaskState.REBUILDING: "REBUILD"}
STATUS_BY_TASK: dict[VmState, dict[TaskState, str]] = {
    VmState.ACTIVE: {
        **_CHANGING,
        TaskState.REBOOTING: "REBOOT",
        TaskState.REBOOTING_HARD: "HARD_REBOOT",
        TaskState.MIGRATING: "MIGRATING",
    },
    VmState.STOPPED: _CHANGING,
    VmState.ERROR: {TaskState.REBUILDING: "REBUILD"},
    VmState.RESIZED: {TaskState.RESIZE_REVERTING: "REVERT_RESIZE"},
}


def status(vm_state: VmState, task_state: TaskState | None) -> str:
    """The status that the Compute API shows for a pair of states."""
    by_task = STATUS_BY_TASK.get(vm_state, {})
    return by_task[task_state] if task_state in by_task else STATUS_BY_VM_STATE[vm_state]
