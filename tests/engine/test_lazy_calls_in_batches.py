"""Calls that begin in the midst of answers, in a real batch: a grammar binds them at once, and nothing else."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from app.services import catalog
from app.services.engine.assembly import assemble
from app.services.engine.cache.conversation_owners import ConversationOwners
from app.services.engine.limits import EngineLimits
from app.services.engine.loaded_model import LoadedModel
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.model.model_files import open_folder
from app.services.engine.sampling.matcher import Matcher
from app.services.engine.scheduler.row import Row
from app.services.engine.scheduler.running_generation import Outbox
from app.services.generation import Completion, GenerationRequest, Message, Sampling, ToolChoice
from tests.tools import CHAT_TOOLS, NAMES, SCHEMA

HELLO = (Message("user", "Hello"),)
SILENT = {"enable_thinking": False}


@pytest.fixture(scope="module")
def make_loaded(tiny: Any, model_and_tokenizer: tuple[Any, Any]) -> Callable[..., LoadedModel]:
    def make(**limits: Any) -> LoadedModel:
        files = open_folder(catalog.inspect(tiny, "tiny"))
        return assemble(
            files,
            LanguageModel(model_and_tokenizer[0]),
            model_and_tokenizer[1],
            limits=EngineLimits(cache_bytes=2**26, stop_repetition=False, **limits),
            outbox=Outbox(),
            conversation_owners=ConversationOwners(),
        )

    return make


@pytest.fixture(scope="module")
def loaded(make_loaded: Callable[..., LoadedModel]) -> LoadedModel:
    return make_loaded()


class Answer:
    """A row with what it gave; `forced` are texts by the position of their first token."""

    def __init__(self, loaded: LoadedModel, request: GenerationRequest, forced: dict[int, str]) -> None:
        self.row: Row = loaded.make_row(loaded.prepare(request), request, None)
        self.completion = Completion()
        self.forced = 0  # tokens that are, and all of them at the beginning
        take, finish = self.row.take, self.row.finish
        self.row.take = lambda token, logprobs=None: self.note(take(token, logprobs))  # type: ignore[method-assign]
        self.row.finish = lambda cause: self.note(finish(cause))  # type: ignore[method-assign]
        for position, text in forced.items():
            tokens = loaded.prompts.tokenize(text)
            self.row.forced_tokens |= {position + index: token for index, token in enumerate(tokens)}

    def note(self, events: list[Any]) -> list[Any]:
        for event in events:
            self.completion.add(event)
        if self.forced and len(self.row.answer) >= self.forced:
            self.row.forced_tokens.clear()  # with which there are no drafts
        return events

    @property
    def calls(self) -> list[tuple[str, Any]]:
        return [(call.name, json.loads(call.arguments)) for call in self.completion.tool_calls]


def run(loaded: LoadedModel, *answers: Answer) -> int:
    """Answer. Returns the steps that it took."""
    for one in answers:
        loaded.scheduler.submit(one.row)
    steps = 0
    while loaded.scheduler.busy:
        loaded.scheduler.step()
        steps += 1
    return steps


def calling(seed: int, *, temperature: float = 1.5, **more: Any) -> GenerationRequest:
    sampling = Sampling(temperature=temperature, top_k=0, top_p=1.0, min_p=0.0, seed=seed)
    options: dict[str, Any] = {"max_tokens": 300, "template_kwargs": SILENT, "ignore_eos": True} | more
    return GenerationRequest(HELLO, sampling=sampling, tools=tuple(CHAT_TOOLS), **options)


def checked(answer: Answer) -> None:
    assert answer.completion.tool_calls
    assert answer.completion.finished is not None
    whole = answer.completion.tool_calls
    if answer.completion.finished.reason == "length":  # the last one may be cut
        whole = whole[:-1]
    for call in whole:
        assert call.name in NAMES
        jsonschema.validate(json.loads(call.arguments), SCHEMA)


@pytest.mark.parametrize("position", [0, 3])
def test_what_a_call_must_say_takes_one_step(
    loaded: LoadedModel, position: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer() -> Answer:
        return Answer(loaded, calling(5, max_tokens=120, logprobs=2), {position: ". <tool_call>"})

    forced, drawn = answer(), answer()
    steps = run(loaded, forced)
    monkeypatch.setattr(Matcher, "forced_tokens", lambda matcher: [])
    assert steps < run(loaded, drawn) - 5
    assert forced.row.answer == drawn.row.answer
    logprobs = [[one.logprob for one in answer.completion.logprobs] for answer in (forced, drawn)]
    assert logprobs[0] == pytest.approx(logprobs[1], abs=0.002)
    checked(forced)


@given(
    seed=st.integers(0, 2**32),
    position=st.integers(0, 20),
    temperature=st.sampled_from([0.0, 0.7, 1.5, 3.0]),
    beside=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), max_size=2),
)
@settings(max_examples=5, deadline=None, phases=[Phase.explicit, Phase.generate])
def test_a_call_is_bound_alike_alone_and_beside_others(
    loaded: LoadedModel, seed: int, position: int, temperature: float, beside: list[tuple[int, int]]
) -> None:
    request = calling(seed, temperature=temperature, max_tokens=60, logprobs=2)
    forced = {position: ". <tool_call>"}
    alone = Answer(loaded, request, forced)
    run(loaded, alone)
    [marker] = loaded.prompts.tokenize("<tool_call>")
    assume(marker not in alone.row.answer[:position])  # else what is put there breaks a call that was drawn
    checked(alone)
    among = Answer(loaded, request, forced)
    others = [
        Answer(loaded, calling(seed + index, max_tokens=length), {start: ". <tool_call>"} if start < 20 else {})
        for index, (start, length) in enumerate(beside)
    ]
    run(loaded, *others, among)
    assert among.row.answer == alone.row.answer
    assert among.completion.text == alone.completion.text
    assert [entry.token for entry in among.completion.logprobs] == [entry.token for entry in alone.completion.logprobs]
    for one, other in zip(among.completion.logprobs, alone.completion.logprobs, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=0.002)


def test_the_answer_before_a_call_is_what_it_is_without(make_loaded: Callable[..., LoadedModel]) -> None:
    loaded = make_loaded()
    for seed in range(2):
        texts = []
        for mode in ("lazy", "off"):
            one = Answer(loaded, calling(seed, tool_call_grammar=mode, max_tokens=40), {25: ". <tool_call>"})
            run(loaded, one)
            texts.append(one.row.answer[:26])
        assert texts[0] == texts[1]
        free = Answer(loaded, calling(seed, max_tokens=40), {})
        off = Answer(loaded, calling(seed, tool_call_grammar="off", max_tokens=40), {})
        run(loaded, free)
        run(loaded, off)
        assert free.row.answer == off.row.answer


class Marks:
    """Proposes a marker over and over; the request's bias has each free token be one."""

    needs_last_token = False

    def __init__(self, token: int) -> None:
        self._token = token

    def is_ready(self, answer: Sequence[int]) -> bool:
        return True

    def propose(self, tokens: Sequence[int], limit: int) -> list[int]:
        return [self._token] * min(4, limit)

    def update(self, draft_tokens: int, accepted_tokens: int) -> None:
        pass


@pytest.mark.parametrize("begun", [0, 1, 5])
def test_a_draft_that_goes_on_beyond_a_marker_is_taken_back(loaded: LoadedModel, begun: int) -> None:
    (mark,) = loaded.prompts.tokenize("<tool_call>")
    request = calling(7, max_tokens=60)
    request = replace(request, sampling=replace(request.sampling, logit_bias={mark: 100.0}))
    drafted, single = (Answer(loaded, request, {}) for _ in range(2))
    for one in (drafted, single):
        one.row.forced_tokens.update(dict.fromkeys(range(begun), loaded.prompts.tokenize("x")[0]))
        one.forced = begun
    drafted.row.proposer = Marks(mark)
    run(loaded, drafted)
    run(loaded, single)
    checked(drafted)
    assert drafted.row.draft_tokens > 0
    assert drafted.row.answer == single.row.answer
    assert len(drafted.row.layer_tokens) == len(single.row.layer_tokens)


def test_several_regions_and_text_between_them(loaded: LoadedModel) -> None:
    one = Answer(loaded, calling(3, max_tokens=150), {2: ". <tool_call>"})
    run(loaded, one)
    checked(one)
    length = next(
        index for index in range(3, 150) if loaded.prompts.detokenize(one.row.answer[:index]).endswith("</tool_call>")
    )
    two = Answer(loaded, calling(3, max_tokens=150), {2: ". <tool_call>", length + 1: ". <tool_call>"})
    run(loaded, two)
    checked(two)
    assert len(two.calls) >= 2
    assert two.calls[0] == one.calls[0]
    single = Answer(loaded, calling(3, tool_choice=ToolChoice(parallel=False)), {2: ". <tool_call>"})
    run(loaded, single)
    assert len(single.calls) == 1
    assert single.completion.finished is not None
    assert single.completion.finished.cause == "tool_call"


def test_a_marker_in_a_thought_binds_nothing(loaded: LoadedModel) -> None:
    request = calling(1, template_kwargs={"enable_thinking": True}, max_tokens=40)
    forced = {3: "<tool_call>", 20: "</think>", 30: ". <tool_call>"}
    thought = Answer(loaded, request, forced)
    free = Answer(loaded, replace(request, tool_call_grammar="off"), forced)
    run(loaded, thought)
    run(loaded, free)
    assert thought.row.answer[:31] == free.row.answer[:31]
    assert "<tool_call>" in thought.completion.reasoning
    assert thought.row.answer != free.row.answer


def test_a_call_goes_on_where_memory_ran_out(loaded: LoadedModel) -> None:
    """Its tokens are computed again, and its grammar goes through them again."""
    request = calling(5, max_tokens=60)
    whole = Answer(loaded, request, {4: ". <tool_call>"})
    run(loaded, whole)
    for steps in (7, 8, 9, 15):
        one = Answer(loaded, request, {4: ". <tool_call>"})
        loaded.scheduler.submit(one.row)
        while len(one.row.answer) < steps:
            loaded.scheduler.step()
        loaded.scheduler._batches.leave([one.row])
        one.row.prefill.drop_layers()
        loaded.scheduler._retry([one.row])
        while loaded.scheduler.busy:
            loaded.scheduler.step()
        assert one.row.answer == whole.row.answer
