"""Which tokens a grammar allows next."""

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher

Mask = npt.NDArray[np.bool_]  # (vocabulary,)


def next_tokens(matcher: LLMatcher, vocabulary: int) -> Mask:
    """Compute which tokens may come next, (vocabulary,) bool. The matcher `is_error` where it cannot tell."""
    bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
    return np.unpackbits(bits, bitorder="little")[:vocabulary].astype(bool)
