"""Keys: which encrypts and which decrypts, what is noticed, and that no error shows one."""

import base64
from pathlib import Path

import pytest
from pydantic import SecretStr

from hostler.contract.errors import DecryptionFailed, InvalidRequest
from hostler.encryption import Key, Keys, load_keys, parse_keys, sealed_with
from hostler.settings import EncryptionSettings, Settings

OLD, NEW = Key.generate("old"), Key.generate("new")


def settings(tmp_path: Path, **encryption: object) -> Settings:
    return Settings(state_dir=tmp_path, encryption=EncryptionSettings.model_validate(encryption))


def test_what_one_key_encrypts_it_alone_decrypts() -> None:
    content = OLD.encrypt(b"secret", b"here")
    assert b"secret" not in content
    assert OLD.decrypt(content, b"here") == b"secret"
    with pytest.raises(DecryptionFailed):
        Key("old", NEW.secret).decrypt(content, b"here")


def test_the_same_is_never_encrypted_the_same_way_twice() -> None:
    assert OLD.encrypt(b"secret", b"") != OLD.encrypt(b"secret", b"")


@pytest.mark.parametrize("position", [0, 11, 12, -1])
def test_a_changed_bit_is_noticed(position: int) -> None:
    content = bytearray(OLD.encrypt(b"secret", b"here"))
    content[position] ^= 1
    with pytest.raises(DecryptionFailed, match="changed"):
        OLD.decrypt(bytes(content), b"here")


@pytest.mark.parametrize("content", [b"", b"short", b"just the nonce"])
def test_what_is_cut_off_is_noticed(content: bytes) -> None:
    with pytest.raises(DecryptionFailed):
        OLD.decrypt(content, b"")


def test_what_was_moved_to_another_context_is_noticed() -> None:
    with pytest.raises(DecryptionFailed):
        Keys([OLD]).unseal(Keys([OLD]).seal("secret", "server 1"), "server 2")


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    before = Keys([OLD]).seal("secret", "here")
    both = Keys([NEW, OLD])
    assert both.unseal(before, "here") == "secret"
    assert sealed_with(both.seal("secret", "here")) == "new"


def test_a_missing_key_is_named() -> None:
    with pytest.raises(DecryptionFailed, match="key old is missing in this process; it has new") as caught:
        Keys([NEW]).unseal(Keys([OLD]).seal("secret", "here"), "here")
    assert (caught.value.detail.value, "keys_file" in str(caught.value.remedy)) == ("old", True)


def test_without_keys_a_text_stays_as_it_is_and_is_read_later() -> None:
    plain = Keys().seal("c2VjcmV0", "here")
    assert plain == "c2VjcmV0"
    assert Keys([NEW]).unseal(plain, "here") == "c2VjcmV0"


def test_the_setting_goes_over_the_file_and_a_named_file_over_the_default(tmp_path: Path) -> None:
    assert not load_keys(settings(tmp_path))
    private(tmp_path / "encryption.keys", OLD.line)
    assert load_keys(settings(tmp_path)).ids == ["old"]
    named = private(tmp_path / "named", f"# both\n\n{NEW.line}\n{OLD.line}\n")
    assert load_keys(settings(tmp_path, keys_file=named)).ids == ["new", "old"]
    given = Key.generate("given")
    assert load_keys(settings(tmp_path, keys_file=named, keys=SecretStr(given.line))).all == [given]


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o666])
def test_a_file_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    private(tmp_path / "encryption.keys", OLD.line).chmod(mode)
    with pytest.raises(InvalidRequest, match="holds secrets") as caught:
        load_keys(settings(tmp_path))
    assert "chmod 600" in str(caught.value.remedy)


def test_a_file_that_its_group_can_read_is_taken(tmp_path: Path) -> None:
    private(tmp_path / "encryption.keys", OLD.line).chmod(0o640)
    assert load_keys(settings(tmp_path)).ids == ["old"]


def test_a_named_file_that_is_not_there_is_no_encryption_switched_off(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="there is no file"):
        load_keys(settings(tmp_path, keys_file=tmp_path / "nowhere"))


SECRET = base64.b64encode(OLD.secret).decode()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no key"),
        ("# nothing\n", "no key"),
        (SECRET, "an ID has"),
        (f"an id:{SECRET}", "an ID has"),
        (f"old:{SECRET[:-8]}", "32 bytes"),
        (f"old:{SECRET}!", "32 bytes"),
        (f"old:{SECRET}\nold:{SECRET}", "line 2: its ID is an earlier line's"),
    ],
    ids=["nothing", "a comment", "no ID", "a bad ID", "too short", "no base64", "twice"],
)
def test_a_line_that_is_no_key_is_told_but_not_shown(text: str, what: str) -> None:
    with pytest.raises(InvalidRequest, match=what) as caught:
        parse_keys(text, "encryption.keys")
    assert SECRET[:10] not in caught.value.detail.model_dump_json()


def test_a_key_does_not_show_its_secret() -> None:
    assert repr(OLD) == "Key(id='old')"


def private(file: Path, content: str) -> Path:
    file.write_text(content)
    file.chmod(0o600)
    return file
