"""As whom QEMU runs, by libvirt's word, and what that user may do."""

from pathlib import Path

import pytest

from drivers.hypervisor.libvirt.qemu_user import qemu_user, refuse_no_post_copy
from hostler.contract.errors import RescheduleError

OWN_USER = "<capabilities><host/></capabilities>"
LABELS = """\
<capabilities><host><secmodel><model>apparmor</model></secmodel><secmodel><model>dac</model>
<baselabel type="kvm">+1:+2</baselabel><baselabel type="qemu">{label}</baselabel></secmodel></host></capabilities>
"""


class Libvirt:
    """A connection to a libvirt with these capabilities."""

    def __init__(self, capabilities: str) -> None:
        self._capabilities = capabilities

    def get(self) -> "Libvirt":
        return self

    def getCapabilities(self) -> str:  # noqa: N802 - libvirt's name
        return self._capabilities


def labelled(label: str) -> Libvirt:
    return Libvirt(LABELS.format(label=label))


@pytest.mark.parametrize(("there", "owner"), [(labelled("+64055:+994"), (64055, 994)), (Libvirt(OWN_USER), None)])
def test_the_label_that_libvirt_gives_to_qemu_s_files_is_its_user(
    there: Libvirt, owner: tuple[int, int] | None
) -> None:
    assert qemu_user(there) == owner  # type: ignore[arg-type]  # it is played


class TestPostCopy:
    def test_a_kernel_that_keeps_it_from_all_but_root_is_told_of(self, tmp_path: Path) -> None:
        sysctl = tmp_path / "unprivileged_userfaultfd"
        sysctl.write_text("0\n")
        with pytest.raises(RescheduleError, match="is 0") as refusal:
            refuse_no_post_copy(labelled("+64055:+994"), sysctl)  # type: ignore[arg-type]  # it is played
        assert "sysctl -w vm.unprivileged_userfaultfd=1" in str(refusal.value.remedy)
        refuse_no_post_copy(labelled("+0:+0"), sysctl)  # type: ignore[arg-type]  # it is played

    @pytest.mark.parametrize("setting", ["1\n", None])
    def test_one_that_allows_it_or_that_never_forbade_it_is_not(self, tmp_path: Path, setting: str | None) -> None:
        sysctl = tmp_path / "unprivileged_userfaultfd"
        if setting is not None:
            sysctl.write_text(setting)
        refuse_no_post_copy(labelled("+64055:+994"), sysctl)  # type: ignore[arg-type]  # it is played
