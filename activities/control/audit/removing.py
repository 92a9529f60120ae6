"""What heals a finding on a host: which of its activities, and what must be sure before.

A server that lives elsewhere is held meanwhile, as an operation would hold it, so that none can bring it here.
"""

from pydantic import BaseModel
from sqlmodel import Session, select

from activities.control.audit.facts import images_in_use, is_busy
from activities.control.audit.healing import CHANGED, locked
from activities.control.migrations import open_migration
from activities.interfaces.audit import HostStep, Suspicion, Treatment
from activities.interfaces.block_devices import HostVolumes, VolumeRef
from activities.interfaces.guests import Claims, Guests
from activities.interfaces.images import HostImages, ImageId
from activities.interfaces.ports import HostPorts, PortIds
from activities.interfaces.servers import HostRef, ServerRef
from hostler.contract.states import TaskState, VmState
from models import Image, Server, Volume
from scheduler.reservation import release


def host_of(suspicion: Suspicion) -> HostRef:
    """The host that a finding is on."""
    finding = suspicion.finding
    assert finding.host_id is not None
    return HostRef(id=finding.host_id, name=finding.host or finding.host_id)


def remove_remains(session: Session, suspicion: Suspicion, run_id: str) -> Treatment:
    """What is here of a server that is deleted, or that lives elsewhere: then it is held from now on."""
    server = session.get(Server, suspicion.finding.server_id, with_for_update=True)
    if server is None or (server.host_id == suspicion.finding.host_id and not suspicion.evidence.former):
        return Treatment(reason=CHANGED)
    shelved = server.shelved_image_id if server.vm_state is VmState.SHELVED_OFFLOADED else None
    if shelved is not None and session.get(Image, shelved) is None:
        return Treatment(reason="the image that kept its disk is gone: what is here may be the only one")
    if open_migration(session, server.id) is not None:
        return Treatment(reason="the server is moving")
    if server.deleted_at is not None and server.operation_id is None:
        return Treatment(host=host_of(suspicion), steps=_steps(suspicion))
    if server.operation_id != run_id:
        nowhere = server.host_id is None and server.vm_state is not VmState.SHELVED_OFFLOADED
        if nowhere or is_busy(server) or locked(session, suspicion) is None:
            return Treatment(reason=CHANGED)
        server.operation_id = run_id
    return Treatment(host=host_of(suspicion), steps=_steps(suspicion), holds=True)


def _steps(suspicion: Suspicion) -> list[HostStep]:
    finding, evidence = suspicion.finding, suspicion.evidence
    ref = ServerRef(server_id=finding.subject)
    steps = []
    if evidence.guest:
        steps.append(_step(Guests.destroy_guest.__name__, ref))
    if evidence.ports:
        ports = PortIds(server_id=finding.subject, port_ids=evidence.ports)
        steps.append(_step(HostPorts.unbind_ports.__name__, ports))
    if evidence.former:
        steps.append(_step(Guests.drop_former_guest.__name__, ref))
        steps.append(_step(Claims.drop_former_claim.__name__, ref))
    if evidence.claim:
        steps.append(_step(Claims.drop_claim.__name__, ref))
    return steps


def _step(activity: str, argument: BaseModel) -> HostStep:
    return HostStep(activity=activity, argument=argument.model_dump(mode="json"))


def finish(session: Session, suspicion: Suspicion, run_id: str, done: bool) -> None:
    """Release the allocation of what the host no longer has, and let go of the server."""
    finding = suspicion.finding
    if finding.server_id is None:
        return
    server = session.get(Server, finding.server_id, with_for_update=True)  # before the host, as all do
    if done and suspicion.evidence.allocation:
        release(session, finding.server_id, finding.host_id)
    if server is not None and server.operation_id == run_id:
        server.operation_id = None


def withdraw_export(session: Session, suspicion: Suspicion) -> Treatment:
    """The export of a volume that a deleted server holds."""
    volume = session.get(Volume, suspicion.finding.subject, with_for_update=True)
    server = session.get(Server, volume.server_id) if volume is not None and volume.server_id else None
    if volume is None or server is None or server.deleted_at is None:
        return Treatment(reason="the volume has changed meanwhile")
    step = _step(HostVolumes.withdraw_volume.__name__, VolumeRef(volume_id=volume.id))
    return Treatment(host=host_of(suspicion), steps=[step])


def evict_image(session: Session, suspicion: Suspicion) -> Treatment:
    """A cached image that nothing can ask for any more."""
    image_id = suspicion.finding.subject
    host_id = None if suspicion.evidence.shared else suspicion.finding.host_id
    if session.get(Image, image_id) is not None or images_in_use(session, [image_id], host_id):
        return Treatment(reason="the image is in use again")
    rebuilding = select(Server.id).where(
        Server.host_id == suspicion.finding.host_id, Server.task_state == TaskState.REBUILDING
    )
    if session.exec(rebuilding).first() is not None:  # whose new image no row has yet
        return Treatment(reason="a server is being rebuilt on the host")
    step = _step(HostImages.evict_image.__name__, ImageId(image_id=image_id))
    return Treatment(host=host_of(suspicion), steps=[step])
