"""A loaded model: what it makes of requests, for its scheduler and for whoever asks for tokens."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from app.services.engine.answer_format import AnswerFormat
from app.services.engine.cache import slot_file
from app.services.engine.cache.conversation_owners import ConversationOwners
from app.services.engine.cache.layers import Layers
from app.services.engine.model.adapters import Adapters
from app.services.engine.model.prefix_tokenizer import PrefixTokenizer
from app.services.engine.model.prompt_history import PromptHistory
from app.services.engine.output.detokenizer import DetokenizerFactory
from app.services.engine.output.stop_strings import StopStrings
from app.services.engine.prompt import NO_ENCODED, Images, Prompt, PromptBuilder
from app.services.engine.sampling.dry_breakers import BreakerFinder
from app.services.engine.sampling.grammar import GrammarCompiler
from app.services.engine.sampling.params import SamplingParams, resolve_sampling
from app.services.engine.scheduler.continuations import TokenizedContinuations, without_template
from app.services.engine.scheduler.embedding import CausalGroup, Embedding
from app.services.engine.scheduler.handle import check_input_tokens
from app.services.engine.scheduler.prompt_logprobs import PromptScorer
from app.services.engine.scheduler.row import Row
from app.services.engine.scheduler.running_generation import RunningGeneration
from app.services.engine.scheduler.running_request import RunningEmbedding, RunningRequest, RunningScoring
from app.services.engine.scheduler.scheduler import Scheduler
from app.services.engine.scheduler.scoring import Scoring
from app.services.engine.speculative.draft_model import DraftModel, DraftModelProposer
from app.services.engine.speculative.prompt_lookup import CopyProposer, PromptLookupProposer
from app.services.engine.speculative.proposer import ChainedProposer, Proposer
from app.services.errors import (
    AppError,
    InvalidRequest,
    PromptTooLong,
    UnprocessableBody,
)
from app.services.facts import AnswerSettings, ModelFacts
from app.services.generation import (
    Continuations,
    EmbeddingRequest,
    GenerationRequest,
    Message,
)

if TYPE_CHECKING:  # it imports Pillow, which only models that see need
    from app.services.engine.vision.vision import Vision
    from app.services.image_urls import ImageFetcher

log = structlog.get_logger()

_MAX_GRAMMAR = 2**18  # characters; what is longer takes seconds to compile
_NEVER = -1e9  # added to a logit, so that its token is never drawn


class LoadedModel:
    """Checks and tokenizes requests, on the thread of prompts, and makes rows of them, on the engine thread.

    The arrays stay inside its scheduler.
    """

    def __init__(
        self,
        facts: ModelFacts,
        prompts: PromptBuilder,
        scheduler: Scheduler,
        answer_format: AnswerFormat,
        detokenizer: DetokenizerFactory,
        grammars: GrammarCompiler,
        adapters: Adapters,
        conversation_owners: ConversationOwners,
        history: PromptHistory,
        fingerprint: str,  # of what KV caches depend on
        *,
        stop_repetition: bool,
        max_lookup_tokens: int | None = 0,
        draft: DraftModel | None = None,
        vision: "Vision | None" = None,
        image_fetcher: "ImageFetcher | None" = None,
    ) -> None:
        self.facts = facts
        self.prompts = prompts
        self.scheduler = scheduler
        self.grammars = grammars
        self.adapters = adapters
        self._conversation_owners = conversation_owners
        self._fingerprint = fingerprint
        self._stop_repetition = stop_repetition
        self._proposer = partial(_proposer, max_lookup_tokens, draft)
        self.vision = vision  # None for a model that reads text only
        self.image_fetcher = image_fetcher  # None where URLs of images are refused
        self._format = answer_format
        self._detokenizer = detokenizer
        self._history = history
        self._xtc_protected = facts.end_tokens | frozenset(prompts.tokenize("\n"))
        self._breakers = BreakerFinder(prompts.piece, prompts.tokenize, facts.vocabulary)

    def prepare(self, request: GenerationRequest, images: Images = NO_ENCODED) -> Prompt:
        """Check what depends on the model and build the prompt. Raises InvalidRequest or PromptTooLong."""
        self.facts.check_tokens(request.prompt_parts, "prompt")
        if request.answers > self.facts.max_rows:
            raise InvalidRequest(f"no more than {self.facts.max_rows} answers fit into the batch", param="n")
        self.adapters.scales(request.lora)
        if request.constraint and len(request.constraint.text) > _MAX_GRAMMAR:
            param = request.constraint.param
            raise UnprocessableBody(f"{param} has more than {_MAX_GRAMMAR} characters", param=param)
        if images and request.prompt_logprobs is not None:
            raise InvalidRequest("prompt_logprobs: a prompt with images has none", param="prompt_logprobs")
        prompt = self.prompts.build(request, images)  # first: for one that does not fit nothing else is computed
        bias = self._logit_bias(request)
        matcher, header = self._format.matchers(prompt, request)
        calls = self._format.calls(request)
        stop_strings = StopStrings(request.stop) if request.stop else None
        self.scheduler.admission.check(len(prompt.tokens), request.answers, prompt.images)
        breakers = self._breakers.find(request.sampling.dry_breakers if request.sampling.uses_dry else ())
        return replace(
            prompt,
            matcher=matcher,
            header=header,
            calls=calls,
            stop_strings=stop_strings,
            logit_bias=bias,
            breakers=breakers,
        )

    def make_embedding(
        self, request: EmbeddingRequest, inputs: Sequence[list[int]], running: RunningEmbedding
    ) -> Embedding:
        """Make what computes the vectors of texts from their tokens."""
        make_group = partial(CausalGroup, inputs, request.pooling or self.facts.sentence.pooling)
        lengths = [len(tokens) for tokens in inputs]
        return Embedding(running, self.facts.id, lengths, make_group, dimensions=request.dimensions)

    def check_embedding(self, request: EmbeddingRequest) -> None:
        """Raise AppError for what can be refused before all texts are tokenized."""
        self.facts.check_embedding(request)
        check_input_tokens(self.prompts.min_tokens([part for parts in request.inputs for part in parts]))

    def tokenize_inputs(self, request: EmbeddingRequest, start: int, end: int) -> list[list[int]]:
        """Check and tokenize some texts that become vectors. Raises InvalidRequest or PromptTooLong."""
        prompt = self.facts.sentence.prompt(request.prompt_name)
        inputs = [(prompt, *parts) if prompt else parts for parts in request.inputs[start:end]]
        return [self._tokenize_input(parts, truncate=request.truncate) for parts in inputs]

    def _tokenize_input(self, parts: tuple[str | int, ...], *, truncate: bool) -> list[int]:
        self.facts.check_tokens(parts, "input")
        return self.prompts.tokenize_input(parts, truncate=truncate)

    def tokenize_prompts(
        self, prompts: Iterable[Continuations], images: Images = NO_ENCODED
    ) -> Iterator[TokenizedContinuations]:
        """Check and tokenize prompts with the texts behind them. Raises InvalidRequest or PromptTooLong.

        What a prompt begins with as the one before it is tokenized once.
        """
        tokenizers = [self.prompts.prefix_tokenizer(special=special) for special in (False, True)]
        for each in prompts:
            is_plain = not self.facts.chat_template and each.prompt.prompt is None
            continuations = without_template(each) if is_plain else each
            try:
                yield self._tokenize_prompt(continuations, images, tokenizers[continuations.prompt.prompt is not None])
            except PromptTooLong as error:
                raise error.naming(each.param) if each.param else error from None

    def _tokenize_prompt(
        self, continuations: Continuations, images: Images, tokenizer: PrefixTokenizer
    ) -> TokenizedContinuations:
        request = continuations.prompt
        self.facts.check_tokens(request.prompt_parts, "prompt")
        prompt = self.prompts.build(request, images, tokenizer)
        if prompt.thinking:
            closing = self._format.think_closes(request)[0]
            text = prompt.text + self.prompts.detokenize(closing)
            prompt = replace(prompt, text=text, tokens=[*prompt.tokens, *closing])
        tokenized = self.prompts.continuations(prompt, continuations.texts, tokenizer)
        if not all(tokenized.texts):
            raise InvalidRequest("A text to be scored adds no token to its prompt")
        if continuations.whole and self.facts.end_tokens:
            tokenized = tokenized.with_end(self._format.end_token)
        self.scheduler.admission.check(tokenized.longest, 1, tokenized.images)
        return tokenized

    def make_scoring(self, prompts: Sequence[TokenizedContinuations], running: RunningScoring) -> Row:
        """Make the row that scores texts behind prompts."""
        facts, images = self.facts, prompts[0].images
        scoring = Scoring(prompts, facts.id, vocabulary=facts.vocabulary, together=facts.batching.decoding is None)
        assert images.end <= len(scoring.root)  # all have the same, before what they differ in
        prompt = Prompt("", scoring.root, thinking=False, images=images)
        row = self.make_row(prompt, GenerationRequest(max_tokens=0), running)
        row.scoring = scoring
        return row

    def check_length(self, parts: Sequence[str | int], param: str) -> None:
        """Raise AppError for more text than is tokenized for one request."""
        self.prompts.check_length(parts, param)

    def detokenize(self, tokens: list[int]) -> str:
        """Give the text of token ids, control tokens too. Raises InvalidRequest for ids that do not exist."""
        self.facts.check_tokens(tokens, "tokens")
        return self.prompts.detokenize(tokens)

    def tokenize(self, content: tuple[str | int, ...], *, special: bool) -> list[tuple[int, bytes]]:
        """Give the token ids of text and ids, each with its bytes. Raises InvalidRequest for ids that do not exist."""
        self.facts.check_tokens(content, "content")
        return [(token, self.prompts.piece(token)) for token in self.prompts.tokenize_parts(content, special=special)]

    def make_rows(
        self, prompt: Prompt, request: GenerationRequest, generations: Sequence[RunningGeneration | None]
    ) -> Row:
        """Make the row of a request's first answer, with those of the others as its siblings."""
        first, *siblings = (self.make_row(prompt, request, one, index) for index, one in enumerate(generations))
        first.siblings = siblings
        answers = [row.answer for row in (first, *siblings)]
        self.prompts.remember(prompt, answers)
        caller = generations[0].caller.who if generations[0] else ()
        first.prefill.change = self._history.add(caller, prompt.tokens, prompt.outline, answers)
        first.prefill.other_model = self._conversation_owners.claim(prompt.conversation_key, self.facts.id)
        return first

    def make_row(
        self, prompt: Prompt, request: GenerationRequest, generation: RunningRequest | None, index: int = 0
    ) -> Row:
        """Make the row of one answer to a prepared request; `index` counts the answers to it."""
        context_left = self.facts.context.tokens - len(prompt.tokens)
        max_tokens = context_left if request.max_tokens is None else min(request.max_tokens, context_left)
        endless = request.ignore_eos and prompt.matcher is None  # a grammar ends where nothing else may come
        end_tokens = frozenset() if endless else self.facts.end_tokens
        # JSON may well repeat itself, but not up to the end of the context
        ends_loops = not endless and (request.constraint is None or request.max_tokens is None)
        sampling = request.sampling.over(self.facts.defaults)
        params = resolve_sampling(
            sampling,
            index=index,
            logit_bias=prompt.logit_bias,
            xtc_protected=self._xtc_protected,
            breakers=prompt.breakers,
            context_length=self.facts.context.tokens,
            post_sampling=request.post_sampling,
        )
        scales = self.adapters.scales(request.lora)
        detokenizer = self._detokenizer(continues=_continues(prompt, request))
        row = Row(
            generation=generation,
            prompt=prompt.tokens,
            max_tokens=max_tokens,
            context_left=context_left,
            params=params,
            parser=self._format.parser(prompt, request),
            detokenizer=detokenizer,
            end_tokens=end_tokens,
            constraint=self._format.constraint(prompt, request),
            logprobs=request.logprobs,
            thinking_budget=self._format.thinking_budget(request, max_tokens),
            think_token=self._format.think_token(request),
            think_closes=self._format.think_closes(request),
            scales=scales,
            slot=request.slot,
            settings=AnswerSettings(
                sampling=replace(sampling, seed=params.seed, penalty_window=params.penalty_window, logit_bias={}),
                ignore_eos=request.ignore_eos,
                scales=scales,
                logprobs=request.logprobs,
                post_sampling=request.post_sampling,
                delivery=request.delivery,
            ),
            proposer=self._proposer(prompt, params, end_tokens),
            stop_repetition=self._stop_repetition and ends_loops and max_tokens > 256,
            images=prompt.images,
        )
        if (width := request.prompt_logprobs) is not None:
            row.prompt_scorer = PromptScorer(prompt.tokens, width, detokenizer, self.facts.vocabulary)
        return row

    def write_slot(self, path: Path, tokens: Any, layers: Layers) -> int:
        """Write the layers of tokens (length,) to a file. Returns the bytes. Raises ServerError."""
        return slot_file.write(path, self._fingerprint, tokens, layers)

    def read_slot(self, path: Path) -> tuple[list[int], Layers, int]:
        """Read tokens, their layers, and the bytes of a file. Raises InvalidRequest for one of another model."""
        return slot_file.read(path, self._fingerprint)

    def _logit_bias(self, request: GenerationRequest) -> dict[int, float]:
        """The request's bias by token. With ignore_eos no end token is drawn, without calls none that begins one."""
        ends = self.facts.end_tokens if request.ignore_eos else ()
        texts = [key for key in request.sampling.logit_bias if isinstance(key, str)]
        self.prompts.check_length(texts, "logit_bias")
        bias = {token: _NEVER for token in ends if token < self.facts.vocabulary}
        bias |= {
            token: value
            for key, value in request.sampling.logit_bias.items()
            for token in (self.prompts.tokenize(key) if isinstance(key, str) else (key,))
        }
        self.facts.check_tokens(list(bias), "logit_bias")
        if request.tools and request.tool_choice.mode == "none" and self._format.call_token is not None:
            bias[self._format.call_token] = _NEVER
        return bias | dict.fromkeys(self.facts.suppressed_tokens, _NEVER)

    def warm_up(self) -> None:
        """Compute two short answers, so that the first request waits for no compilation."""
        request = GenerationRequest(messages=(Message("user", "Hello"),), max_tokens=3)
        try:
            prompt = self.prepare(request)
        except AppError:
            prompt = Prompt("", [0, 0], thinking=False)
        self.scheduler.warm_up([self.make_row(prompt, request, None) for _ in range(min(2, self.facts.max_rows))])


def _continues(prompt: Prompt, request: GenerationRequest) -> bool:
    """Whether an answer continues a text, so that the space that it begins with belongs to it.

    That of an answer under a grammar does too: the grammar allows it, or it does not come.
    """
    if prompt.matcher is not None and request.constraint is not None:
        return True
    if request.prompt is not None:
        return any(part != "" for part in request.prompt)
    last = request.messages[-1] if request.continue_final_message and request.messages else None
    return last is not None and bool(last.content or last.reasoning)


def _proposer(
    max_lookup_tokens: int | None,
    draft: DraftModel | None,
    prompt: Prompt,
    params: SamplingParams,
    end_tokens: frozenset[int],
) -> Proposer | None:
    """Give what proposes draft tokens for a row: prompt lookup costs nothing, so it comes before a draft model.

    DRY needs all tokens before each draw, and a draft model sees no images.
    """
    if params.dry is not None:
        return None
    proposers: list[Proposer] = []
    if max_lookup_tokens is None:
        proposers.append(CopyProposer(prompt.images.keyed(prompt.tokens)))
    elif max_lookup_tokens:
        proposers.append(PromptLookupProposer(max_lookup_tokens))
    if draft is not None and not prompt.images:
        proposers.append(DraftModelProposer(draft, params, len(prompt.tokens), end_tokens))
    return ChainedProposer(proposers) if proposers else None
