"""Inspects what tenants upload, before any qemu tool opens it.

The content decides, not the name: a "raw" file that starts as a qcow2 header could make a guest read any file of the
host through its backing file (CVE-2015-5163, CVE-2024-32498). `format_inspector` is the parser that Glance, Nova and
Cinder share. Only what it calls safe is given to `qemu-img check`, and then within limits.
"""

import signal
from pathlib import Path

from oslo_utils.imageutils import format_inspector

from drivers.image import qcow2
from drivers.image.qemu_img import LIMITS, run_limited
from hostler.contract.errors import ImageRejected
from hostler.contract.resources import DiskFormat

# A boot sector makes a raw disk look like "gpt" to the inspector; that is what a raw disk is.
ACCEPTED_AS = {"gpt": "raw"}
QEMU_IMG_LEAKS = 3  # space that belongs to nobody harms nobody

FORMAT_REMEDY = "declare the file's real format; only qcow2 and raw are taken, convert others with `qemu-img convert`"
UNSAFE_REMEDY = "make a self-contained copy with `qemu-img convert -O qcow2` and import that"
TOO_MUCH_REMEDY = "write it anew with `qemu-img convert -O qcow2`, which gives it clusters of the usual size"
DAMAGED_REMEDY = "check the file with `qemu-img check` where it was made, and copy it again"


def inspect(path: Path, declared: DiskFormat, name: str) -> int:
    """The size in bytes of the disk that the image holds. Errors call the image `name`. Blocks.

    Raises:
        ImageRejected: another format than declared, unsafe, or damaged.
        Unavailable: qemu's tools are missing here.
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    if size == 0:
        raise ImageRejected("the image file is empty", field="file", value=name, remedy=DAMAGED_REMEDY)
    virtual_size = _inspect_header(path, declared, name)
    if declared is DiskFormat.RAW:
        return size
    _check_qcow2(path, name)
    if virtual_size == 0:
        raise ImageRejected("the image holds a disk of no size", field="file", value=name, remedy=DAMAGED_REMEDY)
    return virtual_size


def _inspect_header(path: Path, declared: DiskFormat, name: str) -> int:
    try:
        detected = format_inspector.detect_file_format(str(path))
        if detected is None:
            raise format_inspector.ImageFormatError("nothing recognised it")
        content = ACCEPTED_AS.get(str(detected), str(detected))
        if content == declared == DiskFormat.QCOW2:
            detected.safety_check()
    except format_inspector.SafetyCheckFailed as error:
        reasons = "; ".join(str(failure) for failure in error.failures.values())
        raise ImageRejected(
            f"the image is unsafe to open: {reasons}", field="file", value=name, remedy=UNSAFE_REMEDY
        ) from error
    except format_inspector.ImageFormatError as error:
        raise ImageRejected(
            f"the image's format is unclear: {error}", field="disk_format", value=declared, remedy=FORMAT_REMEDY
        ) from error
    if content != declared:
        raise ImageRejected(
            f"the image is declared as {declared}, but its content is {content}",
            field="disk_format",
            value=declared,
            remedy=FORMAT_REMEDY,
        )
    return int(detected.virtual_size)


def _check_qcow2(path: Path, name: str) -> None:
    try:
        with path.open("rb") as file:
            if qcow2.read_header(file).encryption:
                raise ImageRejected("the image is encrypted", field="file", value=name, remedy=UNSAFE_REMEDY)
            qcow2.check_length(file)
    except qcow2.Damaged as error:
        raise _damaged(name, str(error)) from error

    file_name = f"file:{path.absolute()}"  # so that no name is taken for a protocol
    check = run_limited("qemu-img", "check", "-q", "-f", "qcow2", file_name)
    complaint = _last_line(check.stderr).replace(file_name, name)
    if check.returncode < 0:
        how = complaint or signal.strsignal(-check.returncode)
        raise ImageRejected(
            f"checking the image takes more than {LIMITS}: {how}", field="file", value=name, remedy=TOO_MUCH_REMEDY
        )
    if check.returncode not in (0, QEMU_IMG_LEAKS):
        raise _damaged(name, complaint or f"qemu-img check ends with {check.returncode}")


def _damaged(name: str, how: str) -> ImageRejected:
    return ImageRejected(f"the image is damaged: {how}", field="file", value=name, remedy=DAMAGED_REMEDY)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("qemu-img: ") if lines else ""
