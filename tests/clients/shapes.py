"""What the clients ask for: an object, a tool, a conversation about a name."""

from typing import Literal

from pydantic import BaseModel, Field


class Person(BaseModel):
    """Somebody."""

    name: str = Field(max_length=12)
    age: int = Field(ge=0, le=150)
    likes_tea: bool


class Tea(BaseModel):
    """An object whose every field is bounded without a length, which Anthropic's package leaves out of the schema."""

    kind: Literal["green", "black"]
    hot: bool


class GetWeather(BaseModel):
    """Get the weather of a city."""

    city: str = Field(max_length=12)


WEATHER = {
    "name": "get_weather",
    "description": "Get the weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
NAMED = [
    {"role": "user", "content": "My name is Ada."},
    {"role": "assistant", "content": "Nice to meet you, Ada!"},
    {"role": "user", "content": "What is my name?"},
]
