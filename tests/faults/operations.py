"""What there is to be struck: every workflow that the control worker serves, with a request made of its model.

No operation has code here. The request's fields are filled by name, the state that it starts from is what its class
allows, and what it works on is made by the operations that make such a thing.
"""

import base64
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_type_hints
from uuid import NAMESPACE_URL, uuid5

from pydantic import BaseModel
from pydantic.fields import FieldInfo

import workers.control
from hostler.contract.audit import AUDIT
from hostler.contract.calls import CREATE_IMAGE, CREATE_VOLUME, REGISTER_HOST
from hostler.contract.host_work import DRAIN_HOST, HOST_FAILURE, WATCH_HOSTS
from hostler.contract.names import (
    DEFAULT_PROJECT,
    drain_workflow_id,
    host_failure_workflow_id,
    host_workflow_id,
    image_workflow_id,
    server_workflow_id,
    volume_workflow_id,
)
from hostler.contract.servers import (
    NEVER,
    BlockDeviceMapping,
    NetworkRequest,
    OnFailure,
    OperationName,
    OperationRequest,
)
from hostler.contract.states import VmState
from workflows.host_work import ServersOfHost

DEFINITION = "__temporal_workflow_definition"
HOLD, FORGOTTEN = "hold", "forgotten"
"""The operation holds rather than give up; the database is older than what the hosts have."""
FLAVOR, LARGER, IMAGE, KEY, NETWORKS = "tiny", "small", "demo", "key", ("net-a", "net-b")
SERVER, BESIDE = "web", "spare"
"""The names of the server of a case, and of another one where a case has two."""
OF_HOSTS = {
    REGISTER_HOST: host_workflow_id,
    DRAIN_HOST: drain_workflow_id,
    HOST_FAILURE: host_failure_workflow_id,
}
"""What is about a host, with the IDs under which it runs."""
NEEDS_A_GUEST = {"quiesce"}
"""Options that a guest must have a part in; those of the matrix have nothing to boot from."""
VARIANTS: dict[str, list[tuple[str, tuple[tuple[str, Any], ...], VmState | None]]] = {
    OperationName.SHELVE: [("at-once", (("offload_after", timedelta(0)),), None)],
    OperationName.UNSHELVE: [("offloaded", (), VmState.SHELVED_OFFLOADED)],
    OperationName.EVACUATE: [("off", (), VmState.STOPPED)],
}
"""Circumstances that are no flag, by workflow: their names, options, and the server's state before."""


class NoFiller(Exception):
    """The matrix cannot make a request."""


@dataclass
class Scene:
    """The identifiers of one case, which follow from its seed; and what else must be there for its requests."""

    seed: str
    image_file: str
    host_id: str = ""
    needs: list[str] = field(default_factory=list)
    name: str = SERVER

    @property
    def server_id(self) -> str:
        """The UUID of the server."""
        return self.id("server" if self.name == SERVER else self.name)

    def beside(self) -> "Scene":
        """The same, but for another server."""
        return replace(self, name=BESIDE)

    def id(self, role: str) -> str:
        """The UUID of a role."""
        return str(uuid5(NAMESPACE_URL, f"{self.seed}/{role}"))

    def made_by(self, operation: str) -> str:
        """The UUID of what an operation makes, which will then have been made."""
        if operation not in self.needs:
            self.needs.append(operation)
        return self.id(operation)


@dataclass(frozen=True)
class Operation:
    """One operation: a workflow type, the options with which it is asked for, and what befell the cloud before.

    `origin` is the server's state before it; None: any that is allowed.
    """

    name: str
    workflow: str
    definition: type
    model: type[BaseModel]
    options: tuple[tuple[str, Any], ...] = ()
    after: str = ""
    origin: VmState | None = None

    @property
    def on_server(self) -> bool:
        """Whether it is an operation on a server, with its front door and its lock."""
        return issubclass(self.model, OperationRequest)

    @property
    def is_its_hosts(self) -> bool:
        """Whether it is no client's but a host's, which asks for it when its worker starts."""
        return self.workflow == REGISTER_HOST

    @property
    def is_host_work(self) -> bool:
        """Whether it has operations done on all servers of a host. It undoes nothing, and may be asked for again."""
        return issubclass(self.definition, ServersOfHost)

    @property
    def follows_silence(self) -> bool:
        """Whether the servers' host must not be heard any more before it: it sees to the rest itself."""
        return self.workflow == HOST_FAILURE

    @property
    def takes_ones_word(self) -> bool:
        """Whether whoever asks has seen to it that the host is off."""
        return ("force", True) in self.options

    @property
    def leaves_the_dead(self) -> bool:
        """Whether the server's host must be off, and declared to be so, before it."""
        return self.workflow == OperationName.EVACUATE

    @property
    def holds(self) -> bool:
        """Whether it holds rather than give up; then an operator decides."""
        return ("on_failure", OnFailure.HOLD) in self.options

    @property
    def differs_by_failure(self) -> bool:
        """Whether all that is particular to it comes after a step has failed for good."""
        return any(option in dict(self.options) for option in ("on_failure", "max_attempts"))

    @property
    def heals(self) -> bool:
        """Whether it is there to mend the world; what it cannot mend, the next audit does."""
        return self.workflow == AUDIT or self.after == FORGOTTEN

    @property
    def makes_server(self) -> bool:
        """Whether there is no server before it."""
        return self.workflow == OperationName.BOOT

    def request(self, scene: Scene) -> BaseModel:
        """A request.

        Raises:
            NoFiller: a field that it must have has no filler.
        """
        values: dict[str, Any] = dict(self.options)
        for name, described in self.model.model_fields.items():
            filler = _filler(self, name)
            if name not in values and filler is not None:
                values[name] = filler(scene)
            elif name not in values and described.is_required():
                raise NoFiller(
                    f'the matrix cannot ask for "{self.workflow}": the field {self.model.__name__}.{name} '
                    f"({_type(described)}) lacks a filler in {__name__}.FILLERS"
                )
        return self.model(**values)

    def workflow_id(self, scene: Scene) -> str:
        """The ID under which it runs."""
        for words, make, role in (
            ({"volume"}, volume_workflow_id, CREATE_VOLUME),
            ({"image"}, image_workflow_id, CREATE_IMAGE),
        ):
            if words & set(self.workflow.split("-")):
                return make(scene.id(role))
        if self.workflow in OF_HOSTS:
            return OF_HOSTS[self.workflow](scene.host_id)
        return server_workflow_id(scene.server_id) if self.on_server else f"matrix:{self.workflow}"

    def allowed(self, scene: Scene) -> Sequence[VmState]:
        """The states of the server from which it may begin; a class that does not say takes any."""
        if not hasattr(self.definition, "allowed"):
            return (VmState.ACTIVE,)
        bare: Any = object.__new__(self.definition)
        bare.call = self.request(scene)
        states: Sequence[VmState] = bare.allowed()
        return states

    def beside(self) -> list["Operation"]:
        """The operations that make another server, where one is not enough: it is off."""
        known = plain_operations()
        return [known[OperationName.BOOT], known[OperationName.STOP]] if self.is_host_work else []

    def way(self, scene: Scene) -> list["Operation"]:
        """The operations that lead to a server from which this one may begin, or leave something to be healed."""
        known = plain_operations()
        if self.workflow in OF_HOSTS:
            return [known[OperationName.BOOT]]
        if self.workflow == AUDIT:
            return [known[OperationName.BOOT], known[OperationName.DELETE]]
        if not self.on_server or self.makes_server:
            return []
        goals = self.allowed(scene) if self.origin is None else [self.origin]
        ways: deque[tuple[VmState, list[Operation]]] = deque([(VmState.ACTIVE, [known[OperationName.BOOT]])])
        seen = {VmState.ACTIVE}
        while ways:
            state, way = ways.popleft()
            if state in goals:
                return way
            for one in known.values():
                leads_to = getattr(one.definition, "afterwards", None)
                if isinstance(leads_to, VmState) and leads_to not in seen and state in one.allowed(scene):
                    seen.add(leads_to)
                    ways.append((leads_to, [*way, one]))
        raise NoFiller(
            f'the matrix cannot begin "{self.workflow}": no operation leads to a server that is '
            f"{' or '.join(goals)}; the class of one that does must say so in `afterwards`"
        )


WITHOUT_END = {WATCH_HOSTS}
"""What never ends, so that there is no world after it. It changes nothing itself, and is begun again whenever it is not
there; what it begins is struck as `host-failure+automatic`."""


def operations() -> list[Operation]:
    """Every operation that the control worker serves; a flag of its request makes another one of it."""
    found = []
    for definition in workers.control.WORKFLOWS:
        name = getattr(definition, DEFINITION).name
        if name in WITHOUT_END:
            continue
        hints = get_type_hints(definition.run)  # type: ignore[attr-defined]  # each has one
        model = next((hint for key, hint in hints.items() if key != "return"), None)
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise NoFiller(f'the matrix cannot ask for "{name}": its `run` takes no model, but {model}')
        found.append(Operation(name, name, definition, model))
        if found[-1].is_its_hosts:
            found.append(Operation(f"{name}+{FORGOTTEN}", name, definition, model, after=FORGOTTEN))
            continue
        found += [
            Operation(f"{name}+{flag}", name, definition, model, ((flag, True),))
            for flag, described in model.model_fields.items()
            if described.annotation is bool and described.default is False and flag not in NEEDS_A_GUEST
        ]
        found += [
            Operation(f"{name}+{variant}", name, definition, model, options, origin=origin)
            for variant, options, origin in VARIANTS.get(name, ())
        ]
        if "on_failure" in model.model_fields:
            once = (("max_attempts", 1),) if "max_attempts" in model.model_fields else ()
            options = (("on_failure", OnFailure.HOLD), *once)
            found.append(Operation(f"{name}+{HOLD}", name, definition, model, options))
            found += [Operation(f"{name}+once", name, definition, model, once)] if once else []
    return found


def plain_operations() -> dict[str, Operation]:
    """Every workflow without options, by its type."""
    return {one.workflow: one for one in operations() if one.name == one.workflow}


def _disks(scene: Scene) -> list[BlockDeviceMapping]:
    """The root disk on the host, a new volume that goes with the server, and one that was there before.

    The last is one server's: another beside it goes without.
    """
    disks = [
        BlockDeviceMapping(source_type="image", destination_type="local", uuid=scene.id("image"), boot_index=0),
        BlockDeviceMapping(source_type="blank", destination_type="volume", volume_size=1, delete_on_termination=True),
    ]
    if scene.name == SERVER:
        there = scene.made_by(CREATE_VOLUME)
        disks.append(BlockDeviceMapping(source_type="volume", destination_type="volume", uuid=there))
    return disks


# By "workflow.field", else by "field". Optional fields are here where they make an operation richer.
FILLERS: dict[str, Callable[[Scene], Any]] = {
    "server_id": lambda scene: scene.server_id,
    "request_id": lambda scene: scene.id("request"),
    "name": lambda scene: scene.name,
    "flavor": lambda scene: FLAVOR,
    "image": lambda scene: scene.id("image"),
    "networks": lambda scene: [NetworkRequest(network=name) for name in NETWORKS],
    "block_device_mapping": _disks,
    "key_name": lambda scene: KEY,
    "user_data": lambda scene: base64.b64encode(b"#!/bin/sh\n").decode(),
    "metadata": lambda scene: {"role": "web"},
    "size_gib": lambda scene: 1,
    "audit.heal": lambda scene: True,
    "pause": lambda scene: timedelta(seconds=0.1),
    "path": lambda scene: scene.image_file,
    "create-volume.id": lambda scene: scene.id(CREATE_VOLUME),
    "create-image.id": lambda scene: scene.id(CREATE_IMAGE),
    "create-image.name": lambda scene: "imported",
    "resize.flavor": lambda scene: LARGER,
    "image_id": lambda scene: scene.id("made image"),
    "backup_type": lambda scene: "daily",
    "rotation": lambda scene: 1,
    "shelve.offload_after": lambda scene: NEVER,
    "later.operation": lambda scene: OperationName.CONFIRM_RESIZE,
    "later.subject": lambda scene: scene.id("a move that is over"),
    "later.at": lambda scene: datetime(2020, 1, 1, tzinfo=UTC),
    "project": lambda scene: DEFAULT_PROJECT,
    "drain-host.host_id": lambda scene: scene.host_id,
    "host-failure.host_id": lambda scene: scene.host_id,
    "delete-volume.ref": lambda scene: scene.made_by(CREATE_VOLUME),
}


def _filler(operation: Operation, name: str) -> Callable[[Scene], Any] | None:
    return FILLERS.get(f"{operation.workflow}.{name}") or FILLERS.get(name)


def _type(described: FieldInfo) -> str:
    return getattr(described.annotation, "__name__", str(described.annotation))
