"""What was used, counted by day, model, client and key: over HTTP, on the disk, and by the command."""

import json
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import date, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from click.testing import CliRunner

from app.access import Access
from app.commands.stats import stats
from app.services.errors import Unauthorized
from app.services.usage_file import DAYS, GROUPS, NAME, Usage, UsageFile
from app.services.usage_ledger import OTHERS, UsageLedger, client_name
from app.settings import Settings
from tests.conftest import Server, running, wait_for
from tests.document import DOCUMENT, resolved
from tests.loop import run
from tests.scripted import ScriptedModel, answer, serving, thought

LAPTOP, PHONE = "the-key-of-a-laptop", "the-key-of-a-phone"
TODAY = date.today()
ONE = Usage(1, 0, 10, 3, 5, 0.5)


@pytest.fixture(scope="module")
def named(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose keys have names."""
    home = tmp_path_factory.mktemp("named")
    keys = ("--api-key", f"laptop:{LAPTOP}", "--api-key", f"phone:{PHONE}")
    with running(home, "--model", str(tiny), *keys, "--data-dir", str(home / "data")) as server:
        yield server
        assert server.errors() == []


def used(server: Server, **query: str) -> list[dict[str, Any]]:
    reply = server.client.get("/v1/usage", params=query, headers={"authorization": f"Bearer {LAPTOP}"}).json()
    jsonschema.validate(reply, resolved(DOCUMENT["components"]["schemas"]["UsageReply"]))
    rows: list[dict[str, Any]] = reply["data"]
    return rows


def chat(server: Server, client: str, key: str = PHONE, **more: Any) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "ignore_eos": True} | more
    headers = {"authorization": f"Bearer {key}", "user-agent": client}
    return server.client.post("/v1/chat/completions", json=body, headers=headers)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_counted_under_model_client_and_key(named: Server, stream: bool) -> None:
    client = f"program{int(stream)}"
    for _ in range(2):
        answered = chat(named, f"{client}/1.2 (of a test)", stream=stream, stream_options={"include_usage": True})
        assert answered.status_code == 200
    (row,) = [row for row in used(named, group_by="client,model,key") if row["client"] == client]
    assert (row["model"], row["key"]) == ("tiny", "phone")
    assert (row["requests"], row["refusals"], row["completion_tokens"]) == (2, 0, 8)
    assert row["prompt_tokens"] > row["cached_tokens"] > 0
    assert row["seconds"] > 0


def test_every_dialect_is_counted_and_nothing_else(named: Server) -> None:
    headers = {"authorization": f"Bearer {LAPTOP}", "user-agent": "dialects"}
    message = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    bodies: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": message,
        "/v1/messages": message,
        "/v1/responses": {"input": "Hi", "max_output_tokens": 2},
        "/v1/completions": {"prompt": "Hi", "max_tokens": 2},
        "/completion": {"prompt": "Hi", "n_predict": 2},
        "/api/chat": {"model": "tiny", **message, "options": {"num_predict": 2}},
        "/v1/embeddings": {"input": "Hi"},
    }
    for path, body in bodies.items():
        answered = named.client.post(path, json=body, headers=headers)
        assert answered.status_code == 200, answered.text
    named.client.get("/v1/models", headers=headers)
    named.client.post("/tokenize", json={"content": "Hi"}, headers=headers)
    (row,) = [row for row in used(named, group_by="client") if row["client"] == "dialects"]
    assert (row["requests"], row["refusals"]) == (len(bodies), 0)


def test_refusals_are_counted(named: Server) -> None:
    assert chat(named, "refused", temperature=-1).status_code == 422
    assert chat(named, "refused", key="none").status_code == 401
    rows = [row for row in used(named, group_by="client,key,model") if row["client"] == "refused"]
    assert [(row["key"], row["model"], row["requests"], row["refusals"]) for row in rows] == [
        ("", "", 1, 1),
        ("phone", "", 1, 1),
    ]


@pytest.mark.parametrize("stream", [True, False])
def test_of_an_answer_that_is_broken_off_its_tokens_count(tmp_path: Path, stream: bool) -> None:
    endless = answer(thought("Hm", 1), "one ", "two ")[:-1]  # three tokens, and it never ends by itself
    model = ScriptedModel([endless])
    with serving(model, tmp_path) as url:
        body = {"messages": [{"role": "user", "content": "Hi"}], "stream": stream}
        if stream:
            with httpx.stream("POST", f"{url}/v1/chat/completions", json=body) as answered:
                next(line for line in answered.iter_lines() if "two" in line)
        else:
            connection = HTTPConnection(httpx.URL(url).netloc.decode())
            connection.request("POST", "/v1/chat/completions", json.dumps(body))
            wait_for(lambda: model.requests, what="the request")
            assert httpx.get(f"{url}/ping").status_code == 200  # by now the server has read the events
            connection.close()
        wait_for(lambda: model.cancelled, what="the end")
        total = wait_for(lambda: (now := total_of(url))["requests"] and now, what="the count")
    assert (total["prompt_tokens"], total["cached_tokens"], total["completion_tokens"]) == (10, 3, 3)


def total_of(url: str) -> dict[str, Any]:
    total: dict[str, Any] = httpx.get(f"{url}/v1/usage", params={"group_by": ""}).json()["total"]
    return total


def test_numbers_outlive_the_server_and_no_text_is_among_them(tiny: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    flags = ("--model", str(tiny), "--data-dir", str(data))
    for _ in range(2):
        with running(tmp_path, *flags) as server:
            server.chat("A secret text", max_tokens=3)
            server.stop()
    (row,) = UsageFile(data).read(TODAY, TODAY, ["client"])
    assert (row[0], row[1].requests) == (("python-httpx",), 2)
    assert stat.S_IMODE((data / NAME).stat().st_mode) == 0o600
    assert b"secret" not in (data / NAME).read_bytes()


def test_nothing_is_counted_with_usage_off(tiny: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(tmp_path, "--model", str(tiny), "--data-dir", str(data), "--usage", "off") as server:
        assert server.chat(max_tokens=2).status_code == 200
        answer = server.client.get("/v1/usage")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "feature_disabled")
        server.stop()
    assert not (data / NAME).exists()


@pytest.mark.parametrize("query", [{"group_by": "week"}, {"group_by": "day,"}, {"start": "yesterday"}, {"end": "2026"}])
def test_a_range_or_a_group_that_is_none_is_refused(named: Server, query: dict[str, str]) -> None:
    answer = named.client.get("/v1/usage", params=query, headers={"authorization": f"Bearer {LAPTOP}"})
    assert answer.status_code == (200 if query == {"group_by": "day,"} else 400 if "group_by" in query else 422)


def test_a_range_has_its_days_alone(tmp_path: Path) -> None:
    file = UsageFile(tmp_path)
    days = [TODAY - timedelta(days=back) for back in (3, 2, 1, 0)]
    file.add([((day.isoformat(), "m", "c", "k"), ONE) for day in days])
    assert [row[0][0] for row in file.read(days[1], days[2], ["day"])] == [day.isoformat() for day in days[1:3]]
    assert file.read(days[0], days[3], []) == [((), Usage(4, 0, 40, 12, 20, 2.0))]
    assert file.read(TODAY + timedelta(days=1), TODAY + timedelta(days=2), []) == []


def test_days_that_are_too_old_go(tmp_path: Path) -> None:
    file = UsageFile(tmp_path)
    old, oldest = (TODAY - timedelta(days=back) for back in (DAYS, DAYS - 1))
    file.add([((day.isoformat(), "m", "c", "k"), ONE) for day in (old, oldest, TODAY)])
    assert [row[0][0] for row in file.read(old, TODAY, ["day"])] == [oldest.isoformat(), TODAY.isoformat()]


@pytest.mark.parametrize("content", [b"no database" * 500, b"SQLite format 3\0" + b"\xff" * 5000], ids=["text", "torn"])
def test_a_broken_file_is_put_aside_and_a_new_one_begun(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    file = UsageFile(tmp_path)
    file.add([((TODAY.isoformat(), "m", "c", "k"), ONE)])
    assert file.read(TODAY, TODAY, []) == [((), ONE)]
    (aside,) = tmp_path.glob("usage-broken-*.sqlite3")
    assert aside.read_bytes() == content


def test_a_file_with_another_table_is_put_aside(tmp_path: Path) -> None:
    for statement in ("PRAGMA user_version = 7", "CREATE TABLE usage (day TEXT)"):
        (tmp_path / NAME).unlink(missing_ok=True)
        with closing(sqlite3.connect(tmp_path / NAME)) as connection:
            connection.execute(statement)
        UsageFile(tmp_path).add([((TODAY.isoformat(), "m", "c", "k"), ONE)])
        assert UsageFile(tmp_path).read(TODAY, TODAY, []) == [((), ONE)]


def test_many_writers_lose_nothing_and_break_nothing(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"broken" * 1000)  # all of them find it so

    def write() -> None:
        for _ in range(10):
            UsageFile(tmp_path).add([((TODAY.isoformat(), "m", "c", "k"), ONE)])

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    ((_, usage),) = UsageFile(tmp_path).read(TODAY, TODAY, [])
    assert usage.requests == 40
    assert len(list(tmp_path.glob("usage-broken-*.sqlite3"))) == 1


def test_what_cannot_be_written_waits(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()  # no file can be there

    async def count() -> None:
        ledger = UsageLedger(tmp_path, enabled=True)
        ledger.count("m", "c", "k", ONE)
        with pytest.raises(OSError):
            await ledger.read(TODAY, TODAY, [])
        (tmp_path / NAME).rmdir()
        ledger.count("m", "c", "k", ONE)
        assert await ledger.read(TODAY, TODAY, []) == [((), Usage(2, 0, 20, 6, 10, 1.0))]

    run(count())


def test_clients_that_name_themselves_anew_each_time_share_a_row(tmp_path: Path) -> None:
    names: list[str] = []

    async def count() -> None:
        ledger = UsageLedger(tmp_path, enabled=True)
        for number in range(200):
            ledger.count("m", f"c{number}", "", ONE)
        rows = await ledger.read(TODAY, TODAY, ["client"])
        assert sum(usage.requests for _, usage in rows) == 200
        names.extend(name for (name,), _ in rows)

    run(count())
    assert len(names) == 65 and OTHERS in names


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ("claude-cli/2.0.1 (external, cli)", "claude-cli"),
        ("OpenAI/Python 2.1.0", "OpenAI"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36", "browser"),
        ("curl/8.5.0", "curl"),
        ("", "unknown"),
        ("(a comment)", "unknown"),
        ("\x1b[31mred", "unknown"),
        ("a" * 200, "a" * 40),
    ],
)
def test_a_client_is_named_by_its_product(agent: str, name: str) -> None:
    assert client_name(agent) == name


LONG = "sk-0123456789"


@pytest.mark.parametrize(
    ("setting", "right", "wrong", "name"),
    [
        (LONG, [LONG], ["0123456789"], ""),
        (f"laptop:{LONG}", [LONG, f"laptop:{LONG}"], ["laptop", "laptop:"], "laptop"),
        ("user:secret", ["user:secret"], ["secret", "user"], ""),  # what would be left is too short for a key
        (f"a b:{LONG}", [f"a b:{LONG}"], [LONG], ""),
        (f":{LONG}", [f":{LONG}"], [LONG], ""),
        ("one:two:three:four", ["two:three:four", "one:two:three:four"], ["three:four"], "one"),
    ],
)
def test_a_key_may_have_a_name_and_a_colon_is_no_harm(
    setting: str, right: list[str], wrong: list[str], name: str
) -> None:
    access = Access(Settings(api_key=(setting,)))
    for key in right:
        headers = {"authorization": f"Bearer {key}"}
        access.check("GET", "/v1/models", headers)
        assert access.key_name(headers) == access.key_name({"x-api-key": key}) == name
    for key in wrong:
        with pytest.raises(Unauthorized):
            access.check("GET", "/v1/models", {"authorization": f"Bearer {key}"})
        assert access.key_name({"authorization": f"Bearer {key}"}) == ""


def test_the_command_shows_tables_bars_and_json(tmp_path: Path) -> None:
    yesterday = TODAY - timedelta(days=1)
    rows = [(day.isoformat(), model, "curl", "") for day in (yesterday, TODAY) for model in ("one", "two")]
    UsageFile(tmp_path).add([(row, ONE) for row in rows])

    def shown(*words: str) -> str:
        result = CliRunner().invoke(stats, ["--data-dir", str(tmp_path), *words])
        assert result.exit_code == 0, result.output
        return result.output

    assert str(yesterday) in shown() and "total" in shown()
    assert [line.split()[0] for line in shown("--by", "model").splitlines()] == ["model", "one", "two", "total"]
    bars = shown("--chart", "--days", "7").splitlines()
    assert len(bars) == 8 and "█" in bars[-1] and "█" not in bars[1]
    assert json.loads(shown("--json", "--by", "client"))["total"]["requests"] == 4
    assert set(json.loads(shown("--json", *(f"--by={name}" for name in GROUPS)))["data"][0]) > set(GROUPS)
    empty = CliRunner().invoke(stats, ["--data-dir", str(tmp_path / "none")])
    assert (empty.exit_code, empty.output) == (0, "Nothing was used in the last 30 days.\n")
