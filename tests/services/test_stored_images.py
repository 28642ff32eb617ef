"""Images of stored responses: once on the disk, whole over a restart, and gone with the last response that has them."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.stored_images import join, split
from app.services.stored_responses import StoredResponses

LARGE = "A" * 4000


def identity(number: int) -> str:
    return f"resp_{number:032x}"


def store(folder: Path, most_bytes: int = 2**30) -> StoredResponses:
    return StoredResponses(folder, enabled=True, days=30, most_bytes=most_bytes)


def image(letter: str, size: int = 4000) -> str:
    return f"data:image/png;base64,{letter * size}"


def content(*parts: str) -> bytes:
    return json.dumps({"version": 1, "input": parts}, separators=(",", ":")).encode()


def bytes_on_disk(folder: Path) -> int:
    return sum({path.stat().st_ino: path.stat().st_size for path in folder.iterdir()}.values())


PARTS = st.text() | st.sampled_from(
    [image("A"), image("B", 1024), image("C", 1023), '"', LARGE, '{"images":[[0,"a"]]}']
)


@given(st.lists(PARTS, max_size=6))
def test_what_is_cut_out_is_put_back_byte_by_byte(parts: list[str]) -> None:
    whole = content(*parts)
    text, images = split(whole)
    assert join(text, images.__getitem__) == whole
    assert len(images) == len({part for part in parts if part in (image("A"), image("B", 1024))})
    assert not any(data in text for data in images.values())


def test_a_conversation_that_goes_on_holds_an_image_once(tmp_path: Path) -> None:
    responses = store(tmp_path)
    turns = [content(image("A"), *["and now?"] * number) for number in range(5)]
    for number, turn in enumerate(turns):
        assert responses.save(identity(number), turn)
    assert bytes_on_disk(tmp_path) < 5000
    for again in (responses, store(tmp_path)):
        assert [again.read(identity(number)) for number in range(5)] == turns
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_an_image_goes_with_the_last_response_that_has_it(tmp_path: Path) -> None:
    store(tmp_path).save(identity(1), content(image("A")))
    store(tmp_path).save(identity(2), content(image("A"), image("B")))
    responses = store(tmp_path)
    assert responses.delete(identity(1))
    assert responses.read(identity(2)) == content(image("A"), image("B"))
    assert responses.delete(identity(2))
    assert list(tmp_path.iterdir()) == []


def test_the_oldest_go_first_and_an_image_counts_once(tmp_path: Path) -> None:
    responses = store(tmp_path, most_bytes=10_000)
    for number in range(20):
        assert responses.save(identity(number), content(image("A"), str(number)))
    assert responses.read(identity(0)) is not None
    for number, letter in enumerate("BCD", 20):
        assert responses.save(identity(number), content(image(letter)))
    assert bytes_on_disk(tmp_path) <= 10_000
    assert responses.read(identity(19)) is None
    assert responses.read(identity(22)) == content(image("D"))
    again = store(tmp_path, most_bytes=10_000)  # knows them from the disk
    again.save(identity(23), content(image("E")))
    assert bytes_on_disk(tmp_path) <= 10_000


def test_a_response_whose_image_is_gone_is_none(tmp_path: Path) -> None:
    responses = store(tmp_path)
    responses.save(identity(1), content(image("A")))
    next(tmp_path.glob("*.image")).unlink()
    assert responses.read(identity(1)) is None


def test_an_image_that_another_server_has_removed_is_written_again(tmp_path: Path) -> None:
    one, other = store(tmp_path), store(tmp_path)
    one.save(identity(1), content(image("A")))
    other.delete(identity(1))
    one.save(identity(2), content(image("A")))
    assert store(tmp_path).read(identity(2)) == content(image("A"))


def test_a_file_system_without_links_holds_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    responses = store(tmp_path)
    for number in range(2):
        assert responses.save(identity(number), content(image("A")))
    responses.delete(identity(0))
    assert responses.read(identity(1)) == content(image("A"))


def test_images_of_responses_that_were_never_written_are_removed_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    responses = store(tmp_path)
    responses.save(identity(1), content(image("A")))
    responses.save(identity(2), content(image("B")))
    (tmp_path / f"{identity(1)}.json").unlink()
    store(tmp_path).tidy()
    assert len(list(tmp_path.glob("*.image"))) == 2  # it may be about to be written
    monkeypatch.setattr("app.services.stored_images._OLD", -1.0)
    store(tmp_path).tidy()
    assert [path.name[:37] for path in tmp_path.glob("*.image")] == [identity(2)]


def test_what_an_earlier_version_wrote_is_read(tmp_path: Path) -> None:
    (tmp_path / f"{identity(1)}.json").write_bytes(content(image("A")))
    assert store(tmp_path).read(identity(1)) == content(image("A"))
