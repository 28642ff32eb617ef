"""What the references of a JSON schema mean: pointers, ids and anchors, of every draft."""

from typing import Any
from urllib.parse import unquote, urljoin

Schema = dict[str, Any] | bool

_DATA = {"const", "enum", "default", "example", "examples"}  # what lies there is no schema


class References:
    """Finds the schema that a reference of a document means. Nothing is fetched."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._bases: dict[int, str] = {}  # by the schema's identity: what its references are relative to
        self._schemas: dict[str, Any] = {}  # by their whole address
        self._anchors: dict[str, list[Any]] = {}
        self._scan()

    def target(self, schema: dict[str, Any]) -> Schema | None:
        """Give the schema that `$ref`, `$dynamicRef` or `$recursiveRef` of a schema means, None where there is none."""
        reference = next((schema[key] for key in ("$ref", "$dynamicRef", "$recursiveRef") if key in schema), None)
        if not isinstance(reference, str):
            return None
        base = self._bases.get(id(schema), "")
        address, _, fragment = (base + reference if reference.startswith("#") else _join(base, reference)).partition(
            "#"
        )
        candidates = [self._schemas.get(address), self._root if reference.startswith("#") else None]
        for candidate in candidates:
            target = None if candidate is None else self._within(candidate, address, fragment)
            if isinstance(target, dict | bool):
                return target
        return None

    def _within(self, root: Any, address: str, fragment: str) -> Any:
        if not fragment:
            return root
        for spelling in (fragment, unquote(fragment)):
            if spelling.startswith("/"):
                target = _pointed(root, spelling)
            else:
                namesakes = self._anchors.get(spelling, [])
                target = self._schemas.get(f"{address}#{spelling}", namesakes[0] if len(namesakes) == 1 else None)
            if target is not None:
                return target
        return None

    def _scan(self) -> None:
        self._schemas[""] = self._root
        pending: list[tuple[Any, str]] = [(self._root, "")]
        while pending:
            value, base = pending.pop()
            if isinstance(value, dict):
                base = self._note(value, base)
                pending += [(child, base) for key, child in value.items() if key not in _DATA]
            elif isinstance(value, list):
                pending += [(child, base) for child in value]

    def _note(self, schema: dict[str, Any], base: str) -> str:
        name = schema.get("$id", schema.get("id"))
        if isinstance(name, str) and name.startswith("#"):  # draft 4 has anchors this way
            self._anchor(schema, base, name[1:])
        elif isinstance(name, str):
            base = _join(base, name).partition("#")[0]
            self._schemas.setdefault(base, schema)
        for key in ("$anchor", "$dynamicAnchor"):
            if isinstance(name := schema.get(key), str):
                self._anchor(schema, base, name)
        self._bases[id(schema)] = base
        return base

    def _anchor(self, schema: dict[str, Any], base: str, name: str) -> None:
        self._schemas.setdefault(f"{base}#{name}", schema)
        self._anchors.setdefault(name, []).append(schema)


def _join(base: str, reference: str) -> str:
    try:
        return urljoin(base, reference)
    except ValueError:  # an address that is none
        return reference


def _pointed(node: Any, pointer: str) -> Any:
    """Follow a JSON pointer."""
    for step in pointer[1:].split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict) and name in node:
            node = node[name]
        elif isinstance(node, list) and name.isascii() and name.isdigit() and int(name) < len(node):
            node = node[int(name)]
        else:
            return None
    return node
