"""A loaded encoder: what it makes of requests, for its scheduler and for whoever asks for tokens."""

from collections.abc import Sequence
from functools import partial

from app.services.engine.encoders.encoder_scheduler import EncoderScheduler
from app.services.engine.encoders.group import MOST_TOKENS, EncoderGroup
from app.services.engine.encoders.tokenizer import EncoderInput, EncoderTokenizer
from app.services.engine.scheduler.embedding import Embedding
from app.services.engine.scheduler.running_request import RunningEmbedding
from app.services.errors import NoEmbeddings, NoRanking, TextTooLong
from app.services.facts import ModelFacts
from app.services.generation import EmbeddingRequest, RankRequest

_MOST_CHARACTERS = 2**22  # that are tokenized in one go


class LoadedEncoder:
    """Checks and tokenizes requests, on the thread of prompts. The arrays stay inside its scheduler."""

    def __init__(
        self, facts: ModelFacts, tokenizer: EncoderTokenizer, scheduler: EncoderScheduler, *, ranks: bool
    ) -> None:
        self.facts = facts
        self.scheduler = scheduler
        self._tokenizer = tokenizer
        self._ranks = ranks

    def check_embedding(self, request: EmbeddingRequest) -> None:
        """Raise AppError for what can be refused without a look at the texts."""
        if self._ranks:
            raise NoEmbeddings(f"{self.facts.id} ranks documents, and makes no vectors of texts")
        self.facts.sentence.check(request)

    def tokenize_inputs(self, request: EmbeddingRequest, start: int, end: int) -> list[EncoderInput]:
        """Check and tokenize some texts that become vectors. Raises InvalidRequest or PromptTooLong."""
        prompt = self.facts.sentence.prompt(request.prompt_name)
        several = len(request.inputs) > 1
        inputs = []
        for index, parts in enumerate(request.inputs[start:end], start):
            param = f"input[{index}]" if several else "input"
            self.facts.check_tokens(parts, param)
            inputs.append(self._tokenizer.encode(parts, prompt=prompt, truncate=request.truncate, param=param))
        return inputs

    def make_embedding(
        self, request: EmbeddingRequest, inputs: Sequence[EncoderInput], running: RunningEmbedding | None
    ) -> Embedding:
        """Make what computes the vectors of texts that are tokenized."""
        return self._make(inputs, running, request)

    def check_ranking(self, request: RankRequest) -> None:
        """Raise AppError for a model that cannot rank, or a query that leaves no space for a document."""
        if not self._ranks:
            raise NoRanking(f"{self.facts.id} turns texts into vectors, and cannot rank documents")

    def tokenize_pairs(self, request: RankRequest, start: int, end: int) -> list[EncoderInput]:
        """Tokenize a query with some of the documents. Raises PromptTooLong."""
        return [
            self._tokenizer.pair(request.query, document, truncate=request.truncate, param=f"{request.param}[{index}]")
            for index, document in enumerate(request.documents[start:end], start)
        ]

    def make_ranking(self, inputs: Sequence[EncoderInput], running: RunningEmbedding | None) -> Embedding:
        """Make what computes a number for each pair of a query and a document."""
        return self._make(inputs, running)

    def check_length(self, parts: Sequence[str | int], param: str) -> None:
        """Raise TextTooLong for more text than is tokenized for one request."""
        if (length := sum(len(part) for part in parts if isinstance(part, str))) > _MOST_CHARACTERS:
            raise TextTooLong(
                f"{param}: a text of {length} characters; this server tokenizes {_MOST_CHARACTERS} in one request",
                param=param,
            )

    def tokenize(self, content: tuple[str | int, ...], *, special: bool) -> list[tuple[int, bytes]]:
        """Give the token ids of text and ids, each with its text. Raises InvalidRequest for ids that do not exist."""
        self.facts.check_tokens(content, "content")
        return self._tokenizer.tokens(content, special=special)

    def detokenize(self, tokens: list[int]) -> str:
        """Give the text of token ids. Raises InvalidRequest for ids that do not exist."""
        self.facts.check_tokens(tokens, "tokens")
        return self._tokenizer.decode(tokens)

    def warm_up(self) -> None:
        """Compute a short text, so that the first request waits for no compilation."""
        self.scheduler.warm_up(self._make([EncoderInput([0, 0], 2)], None))

    def _make(
        self,
        inputs: Sequence[EncoderInput],
        running: RunningEmbedding | None,
        request: EmbeddingRequest | None = None,
    ) -> Embedding:
        make_group = partial(EncoderGroup, inputs, request.pooling if request else None)
        return Embedding(
            running,
            self.facts.id,
            [len(one) for one in inputs],
            make_group,
            most_tokens=MOST_TOKENS,
            dimensions=request.dimensions if request else None,
        )
