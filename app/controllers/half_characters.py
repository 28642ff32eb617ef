r"""Halves of characters in JSON text: an emoji that was cut in two leaves `\ud83d` without its `\ude00`.

JSON can spell them and no text can hold them, so they are not decoded. Programs that cut texts by their length in
UTF-16 send them, and keep on sending them with the conversation.
"""

import re

_LOW = rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_PAIR = rb"\\u[dD][89abAB][0-9a-fA-F]{2}" + _LOW
# All up to the next half, in one go: nothing is looked at twice, and escaped backslashes begin no escape.
_WHOLE = re.compile(rb"(?:[^\\]++|\\[^u]|\\u(?![dD][89a-fA-F])|" + _PAIR + rb")*+", re.DOTALL)
_HALF = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_REPLACEMENT = rb"\ufffd"


def replace_halves(text: bytes) -> bytes:
    """Put U+FFFD, the replacement character, in the place of every escape of half a character."""
    parts: list[bytes] = []
    end = 0
    while end < len(text):
        whole = _WHOLE.match(text, end)
        assert whole is not None
        parts.append(whole[0])
        end = whole.end()
        half = _HALF.match(text, end)
        if half is None:
            return b"".join((*parts, text[end:]))
        parts.append(_REPLACEMENT)
        end = half.end()
    return b"".join(parts)
