"""Fills a volume's file with an image's content."""

from pathlib import Path

from drivers.converting import convert
from drivers.volume.base import Report
from hostler.contract.errors import RescheduleError
from hostler.contract.resources import DiskFormat


async def to_raw(source: Path, source_format: DiskFormat, target: Path, report: Report) -> None:
    """Write an image, whose format was inspected, into the file `target`: all zeros so far, and as large or larger.

    The converter is killed when the caller is cancelled.

    Raises:
        RescheduleError: it cannot be done here.
    """
    # The target exists, so -n; knowing that it is all zeros, the converter leaves its holes alone.
    how = ["-n", "--target-is-zero", "-f", source_format, "-O", "raw"]
    complaint = await convert(*how, str(source), str(target), progress=lambda percent: report(f"{percent} % converted"))
    if complaint:
        raise RescheduleError(f"qemu-img could not convert {source.name}: {complaint}")
