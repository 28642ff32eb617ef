"""A few greedy answers, to watch a training by."""

import torch
from tokenizers import Tokenizer

from demo_model.mixture import MIDDLE, draw
from demo_model.network import Network
from demo_model.source import Source
from demo_model.template import Template
from demo_model.tokenization import token_id


@torch.no_grad()
def greedy(network: Network, ids: list[int], end: int, limit: int) -> list[int]:
    """The likeliest continuation, token by token, without a cache."""
    out: list[int] = []
    while len(out) < limit and (not out or out[-1] != end):
        hidden = network(torch.tensor([ids + out]))[0, -1]
        out.append(int(network.logits(hidden).argmax()))
    return out


def samples(network: Network, tokenizer: Tokenizer, seed: int, count: int = 4) -> list[str]:
    """What is asked, what is answered and what was expected, in a line each."""
    source, template, lines = Source(f"samples {seed}", held_out=True), Template(), []
    end = token_id(tokenizer, "<|im_end|>")
    for _ in range(count):
        talk = draw(source, MIDDLE)
        head, _, wanted = template.render(talk).rpartition("<|im_start|>assistant\n")
        given = "<think>\n" if talk.thinking else ""
        ids = tokenizer.encode(head + "<|im_start|>assistant\n" + given).ids[-1200:]
        answer = tokenizer.decode(greedy(network, ids, end, 60))
        lines.append(f"{talk.messages[-2].content[-120:]!r} -> {answer!r} (wanted {wanted[len(given) : 200]!r})")
    return lines
