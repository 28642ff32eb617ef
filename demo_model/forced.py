"""What of a structured answer a grammar forces, which the model need not know: the first brace and the keys."""

import re
from collections.abc import Iterator

KEY = re.compile(r'(?<=")[^"]*(?=": )')


def forced(text: str, offsets: list[tuple[int, int]]) -> Iterator[int]:
    """Yield which tokens of a structured answer are forced, given where each of its tokens stands in the text.

    The quotation marks around a key belong to tokens that the model may write in several ways, and are not forced.
    """
    first, last = offsets[0][0], offsets[-1][0]
    brace = text.find("{", first)
    keys = [match.span() for match in KEY.finditer(text, first, last)]
    for place, (start, _) in enumerate(offsets):
        if start == brace or any(begin <= start < end for begin, end in keys):
            yield place
