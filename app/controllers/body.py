"""How a request's bytes become JSON, with every way that can go wrong said as a 422."""

from typing import Any

import msgspec
from litestar import Request

from app.services.errors import UnprocessableBody
from app.settings import Settings


def json_request(settings: Settings) -> type[Request[Any, Any, Any]]:
    """Make the application's request class; its JSON may nest `settings.max_nesting` deep."""

    class JsonRequest(Request[Any, Any, Any]):
        """A request whose body is JSON whatever its Content-Type says, as curl users send it."""

        async def json(self) -> Any:
            """Decode the body. Raises UnprocessableBody."""
            array = bool(self.route_handler.opt.get("takes_list"))
            return decode(await self.body(), settings.max_nesting, array=array)

    return JsonRequest


def decode(body: bytes, max_nesting: int, *, array: bool = False) -> Any:
    """Decode a JSON object, or an array.

    Raises UnprocessableBody for anything else, for what is no JSON, for NaN and lone surrogates, and for deep nesting.
    """
    try:
        value = msgspec.json.decode(body)
    except RecursionError:
        raise _too_deep(max_nesting) from None
    except UnicodeDecodeError as error:
        raise UnprocessableBody(f"The body is not valid UTF-8 at byte {error.start}", code="invalid_json") from None
    except msgspec.DecodeError as error:
        raise UnprocessableBody(f"The body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(value, list if array else dict):
        name = "array" if array else "object"
        raise UnprocessableBody(f"The body has to be a JSON {name}", code="invalid_json")
    _check_nesting(value, max_nesting)
    return value


def _check_nesting(value: Any, deepest: int) -> None:
    level = [value]
    for _ in range(deepest):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
    raise _too_deep(deepest)


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [child for child in value.values() if isinstance(child, dict | list)]
    return [child for child in value if isinstance(child, dict | list)]


def _too_deep(deepest: int) -> UnprocessableBody:
    return UnprocessableBody(f"The body nests deeper than {deepest} levels", code="too_deep")
