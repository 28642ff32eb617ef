"""A grammar applies from the end of the reasoning on, however the tokens of its marker are cut."""

from pathlib import Path

import numpy as np
import pytest

from app.services.engine.output.token_bytes import TokenBytes
from app.services.engine.sampling.grammar import GrammarCompiler, GrammarConstraint
from app.services.generation import Constraint
from tests.engine.families import Family, byte_tokenizer


@pytest.mark.parametrize("tokens", [(), ("x.</",), (">\n\n",), ("x.</", ">\n\n"), ("</think>",), ("</think>\n",)])
def test_a_grammar_begins_behind_the_marker(tokens: tuple[str, ...], tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(tmp_path, Family(None, "<think></think>"), tokens)
    grammars = GrammarCompiler(tokenizer, len(tokenizer), frozenset(tokenizer.eos_token_ids))
    pieces = TokenBytes(tokenizer)
    newline = tokenizer.encode("\n", add_special_tokens=False)
    constraint = GrammarConstraint(
        grammars.compile(Constraint("choice", '["yes", "no"]', "choice")),
        think_start=tokenizer.encode("<think>", add_special_tokens=False),
        think_end=[token for letter in "</think>" for token in tokenizer.encode(letter, add_special_tokens=False)]
        if tokens != ("</think>",)
        else tokenizer.encode("</think>", add_special_tokens=False),
        blank=newline,
        end_tokens=tokenizer.eos_token_ids,
        thinking=True,
        may_think=False,
        piece=pieces.__getitem__,
    )
    ids = tokenizer.encode("Hm </thin x.</think>\n\n", add_special_tokens=False)
    for token in ids[:12]:
        assert constraint.mask()[token]
    constraint.catch_up(ids)
    allowed = {pieces[int(token)] for token in np.flatnonzero(constraint.mask())}
    assert allowed - {b"\n"} == {b"y", b"n"}
    constraint.catch_up([*ids, *tokenizer.encode("no", add_special_tokens=False)])
    assert not constraint.failed
