"""`make faults`: runs the matrix and writes its report."""

import argparse
import asyncio
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.databases import make_tables
from tests.faults import report
from tests.faults.case import Result
from tests.faults.matrix import Matrix
from tests.faults.plan import OF_STEPS, Fault
from tests.faults.servers import TemporalServers, temporal_servers
from tests.faults.site import JOBS, Site

ROOT = Path(__file__).resolve().parents[2]
SITES = ("simulated", "libvirt", "lab")
REAL_FAULTS = (Fault.AFTER, Fault.KILLED)


def main() -> int:
    """The command; 1 when a case failed."""
    arguments = _parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # all that was started is ended, too
    began = time.monotonic()
    results: dict[str, list[Result]] = {}
    directory = Path(tempfile.mkdtemp(prefix="hostler-faults-", dir="/var/tmp"))
    directory.chmod(0o755)
    try:
        with temporal_servers() as servers:
            for name in arguments.site or SITES:
                if name == "lab":
                    results[name] = asyncio.run(_in_lab(arguments))
                    continue
                site = make_site(name, servers, directory / name, arguments.jobs)
                faults = tuple(OF_STEPS) if name == "simulated" else REAL_FAULTS
                matrix = Matrix(
                    site,
                    directory / name,
                    only=arguments.cases or ["*"],
                    faults=faults,
                    undos=name == "simulated",
                    sample=arguments.sample,
                    told=_tell,
                )
                if arguments.list:
                    print(*asyncio.run(matrix.names()), sep="\n")
                    continue
                results[name] = asyncio.run(matrix.run())
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if arguments.list:
        return 0
    page = report.write(arguments.report, results, time.monotonic() - began)
    return _sum_up(results, page)


def make_site(name: str, servers: TemporalServers, directory: Path, jobs: int | None = None) -> Site:
    """A site of this name, whose files are in `directory`."""
    template = directory / "template"
    make_tables(f"sqlite:///{template / 'hostler.db'}")
    disk = template / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "64M"], check=True)
    if name == "libvirt":
        from tests.faults.machine import libvirt_site

        return libvirt_site(servers, template, disk, jobs)
    return Site(name, servers, template, disk, jobs=jobs or JOBS)


async def _in_lab(arguments: argparse.Namespace) -> list[Result]:
    """The results of the cases on the lab, of which there is one: they come one after the other."""
    from tests.faults.lab.cloud import temporary_lab
    from tests.faults.lab.matrix import LabMatrix, moves

    only = arguments.cases or ["*"]
    if not moves(only):
        return []
    async with temporary_lab() as cloud:
        matrix = LabMatrix(cloud, only, arguments.sample, _tell)
        if not arguments.list:
            return await matrix.run()
        print(*[case.name for case in await matrix.cases()], sep="\n")
        return []


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("cases", nargs="*", help='names of cases, as in "boot/spawn/killed"; * matches anything')
    parser.add_argument("--site", action="append", choices=SITES, help="only this site")
    parser.add_argument("--list", action="store_true", help="list the cases at steps, and run none")
    parser.add_argument("--sample", type=int, metavar="N", help="run about N cases, the same every time")
    parser.add_argument("--jobs", type=int, metavar="N", help="run so many cases at once")
    parser.add_argument("--report", type=Path, default=ROOT / ".cache" / "faults", metavar="DIR", help="where it goes")
    return parser.parse_args()


def _tell(result: Result) -> None:
    mark = "ok  " if result.passed else "FAIL"
    print(f"{mark} {result.seconds:5.1f} s  {result.case.name}  {result.outcome}", flush=True)
    for line in [*result.problems, *result.differences][:12]:
        print(f"     {line}", flush=True)


def _sum_up(results: dict[str, list[Result]], page: Path) -> int:
    failed = [(site, one.case.name) for site, all_of_it in results.items() for one in all_of_it if not one.passed]
    total = sum(map(len, results.values()))
    print(f"\n{total} cases, {len(failed)} failed. The report: {page}")
    for site, name in failed:
        print(f'  make faults ARGS="--site {site} {name}"')
    return 1 if failed or not total else 0


if __name__ == "__main__":
    sys.exit(main())
