"""Which properties an object may have."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.services.json_schema.patterns import translate

Matches = Callable[[str, str], bool]  # whether a pattern, in the grammar library's words, matches a text


@dataclass(slots=True)
class Shape:
    """The properties of an object, as schemas that are not rewritten yet."""

    properties: dict[str, Any]
    patterns: dict[str, Any]
    others: Any
    required: list[str]

    def only(self, names: list[str], matches: Matches) -> bool:
        """Let only these names be there. Returns whether that can be said."""
        translations = [translate(pattern) for pattern in self.patterns]
        if not all(translation.exact and len(translation.patterns) == 1 for translation in translations):
            return False
        patterns = [translation.patterns[0] for translation in translations]
        parts = {}
        for name in [*(name for name in self.properties if name in names), *names]:
            besides = [
                schema for one, schema in zip(patterns, self.patterns.values(), strict=True) if matches(one, name)
            ]
            parts[name] = self._said_of(name, besides)
        self.properties, self.patterns, self.others = parts, {}, False
        return True

    def only_like(self, pattern: str, matches: Matches) -> bool:
        """Let only names that match a pattern be there. Returns whether that can be said."""
        if self.patterns:
            return False
        wrong = [name for name in self.properties if not matches(pattern, name)]
        self.properties = self.properties | dict.fromkeys(wrong, False)
        if self.others is not False:
            self.patterns, self.others = {pattern: self.others}, False
        return True

    def _said_of(self, name: str, besides: list[Any]) -> Any:
        parts = [self.properties[name], *besides] if name in self.properties else besides
        if not parts:
            return self.others
        return parts[0] if len(parts) == 1 else {"allOf": parts}
