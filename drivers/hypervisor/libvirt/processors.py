"""Which processors guests of this host can be given. All calls block."""

from lxml import etree

from drivers.hypervisor.libvirt.connection import Connection, libvirt_errors
from drivers.hypervisor.libvirt.domain_xml import MACHINE
from hostler.contract.errors import InvalidRequest, Unavailable

SETTING = "host.libvirt.cpu_model"


def refuse_unusable(connection: Connection, model: str | None, virt_type: str) -> None:
    """See that guests of this type can have the processor of this name here; without one there is nothing to see.

    Raises:
        InvalidRequest: they cannot.
    """
    if model is None:
        return
    models = _models(connection, virt_type)
    if models.get(model, False):
        return
    lacks = f"this host's processor or QEMU lacks something of {model}"
    usable = ", ".join(sorted(name for name, can_be_had in models.items() if can_be_had))
    raise InvalidRequest(
        f"{lacks if model in models else f'libvirt knows no processor {model!r}'}: guests cannot have it ({virt_type})",
        field=SETTING,
        value=model,
        remedy=f"leave it out, or choose one that all hosts have; here: {usable}",
    )


def _models(connection: Connection, virt_type: str) -> dict[str, bool]:
    """The processors by name, and whether they can be had."""
    with libvirt_errors(Unavailable):
        capabilities = etree.fromstring(connection.get().getDomainCapabilities(None, None, MACHINE, virt_type))
    found = capabilities.findall("cpu/mode[@name='custom']/model")
    return {str(model.text): model.get("usable") == "yes" for model in found}
