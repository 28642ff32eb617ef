"""The chat template, rendered as transformers renders it."""

import json
from pathlib import Path
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment

from demo_model.conversation import Conversation

FOLDER = Path(__file__).parent.parent / "app" / "tiles_nano"


class Template:
    """The Jinja template of the model folder."""

    def __init__(self, folder: Path = FOLDER) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        self.template = environment.from_string((folder / "chat_template.jinja").read_text())

    def render(self, talk: Conversation) -> str:
        """A whole conversation, its last answer with the thought if it thinks."""
        last = len(talk.messages) - 1
        messages = [m.as_dict(talk.thinking and i == last) for i, m in enumerate(talk.messages)]
        return self.prompt(messages, talk.tools, add_generation_prompt=False)

    def prompt(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], **options: Any) -> str:
        """Messages and tools as text."""
        return self.template.render(messages=messages, tools=tools or None, **options)
