"""Which properties an object may have."""

import re
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Shape:
    """The properties of an object, as schemas that are not rewritten yet."""

    properties: dict[str, Any]
    patterns: dict[str, Any]
    others: Any
    required: list[str]

    def only(self, names: list[str]) -> bool:
        """Let only these names be there. Returns whether that can be said."""
        try:
            parts = {name: self._said_of(name) for name in dict.fromkeys([*self.properties, *names]) if name in names}
        except re.error:
            return False
        self.properties, self.patterns, self.others = parts, {}, False
        return True

    def only_like(self, pattern: str) -> bool:
        """Let only names that match a pattern be there. Returns whether that can be said."""
        if self.patterns:
            return False
        try:
            wrong = [name for name in self.properties if not re.search(pattern, name)]
        except re.error:
            return False
        self.properties = self.properties | dict.fromkeys(wrong, False)
        if self.others is not False:
            self.patterns, self.others = {pattern: self.others}, False
        return True

    def _said_of(self, name: str) -> Any:
        parts = [self.properties[name]] if name in self.properties else []
        parts += [schema for pattern, schema in self.patterns.items() if re.search(pattern, name)]
        if not parts:
            return self.others
        return parts[0] if len(parts) == 1 else {"allOf": parts}
