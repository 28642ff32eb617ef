"""What is checked of an architecture, over HTTP, against mlx-lm alone on the same tokens."""

import itertools
import json
import random
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.families.processes import Client, Reference, Wrong, server

TOLERANCE = 0.002  # of log-probabilities
LONG = 300  # beyond every window and chunk of the tiny models
ENDS = {0, 2}  # generation_config.json of the demo model
FLAGS = ("--prompt-lookup", "4", "--stop-repetition", "off")
SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["tile", "wall"]}, "laid": {"type": "boolean"}},
    "required": ["kind", "laid"],
    "additionalProperties": False,
}


class Subject:
    """A family under test: its server, and mlx-lm alone."""

    def __init__(self, name: str, client: Client, reference: Reference) -> None:
        self.client = client
        self.reference = reference
        self._random = random.Random(name)
        self.long = self.prompt(LONG)
        self.conversation = self.long

    def prompt(self, length: int) -> list[int]:
        """Token ids that were never asked before."""
        return [self._random.randrange(300, 2300) for _ in range(length)]

    def complete(self, ids: Sequence[int], count: int = 16, **more: Any) -> dict[str, Any]:
        """Answer a prompt, and compare the answer."""
        reply = self.client.ask("/completion", prompt=list(ids), **_greedy(count), **more)
        self.compare(ids, _probabilities(reply), count)
        return dict(reply)

    def together(self, prompts: Iterable[Sequence[int]], count: int = 8) -> None:
        """Answer prompts that come in one request, and compare each answer."""
        prompts = list(prompts)
        replies = self.client.ask("/completion", prompt=[list(ids) for ids in prompts], **_greedy(count))
        for ids, reply in zip(prompts, replies, strict=True):
            self.compare(ids, _probabilities(reply), count)

    def compare(self, ids: Sequence[int], answer: Sequence[tuple[int, float]], count: int) -> None:
        """Compare tokens and log-probabilities with mlx-lm's, and where they differ with one forward pass."""
        tokens = [token for token, _ in answer]
        expected, logprobs = self.reference.greedy(ids, count)
        if tokens == expected[: len(tokens)] and _near((logprob for _, logprob in answer), logprobs):
            if len(tokens) == count or {*tokens[-1:], expected[len(tokens)]} & ENDS:
                return
            raise Wrong(f"{len(tokens)} tokens of {count}")
        scores = self.reference.scores(ids, tokens)
        for index, ((token, ours), (theirs, best)) in enumerate(zip(answer, scores, strict=True)):
            if abs(ours - theirs) > TOLERANCE or best - theirs > TOLERANCE:
                values = f"at {ours:.4f}, in one pass {theirs:.4f}, best {best:.4f}"
                raise Wrong(f"prompt of {len(ids)}, token {index} is {token} {values}")


def _greedy(count: int) -> dict[str, Any]:
    return {"n_predict": count, "temperature": 0, "n_probs": 1}


def _probabilities(reply: Any) -> list[tuple[int, float]]:
    return [(token["id"], token["logprob"]) for token in reply.get("completion_probabilities") or ()]


def _tokens(reply: Any) -> list[int]:
    return [token for token, _ in _probabilities(reply)]


def _near(ours: Iterable[float], theirs: Iterable[float]) -> bool:
    return all(abs(one - other) <= TOLERANCE for one, other in zip(ours, theirs, strict=False))


def alone(subject: Subject) -> None:
    for length in (1, 9, 70, LONG - 40):
        subject.complete(subject.prompt(length))


def short_prompts(subject: Subject) -> None:
    """Short ones are computed in one call."""
    subject.together(map(subject.prompt, (5, 19, 33, 8, 60, 12)))


def mixed_prompts(subject: Subject) -> None:
    subject.together(map(subject.prompt, (3, 150, 17, LONG, 64, 65)))


def windows(subject: Subject) -> None:
    """Rows that leave a window behind while they are decoded, and some that began behind it."""
    subject.together(map(subject.prompt, (4, 24, 56, LONG + 30)), count=33)


def joining(subject: Subject) -> None:
    """Rows join one that is being answered, and leave at different times."""
    first = subject.prompt(30)
    stream = subject.client.stream("/completion", prompt=first, **_greedy(30))
    answer = _probabilities(next(stream))
    others = [(subject.prompt(length), count) for length, count in ((3, 4), (80, 20), (25, 9), (LONG, 6), (11, 30))]
    with ThreadPoolExecutor(len(others)) as pool:
        answers = [pool.submit(subject.complete, *other) for other in others]
        answer += itertools.chain.from_iterable(map(_probabilities, stream))
        for each in answers:
            each.result()
    subject.compare(first, answer, 30)


def siblings(subject: Subject) -> None:
    """Several answers to one prompt."""
    for ids in (subject.prompt(20), subject.prompt(130)):
        reply = subject.client.ask("/v1/completions", prompt=ids, n=3, max_tokens=12, temperature=0, logprobs=1)
        for choice in reply["choices"]:
            logprobs = choice["logprobs"]
            answer = [(token["id"], token["logprob"]) for token in logprobs["content"]]
            subject.compare(ids, answer, 12)


def second_turn(subject: Subject) -> str:
    """A turn on top of an answer; says how much of it was cached."""
    first = subject.complete(subject.long)
    ids = [*subject.long, *_tokens(first), *subject.prompt(9)]
    second = subject.complete(ids)
    subject.conversation = [*ids, *_tokens(second)]
    return _cached(second)


def branch(subject: Subject) -> str:
    """Another continuation of a prompt's beginning; says how much of it was cached."""
    subject.complete(subject.long)
    return _cached(subject.complete([*subject.long[: LONG * 2 // 3], *subject.prompt(40)]))


def chat(subject: Subject) -> str:
    """Two turns of a chat; says how much of the second was cached."""
    messages = [{"role": "user", "content": "Which tiles are blue? " * 9}]
    _chat(subject, messages)
    messages += [{"role": "assistant", "content": "Those near the river."}, {"role": "user", "content": "And red?"}]
    return _chat(subject, messages)


def _chat(subject: Subject, messages: list[dict[str, str]]) -> str:
    prompt = subject.client.ask("/apply-template", messages=messages)["prompt"]
    ids = subject.client.ask("/tokenize", content=prompt)["tokens"]
    body = {"messages": messages, "max_tokens": 12, "temperature": 0, "logprobs": True}
    reply = subject.client.ask("/v1/chat/completions", **body)
    content = reply["choices"][0]["logprobs"]["content"]
    subject.compare(ids, [(token["id"], token["logprob"]) for token in content], 12)
    return _cached(reply)


def _cached(reply: dict[str, Any]) -> str:
    timings = reply["timings"]
    return f"{timings['cache_n']}/{timings['cache_n'] + timings['prompt_n']}"


def json_schema(subject: Subject) -> None:
    ids = subject.prompt(40)
    reply = subject.client.ask("/completion", prompt=ids, json_schema=SCHEMA, **_greedy(120))
    answer = _probabilities(reply)
    scores = subject.reference.scores(ids, [token for token, _ in answer])
    if not _near((ours for _, ours in answer), (theirs for theirs, _ in scores)):
        raise Wrong("log-probabilities under the schema differ")
    try:
        value = json.loads(reply["content"])
    except ValueError:
        raise Wrong(f"no JSON: {reply['content'][:80]!r}") from None
    if set(value) != {"kind", "laid"}:
        raise Wrong(f"not of the schema: {value}")


def stop(subject: Subject) -> None:
    """An answer ends before a stop string."""
    ids = subject.prompt(30)
    whole = subject.complete(ids, 24)["content"]
    words = re.findall(r"[^\W\d_]{2,}", whole[len(whole) // 4 :])
    if not words:
        return
    reply = subject.client.ask("/completion", prompt=ids, stop=[words[0]], **_greedy(24))
    expected = whole[: whole.index(words[0])]
    if (reply["content"], reply["stopping_word"]) != (expected, words[0]):
        raise Wrong(f"stopped at {words[0]!r} with {reply['content']!r}, not {expected!r}")


def cancel(subject: Subject) -> None:
    """Others are answered beside one whose client goes away, and after it."""
    stream = subject.client.stream("/completion", prompt=subject.prompt(50), **_greedy(4000))
    next(stream)
    others = [subject.prompt(length) for length in (20, 45)]
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(subject.complete, ids, 12) for ids in others]
        stream.close()
        for answer in answers:
            answer.result()
    subject.complete(others[0][:10])


def prompt_lookup(subject: Subject) -> str:
    """Drafts from the prompt change nothing; says how many were accepted."""
    first = subject.prompt(12)
    for _ in range(3):  # what it said before is what it may say again
        first += subject.reference.greedy(first, 12)[0] + first[:4]
    accepted = 0
    for ids in (first, subject.prompt(6) * 9):
        stream = subject.client.stream("/completion", prompt=ids, n_predict=24, temperature=0)
        events = list(stream)
        tokens = [token for event in events for token in event["tokens"]]
        accepted += events[-1]["timings"].get("draft_n_accepted", 0)
        expected, _ = subject.reference.greedy(ids, 24)
        if tokens != expected[: len(tokens)]:
            scores = subject.reference.scores(ids, tokens)
            worst = max(best - theirs for theirs, best in scores)
            if worst > TOLERANCE:
                raise Wrong(f"drafts change an answer by {worst:.4f}")
    return str(accepted)


def embeddings(subject: Subject) -> str | None:
    """An embedding is the same alone and among others; or there is none."""
    if "no_embeddings" in subject.client.post("/v1/embeddings", json={"input": subject.prompt(5)}).text:
        return "none"
    prompts = [subject.prompt(length) for length in (5, 40, 90)]
    together = subject.client.ask("/v1/embeddings", input=prompts)["data"]
    for ids, one in zip(prompts, together, strict=True):
        alone = subject.client.ask("/v1/embeddings", input=ids)["data"][0]["embedding"]
        worst = max(abs(a - b) for a, b in zip(alone, one["embedding"], strict=True))
        if worst > TOLERANCE:
            raise Wrong(f"an embedding of {len(ids)} tokens differs by {worst:.4f}")
    return None


def disk(subject: Subject) -> str:
    """After a restart; says how much was cached."""
    return _cached(subject.complete([*subject.conversation, *subject.prompt(9)]))


CHECKS: tuple[Callable[[Subject], str | None], ...] = (
    alone,
    short_prompts,
    mixed_prompts,
    windows,
    joining,
    siblings,
    second_turn,
    branch,
    chat,
    json_schema,
    stop,
    cancel,
    prompt_lookup,
    embeddings,
)


def check(name: str, home: Path) -> dict[str, str]:
    """Check an architecture. Returns for each check what there is to say of it; what begins with WRONG is wrong."""
    from tests.engine.architectures import build

    folder = home / name
    reference = Reference(partial(build, name, folder), home / "reference.log")
    results: dict[str, str] = {}
    flags = ("--model", str(folder), "--data-dir", str(home / "data"), *FLAGS)
    try:
        reference.built()
        with server(home, *flags) as client:
            results["batch"] = _batching(client)
            subject = Subject(name, client, reference)
            for each in CHECKS:
                results[each.__name__] = _outcome(each, subject)
        with server(home, *flags) as client:
            subject.client = client
            results["disk"] = _outcome(disk, subject)
    except (Wrong, pytest.fail.Exception) as error:
        results["load"] = f"WRONG {error}"
    finally:
        reference.close()
    return results


def _outcome(each: Callable[[Subject], str | None], subject: Subject) -> str:
    try:
        return each(subject) or "ok"
    except Wrong as error:
        return f"WRONG {error}"


def _batching(client: Client) -> str:
    """Say what the server computes together: answers and short prompts, answers alone, or nothing."""
    batching = client.get("/props").json().get("tiles", {}).get("batching", {})
    if not batching.get("decoding", True):
        return f"own batches: {batching['reason']}"
    return "joined" if batching.get("prefill", True) else f"prompts one by one: {batching['reason']}"
