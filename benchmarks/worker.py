"""The process behind in_process.py: reads a job a line, runs mlx-lm, writes the replies."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from app.services.engine.model import blas

blas.preload()  # before MLX is imported

from mlx_lm import load, stream_generate  # noqa: E402
from mlx_lm.generate import BatchGenerator  # noqa: E402
from mlx_lm.models.cache import make_prompt_cache, trim_prompt_cache  # noqa: E402

from benchmarks.reply import Message, Reply  # noqa: E402


class Worker:
    """A loaded model. Nothing ends an answer but its length, and no token is banned: mlx-lm at its fastest."""

    def __init__(self, folder: str) -> None:
        self._model, self._tokenizer, *_ = load(folder)
        self._ends = self._tokenizer.eos_token_ids
        self._tokenizer.eos_token_ids = set()
        self._cache: list[Any] = make_prompt_cache(self._model)
        self._known: list[int] = []  # the tokens in the cache

    def chat(self, conversations: list[list[Message]], tokens: int) -> list[Reply]:
        """One answer; the cache of the answer before is used as far as it fits, as a caller of mlx-lm would."""
        sent = time.perf_counter()
        prompt = self._tokens(conversations[0])
        cached = self._reuse(prompt)
        times, answer, text = [], [], ""
        for part in stream_generate(
            self._model, self._tokenizer, prompt[cached:], max_tokens=tokens, prompt_cache=self._cache
        ):
            times.append(time.perf_counter())
            answer.append(part.token)
            text += part.text
        self._known = [*prompt, *answer][: self._cache[0].offset]
        return [Reply(sent, times, time.perf_counter(), len(prompt), cached, len(answer), text)]

    def _reuse(self, prompt: list[int]) -> int:
        """Trim the cache to what it shares with the prompt, whose last token is always computed."""
        pairs = zip(prompt[:-1], self._known, strict=False)
        shared = next((place for place, (new, old) in enumerate(pairs) if new != old), None)
        if shared is None:
            shared = min(len(prompt) - 1, len(self._known))
        trim_prompt_cache(self._cache, self._cache[0].offset - shared)
        return shared

    def chats(self, conversations: list[list[Message]], tokens: int, at_once: int) -> list[Reply]:
        """Many answers in one batch."""
        sent = time.perf_counter()
        prompts = [self._tokens(messages) for messages in conversations]
        batch = BatchGenerator(self._model, max_tokens=tokens, completion_batch_size=at_once)
        times: dict[int, list[float]] = {uid: [] for uid in batch.insert(prompts)}
        waiting = set(times)
        while waiting:
            for part in batch.next_generated():
                times[part.uid].append(time.perf_counter())
                if part.finish_reason:
                    waiting.discard(part.uid)
        batch.close()
        return [
            Reply(sent, moments, moments[-1], len(prompt), 0, len(moments), "")
            for prompt, moments in zip(prompts, times.values(), strict=True)
        ]

    def _tokens(self, messages: list[Message]) -> list[int]:
        tokens: list[int] = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        return tokens


def main() -> None:
    """Serve jobs until the input ends."""
    worker = Worker(sys.argv[1])
    jobs: dict[str, Callable[..., list[Reply]]] = {"chat": worker.chat, "chats": worker.chats}
    for line in sys.stdin:
        question = json.loads(line)
        replies = jobs[question.pop("job")](**question)
        print(json.dumps([asdict(reply) for reply in replies]), flush=True)


if __name__ == "__main__":
    main()
