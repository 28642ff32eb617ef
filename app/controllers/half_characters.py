r"""Halves of characters in JSON text: an emoji that was cut in two leaves `\ud83d` without its `\ude00`.

JSON can spell them and no text can hold them, so they are not decoded. Programs that cut texts by their length in
UTF-16 send them, and keep on sending them with the conversation.
"""

import regex  # possessive repetition of groups is wrong in Python's own before 3.11.5

_LOW = rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_PAIR = rb"\\u[dD][89abAB][0-9a-fA-F]{2}" + _LOW
# All up to the next half, or some 64 KiB of it: nothing is looked at twice, and escaped backslashes begin no escape.
_WHOLE = regex.compile(rb"(?:[^\\]{1,64}+|\\[^u]|\\u(?![dD][89a-fA-F])|" + _PAIR + rb"){0,1024}+", regex.DOTALL)
_HALVES = regex.compile(rb"(?:(?!" + _PAIR + rb")\\u[dD][89a-fA-F][0-9a-fA-F]{2}){1,1024}+")
_LENGTH = len(rb"\ud83d")
_REPLACEMENT = "\ufffd".encode()


def replace_halves(text: bytes) -> bytes:
    """Put U+FFFD, the replacement character, in the place of every escape of half a character."""
    result = bytearray()
    end = 0
    while True:
        begin = end
        if whole := _WHOLE.match(text, end):
            end = whole.end()
            result += whole[0]
        if halves := _HALVES.match(text, end):
            end = halves.end()
            result += _REPLACEMENT * (len(halves[0]) // _LENGTH)
        if end == begin:
            result += text[end:]
            return bytes(result)
