"""TypeSafe's System One, as llama-server has it: typed questions about a state."""

import json
from typing import Annotated, Any

from msgspec import Meta
from pydantic import Field

import app.services.generation as gen
from app.dto.shared import parameters
from app.dto.shared.base import Body, Reply, RequestBody
from app.dto.shared.readable import MEDIA, image_source, to_images
from app.services import decisions
from app.services.decisions import Option, Question
from app.services.errors import FeatureNotSupported, InvalidRequest

_KINDS = "choice, score or noul"
_LEVELS = range(2, 11)
_MOST_IMAGES = 8  # of a request, as llama-server has it


class SystemOneQuestion(Body):
    """A question about the state."""

    type: str = Field(default="", description=_KINDS, examples=["noul"])
    instructions: Any = Field(
        default=None, description="the question; what is no text is read as JSON", examples=["Is it?"]
    )
    criteria: Any = Field(
        default=None,
        description="of a choice an object with the options and their descriptions, which may be null; of a score 2 to "
        "10 levels, the lowest first; of a noul, if anything, the descriptions of true and false",
    )

    def to_question(self, param: str) -> Question:
        """Translate to the engine's vocabulary. Raises InvalidRequest for what is no question."""
        words, criteria, where = json_words(self.instructions), self.criteria, f"{param}.criteria"
        if not words.strip():
            raise InvalidRequest(f"{param}.instructions: there is no text in them", param=f"{param}.instructions")
        match self.type:
            case "choice":
                if not isinstance(criteria, dict):
                    raise InvalidRequest(f"{where}: has to be an object", param=where)
                options = [Option(key, json_words(meaning)) for key, meaning in criteria.items()]
            case "score":
                if not isinstance(criteria, list) or len(criteria) not in _LEVELS:
                    raise InvalidRequest(f"{where}: has to be a list of 2 to 10 levels", param=where)
                options = [Option(str(index), json_words(meaning)) for index, meaning in enumerate(criteria)]
            case "noul":
                if not isinstance(criteria or {}, dict):
                    raise InvalidRequest(f"{where}: has to be an object", param=where)
                true, false = (json_words((criteria or {}).get(key)) for key in ("true", "false"))
                return Question.yes_or_no(words, param, true=true, false=false)
            case _:
                raise InvalidRequest(f"{param}.type: is none of {_KINDS}", param=f"{param}.type")
        return Question(words, tuple(options), param)


class SystemOneRequest(RequestBody):
    """Questions about a state."""

    registry = parameters.SYSTEM_ONE

    model: str | None = None
    state: Any = Field(default=None, examples=["I was charged twice for my order."])
    questions: dict[str, SystemOneQuestion] = Field(default_factory=dict)
    images: list[Any] = Field(default_factory=list, examples=[[]])

    def to_scoring(self) -> gen.ScoringRequest:
        """Translate to the engine's vocabulary. Raises AppError for what is refused."""
        self.refuse()
        if self.state is None:
            raise InvalidRequest("state: Field required", param="state")
        state, of_state = _without_images(self.state)
        images = [*to_images(self.images, "images"), *(gen.Image(source, "state") for source in of_state)]
        if len(images) > _MOST_IMAGES:
            raise InvalidRequest(
                f"images: {len(images)}, state's with them; the most are {_MOST_IMAGES}", param="images"
            )
        words = json_words(state)
        evidence = gen.Message("user", words, parts=(*images, words) if images else ())
        questions = [each.to_question(f"questions.{key[:64]}") for key, each in self.questions.items()]
        return decisions.to_scoring(evidence, questions, self.model, param="state")


def json_words(value: Any) -> str:
    """Give a text as it is, nothing for null, and anything else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _without_images(state: Any) -> tuple[Any, list[str]]:
    """Give the images among the parts of chat messages, as they came, and the state without them.

    Raises FeatureNotSupported for audio and its kin.
    """
    messages = state.get("messages") if isinstance(state, dict) else state
    if not isinstance(messages, list):
        return state, []
    sources: list[str] = []
    messages = [_message_without_images(message, sources) for message in messages]
    return state | {"messages": messages} if isinstance(state, dict) else messages, sources


def _message_without_images(message: Any, sources: list[str]) -> Any:
    """Move the images of a message to a list."""
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        return message
    others = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind not in MEDIA:
            others.append(part)
        elif (source := image_source(part)) is not None:
            sources.append(source)
        else:
            raise FeatureNotSupported(f"This model cannot take {MEDIA[kind]}")
    return message | {"content": others}


class ChoiceAnswer(Reply, kw_only=True, tag_field="type", tag="choice"):
    """The most likely of some options."""

    choice: Annotated[str, Meta(description="the most likely option")]
    probabilities: Annotated[dict[str, float], Meta(description="of each option; all together are 1")]
    confidence: Annotated[float, Meta(description="how far it stands out: 1 is certain, 0 is all alike")]


class ScoreAnswer(Reply, kw_only=True, tag_field="type", tag="score"):
    """A rating by some levels."""

    score: Annotated[float, Meta(description="the index that is to be expected, which may lie between two levels")]
    legend: Annotated[dict[str, Any], Meta(description="the descriptions of the levels, by index")]
    probabilities: Annotated[dict[str, float], Meta(description="of each level, by index; all together are 1")]
    confidence: Annotated[float, Meta(description="how far the most likely level stands out, and its neighbours")]


class NoulAnswer(Reply, kw_only=True, tag_field="type", tag="noul"):
    """How likely it is that the answer is yes."""

    noul: Annotated[float, Meta(description="how likely it is that the answer is yes")]


class SystemOneUsage(Reply, kw_only=True):
    """Tokens that were read. None are written."""

    input_tokens: Annotated[int, Meta(description="tokens of the prompts of all questions; the state counts in each")]
    output_tokens: Annotated[int, Meta(description="always 0")] = 0


class SystemOneReply(Reply, kw_only=True):
    """The answers to all questions, by their ids."""

    model: Annotated[str, Meta(description="id of the model")]
    answers: Annotated[dict[str, ChoiceAnswer | ScoreAnswer | NoulAnswer], Meta(description="the answers, by question")]
    usage: Annotated[SystemOneUsage, Meta(description="tokens that were read")]

    @classmethod
    def of(cls, scored: gen.Scored, request: SystemOneRequest, temperature: float) -> "SystemOneReply":
        """Build it from how likely the answers are."""
        pairs = zip(request.questions.items(), scored.prompts, strict=True)
        return cls(
            model=scored.model,
            answers={key: _answer(each, decisions.probabilities(scores, temperature)) for (key, each), scores in pairs},
            usage=SystemOneUsage(input_tokens=sum(scores.prompt_tokens for scores in scored.prompts)),
        )


def _answer(question: SystemOneQuestion, values: list[float]) -> ChoiceAnswer | ScoreAnswer | NoulAnswer:
    if question.type == "noul":
        return NoulAnswer(noul=values[0])
    if question.type == "choice":
        by_option = dict(zip(question.criteria, values, strict=True))
        best = max(by_option, key=by_option.__getitem__)
        return ChoiceAnswer(choice=best, probabilities=by_option, confidence=decisions.confidence(values))
    return ScoreAnswer(
        score=decisions.expected(values),
        legend={str(index): meaning for index, meaning in enumerate(question.criteria)},
        probabilities={str(index): value for index, value in enumerate(values)},
        confidence=decisions.ordered_confidence(values),
    )
