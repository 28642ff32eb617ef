"""Questions about texts and images, decided by how likely the model that is served finds each of the answers.

The model reads them, a question and its possible answers, in its own chat template and without reasoning. What
comes back is not what it would write, but how likely each answer is as the whole of what it writes next.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from app.services.errors import InvalidRequest
from app.services.generation import (
    WITHOUT_REASONING,
    Continuations,
    GenerationRequest,
    Message,
    PromptScores,
    ScoringRequest,
)

MOST_QUESTIONS = 400
MOST_OPTIONS = 255
YES, NO = "Yes", "No"


@dataclass(frozen=True, slots=True)
class Option:
    """A possible answer: what the model would write, and what that means."""

    text: str
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its possible answers. `param` is where it stands in the request."""

    instructions: str
    options: tuple[Option, ...]
    param: str

    @classmethod
    def yes_or_no(cls, instructions: str, param: str, *, true: str = "", false: str = "") -> "Question":
        """Make a question whether something is true, with what it means that it is and is not."""
        return cls(instructions, (Option(YES, true), Option(NO, false)), param)

    def check(self) -> None:
        """Raise InvalidRequest for a question that cannot be answered."""
        texts = [option.text for option in self.options]
        if len(texts) < 2:
            raise InvalidRequest(f"{self.param}: there have to be two options at least", param=self.param)
        if len(texts) > MOST_OPTIONS:
            raise InvalidRequest(f"{self.param}: more than {MOST_OPTIONS} options", param=self.param)
        if not all(text.strip() for text in texts):
            raise InvalidRequest(f"{self.param}: an option is empty", param=self.param)
        if twice := next((text for text in texts if texts.count(text) > 1), None):
            raise InvalidRequest(f"{self.param}: the option {twice[:64]!r} is there twice", param=self.param)

    def ask(self, evidence: Message) -> Message:
        """Ask it behind the evidence, which comes first: what questions have in common is computed once.

        The order of the options is that of the question: no prompt is free of it.
        """
        lines = [f"{option.text}: {option.meaning}" if option.meaning else option.text for option in self.options]
        answers = "\n".join(f"- {line}" for line in lines)
        text = f"\n\n---\n{self.instructions}\nAnswer with one of these, and with nothing else:\n{answers}"
        match evidence.parts:
            case (*before, str(last)):
                parts = *before, last + text
            case ():
                parts = ()
            case images:
                parts = *images, text
        return replace(evidence, content=evidence.content + text, parts=parts)


def to_scoring(evidence: Message, questions: Sequence[Question], model: str | None, *, param: str) -> ScoringRequest:
    """Ask questions about what a message of the user says and shows, which is `param` of the request.

    Raises InvalidRequest for what has no answer.
    """
    if not questions:
        raise InvalidRequest("questions: there has to be one at least", param="questions")
    if len(questions) > MOST_QUESTIONS:
        raise InvalidRequest(f"questions: more than {MOST_QUESTIONS} in one request", param="questions")
    for question in questions:
        question.check()
    return ScoringRequest(tuple(_continuations(evidence, questions, param)), model)


def _continuations(evidence: Message, questions: Sequence[Question], param: str) -> Iterator[Continuations]:
    for question in questions:
        message = question.ask(evidence)
        request = GenerationRequest((message,), template_kwargs=WITHOUT_REASONING)
        texts = tuple(option.text for option in question.options)
        longest = param if 2 * len(evidence.content) > len(message.content) else question.param
        yield Continuations(request, texts, whole=_one_begins_another(texts), param=longest)


def _one_begins_another(texts: Sequence[str]) -> bool:
    """Whether what begins like one text may still become another: the end of the answer tells them apart."""
    return any(longer.startswith(text) for text, longer in pairwise(sorted(texts)))


def probabilities(scores: PromptScores, temperature: float) -> list[float]:
    """Give the probability of each answer, if it is one of them.

    Logarithms are divided by the temperature: above 1 the probabilities come closer to each other, below 1 apart.
    """
    logprobs = scores.sums
    weights = [math.exp((logprob - max(logprobs)) / temperature) for logprob in logprobs]
    return [weight / sum(weights) for weight in weights]


def expected(values: Sequence[float]) -> float:
    """Give the index that is to be expected of probabilities: it may lie between two."""
    return sum(index * value for index, value in enumerate(values))


def confidence(values: Sequence[float]) -> float:
    """Say how far the most likely of several answers stands out: 1 is certain, 0 is all alike."""
    even = 1 / len(values)
    return max(0.0, (max(values) - even) / (1 - even))


def ordered_confidence(values: Sequence[float]) -> float:
    """The same for answers in an order, of which neighbours are nearly alike: 1 less the distance to the most likely.

    That is the mean distance, as a share of what it is where all are alike, from their middle.
    """
    best, middle = values.index(max(values)), (len(values) - 1) / 2
    distance = sum(value * abs(index - best) for index, value in enumerate(values))
    return max(0.0, 1 - distance / (sum(abs(index - middle) for index in range(len(values))) / len(values)))
