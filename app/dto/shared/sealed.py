"""Reasoning in a form that clients send back and do not show, where a field of a dialect is made for that."""

import base64
import binascii

_MARK = "tiles."


def seal(reasoning: str) -> str:
    """Write reasoning as `unseal` reads it. It is no secret, it is only not for the eye."""
    return _MARK + base64.b64encode(reasoning.encode(errors="replace")).decode() if reasoning else ""


def unseal(text: str | None) -> str:
    """Read what `seal` wrote; nothing of what another server or client did."""
    if text is None or not text.startswith(_MARK):
        return ""
    try:
        return base64.b64decode(text.removeprefix(_MARK), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
