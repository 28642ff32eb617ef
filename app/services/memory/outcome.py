"""What a run of the agent's code came to, and the message that tells the model."""

from dataclasses import dataclass

MOST_SHOWN = 8_000  # characters of a result
_MOST_ERROR = 2_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """The variables that the code left, as the repr of their dictionary, and the error that ended it, if one did."""

    variables: str = "{}"  # may be cut
    length: int | None = None  # of the whole, in characters, where it is cut
    error: str | None = None

    def message(self) -> str:
        """Say it as the model was trained on it."""
        error = self.error if self.error is None else _cut(self.error, len(self.error), _MOST_ERROR)
        most = MOST_SHOWN - (0 if error is None else len(error))
        shown = _cut(self.variables, self.length or len(self.variables), most)
        body = shown if error is None else f"({shown}, {{{error}}})"
        return f"<result>\n{body}\n</result>"


def shorten(message: str, most: int) -> str:
    """Cut a message of an outcome to about so many characters; another one is left as it is."""
    start, end = "<result>\n", "\n</result>"
    if not (message.startswith(start) and message.endswith(end)):
        return message
    body = message[len(start) : -len(end)]
    return f"{start}{_cut(body, len(body), most)}{end}"


def _cut(text: str, length: int, most: int) -> str:
    if length <= most:
        return text
    return f"{text[:most]}\n[cut: {length - most:,} of {length:,} characters are not shown]"
