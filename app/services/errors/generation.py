"""What a model cannot answer, and answers that break off."""

from typing import Any

from app.services.errors.base import InvalidRequest, ServerError, Unavailable


class UnsupportedParameter(InvalidRequest):
    """A parameter of this API that this server does not support."""

    code = "unsupported_parameter"
    advice = "Leave out the parameter; docs/compatibility.md lists them all."

    def __init__(self, param: str, why: str = "is not supported by this server yet") -> None:
        super().__init__(f"'{param}' {why}", param=param)


class PromptTooLong(InvalidRequest):
    """The prompt has more tokens than the model's context."""

    kind = "exceed_context_size_error"
    code = "context_length_exceeded"
    advice = "Shorten the conversation; the message says whether a larger `--context-length` helps."

    def __init__(
        self,
        prompt_tokens: int,
        context_length: int,
        *,
        can_grow: bool = False,
        at_least: bool = False,
        text: str | None = None,  # which text of the request it is, such as "documents[2]", if it is no conversation
    ) -> None:
        tokens = f"{'at least ' if at_least else ''}{prompt_tokens} tokens"
        or_raise = ", or start the server with a larger --context-length" if can_grow else ""
        super().__init__(
            f"{text or 'The prompt'} has {tokens} and this model's context holds {context_length}. "
            f"Shorten the {'text' if text else 'conversation'}{or_raise}.",
            param=text,
        )
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length
        self._more = {"can_grow": can_grow, "at_least": at_least}

    def naming(self, text: str) -> "PromptTooLong":
        """Give the same error of a text of the request, by the name of its field."""
        return PromptTooLong(self.prompt_tokens, self.context_length, **self._more, text=text)

    @property
    def details(self) -> dict[str, Any]:
        """The two numbers the Web UI shows in its dialog."""
        return {"n_prompt_tokens": self.prompt_tokens, "n_ctx": self.context_length}


class MemoryExceeded(InvalidRequest):
    """The cache of the prompt needs more memory than there is beside the model, even if nothing else runs."""

    code = "memory_exceeded"
    advice = "Shorten the prompt, or raise `--max-memory`."


class MemoryInUse(Unavailable):
    """The cache of the prompt needs more memory than is free now, as other programs use the rest."""

    code = "memory_exceeded"
    advice = "Close other programs, or try again after `Retry-After` seconds."


class OutOfMemory(Unavailable):
    """Memory ran out while the answer was computed."""

    code = "out_of_memory"
    default_message = "There was not enough memory for this answer"


class NoEmbeddings(InvalidRequest):
    """The model cannot embed texts: its architecture does not show its hidden states, or it ranks documents."""

    code = "no_embeddings"
    advice = "Use another model for embeddings."
    default_message = "This model cannot embed texts: its architecture does not show its hidden states"


class NoCompletions(InvalidRequest):
    """The model turns texts into vectors or ranks documents, and writes no text."""

    code = "no_completions"
    advice = "Name a model that writes text; `capabilities` of `/v1/models` says which do."
    default_param = "model"

    def __init__(self, model: str, task: str = "embedding") -> None:
        does = "ranks documents" if task == "rerank" else "turns texts into vectors"
        super().__init__(f"{model} {does}, and writes no text")


class NoRanking(InvalidRequest):
    """The model cannot rank documents."""

    code = "no_ranking"
    advice = "Use a model that can; `capabilities` of `/v1/models` says which do."
    default_param = "model"


class NoInfill(InvalidRequest):
    """The model has no tokens for fill-in-the-middle, which `suffix` and `/infill` need."""

    code = "no_infill"
    advice = "Leave out `suffix`, or use a model for code."
    default_message = "This model has no fill-in-the-middle tokens, so it cannot write what stands before a suffix"
    default_param = "suffix"


class CallsNotEnforceable(InvalidRequest):
    """`tool_choice` asks for a tool call, and how this model writes calls is not known."""

    code = "calls_not_enforceable"
    advice = "Use `tool_choice` `auto` or `none`."

    def __init__(self, param: str) -> None:
        super().__init__(
            f"{param} cannot be enforced: how this model writes calls is not known; only auto and none are possible",
            param=param,
        )


class NoMemoryFolder(InvalidRequest):
    """Memory mode is asked for, but the session has no memory folder."""

    code = "no_memory"
    advice = "Name one as `memory_path` of `POST /start`, or in `TILES_BOOTSTRAP_MEMORY_PATH`."
    default_message = (
        "No memory folder is set. Name one as memory_path of POST /start, or in TILES_BOOTSTRAP_MEMORY_PATH "
        "before the server loads its first session."
    )


class AnswerStopped(InvalidRequest):
    """The answer of this conversation was stopped before it began, through `DELETE /v1/stream` or a newer request."""

    code = "stopped"
    advice = "Nothing, if you stopped it; else send the request again."
    default_message = "The answer was stopped before it began"


class NoSummary(ServerError):
    """The model was to summarize a conversation and wrote nothing, or only reasoning."""

    code = "no_summary"
    advice = "Send it again; a model that fails at it again is too small for it."
    default_message = "The model wrote no summary"


class GrammarFailed(ServerError):
    """The answer's grammar became too complex to be followed any further."""

    code = "grammar_failed"
    advice = "Simplify the grammar or the JSON schema."
    default_message = "The grammar could not follow the answer"
