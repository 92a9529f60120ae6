"""Payloads and failures as Temporal gets them."""

import pytest
from pydantic import BaseModel
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError

from hostler.codec import EncryptionCodec, converter_with
from hostler.contract.errors import DecryptionFailed, InvalidRequest
from hostler.encryption import Key, Keys

OLD, NEW = Key.generate("old"), Key.generate("new")
PLAIN = converter_with(Keys())


class Request(BaseModel):
    """Something to send."""

    password: str
    size: int = 0


async def stored(keys: Keys, value: object) -> Payload:
    return (await converter_with(keys).encode([value]))[0]


async def read(keys: Keys, payload: Payload) -> object:
    return (await converter_with(keys).decode([payload], [Request]))[0]


async def test_a_payload_shows_its_key_and_nothing_else() -> None:
    payload = await stored(Keys([OLD]), Request(password="hunter2"))
    assert payload.metadata == {"encoding": b"binary/encrypted", "encryption-key-id": b"old"}
    for part in (b"hunter2", b"password", b"json"):
        assert part not in payload.SerializeToString()
    assert await read(Keys([OLD]), payload) == Request(password="hunter2")


async def test_keys_are_rotated_while_old_payloads_live() -> None:
    before = await stored(Keys([OLD]), Request(password="a"))
    both = Keys([NEW, OLD])
    after = await stored(both, Request(password="b"))
    assert after.metadata["encryption-key-id"] == b"new"
    assert [await read(both, one) for one in (before, after)] == [Request(password="a"), Request(password="b")]


async def test_what_was_written_before_there_was_a_key_is_read() -> None:
    assert await read(Keys([NEW]), await stored(Keys(), Request(password="a"))) == Request(password="a")


@pytest.mark.parametrize("keys", [Keys(), Keys([NEW])], ids=["no key", "another key"])
async def test_a_missing_key_is_named(keys: Keys) -> None:
    payload = await stored(Keys([OLD]), Request(password="a"))
    with pytest.raises(DecryptionFailed, match="key old is missing"):
        await read(keys, payload)


async def test_changed_data_is_noticed() -> None:
    payload = await stored(Keys([OLD]), Request(password="a"))
    payload.data = payload.data[:-1] + bytes([payload.data[-1] ^ 1])
    with pytest.raises(DecryptionFailed, match="old"):
        await read(Keys([OLD]), payload)


async def test_changed_metadata_is_noticed() -> None:
    both = Keys([Key("old", OLD.secret), Key("new", OLD.secret)])
    payload = await stored(both, Request(password="a"))
    payload.metadata["encryption-key-id"] = b"new"
    with pytest.raises(DecryptionFailed):
        await read(both, payload)
    payload.metadata["encryption-key-id"] = b"old"
    payload.metadata["type"] = b"Other"
    with pytest.raises(DecryptionFailed):
        await read(both, payload)


async def failure(converter: DataConverter) -> Failure:
    made = Failure()
    try:
        raise ApplicationError("hunter2 is wrong", Request(password="hunter2"), type="Wrong")
    except ApplicationError as error:
        await converter.encode_failure(error, made)
    return made


async def test_a_failures_message_and_stack_trace_are_encrypted() -> None:
    converter = converter_with(Keys([OLD]))
    made = await failure(converter)
    assert b"hunter2" not in made.SerializeToString()
    assert (made.message, made.stack_trace) == ("Encoded failure", "")
    again = await converter.decode_failure(made)
    assert isinstance(again, ApplicationError)
    assert (again.message, again.type) == ("hunter2 is wrong", "Wrong")
    with pytest.raises(DecryptionFailed):
        await PLAIN.decode_failure(await failure(converter))


async def test_without_keys_failures_are_readable_like_the_rest() -> None:
    assert (await failure(PLAIN)).message == "hunter2 is wrong"


async def test_a_value_of_another_type_is_named_but_not_repeated() -> None:
    payload = await stored(Keys(), {"password": "hunter2", "size": "hunter2"})
    with pytest.raises(InvalidRequest, match=r"no Request: size: .*integer") as caught:
        await read(Keys(), payload)
    assert "hunter2" not in caught.value.detail.model_dump_json()
    assert caught.value.__suppress_context__


async def test_the_codec_changes_no_payload_in_place() -> None:
    payload = await stored(Keys(), Request(password="a"))
    before = payload.SerializeToString()
    codec = EncryptionCodec(Keys([OLD]))
    [encrypted] = await codec.encode([payload])
    assert payload.SerializeToString() == before
    assert (await codec.decode([encrypted]))[0] == payload
