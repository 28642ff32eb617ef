"""Texts that may follow prompts, scored by the log-probabilities of their tokens.

Prompts and texts are branches of a tree: what several begin with is computed once. There is one KV cache, which goes
from branch to branch; where it cannot be trimmed, it has checkpoints where branches part. Short ends of branches that
part at the same token are computed as rows of one batch.
"""

import copy
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import mlx.core as mx
import numpy as np

from app.services.engine.cache.layers import Checkpoints, Layers, is_trimmable, make_checkpoint, merge
from app.services.engine.cache.prefixes import common_prefix_length
from app.services.engine.model.continuations import TokenizedContinuations
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.model.prefill import SHORT, forward, forward_with_logits
from app.services.engine.scheduler.prompt_logprobs import LOGIT_BYTES
from app.services.generation import PromptScores, Scored

_MOST_ROWS = 16  # ends of branches that are computed together
_CALL = 8  # tokens that cost as much as a call does by itself


class _Branch(NamedTuple):
    """Tokens behind the root; those from `start` on are scored. All but the last are fed."""

    tokens: tuple[int, ...]
    start: int
    prompt: int  # its index
    text: int  # its index among those of the prompt

    @property
    def fed(self) -> int:
        return len(self.tokens) - 1

    def scored_by(self, begin: int, end: int) -> range:
        """Give the positions from `begin` to `end` whose logits say how likely one of its tokens is."""
        return range(max(begin, self.start - 1), min(end, self.fed))


class _Target(NamedTuple):
    """Where logits say how likely a token of a branch is."""

    row: int
    position: int
    branch: int


class Scoring:
    """The texts of one request in the making. On the engine thread, but for its making.

    `root` is what all prompts begin with. It is a prompt as any other, to be computed before.
    """

    def __init__(
        self,
        prompts: Sequence[TokenizedContinuations],
        model: str = "",  # its name
        *,
        vocabulary: int,
        head: float,  # how much of the work at a token is for its logits
        together: bool = True,  # whether rows may be computed together
    ) -> None:
        length = min(
            min(common_prefix_length(prompts[0].shared, each.shared), len(each.shared) - 1) for each in prompts
        )
        self.root = cast("list[int]", prompts[0].shared[:length].tolist())
        self._prompts = prompts
        self._branches = sorted(_branches(prompts, length))
        self._model = model
        self._together = together
        self._most_logits = max(1, LOGIT_BYTES // (4 * vocabulary))  # tokens
        self._worth_a_call = int(_CALL / max(head, 0.01))  # tokens whose logits cost as much
        lengths = [0, *(_common(one.tokens, other.tokens) for one, other in pairwise(self._branches))]
        self._common = lengths  # tokens that each branch has in common with the one before
        fed = [branch.fed for branch in self._branches]
        self._forks = [min(common, fed[index - 1], fed[index]) for index, common in enumerate(lengths)]
        self.longest = max(len(branch.tokens) for branch in self._branches)
        self.own_tokens = sum(len(each.tokens) - common for each, common in zip(self._branches, lengths, strict=True))
        self.restart()

    def restart(self) -> None:
        """Forget what is computed."""
        self._index = 0  # of the branch that is being computed
        self._position = 0  # tokens behind the root that are in the layers
        self._layers: Layers | None = None
        self._checkpoints: Checkpoints = {}
        self._logprobs: list[list[float]] = [[] for _ in self._branches]

    @property
    def is_begun(self) -> bool:
        """Whether it has layers."""
        return self._layers is not None

    @property
    def is_finished(self) -> bool:
        """Whether all is computed."""
        return self._index == len(self._branches)

    def begin(self, layers: Layers) -> None:
        """Begin with the layers of the root."""
        self._layers = layers
        self._note_checkpoint()

    def take_layers(self) -> Layers:
        """Give the layers of the root back, once it is finished."""
        layers, self._layers, self._checkpoints = self._layers, None, {}
        assert layers is not None
        return layers

    def compute(self, model: LanguageModel, budget: int) -> int:
        """Compute about so many tokens. Returns how many it was, padding too."""
        spent = 0
        while spent < budget and not self.is_finished:
            spent += self._compute_some(model, budget - spent)
        return spent

    def result(self, cached_tokens: int) -> Scored:
        """Give all log-probabilities."""
        logprobs: list[list[tuple[float, ...]]] = [[()] * len(prompt.texts) for prompt in self._prompts]
        for branch, values in zip(self._branches, self._logprobs, strict=True):
            logprobs[branch.prompt][branch.text] = tuple(values)
        scores = (
            PromptScores(each.prompt_tokens, tuple(values))
            for each, values in zip(self._prompts, logprobs, strict=True)
        )
        return Scored(self._model, tuple(scores), len(self.root) + self.own_tokens, cached_tokens)

    def _compute_some(self, model: LanguageModel, budget: int) -> int:
        rows = self._rows_together()
        if len(rows) > 1:
            spent = self._compute_rows(model, rows)
            self._go_on(rows.stop)
            return spent
        branch = self._branches[self._index]
        begin, end = self._position, self._segment_end(budget)
        if begin < end:
            targets = list(self._targets(begin, end))
            if targets:
                self._note(forward_with_logits(model, self._layers or [], [branch.tokens[begin:end]]), targets, begin)
            else:
                forward(model, self._layers or [], list(branch.tokens[begin:end]))
            self._position = end
            self._note_checkpoint()
        if self._position == branch.fed:
            self._go_on(self._index + 1)
        return end - begin

    def _segment_end(self, budget: int) -> int:
        """Give where the tokens end that are fed next: at the budget, where branches part, or where logits begin."""
        branch, begin = self._branches[self._index], self._position
        ends = [branch.fed, begin + budget, *(fork for fork in self._forks_ahead() if fork > begin)]
        first = min((target.position for target in self._targets(begin, branch.fed)), default=branch.fed)
        if first - begin >= self._worth_a_call:
            ends.append(first)
        elif first < branch.fed:
            ends.append(begin + self._most_logits)
        return min(ends)

    def _forks_ahead(self) -> Iterator[int]:
        """Give where later branches part from this one, the last first."""
        lowest = self._branches[self._index].fed + 1
        for fork in self._forks[self._index + 1 :]:
            if fork < lowest:
                lowest = fork
                yield fork
            if fork <= self._forks[self._index]:
                return

    def _targets(self, begin: int, end: int) -> Iterator[_Target]:
        """Give what the logits of this branch from `begin` to `end` are for: its tokens, and those of its like."""
        common = end
        for index in range(self._index, len(self._branches)):
            if index > self._index:
                common = min(common, self._common[index])
            if common <= begin:
                return
            for position in self._branches[index].scored_by(begin, common):
                yield _Target(0, position, index)

    def _rows_together(self) -> range:
        """Give the branches whose ends are computed next: several if they part here and are short."""
        index, begin = self._index, self._position
        stop = index + 1
        while stop < min(len(self._branches), index + _MOST_ROWS) and self._forks[stop] == begin:
            stop += 1
        if stop < len(self._branches) and self._forks[stop] > begin:
            stop -= 1  # others part from that one later
        lengths = [branch.fed - begin for branch in self._branches[index:stop]]
        unscored = [branch.start - 1 - begin for branch in self._branches[index:stop]]
        if not self._together or not lengths or not 0 < min(lengths) <= max(lengths) <= SHORT:
            return range(index, index + 1)
        if max(unscored) >= self._worth_a_call:
            return range(index, index + 1)
        return range(index, min(stop, index + max(1, self._most_logits // max(lengths))))

    def _compute_rows(self, model: LanguageModel, rows: range) -> int:
        """Compute the ends of branches in one call; what follows a row's tokens does not change their logits."""
        begin, branches = self._position, [self._branches[index] for index in rows]
        longest = max(branch.fed for branch in branches) - begin
        tokens = [branch.tokens[begin : branch.fed] for branch in branches]
        padded = [[*each, *[0] * (longest - len(each))] for each in tokens]
        targets = [
            _Target(row, position, index)
            for row, index in enumerate(rows)
            for position in self._branches[index].scored_by(begin, begin + longest)
        ]
        layers = merge([self._layers or []] * len(rows))
        self._note(forward_with_logits(model, layers, padded), targets, begin)
        return longest * len(rows)

    def _note(self, logits: mx.array, targets: Sequence[_Target], begin: int) -> None:
        """Take the log-probabilities out of logits (rows, length, vocabulary) of the positions from `begin` on."""
        length = logits.shape[1]
        flat = np.array([target.row * length + target.position - begin for target in targets])
        used, places = np.unique(flat, return_inverse=True)
        raw = logits.reshape(-1, logits.shape[2])[mx.array(used)].astype(mx.float32)
        tokens = mx.array([self._branches[target.branch].tokens[target.position + 1] for target in targets])
        indices = mx.array(places)
        values = raw[indices, tokens] - mx.logsumexp(raw, axis=-1)[indices]
        for target, value in zip(targets, cast("list[float]", values.tolist()), strict=True):
            self._logprobs[target.branch].append(value)

    def _note_checkpoint(self) -> None:
        """Copy what could not be trimmed to here later, where it is gone back to."""
        layers = self._layers or []
        if not all(map(is_trimmable, layers)) and self._position in (0, *self._forks_ahead()):
            self._checkpoints[self._position] = make_checkpoint(layers)

    def _go_on(self, index: int) -> None:
        """Go on with a branch, or go back to the root after the last one."""
        fork = self._forks[index] if index < len(self._branches) else 0
        untrimmable = iter(copy.deepcopy(self._checkpoints.get(fork, [])))
        layers = self._layers or []
        if surplus := self._position - fork:
            for depth, layer in enumerate(layers):
                if is_trimmable(layer):
                    layer.trim(surplus)
                else:
                    layers[depth] = next(untrimmable)
        self._checkpoints = {position: each for position, each in self._checkpoints.items() if position <= fork}
        self._index, self._position = index, fork


def _branches(prompts: Sequence[TokenizedContinuations], root: int) -> Iterator[_Branch]:
    for index, prompt in enumerate(prompts):
        before = tuple(prompt.shared[root:].tolist())
        for number, text in enumerate(prompt.texts):
            yield _Branch((*before, *text), len(before), index, number)


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """Count the tokens that two branches begin with alike."""
    return next(
        (index for index, (one, other) in enumerate(zip(a, b, strict=False)) if one != other), min(len(a), len(b))
    )
