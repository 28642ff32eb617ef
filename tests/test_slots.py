"""Slots: what the engine says of its rows, and files of what they leave."""

import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Server, running, wait_for

pytestmark = pytest.mark.slow
ROWS = 4
LONG = {"max_tokens": 8000, "ignore_eos": True, "temperature": 0, "stream": True}


@pytest.fixture(scope="module")
def four(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with four rows."""
    with running(tmp_path_factory.mktemp("four"), "--model", str(tiny), "--max-batch", str(ROWS)) as server:
        yield server
        assert server.errors() == []


def slots(server: Server, **query: Any) -> list[dict[str, Any]]:
    answer = server.client.get("/slots", params=query)
    assert answer.status_code == 200, answer.text
    return list(answer.json())


def act(server: Server, slot: Any, action: str, body: Any = None) -> httpx.Response:
    return server.client.post(f"/slots/{slot}", params={"action": action}, json=body)


def usage(server: Server, text: str, **more: Any) -> tuple[int, int]:
    """Tokens of a prompt, and how many of them were known."""
    told = server.chat(text, temperature=0, max_tokens=4, **more).json()["usage"]
    return told["prompt_tokens"], told["prompt_tokens_details"]["cached_tokens"]


class Talking:
    """An answer that goes on until it is told to stop."""

    def __init__(self, server: Server, **more: Any) -> None:
        self._stop = threading.Event()
        self._said = threading.Event()
        body = {"messages": [{"role": "user", "content": "Go on"}]} | LONG | more
        self._thread = threading.Thread(target=self._read, args=(server.url, body))

    def _read(self, url: str, body: Any) -> None:
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as answer:
            for _ in answer.iter_raw():
                self._said.set()
                if self._stop.is_set():
                    return

    def __enter__(self) -> None:
        self._thread.start()
        assert self._said.wait(60)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)


def test_a_place_that_was_never_used_says_so(four: Server) -> None:
    unused = slots(four)[ROWS - 1]
    assert unused == {"id": ROWS - 1, "n_ctx": 8192, "speculative": False, "is_processing": False}
    assert len(slots(four)) == four.client.get("/props").json()["total_slots"] == ROWS
    assert four.client.get("/props").json()["endpoint_slots"] is True


def test_an_answer_is_seen_at_work_and_gone(four: Server) -> None:
    with Talking(four, id_slot=2, seed=7, top_k=11):
        busy = [slot for slot in slots(four) if slot["is_processing"]]
        (slot,) = busy
        assert slot["id"] == 2
        assert slot["n_prompt_tokens"] == slot["n_prompt_tokens_cache"] + slot["n_prompt_tokens_processed"] > 0
        (token,) = slot["next_token"]
        assert token["has_next_token"] is True
        assert token["n_decoded"] > 0
        assert token["n_decoded"] + token["n_remain"] == slot["params"]["n_predict"] == 8000
        assert (slot["params"]["seed"], slot["params"]["top_k"], slot["params"]["temperature"]) == (7, 11, 0)
        later = wait_for(lambda: slots(four)[2]["next_token"][0]["n_decoded"] > token["n_decoded"])
        assert later
    idle = wait_for(lambda: next((slot for slot in [slots(four)[2]] if not slot["is_processing"]), None))
    assert idle["id_task"] == slot["id_task"]
    assert idle["n_prompt_tokens"] > slot["n_prompt_tokens"], "what it left is the prompt and the answer"
    assert idle["next_token"] == [{"has_next_token": False, "has_new_line": False, "n_remain": -1, "n_decoded": 0}]


def test_what_an_answer_is_made_with_is_told(four: Server) -> None:
    sampling: dict[str, Any] = {
        "typical_p": 0.9,
        "top_n_sigma": 2.5,
        "dynatemp_range": 0.25,
        "dynatemp_exponent": 2.0,
        "min_keep": 3,
        "dry_multiplier": 0.5,
        "dry_base": 1.5,
        "dry_allowed_length": 3,
        "dry_penalty_last_n": 128,
        "samplers": ["top_k", "dry", "temperature"],
        "repeat_last_n": 32,
        "presence_penalty": 0.5,
    }
    delivery = {"ignore_eos": True, "timings_per_token": True, "stream": True}
    with Talking(four, id_slot=0, seed=2**40, top_logprobs=4, logprobs=True, **sampling | delivery):
        params = slots(four)[0]["params"]
    expected = sampling | delivery | {"typ_p": 0.9, "seed": 2**40, "n_probs": 4, "lora": []}
    assert {name: params[name] for name in expected} == expected

    wait_for(lambda: not slots(four)[0]["is_processing"], what="the answer that nobody reads to end")
    four.chat("Plainly", id_slot=0, max_tokens=3)
    params = slots(four)[0]["params"]
    plain = four.client.get("/props").json()["default_generation_settings"]["params"]
    assert params == plain | {"seed": params["seed"], "max_tokens": 3, "n_predict": 3}
    assert plain["stream"] is plain["timings_per_token"] is plain["ignore_eos"] is False


def test_a_place_that_is_taken_is_not_waited_for(four: Server) -> None:
    with Talking(four, id_slot=1):
        four.chat("Elsewhere", id_slot=1, max_tokens=2)
        assert slots(four)[1]["is_processing"]
        assert act(four, 1, "erase").json()["error"]["code"] == "slot_busy"
        assert not slots(four, fail_on_no_slot=0)[0]["is_processing"]
    assert four.chat("Nowhere", id_slot=99, max_tokens=2).status_code == 200


def test_no_free_place_is_a_503_where_that_is_asked(four: Server) -> None:
    with Talking(four), Talking(four), Talking(four):
        assert len(slots(four, fail_on_no_slot=1)) == ROWS
        with Talking(four):
            assert [slot["is_processing"] for slot in slots(four)] == [True] * ROWS
            refused = four.client.get("/slots", params={"fail_on_no_slot": 1})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_slot")


def test_several_answers_take_a_place_each(four: Server) -> None:
    with Talking(four, n=3):
        assert sum(slot["is_processing"] for slot in slots(four)) == 3


def test_a_conversation_is_saved_forgotten_and_brought_back(four: Server) -> None:
    text = "Seventeen lighthouse keepers counted all the ships that ever passed their island."
    prompt, _ = usage(four, text, id_slot=3)
    saved = act(four, 3, "save", {"filename": "keepers.bin"}).json()
    assert saved["id_slot"] == 3
    assert saved["n_saved"] >= prompt
    assert saved["timings"]["save_ms"] > 0
    file = four.home / ".tiles/server/slots/keepers.bin.safetensors"
    assert file.stat().st_size == saved["n_written"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    assert act(four, 3, "erase").json() == {"id_slot": 3, "n_erased": saved["n_saved"]}
    assert usage(four, text, id_slot=0)[1] < prompt - 10, "it was forgotten"
    act(four, 0, "erase")

    restored = act(four, 3, "restore", {"filename": "keepers.bin"}).json()
    assert (restored["n_restored"], restored["n_read"]) == (saved["n_saved"], saved["n_written"])
    assert slots(four)[3]["n_prompt_tokens"] == saved["n_saved"]
    assert usage(four, text) == (prompt, prompt - 1)


def test_only_a_whole_file_of_this_model_is_brought_back(four: Server) -> None:
    usage(four, "The keepers wrote down what they saw, and sent it home by every boat.", id_slot=3)
    saved = act(four, 3, "save", {"filename": "home.bin"}).json()
    folder = four.home / ".tiles/server/slots"
    (folder / "torn.bin.safetensors").write_bytes((folder / "home.bin.safetensors").read_bytes()[:-100])
    (folder / "text.bin.safetensors").write_text("no cache at all")
    content = (folder / "home.bin.safetensors").read_bytes()
    changed = content.replace(b'"0.version":"1"', b'"0.version":"9"')
    assert changed != content
    (folder / "other.bin.safetensors").write_bytes(changed)
    for name in ("torn.bin", "text.bin", "other.bin", "missing.bin"):
        refused = act(four, 3, "restore", {"filename": name})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "slot_not_restored"), name
    assert act(four, 1, "restore", {"filename": "home.bin"}).json()["n_restored"] == saved["n_saved"]
    assert all(file.name.endswith(".bin.safetensors") for file in folder.iterdir()), "nothing half-written is left"


@pytest.mark.parametrize(
    ("slot", "query", "body", "status"),
    [
        ("x", "?action=erase", {}, 400),
        ("-1", "?action=erase", {}, 400),
        ("99", "?action=erase", {}, 400),
        ("1", "", {}, 422),
        ("1", "?action=load", {}, 422),
        ("1", "?action=save", {}, 422),
        ("1", "?action=save", None, 422),
        ("1", "?action=save", {"filename": ""}, 422),
        ("1", "?action=save", {"filename": 7}, 422),
        ("1", "?action=save", {"filename": "../x"}, 422),
        ("1", "?action=save", {"filename": "/etc/passwd"}, 422),
        ("1", "?action=restore", {"filename": ".hidden"}, 422),
        ("1", "?action=restore", {"filename": "a\n"}, 422),
        ("1", "?action=restore", {"filename": "x" * 129}, 422),
    ],
)
def test_what_cannot_be_is_refused(four: Server, slot: str, query: str, body: Any, status: int) -> None:
    answer = four.client.post(f"/slots/{slot}{query}", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]


def test_an_empty_place_has_nothing_to_save(four: Server) -> None:
    act(four, 3, "erase")
    assert act(four, 3, "erase").json()["n_erased"] == 0
    assert act(four, 3, "save", {"filename": "nothing.bin"}).json()["error"]["code"] == "slot_empty"
