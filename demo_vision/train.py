"""The training: the demo model's text network learns to see, and rehearses what it knows."""

import argparse
import copy
import random
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn import functional

from demo_model import checkpoint as text_checkpoint
from demo_model.batches import IGNORED, Batch, Encoder, Feed, answers
from demo_model.network import Shape
from demo_model.optimizers import Muon
from demo_model.schedule import Schedule
from demo_model.source import Source
from demo_model.template import FOLDER, Template
from demo_vision import checkpoint, questions
from demo_vision.batches import (
    PictureBatch,
    PictureEncoder,
    PictureFeed,
    SceneFeed,
    collate,
    grouped,
    with_image_tokens,
)
from demo_vision.folders import MODEL, WORK
from demo_vision.network import SeeingNetwork, VisionShape

_LATE = 0.99  # of the demo model's own training: its mixture at the end is what is rehearsed
_GENTLE = 0.25  # of the tower's learning rate is the text network's, which knows something already
_ALONE = 0.14  # of the training the tower says what is in each patch, before anything is asked
_SLOWER = 0.7  # of the tower's learning rate is gone by then
_NAMING = 0.3  # of the loss of answers counts that of saying so, from then on
_KEPT = 0.5  # of the loss of a rehearsal is how far the network is from what it was
_GROUND = 0.1  # of a patch with something in it counts one without

_PARTS: dict[str, tuple[tuple[str, ...], str]] = {  # how the names of a part begin, of what earlier ones leave
    "merger": (("visual.merger.",), "visual.merger."),  # and those of its layers
    "tower": (("visual.", "contents."), "visual.blocks."),
    "text": (("",), "layers."),
}


class Training:
    """A training run that can be stopped and resumed."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(options.seed)
        self.options = options
        self.schedule = Schedule(options.pictures, options.minutes)
        self.tokenizer = with_image_tokens(Tokenizer.from_file(str(Path(options.text) / "tokenizer.json")))
        encoder = Encoder(self.tokenizer, Template())
        self.pictures = PictureEncoder(encoder, VisionShape())
        self.feed = PictureFeed(self.pictures, Source(options.seed), options.batch)
        self.scenes = SceneFeed(VisionShape(), Source(f"scenes {options.seed}"), options.batch)
        self.rehearsal = Feed(encoder, Source(f"rehearsal {options.seed}"), options.rehearsal)
        self.turns = random.Random(options.seed)
        self.network = SeeingNetwork(Shape(vocab_size=self.tokenizer.get_vocab_size()), VisionShape())
        self._take_text_weights()
        self.teacher = copy.deepcopy(self.network).requires_grad_(False)  # what the text network knew at the beginning
        if not options.eager:  # as in the demo model's training: many small steps in one go take half the time
            # not the tower's, which takes as long either way
            for layer in (*self.network.layers, *self.teacher.layers):
                layer.compile(dynamic=True)
        self.parts = self._optimizers()
        self.seen, self.steps, self.seconds, self.best = 0, 0, 0.0, 0.0
        self.test = self._test_batches()

    def _take_text_weights(self) -> None:
        """Begin with the text model, or that of a model that sees; what is new are the tokens of images."""
        files = load_file(Path(self.options.text) / "model.safetensors")
        weights = {
            name.removeprefix("model.").removeprefix("language_model."): weight.float()
            for name, weight in files.items()
            if not name.startswith("model.visual.")
        }
        state = self.network.state_dict()
        known = weights.pop("embed_tokens.weight")
        state["embed_tokens.weight"][: len(known)] = known
        self.network.load_state_dict(state | weights)

    def _optimizers(self) -> dict[str, list[torch.optim.Optimizer]]:
        """Of each part of the network Muon for the matrices of its layers, and AdamW for the rest."""
        made: dict[str, list[torch.optim.Optimizer]] = {}
        left = dict(self.network.named_parameters())
        for part, (names, layers) in _PARTS.items():
            mine = {name: left.pop(name) for name in list(left) if name.startswith(names)}
            matrices = [p for name, p in mine.items() if name.startswith(layers) and p.ndim == 2]
            others = [p for name, p in mine.items() if not (name.startswith(layers) and p.ndim == 2)]
            adam = torch.optim.AdamW(others, self.options.other_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
            made[part] = [Muon(matrices, self.options.matrix_lr), adam]
        return made

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimizers of all parts, in their order."""
        return [optimizer for part in self.parts.values() for optimizer in part]

    def _test_batches(self) -> list[PictureBatch]:
        source = Source("watch", held_out=True)
        made = [self.pictures.picture(source, [questions.question(source)]) for _ in range(self.options.test)]
        return [collate(group) for group in grouped(made, self.options.batch)]

    @property
    def progress(self) -> float:
        """The share of the training that is done."""
        return self.schedule.progress(self.seen, self.seconds / 60)

    def predictions(self, batch: PictureBatch) -> torch.Tensor:
        """Scores for what follows each place of a batch."""
        return self._answers(batch, self.network.visual.states(batch.images, *batch.grid))

    def _answers(self, batch: PictureBatch, states: torch.Tensor) -> torch.Tensor:
        embeddings = self.network.visual.merger(states)
        hidden = self.network.seen(batch.ids, embeddings, batch.positions, self.pictures.image_token)
        return self.network.logits(hidden.flatten(0, 1)[batch.places]).float()

    def _rehearsal(self, words: Batch) -> torch.Tensor:
        """The loss of answers in text, half of it of the probabilities that the network had for them at the beginning.

        These say more of what it knew than the one token of the answer (learning without forgetting).
        """
        scores = self.network.predictions(words.ids, words.places)
        with torch.no_grad():
            known = self.teacher.predictions(words.ids, words.places).softmax(-1)
        is_trained = words.targets != IGNORED
        kept = functional.cross_entropy(scores[is_trained], known[is_trained])
        return _KEPT * kept + (1 - _KEPT) * functional.cross_entropy(scores, words.targets)

    def _naming(self, states: torch.Tensor, contents: torch.Tensor) -> torch.Tensor:
        """The loss of saying what is in each patch, most of which hold the ground alone."""
        scores = self.network.contents(states).float().flatten(0, 1)
        weights = torch.ones(scores.shape[-1])
        weights[0] = _GROUND
        return functional.cross_entropy(scores, contents.flatten(), weight=weights)

    def rates(self) -> dict[str, float]:
        """The share of the full learning rate that each part has now."""
        alone, later = min(1.0, self.progress / _ALONE), max(0.0, (self.progress - _ALONE) / (1 - _ALONE))
        beginning = min(1.0, later / 0.03) * (1 - later)
        tower = min(1.0, self.progress / 0.01 + 0.05) * (1 - _SLOWER * alone) * (1 - later)
        return {"tower": tower, "merger": beginning, "text": _GENTLE * beginning}

    def step(self) -> float:
        """One update: the tower's alone, of pictures with questions, or of a rehearsal. Returns the loss."""
        rates = self.rates()
        is_alone = self.progress < _ALONE
        is_rehearsal = not is_alone and self.turns.random() < self.options.share
        parts = ["tower"] if is_alone else ["text"] if is_rehearsal else list(self.parts)
        self.network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            if is_rehearsal:
                loss = self._rehearsal(self.rehearsal.next(_LATE))
            elif is_alone:
                images, contents, grid = self.scenes.next()
                self.seen += len(images)
                loss = self._naming(self.network.visual.states(images, *grid), contents)
            else:
                batch = self.feed.next()
                self.seen += len(batch.images)
                states = self.network.visual.states(batch.images, *batch.grid)
                loss = functional.cross_entropy(self._answers(batch, states), batch.targets)
                loss = loss + _NAMING * self._naming(states, batch.contents)
        loss.backward()  # type: ignore[no-untyped-call]
        for part in parts:
            torch.nn.utils.clip_grad_norm_(self._parameters(part), 1.0)
            for optimizer in self.parts[part]:
                optimizer.param_groups[0]["lr"] = optimizer.defaults["lr"] * rates[part]
                optimizer.step()
        return 0.0 if is_rehearsal else loss.item()

    def _parameters(self, part: str) -> list[torch.Tensor]:
        return [p for optimizer in self.parts[part] for p in optimizer.param_groups[0]["params"]]

    def run(self) -> None:
        """Train to the end of the schedule."""
        saved, watched, losses = time.monotonic(), time.monotonic(), list[float]()
        while self.progress < 1:
            began = time.monotonic()
            if (loss := self.step()) > 0:
                losses.append(loss)
            self.steps += 1
            self.seconds += time.monotonic() - began
            if self.steps % 50 == 0:
                self._show(losses[-50:])
            if time.monotonic() - watched > 60 * self.options.watch or self.progress >= 1:
                began, watched = time.monotonic(), time.monotonic()
                with torch.compiler.set_stance("force_eager"):
                    self.watch()
                self.seconds += time.monotonic() - began
            if time.monotonic() - saved > 300:
                saved = time.monotonic()
                self.save()
        self.save()

    def _show(self, losses: list[float]) -> None:
        speed = self.seen / self.seconds
        left = self.seconds * (1 - self.progress) / max(self.progress, 1e-6) / 60
        print(
            f"{self.progress:6.1%} step {self.steps} loss {sum(losses) / max(1, len(losses)):.3f} "
            f"{speed:.0f} pictures/s {self.seen:,} pictures left {left:.0f} min",
            flush=True,
        )

    def watch(self) -> None:
        """Measure answers that are right to the last token, and keep the best network."""
        scores = self.scores()
        mean = sum(scores.values()) / len(scores)
        told = ", ".join(f"{kind} {right:.0%}" for kind, right in sorted(scores.items()))
        print(f"right answers {mean:.1%}: {told}", flush=True)
        if mean >= self.best:
            self.best = mean
            checkpoint.export(self.network, self.tokenizer, Path(self.options.out))

    @torch.no_grad()
    def scores(self) -> dict[str, float]:
        """By kind, the share of held-out answers whose every token is the likeliest."""
        right: dict[str, list[bool]] = defaultdict(list)
        end = self.pictures.encoder.end
        for batch in self.test:
            with torch.autocast("cpu", torch.bfloat16):
                hit = self.predictions(batch).argmax(-1) == batch.targets
            for answer in answers(batch.targets, end):
                row = int(batch.places[answer.stop - 1]) // batch.ids.shape[1]
                right[batch.kinds[row]].append(bool(hit[answer].all()))
        return {kind: sum(hits) / len(hits) for kind, hits in right.items()}

    def save(self) -> None:
        """Write a checkpoint to resume from."""
        state = {name: getattr(self, name) for name in ("seen", "steps", "seconds", "best")}
        state |= {
            "network": self.network.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "sources": [generator.getstate() for generator in self._generators()],
        }
        text_checkpoint.write(state, WORK / "checkpoint.pt")
        print("checkpoint written", flush=True)

    def _generators(self) -> list[random.Random]:
        return [*(feed.source.rng for feed in (self.scenes, self.feed, self.rehearsal)), self.turns]

    def resume(self) -> None:
        """Go on from the last checkpoint."""
        state: dict[str, Any] = torch.load(WORK / "checkpoint.pt", weights_only=False)
        self.network.load_state_dict(state["network"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for generator, saved in zip(self._generators(), state["sources"], strict=True):
            generator.setstate(saved)
        for name in ("seen", "steps", "seconds", "best"):
            setattr(self, name, state[name])


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    made = argparse.ArgumentParser(description="Train the demo model to see.")
    made.add_argument("--out", default=str(MODEL), help="the model folder to write")
    made.add_argument("--text", default=str(FOLDER), help="the folder of the text model to begin with")
    made.add_argument("--seed", type=int, default=7)
    made.add_argument("--pictures", type=int, default=1_000_000, help="end after this many pictures")
    made.add_argument("--minutes", type=float, default=100, help="or after this many minutes")
    made.add_argument("--batch", type=int, default=40, help="pictures of a batch")
    made.add_argument("--share", type=float, default=0.45, help="the share of the steps that rehearse text")
    made.add_argument("--rehearsal", type=int, default=2048, help="tokens of a batch of text")
    made.add_argument("--matrix-lr", type=float, default=0.02)
    made.add_argument("--other-lr", type=float, default=0.002)
    made.add_argument("--test", type=int, default=480, help="pictures of a measurement")
    made.add_argument("--watch", type=float, default=10, help="minutes between measurements")
    made.add_argument("--eager", action="store_true", help="compile nothing: slower, but without a compiler")
    made.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    return made


def main() -> None:
    """Train the network."""
    options = parser().parse_args()
    training = Training(options)
    if options.resume:
        training.resume()
    training.run()
