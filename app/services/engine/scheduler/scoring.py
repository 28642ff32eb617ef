"""Texts that may follow prompts, scored by the log-probabilities of their tokens.

Prompts and texts are branches of a tree: what several begin with is computed once. There is one KV cache, which goes
from branch to branch; where it cannot be trimmed, it has checkpoints where branches part. Short ends of branches are
computed as rows of one call that go on from that cache, where this costs less than a call for each.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import mlx.core as mx
import numpy as np

from app.services.engine.cache.layers import Checkpoints, Layers
from app.services.engine.cache.prefixes import common_length, common_prefix_length
from app.services.engine.model.prefill import SHORT, forward
from app.services.engine.model.selected_logits import SelectedLogits
from app.services.engine.scheduler.continuations import TokenizedContinuations
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


class _Row(NamedTuple):
    """Branches, by index, of which one is fed all that the others are."""

    branches: range
    longest: int


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
        together: bool = True,  # whether rows may be computed together
    ) -> None:
        length = min(
            min(common_prefix_length(prompts[0].shared, each.shared), len(each.shared) - 1) for each in prompts
        )
        self.root = cast("list[int]", prompts[0].shared[:length].tolist())
        self._prompts = prompts
        self._branches = sorted(_branches(prompts, length))
        self._model = model
        self._most_logits = max(1, LOGIT_BYTES // (4 * vocabulary))  # tokens
        lengths = [0, *(common_length(one.tokens, other.tokens) for one, other in pairwise(self._branches))]
        self._common = lengths  # tokens that each branch has in common with the one before
        fed = [branch.fed for branch in self._branches]
        self._forks = [min(common, fed[index - 1], fed[index]) for index, common in enumerate(lengths)]
        self.longest = max(len(branch.tokens) for branch in self._branches)
        self.own_tokens = sum(len(each.tokens) - common for each, common in zip(self._branches, lengths, strict=True))
        self.most_rows = min(_MOST_ROWS, len(self._branches)) if together else 1  # of a call
        self._reset()

    def restart(self) -> None:
        """Forget what is computed, because memory ran out, and go on without rows that are computed together."""
        self.most_rows = 1
        self._reset()

    def _reset(self) -> None:
        self._index = 0  # of the branch that is being computed
        self._fork = 0  # where that begins: what comes before is computed
        self._position = 0  # tokens behind the root that are in the layers
        self._layers: Layers | None = None
        self._is_exact = True
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
        self._is_exact = layers.is_exact
        self._note_checkpoint()

    def take_layers(self) -> Layers:
        """Give the layers of the root back, once it is finished."""
        layers, self._layers, self._checkpoints = self._begun_layers, None, {}
        return layers

    @property
    def _begun_layers(self) -> Layers:
        assert self._layers is not None
        return self._layers

    def compute(self, selected: SelectedLogits, budget: int) -> int:
        """Compute about so many tokens. Returns how many it was, padding too."""
        spent = 0
        while 2 * spent < budget and not self.is_finished:  # what is left of a budget makes no call of its own
            spent += self._compute_some(selected, budget)
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

    def _compute_some(self, selected: SelectedLogits, budget: int) -> int:
        if len(rows := self._rows_together(selected, budget)) > 1:
            return self._compute_rows(selected, rows)
        branch, begin = self._branches[self._index], self._position
        end, targets = self._next_segment(selected, budget)
        if begin < end:
            self._feed(selected, self._begun_layers, [branch.tokens[begin:end]], targets)
            self._position = end
            self._note_checkpoint()
        if self._position == branch.fed:
            self._go_on(self._index + 1)
        return end - begin

    def _next_segment(self, selected: SelectedLogits, budget: int) -> tuple[int, list[_Target]]:
        """Give where the tokens end that are fed next, and what their logits are for."""
        begin, end = self._position, min(self._branches[self._index].fed, self._position + max(budget, SHORT))
        if not self._is_exact:  # what is gone back to has to be passed by
            end = min([end, *(fork for fork in self._forks_ahead() if fork > begin)])
        targets = list(self._targets(begin, end))
        positions = sorted({target.position for target in targets})
        if positions and selected.computes_all:
            first = positions[0]
            end = first if first - begin >= _CALL else min(end, begin + self._most_logits)
        elif len(positions) > self._most_logits:
            end = positions[self._most_logits]
        return end, [target for target in targets if target.position < end]

    def _forks_ahead(self) -> Iterator[int]:
        """Give where later branches part from this one, the last first."""
        lowest = self._branches[self._index].fed + 1
        for fork in self._forks[self._index + 1 :]:
            if fork < lowest:
                lowest = fork
                yield fork
            if fork <= self._fork:
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

    def _rows_together(self, selected: SelectedLogits, budget: int) -> list[_Row]:
        """Give the branches whose ends are computed next in one call.

        What several rows begin with is computed for each of them then, and shorter ones are padded: there are as many
        rows as save most, and none if calls of their own cost less.
        """
        rows: list[_Row] = []
        longest = apart = most_saved = best = 0
        most_tokens = min(max(budget, SHORT), self._most_logits) if selected.computes_all else max(budget, SHORT)
        for row in self._rows_ahead() if self.most_rows > 1 else ():
            length = self._branches[row.longest].fed - self._position
            longest = max(longest, length)
            together = longest * (len(rows) + 1)
            if not 0 < length <= SHORT or together > most_tokens or len(rows) == self.most_rows:
                break
            apart += _CALL + (length - max(0, self._forks[row.branches.start] - self._position) if rows else length)
            rows.append(row)
            if (saved := apart - _CALL - together) > most_saved:
                most_saved, best = saved, len(rows)
        return rows[:best]

    def _rows_ahead(self) -> Iterator[_Row]:
        """Give the branches that begin with what is computed, row by row."""
        start, count = self._index, len(self._branches)
        while start < count and (start == self._index or self._forks[start] >= self._position):
            longest, common = start, self._branches[start].fed  # tokens that the last branch and the longest share
            for stop in range(start + 1, count + 1):
                if stop == count:
                    break
                common, fed = min(common, self._common[stop]), self._branches[stop].fed
                if fed > common:
                    if self._branches[longest].fed > common:
                        break
                    longest, common = stop, fed
            yield _Row(range(start, stop), longest)
            start = stop

    def _compute_rows(self, selected: SelectedLogits, rows: Sequence[_Row]) -> int:
        """Compute the ends of branches in one call; what follows a row's tokens does not change their logits."""
        begin, ends = self._position, [self._branches[row.longest] for row in rows]
        longest = max(branch.fed for branch in ends) - begin
        tokens = [branch.tokens[begin : branch.fed] for branch in ends]
        padded = [(*each, *[0] * (longest - len(each))) for each in tokens]
        targets = [
            _Target(number, position, index)
            for number, row in enumerate(rows)
            for index in row.branches
            for position in self._branches[index].scored_by(begin, begin + longest)
        ]
        self._feed(selected, self._begun_layers.fork(len(rows)), padded, targets)
        self._go_on(rows[-1].branches.stop)
        return longest * len(rows)

    def _feed(
        self,
        selected: SelectedLogits,
        layers: Layers,
        tokens: Sequence[Sequence[int]],  # (rows, length)
        targets: Sequence[_Target],
    ) -> None:
        """Compute tokens behind those that are computed, and note how likely the targets are."""
        if not targets:
            forward(selected.model, layers, list(tokens[0]))
            return
        flat = [target.row * len(tokens[0]) + target.position - self._position for target in targets]
        used, numbers = np.unique(np.array(flat), return_inverse=True)
        logits = selected.forward(layers, list(tokens), used.tolist(), is_last=len(tokens) > 1).astype(mx.float32)
        following = mx.array([self._branches[target.branch].tokens[target.position + 1] for target in targets])
        rows = mx.array(numbers)
        values = logits[rows, following] - mx.logsumexp(logits, axis=-1)[rows]
        for target, value in zip(targets, cast("list[float]", values.tolist()), strict=True):
            self._logprobs[target.branch].append(value)

    def _note_checkpoint(self) -> None:
        """Copy what could not be trimmed to here later, where it is gone back to."""
        if not self._is_exact and self._position in (0, *self._forks_ahead()):
            self._checkpoints[self._position] = self._begun_layers.checkpoint(True)

    def _go_on(self, index: int) -> None:
        """Go on with a branch, or go back to the root after the last one."""
        fork = min(self._forks[index], self._position) if index < len(self._branches) else 0
        if surplus := self._position - fork:
            if self._is_exact:
                self._begun_layers.trim(surplus)
            else:
                self._begun_layers.go_back(self._checkpoints[fork], surplus, True)
        self._checkpoints = {position: each for position, each in self._checkpoints.items() if position <= fork}
        self._index, self._fork, self._position = index, fork, fork


def _branches(prompts: Sequence[TokenizedContinuations], root: int) -> Iterator[_Branch]:
    for index, prompt in enumerate(prompts):
        before = tuple(prompt.shared[root:].tolist())
        for number, text in enumerate(prompt.texts):
            yield _Branch((*before, *text), len(before), index, number)
