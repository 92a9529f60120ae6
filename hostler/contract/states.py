"""Nova's states, by name and meaning, and the status that derives from them.

Source: nova/compute/{vm_states,task_states,power_state}.py and nova/api/openstack/common.py.
"""

from enum import StrEnum


class VmState(StrEnum):
    """What the server is, as far as its owner is concerned."""

    BUILDING = "building"
    ACTIVE = "active"
    STOPPED = "stopped"
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
    VmState.ERROR: "ERROR",
    VmState.DELETED: "DELETED",
}
STATUS_BY_ACTIVE_TASK = {
    TaskState.REBOOTING: "REBOOT",
    TaskState.REBOOTING_HARD: "HARD_REBOOT",
}


def status(vm_state: VmState, task_state: TaskState | None) -> str:
    """The status that the Compute API shows for a pair of states."""
    if vm_state is VmState.ACTIVE and task_state in STATUS_BY_ACTIVE_TASK:
        return STATUS_BY_ACTIVE_TASK[task_state]
    return STATUS_BY_VM_STATE[vm_state]
