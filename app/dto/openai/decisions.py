"""Decisions, as OpenAI has them: questions about an input, whose answers are probabilities."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Annotated, Any, ClassVar

from msgspec import Meta
from pydantic import BeforeValidator, Field

import app.services.generation as gen
from app.dto.openai.responses_items import InputItem, ItemPart, to_messages
from app.dto.shared import parameters
from app.dto.shared.base import Body, Reply, RequestBody, few_messages
from app.dto.shared.readable import image_source
from app.services import decisions
from app.services.decisions import Option, Question
from app.services.errors import InvalidRequest

_KINDS = "predicate, choice or score"


class DecisionPart(ItemPart):
    """A part of the input or of a question: text, or JSON that is read as text."""

    kinds: ClassVar = ItemPart.kinds | {"input_json"}

    data: Any = Field(default=None, description="the value, in a part of type input_json")

    def to_text(self, where: str, *, of_user: bool = False) -> str:
        """Give what it says. Raises InvalidRequest for what is neither text nor JSON."""
        if self.type != "input_json":
            return super().to_text(where, of_user=True)
        return json.dumps(self.data, ensure_ascii=False)


class DecisionItem(InputItem):
    """An item of the input: a message, a call or what came of one."""

    content: str | list[DecisionPart] | None = Field(  # type: ignore[assignment]
        default=None, description="text or parts, in a message", examples=["Hello!"]
    )


class DecisionChoice(Body):
    """An option of a question of type choice."""

    value: Any = Field(default=None, description="the option: text, true or false", examples=["billing"])
    description: str = Field(default="", description="what the option means")


class DecisionLevel(Body):
    """A level of a question of type score."""

    label: Any = Field(default=None, description="the name of the level", examples=["urgent"])
    description: str = Field(default="", description="what the level means")


class DecisionQuestion(Body):
    """A question about the input."""

    type: str = Field(default="", description=_KINDS, examples=["predicate"])
    name: str | None = Field(default=None, description="comes back with the answer")
    instructions: str | list[DecisionPart] = Field(
        default="", description="a statement that may be true, or what to choose or to rate", examples=["It is polite"]
    )
    choices: list[DecisionChoice] = Field(default_factory=list, description="of a choice: 2 to 255 different options")
    levels: list[DecisionLevel] = Field(
        default_factory=list, description="of a score: two levels at least, the lowest first"
    )

    def to_question(self, param: str, above: str) -> Question:
        """Translate to the engine's vocabulary; `above` is what the input is called. Raises InvalidRequest."""
        words = self.instructions
        if not isinstance(words, str):
            words = "\n".join(_in_words(part, f"{param}.instructions") for part in words)
        if not words.strip():
            raise InvalidRequest(f"{param}.instructions: there is no text in them", param=f"{param}.instructions")
        match self.type:
            case "predicate":
                return Question.yes_or_no(f"Is this true of {above} above? {words}", param)
            case "choice":
                options = [Option(_choice_text(each.value, param), each.description) for each in self.choices]
            case "score":
                options = [Option(_text(each.label, param, "label"), each.description) for each in self.levels]
            case _:
                raise InvalidRequest(f"{param}.type: is none of {_KINDS}", param=f"{param}.type")
        return Question(words, tuple(options), param)


class DecisionRequest(RequestBody):
    """Questions about an input."""

    registry = parameters.DECISIONS

    model: str | None = None
    input: Annotated[str | list[DecisionItem], BeforeValidator(few_messages)] = Field(
        examples=["I was charged twice for my order."]
    )
    questions: list[DecisionQuestion]

    def to_scoring(self) -> gen.ScoringRequest:
        """Translate to the engine's vocabulary. Raises AppError for what is refused."""
        self.refuse()
        if len(self.questions) > decisions.MOST_QUESTIONS:
            raise InvalidRequest(f"questions: more than {decisions.MOST_QUESTIONS} in one request", param="questions")
        if isinstance(self.input, str):
            evidence = gen.Message("user", self.input)
        else:
            evidence = _evidence(list(to_messages(self.input)))
        if not evidence.content.strip() and not evidence.images:
            raise InvalidRequest("input: there is nothing in it", param="input")
        above = "what is shown" if evidence.images else "the text"
        questions = [each.to_question(f"questions.{index}", above) for index, each in enumerate(self.questions)]
        return decisions.to_scoring(evidence, questions, self.model, param="input")


def _in_words(part: DecisionPart, param: str) -> str:
    """Give a part of a question's instructions. Raises InvalidRequest for what is neither text nor JSON."""
    if not part.is_ours and image_source({"type": part.type} | part.fields) is not None:
        raise InvalidRequest("an image goes into the input, which all questions share", param=param)
    return part.to_text(param)


def _evidence(messages: Sequence[gen.Message]) -> gen.Message:
    """Write a conversation down, for it to be judged; a single message of the user is judged as it is."""
    if len(messages) == 1 and messages[0].role == "user":
        return messages[0]
    content = "\n\n".join(
        f"{message.role}: {text}" for message in messages for text in (message.content, *_calls(message)) if text
    )
    shows = any(message.images for message in messages)
    return gen.Message("user", content, parts=tuple(_merged(_pieces(messages))) if shows else ())


def _calls(message: gen.Message) -> Iterator[str]:
    for call in message.tool_calls:
        yield f"[calls {call.name} with {call.arguments}]"


def _pieces(messages: Sequence[gen.Message]) -> Iterator[str | gen.Image]:
    """Give the same transcript with its images."""
    between = ""
    for message in messages:
        words = [*_merged(message.parts, "\n")] if message.parts else [message.content]
        for pieces in (words, *([text] for text in _calls(message))):
            if any(pieces):
                yield from (f"{between}{message.role}: ", *pieces)
                between = "\n\n"


def _merged(pieces: Iterable[str | gen.Image], between: str = "") -> Iterator[str | gen.Image]:
    """Make one of texts that follow each other."""
    for is_text, group in groupby(pieces, lambda piece: isinstance(piece, str)):
        some = list(group)
        yield from [between.join(map(str, some))] if is_text else some


def _choice_text(value: Any, param: str) -> str:
    """Give what a choice is called. True and "true" are different options, so one of them is written otherwise."""
    return str(value) if isinstance(value, bool) else _text(value, param, "value")


def _text(value: Any, param: str, field: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(f"{param}: the {field} of an option is no text", param=param)
    return value


class PredicateAnswer(Reply, kw_only=True, tag_field="type", tag="predicate"):
    """How likely it is that a statement is true."""

    name: Annotated[str | None, Meta(description="name of the question")]
    probability: Annotated[float, Meta(description="how likely it is that the statement is true")]


class ChoiceProbability(Reply, kw_only=True):
    """How likely an option is."""

    value: Annotated[str | bool, Meta(description="the option")]
    probability: Annotated[float, Meta(description="its probability; all together are 1")]


class ChoiceAnswer(Reply, kw_only=True, tag_field="type", tag="choice"):
    """The most likely of some options."""

    name: Annotated[str | None, Meta(description="name of the question")]
    choice: Annotated[str | bool, Meta(description="the most likely option")]
    confidence: Annotated[float, Meta(description="how far it stands out: 1 is certain, 0 is all alike")]
    probabilities: Annotated[list[ChoiceProbability], Meta(description="of each option, in their order")]


class ScoreProbability(Reply, kw_only=True):
    """How likely a level is."""

    label: Annotated[str, Meta(description="the name of the level")]
    value: Annotated[int, Meta(description="its index, from 0")]
    probability: Annotated[float, Meta(description="its probability; all together are 1")]


class ScoreAnswer(Reply, kw_only=True, tag_field="type", tag="score"):
    """A rating by some levels."""

    name: Annotated[str | None, Meta(description="name of the question")]
    score: Annotated[float, Meta(description="the index that is to be expected, which may lie between two levels")]
    confidence: Annotated[float, Meta(description="how far the most likely level stands out, and its neighbours")]
    probabilities: Annotated[list[ScoreProbability], Meta(description="of each level, in their order")]


DecisionAnswer = PredicateAnswer | ChoiceAnswer | ScoreAnswer


class DecisionInputDetails(Reply, kw_only=True):
    """What of the input was cached."""

    cached_tokens: Annotated[int, Meta(description="tokens that came from the prefix cache")]
    cache_write_tokens: Annotated[int, Meta(description="always 0: what is stored costs nothing")] = 0


class DecisionOutputDetails(Reply, kw_only=True):
    """What was written."""

    reasoning_tokens: Annotated[int, Meta(description="always 0")] = 0


class DecisionUsage(Reply, kw_only=True):
    """Tokens that were read. None are written."""

    input_tokens: Annotated[
        int, Meta(description="tokens of input, questions and options; what they share counts once")
    ]
    input_tokens_details: Annotated[DecisionInputDetails, Meta(description="how many of them were cached")]
    output_tokens: Annotated[int, Meta(description="always 0")] = 0
    output_tokens_details: Annotated[DecisionOutputDetails, Meta(description="always none")]
    total_tokens: Annotated[int, Meta(description="the same as input_tokens")]


class Decision(Reply, kw_only=True):
    """The answers to all questions, in their order."""

    model: Annotated[str, Meta(description="id of the model")]
    answers: Annotated[list[DecisionAnswer], Meta(description="the answers, in the order of the questions")]
    usage: Annotated[DecisionUsage, Meta(description="tokens that were read")]

    @classmethod
    def of(cls, scored: gen.Scored, request: DecisionRequest, temperature: float) -> "Decision":
        """Build it from how likely the answers are."""
        pairs = zip(request.questions, scored.prompts, strict=True)
        return cls(
            model=scored.model,
            answers=[_answer(question, decisions.probabilities(scores, temperature)) for question, scores in pairs],
            usage=DecisionUsage(
                input_tokens=scored.prompt_tokens,
                input_tokens_details=DecisionInputDetails(cached_tokens=scored.cached_tokens),
                output_tokens_details=DecisionOutputDetails(),
                total_tokens=scored.prompt_tokens,
            ),
        )


def _answer(question: DecisionQuestion, values: list[float]) -> DecisionAnswer:
    match question.type:
        case "predicate":
            return PredicateAnswer(name=question.name, probability=values[0])
        case "choice":
            choices = [
                ChoiceProbability(value=o.value, probability=p) for o, p in zip(question.choices, values, strict=True)
            ]
            return ChoiceAnswer(
                name=question.name,
                choice=max(choices, key=lambda choice: choice.probability).value,
                confidence=decisions.confidence(values),
                probabilities=choices,
            )
    return ScoreAnswer(
        name=question.name,
        score=decisions.expected(values),
        confidence=decisions.ordered_confidence(values),
        probabilities=[
            ScoreProbability(label=level.label, value=index, probability=value)
            for index, (level, value) in enumerate(zip(question.levels, values, strict=True))
        ],
    )
