"""The next token: samplers, penalties, log-probabilities, and the grammars that an answer is held to."""
