"""How it is seen that a guest has left: its process has ended, and libvirt had written down that it would."""

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.hypervisor.libvirt import departure
from drivers.hypervisor.libvirt.departure import confirmed, watching
from hostler.contract.errors import Unavailable

NAME = "hostler-guest"
SECONDS = 10


def write(directory: Path, job: str) -> Path:
    """The status file of a domain, as libvirt writes it while it runs."""
    path = directory / f"{NAME}.xml"
    path.write_text(f"<domstatus state='paused' reason='migration' pid='1'>{job}<domain type='qemu'/></domstatus>")
    return path


def migration(phase: str) -> str:
    return f"<job type='modify' async='migration out' phase='{phase}' flags='0x0' asyncStarted='1'/>"


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """What stands for the guest's QEMU, known to libvirt."""
    monkeypatch.setattr(departure, "STATUS", tmp_path)
    with subprocess.Popen(["sleep", "60"]) as process:
        (tmp_path / f"{NAME}.pid").write_text(str(process.pid))
        try:
            yield process
        finally:
            process.kill()


class TestConfirmed:
    def test_the_other_host_has_all_of_it(self, tmp_path: Path) -> None:
        assert confirmed(write(tmp_path, migration("confirm3")))

    @pytest.mark.parametrize("phase", ["perform3", "perform3_done", "confirm3_cancelled", "postcopy_failed"])
    def test_in_no_other_phase(self, tmp_path: Path, phase: str) -> None:
        assert not confirmed(write(tmp_path, migration(phase)))

    @pytest.mark.parametrize("job", ["", "<job type='none' async='backup' phase='confirm3'/>"])
    def test_not_without_a_migration(self, tmp_path: Path, job: str) -> None:
        assert not confirmed(write(tmp_path, job))

    def test_not_when_libvirt_has_removed_the_file_or_is_no_longer_at_it(self, tmp_path: Path) -> None:
        assert not confirmed(tmp_path / "none.xml")
        broken = tmp_path / "broken.xml"
        broken.write_text("<domstatus>")
        assert not confirmed(broken)


class TestWatching:
    def test_tells_as_soon_as_the_process_has_ended(self, tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
        write(tmp_path, migration("confirm3"))
        told = threading.Event()
        with watching(NAME, told.set):
            assert not told.is_set()
            process.kill()
            assert told.wait(SECONDS)

    def test_a_guest_that_dies_before_has_not_left(self, tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
        write(tmp_path, migration("perform3"))
        told = threading.Event()
        with watching(NAME, told.set):
            process.kill()
            process.wait()
        assert not told.is_set()

    def test_a_migration_that_ends_while_the_guest_runs_tells_nothing(
        self, tmp_path: Path, process: subprocess.Popen[bytes]
    ) -> None:
        write(tmp_path, migration("confirm3"))
        told = threading.Event()
        with watching(NAME, told.set):
            pass
        assert not told.is_set()
        assert process.poll() is None

    def test_what_cannot_be_said_now_is_left_to_whoever_migrates(
        self, tmp_path: Path, process: subprocess.Popen[bytes], caplog: pytest.LogCaptureFixture
    ) -> None:
        write(tmp_path, migration("confirm3"))
        called = threading.Event()

        def then() -> None:
            called.set()
            raise Unavailable("it does not answer")

        with watching(NAME, then):
            process.kill()
            assert called.wait(SECONDS)
        assert "it does not answer" in caplog.text

    def test_without_libvirt_s_files_there_is_nothing_to_see(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(departure, "STATUS", tmp_path)
        told = threading.Event()
        with watching(NAME, told.set):
            pass
        assert not told.is_set()
