"""Each process of `hostler dev` is given what it needs, and no secret beside."""

import os
import stat
from pathlib import Path

import pytest

from hostler.contract.errors import InvalidRequest
from hostler.encryption import load_keys
from hostler.settings import EncryptionSettings, Settings, TemporalSettings, TlsSettings, load
from workers import dev
from workers.dev_secrets import prepare
from workers.host import refuse_database
from workers.processes import Program

PASSWORD = "hunter2"


def given(program: Program, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings that a program reads in its environment."""
    whole = program.whole_environment()
    with monkeypatch.context() as patch:
        for name in list(os.environ):
            patch.delenv(name)
        for name, value in whole.items():
            patch.setenv(name, value)
        return load()


@pytest.fixture(params=["a file", "the environment"])
def plan(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Program]:
    """The programs of a cloud that was given a database with a password, and somebody's own secrets."""
    url, token = f"postgresql://hostler:{PASSWORD}@db/hostler", f"alice:{PASSWORD * 4}"
    monkeypatch.setenv("OS_PASSWORD", PASSWORD)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    config = None
    if request.param == "a file":
        config = tmp_path / "hostler.toml"
        config.write_text(
            f'state_dir = "{tmp_path}"\ndatabase.url = "{url}"\ncodec.tokens = "{token}"\nhost.zone = "mine"\n'
        )
    else:
        for name, value in (("STATE_DIR", str(tmp_path)), ("CODEC__TOKENS", token), ("HOST__ZONE", "mine")):
            monkeypatch.setenv(f"HOSTLER_{name}", value)
        monkeypatch.setenv("hostler_database__url", url)  # capitals do not matter to who reads them
    found = dev.plan(load(config), config, libvirt=True, simulated=1)
    return {program.name: program for program in (*found.first, found.server, *found.workers)}


@pytest.mark.parametrize("name", ["host", "simulated", "codec", "temporal"])
def test_no_password_is_in_reach_of_who_has_no_use_for_it(
    name: str, plan: dict[str, Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = plan[name].whole_environment()
    assert PASSWORD not in str({key: value for key, value in whole.items() if key != "HOSTLER_CODEC__TOKENS"})
    assert ("HOSTLER_CODEC__TOKENS" not in whole) or name == "codec"
    assert PASSWORD not in " ".join(plan[name].command)
    theirs = given(plan[name], monkeypatch)
    assert theirs.database.url is None
    if name in ("host", "simulated"):
        assert theirs.host.zone == "mine", "the rest of the settings is theirs, too"
        assert theirs.codec.tokens is None
        refuse_database(theirs)


@pytest.mark.parametrize("name", ["control", "database"])
def test_who_needs_the_database_has_it(name: str, plan: dict[str, Program], monkeypatch: pytest.MonkeyPatch) -> None:
    assert PASSWORD in given(plan[name], monkeypatch).database_url


def test_temporal_gets_nothing_of_ours(plan: dict[str, Program]) -> None:
    assert not [name for name in plan["temporal"].whole_environment() if name.upper().startswith("HOSTLER")]


def test_settings_files_for_others_are_closed(plan: dict[str, Program], tmp_path: Path) -> None:
    for file in tmp_path.glob("dev-*.toml"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_endpoint_answers_who_started_the_cloud(plan: dict[str, Program], monkeypatch: pytest.MonkeyPatch) -> None:
    codec = given(plan["codec"], monkeypatch).codec
    assert codec.same_user
    assert f"http://{codec.address}:{codec.port}" in plan["temporal"].command


def test_a_cloud_is_encrypted_from_its_first_start_on(tmp_path: Path) -> None:
    ours = Settings(state_dir=tmp_path)
    prepare(ours)
    first = load_keys(ours).all
    assert [key.id for key in first] == ["dev-1"]
    assert stat.S_IMODE((tmp_path / "encryption.keys").stat().st_mode) == 0o600
    prepare(ours)
    assert load_keys(ours).all == first


def test_what_cannot_be_is_told_before_anything_starts(tmp_path: Path) -> None:
    tls = TemporalSettings(tls=TlsSettings(enabled=True))
    with pytest.raises(InvalidRequest, match="no TLS"):
        prepare(Settings(state_dir=tmp_path, temporal=tls))
    keys = tmp_path / "keys"
    keys.write_text("nonsense")
    keys.chmod(0o600)
    with pytest.raises(InvalidRequest, match="line 1"):
        prepare(Settings(state_dir=tmp_path, encryption=EncryptionSettings(keys_file=keys)))


def test_a_host_worker_refuses_to_hold_the_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOSTLER_STATE_DIR", str(tmp_path))
    refuse_database(load())
    monkeypatch.setenv("HOSTLER_DATABASE__URL", f"postgresql://hostler:{PASSWORD}@db/hostler")
    with pytest.raises(InvalidRequest, match="must not hold") as caught:
        refuse_database(load())
    assert PASSWORD not in caught.value.detail.model_dump_json()
