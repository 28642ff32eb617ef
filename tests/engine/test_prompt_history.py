"""What an answer says of a prompt that does not go on with an earlier one: where, whose words, and how they begin."""

from typing import Any

import pytest
from mlx_lm import tokenizer_utils

from app.services.engine.model.prompt_history import PromptHistory
from app.services.engine.output.token_bytes import TokenBytes
from app.services.engine.prompt import PromptBuilder
from app.services.generation import GenerationRequest, Message, PromptChange, ToolCall
from tests.engine.test_answer_history import LARGE, TILES_NANO

ME, OTHER = ("me",), ("other",)
SYSTEM, QUESTION = Message("system", "You are careful and brief."), Message("user", "What is the weather in Oslo?")
CALL = Message("assistant", "", tool_calls=(ToolCall(0, "call_1", "look_up", '{"city": "Oslo"}'),))
RESULT, ANSWER = Message("tool", "Sunny, 12 degrees", tool_call_id="call_1"), Message("assistant", "It is sunny there.")
NEXT = Message("user", "And in Rome?")


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": f"The tool {name}.", "parameters": {}}}


class Client:
    """A client of one model, whose answers have the tokens of these texts."""

    def __init__(self) -> None:
        tokenizer = tokenizer_utils.load(TILES_NANO)
        self.prompts = PromptBuilder(tokenizer, None, LARGE)
        self.history = PromptHistory(TokenBytes(tokenizer))

    def send(
        self, *messages: Message, who: tuple[str, ...] = ME, answer: str = "", tools: tuple[Any, ...] = ()
    ) -> PromptChange | None:
        prompt = self.prompts.build(GenerationRequest(messages=messages, tools=tools))
        answers = [self.prompts.tokenize(f"{answer}<|im_end|>")]
        return self.history.add(who, prompt.tokens, prompt.outline, answers)


@pytest.fixture
def client() -> Client:
    return Client()


def test_a_conversation_that_goes_on_changes_nothing(client: Client) -> None:
    call = '<tool_call>\n{"name": "look_up", "arguments": {"city": "Oslo"}}\n</tool_call>'
    assert client.send(SYSTEM, QUESTION, answer=call) is None, "the first one"
    assert client.send(SYSTEM, QUESTION, CALL, RESULT, answer=ANSWER.content) is None
    assert client.send(SYSTEM, QUESTION, CALL, RESULT, ANSWER, NEXT) is None
    assert client.send(SYSTEM, QUESTION, CALL, RESULT, ANSWER, NEXT) is None, "once more"
    assert client.send(SYSTEM, QUESTION) is None, "the beginning alone"


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ((Message("system", "You are quick."), QUESTION, ANSWER, NEXT), ("system", "careful", "system", "quick")),
        ((SYSTEM, Message("user", "What is the time?"), ANSWER, NEXT), ("user", "weather", "user", "time?")),
        ((SYSTEM, QUESTION, Message("assistant", "It is rainy."), NEXT), ("assistant", "sunny", "assistant", "rainy")),
        ((SYSTEM, QUESTION, ANSWER, Message("user", "And later?")), ("user", "in Rome?", "user", "later?")),
        ((SYSTEM, QUESTION, Message("user", "Quick!"), ANSWER, NEXT), ("assistant", "assistant", "user", "user")),
    ],
)
def test_what_a_client_changes_is_told(client: Client, messages: Any, expected: tuple[str, ...]) -> None:
    client.send(SYSTEM, QUESTION, ANSWER, NEXT)
    change = client.send(*messages)
    assert change is not None
    assert (change.role_before, change.role) == (expected[0], expected[2])
    assert change.before.startswith(expected[1])
    assert change.now.startswith(expected[3])
    before = client.prompts.build(GenerationRequest(messages=(SYSTEM, QUESTION, ANSWER, NEXT))).tokens
    now = client.prompts.build(GenerationRequest(messages=messages)).tokens
    assert before[: change.token] == now[: change.token]
    assert before[change.token] != now[change.token]
    assert len(change.before) <= 80


def test_another_answer_than_the_models_is_told(client: Client) -> None:
    client.send(SYSTEM, QUESTION, answer="It is sunny there.")
    change = client.send(SYSTEM, QUESTION, Message("assistant", "It is sunny here."), NEXT)
    assert change is not None
    assert (change.role_before, change.before, change.role) == ("assistant", "there.", "assistant")
    assert change.now.startswith("here.")


def test_other_tools_are_told(client: Client) -> None:
    client.send(SYSTEM, QUESTION, tools=(tool("look_up"), tool("write")))
    change = client.send(SYSTEM, QUESTION, tools=(tool("look_up"), tool("read")))
    assert change is not None
    assert (change.role_before, change.role) == ("tools", "tools")


def test_nobody_gets_to_read_what_another_client_sent(client: Client) -> None:
    client.send(SYSTEM, QUESTION, who=OTHER)
    assert client.send(SYSTEM, NEXT) is None
    change = client.send(SYSTEM, Message("user", "And now?"))
    assert change is not None
    assert change.before.startswith("in Rome")
