"""The training: the demo model's text network learns to see, and rehearses what it knows."""

import argparse
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
from demo_model.batches import Encoder, Feed, answers
from demo_model.network import Shape
from demo_model.optimizers import Muon
from demo_model.schedule import Schedule
from demo_model.source import Source
from demo_model.template import FOLDER, Template
from demo_vision import checkpoint, questions
from demo_vision.batches import PictureBatch, PictureEncoder, PictureFeed, collate, grouped, with_image_tokens
from demo_vision.folders import MODEL, WORK
from demo_vision.network import SeeingNetwork, VisionShape

_LATE = 0.99  # of the demo model's own training: its mixture at the end is what is rehearsed
_GENTLE = 0.2  # of the tower's learning rate is the text network's, which knows something already
_ALONE = 0.08  # of the training the tower learns alone, so that what it makes at first spoils nothing


class Training:
    """A training run that can be stopped and resumed."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(options.seed)
        self.options = options
        self.schedule = Schedule(options.pictures, options.minutes, decay=0.7)
        self.tokenizer = with_image_tokens(Tokenizer.from_file(str(Path(options.text) / "tokenizer.json")))
        encoder = Encoder(self.tokenizer, Template())
        self.pictures = PictureEncoder(encoder, VisionShape())
        self.feed = PictureFeed(self.pictures, Source(options.seed), options.batch)
        self.rehearsal = Feed(encoder, Source(f"rehearsal {options.seed}"), options.rehearsal)
        self.turns = random.Random(options.seed)
        self.network = SeeingNetwork(Shape(vocab_size=self.tokenizer.get_vocab_size()), VisionShape())
        self._take_text_weights()
        if not options.eager:  # as in the demo model's training: many small steps in one go take half the time
            # not the tower's: PyTorch 2.13 takes the strides of its attention for those of the first size of images
            for layer in self.network.layers:
                layer.compile(dynamic=True)
        self.optimizers = self._optimizers()
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

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """Muon for the matrices of layers, AdamW for the rest; of the tower first, then of the text network."""
        of_tower = {id(p) for p in self.network.visual.parameters()}
        text = [p for p in self.network.parameters() if id(p) not in of_tower]
        made: list[torch.optim.Optimizer] = []
        for parameters, layers, gentle in (
            ([*self.network.visual.parameters()], self.network.visual.blocks, 1.0),
            (text, self.network.layers, _GENTLE),
        ):
            matrices = [p for p in layers.parameters() if p.ndim == 2]
            of_layers = {id(p) for p in matrices}
            others = [p for p in parameters if id(p) not in of_layers]
            rate = self.options.other_lr * gentle
            made.append(Muon(matrices, self.options.matrix_lr * gentle))
            made.append(torch.optim.AdamW(others, rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True))
        for optimizer in made:
            optimizer.param_groups[0]["full"] = optimizer.param_groups[0]["lr"]
        return made

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
        hidden = self.network.seen(batch.ids, batch.images, batch.grid, batch.positions, self.pictures.image_token)
        return self.network.logits(hidden.flatten(0, 1)[batch.places]).float()

    def step(self) -> float:
        """One update, of pictures or of a rehearsal; its loss."""
        is_rehearsal = self.progress > _ALONE and self.turns.random() < self.options.share
        rate = self.schedule.rate(self.progress)
        for number, optimizer in enumerate(self.optimizers):
            is_of_text = number >= 2
            waits = (is_of_text and self.progress < _ALONE) or (is_rehearsal and not is_of_text)
            optimizer.param_groups[0]["lr"] = 0.0 if waits else optimizer.param_groups[0]["full"] * rate
            optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            if is_rehearsal:
                words = self.rehearsal.next(_LATE)
                loss = functional.cross_entropy(self.network.predictions(words.ids, words.places), words.targets)
            else:
                batch = self.feed.next()
                self.seen += len(batch.images)
                loss = functional.cross_entropy(self.predictions(batch), batch.targets)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for number, optimizer in enumerate(self.optimizers):
            if not (is_rehearsal and number < 2):
                optimizer.step()
        return 0.0 if is_rehearsal else loss.item()

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
            "sources": [self.feed.source.rng.getstate(), self.rehearsal.source.rng.getstate(), self.turns.getstate()],
        }
        text_checkpoint.write(state, WORK / "checkpoint.pt")
        print("checkpoint written", flush=True)

    def resume(self) -> None:
        """Go on from the last checkpoint."""
        state: dict[str, Any] = torch.load(WORK / "checkpoint.pt", weights_only=False)
        self.network.load_state_dict(state["network"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        generators = (self.feed.source.rng, self.rehearsal.source.rng, self.turns)
        for generator, saved in zip(generators, state["sources"], strict=True):
            generator.setstate(saved)
        for name in ("seen", "steps", "seconds", "best"):
            setattr(self, name, state[name])


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    made = argparse.ArgumentParser(description="Train tiles-nano-vl: the demo model learns to see.")
    made.add_argument("--out", default=str(MODEL), help="the model folder to write")
    made.add_argument("--text", default=str(FOLDER), help="the folder of the text model to begin with")
    made.add_argument("--seed", type=int, default=7)
    made.add_argument("--pictures", type=int, default=400_000, help="end after this many pictures")
    made.add_argument("--minutes", type=float, default=100, help="or after this many minutes")
    made.add_argument("--batch", type=int, default=40, help="pictures of a batch")
    made.add_argument("--share", type=float, default=0.25, help="the share of the steps that rehearse text")
    made.add_argument("--rehearsal", type=int, default=2048, help="tokens of a batch of text")
    made.add_argument("--matrix-lr", type=float, default=0.02)
    made.add_argument("--other-lr", type=float, default=0.004)
    made.add_argument("--test", type=int, default=480, help="pictures of a measurement")
    made.add_argument("--watch", type=float, default=5, help="minutes between measurements")
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
