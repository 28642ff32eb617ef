"""What a loaded model is put together from: its scheduler, prompt builder, grammars and facts."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from app.services import free_memory
from app.services.engine.answer_format import AnswerFormat
from app.services.engine.cache.conversation_owners import ConversationOwners
from app.services.engine.cache.prefix_cache import PrefixCache
from app.services.engine.cache.prefix_store import PrefixStore, fingerprint
from app.services.engine.encoders.encoder_scheduler import EncoderScheduler
from app.services.engine.encoders.loaded_encoder import LoadedEncoder
from app.services.engine.encoders.model import EncoderModel
from app.services.engine.encoders.tokenizer import EncoderTokenizer
from app.services.engine.limits import EngineLimits
from app.services.engine.loaded_model import LoadedModel
from app.services.engine.model import spare_tokens
from app.services.engine.model.adapters import Adapters
from app.services.engine.model.answer_history import AnswerHistory
from app.services.engine.model.batching import check_batching
from app.services.engine.model.blas import preload
from app.services.engine.model.defaults import read_defaults, read_suppressed_tokens
from app.services.engine.model.kv_rounding import check_kv_bits
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.model.loading import back_end, weights
from app.services.engine.model.memory_budget import MemoryBudget
from app.services.engine.model.model_files import ModelFiles
from app.services.engine.model.prompt_history import PromptHistory
from app.services.engine.output.detokenizer import detokenizer_factory, longest_token
from app.services.engine.output.markup import Markup
from app.services.engine.output.template_clues import template_text
from app.services.engine.output.token_bytes import TokenBytes
from app.services.engine.prompt import PromptBuilder
from app.services.engine.sampling.grammar import GrammarCompiler
from app.services.engine.scheduler.meter import Meter
from app.services.engine.scheduler.running_generation import Outbox
from app.services.engine.scheduler.scheduler import Scheduler
from app.services.engine.speculative.draft_model import DraftModel
from app.services.facts import Batching, KVBits, ModelFacts, SentenceFacts
from app.services.generation import LLAMA_SAMPLING, Pooling
from app.services.model_folder import ModelFolder
from app.services.sentence_files import SentenceFiles, read_settings

if TYPE_CHECKING:  # it imports Pillow, which only models that see need
    from app.services.engine.vision.vision import Vision

log = structlog.get_logger()


def assemble(
    files: ModelFiles,
    model: LanguageModel,
    tokenizer: Any,
    draft: DraftModel | None = None,
    vision: Any = None,
    *,
    limits: EngineLimits,
    outbox: Outbox,
    conversation_owners: ConversationOwners,
    meter: Meter | None = None,
    memory_budget: MemoryBudget | None = None,
) -> LoadedModel:
    """Put a model and a tokenizer of mlx-lm's together. On the engine thread."""
    widths = _widths(model.network, tokenizer)
    spare_tokens.leave_out(tokenizer._tokenizer, widths[0], files.model.id)
    adapters = Adapters(limits.adapters)
    adapters.apply_to(model)
    markup = Markup.of(tokenizer)
    facts = replace(_facts(files, widths, tokenizer, limits, markup), sees=vision is not None)
    if (limits.context_length or 0) > facts.context.tokens:
        log.warning("--context-length exceeds the model's own context", model=facts.id, context=facts.context.tokens)
    memory_budget = memory_budget or MemoryBudget(limits.max_memory)
    if vision is not None and meter is not None:
        vision.counts = meter.images
    tokens = min(facts.vocabulary, len(tokenizer))
    batching = check_batching(model, tokens, facts.context.tokens, memory_budget.free())
    _log_batching(facts.id, batching)
    detokenizer = detokenizer_factory(tokenizer, markup.markers())
    answers = AnswerHistory(tokenizer, markup, detokenizer, facts.end_tokens)
    facts = replace(facts, batching=batching)
    facts = replace(facts, kv_bits=_kv_bits(model, facts, limits.kv_bits, vision))
    scheduler = Scheduler(
        model,
        facts.vocabulary,
        max_rows=limits.max_rows,
        prefixes=_prefix_cache(files.identity, facts, limits, answers, vision),
        outbox=outbox,
        meter=meter,
        adapters=adapters,
        memory_budget=memory_budget,
        controls=_control_tokens(tokenizer) - _image_tokens(tokenizer, vision),
        draft=draft,
        batching=batching,
        vision=vision,
        kv_bits=facts.kv_bits,
    )
    prompts = PromptBuilder(tokenizer, markup.think_start, facts.context, longest_token(tokenizer), answers, vision)
    grammars = GrammarCompiler(tokenizer, facts.vocabulary, facts.end_tokens)
    return LoadedModel(
        replace(facts, blas=preload(limits.blas) if back_end() == "cpu" else None),
        prompts,
        scheduler,
        AnswerFormat(markup, facts, prompts, grammars, limits.tool_call_grammar),
        detokenizer,
        grammars,
        adapters,
        conversation_owners,
        PromptHistory(TokenBytes(tokenizer)),
        fingerprint(files.identity, "", _computation(facts)),
        stop_repetition=limits.stop_repetition,
        max_lookup_tokens=limits.max_lookup_tokens,
        draft=draft,
        vision=vision,
        image_fetcher=_image_fetcher(vision, limits),
    )


def assemble_encoder(
    folder: ModelFolder, model: EncoderModel, *, limits: EngineLimits, outbox: Outbox, meter: Meter | None = None
) -> LoadedEncoder:
    """Put an encoder and its tokenizer together. On the engine thread. Raises LoadFailed."""
    context = folder.context.limited_to(limits.context_length)
    tokenizer = EncoderTokenizer(folder.path, context.tokens, model.vocabulary)
    facts = ModelFacts(
        id=folder.id,
        path=folder.path,
        model_type=folder.model_type,
        context=context,
        vocabulary=model.vocabulary,
        hidden_size=model.size,
        parameters=folder.parameters,
        weight_bytes=folder.weight_bytes,
        precision=folder.precision,
        created=folder.created,
        chat_template="",
        bos_token="",
        eos_token="",
        end_tokens=frozenset(),
        defaults=LLAMA_SAMPLING,
        sentence=_sentence(model.sentence, model.size),
        calls_tools=False,
        reasons=False,
        max_rows=limits.max_rows,
        blas=preload(limits.blas) if back_end() == "cpu" else None,
        task=folder.task,
        is_encoder=True,
    )
    return LoadedEncoder(facts, tokenizer, EncoderScheduler(model, outbox, meter), ranks=model.ranks)


def _log_batching(model: str, batching: Batching) -> None:
    """Say what of this model is not computed together, and why."""
    if batching.decoding:
        log.warning("each answer has a batch of its own", model=model, reason=batching.decoding)
    elif batching.prefill:
        log.warning("prompts are computed one by one", model=model, reason=batching.prefill)


def _kv_bits(model: LanguageModel, facts: ModelFacts, kv_bits: KVBits | None, vision: "Vision | None") -> KVBits | None:
    """Give the bits that older tokens are rounded to; None, with a line in the log, where the model cannot do that."""
    if kv_bits is None:
        return None
    together = facts.batching.decoding is None
    reason = "the tokens of its images see each other" if vision and vision.mutual else None
    if reason := reason or check_kv_bits(model, facts.vocabulary, kv_bits, together=together):
        log.warning("--kv-bits is left out", model=facts.id, reason=reason)
        return None
    return kv_bits


def _facts(
    files: ModelFiles, widths: tuple[int, int], tokenizer: Any, limits: EngineLimits, markup: Markup
) -> ModelFacts:
    folder = files.model
    vocabulary, hidden = widths
    return ModelFacts(
        id=folder.id,
        path=folder.path,
        model_type=folder.model_type,
        context=folder.context.limited_to(limits.context_length),
        vocabulary=vocabulary,
        hidden_size=hidden,
        parameters=folder.parameters,
        weight_bytes=folder.weight_bytes,
        precision=folder.precision,
        warnings=tuple(_warnings(files)),
        created=folder.created,
        chat_template=template_text(tokenizer),
        bos_token=tokenizer.bos_token or "",
        eos_token=tokenizer.eos_token or "",
        end_tokens=markup.end_tokens(tokenizer),
        defaults=read_defaults(files.folder),
        sentence=_sentence(read_settings(files.folder), hidden),
        task=folder.task,
        suppressed_tokens=frozenset(token for token in read_suppressed_tokens(files.folder) if 0 <= token < vocabulary),
        calls_tools=markup.calls is not None,
        reasons=markup.think_start is not None,
        max_rows=limits.max_rows,
        machines=len(limits.group.hostfile.hosts) if limits.group else 1,
    )


def _warnings(files: ModelFiles) -> Iterator[str]:
    """Say what of a model is not as somebody may expect it."""
    if files.loss:
        yield f"{files.model.id} is not exactly as in its file: {files.loss}."
    if files.model.vision_problem:
        yield f"{files.model.id} reads text only: {files.model.vision_problem}"


def _sentence(files: SentenceFiles, size: int) -> SentenceFacts:
    """Say how a model makes vectors of so many numbers, as far as sentence-transformers' files tell."""
    mode = next(iter(files.pooling), None)
    pooling: Pooling = mode if mode in ("cls", "max", "last") else "mean"
    return SentenceFacts(size, pooling, files.prompts, files.default_prompt)


def _widths(model: Any, tokenizer: Any) -> tuple[int, int]:
    """The widths of logits and hidden state, the latter 0 if unknown; the configuration may pad the vocabulary."""
    args = getattr(model, "args", None)
    inner = getattr(args, "text_config", None) or {}
    width = getattr(args, "vocab_size", None) or (inner.get("vocab_size") if isinstance(inner, dict) else None)
    hidden = getattr(args, "hidden_size", None) or (inner.get("hidden_size") if isinstance(inner, dict) else None)
    if width is None:
        embedding = next((a for name, a in weights(model).items() if "embed" in name and a.ndim == 2), None)
        width = embedding.shape[0] if embedding is not None else len(tokenizer)
    return int(width), int(hidden or 0)


def _control_tokens(tokenizer: Any) -> frozenset[int]:
    """The special tokens, of which chat templates put some around each message."""
    return frozenset(int(token) for token, added in tokenizer.added_tokens_decoder.items() if added.special)


def _image_tokens(tokenizer: Any, vision: Any) -> frozenset[int]:
    """The special tokens around images, which end no message."""
    text = vision.family.before + vision.family.after if vision is not None else ""
    return frozenset(tokenizer.encode(text, add_special_tokens=False))


def _image_fetcher(vision: Any, limits: EngineLimits) -> Any:
    if vision is None or not limits.fetches_images:
        return None
    from app.services.image_urls import ImageFetcher  # with an HTTP client, which nothing else needs

    return ImageFetcher()


def _prefix_cache(
    identity: str, facts: ModelFacts, limits: EngineLimits, answers: AnswerHistory, vision: Any
) -> PrefixCache:
    """The model's share of the cache, kept on disk too if there is a folder for it; an eighth is for images."""
    free = free_memory.available()
    cache_bytes = (free // 4 if limits.cache_bytes is None else limits.cache_bytes) // limits.max_models
    if vision is not None:
        cache_bytes -= vision.limit(cache_bytes // 8, limits.image_tokens)
    if limits.store_folder is None or not limits.store_bytes or limits.adapters:  # the store knows no adapters
        return PrefixCache(cache_bytes)
    name = fingerprint(identity, facts.chat_template, _computation(facts))
    try:
        return PrefixCache(cache_bytes, PrefixStore(limits.store_folder, name, limits.store_bytes, answers))
    except OSError as error:
        log.warning("prompts are not kept on disk", reason=str(error)[:200])
        return PrefixCache(cache_bytes)


def _computation(facts: ModelFacts) -> str:
    """Say what else KV caches depend on: the precision, and where they are computed."""
    rounded = f" {facts.kv_bits.keys},{facts.kv_bits.values}" if facts.kv_bits else ""
    return f"{facts.precision} {back_end()}{rounded}"
