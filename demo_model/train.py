"""The training: batches in, steps, checkpoints, samples, and the model folder out."""

import argparse
import shutil
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.nn import functional

from demo_model import checkpoint, tokenization
from demo_model.batches import IGNORED, Batch, Encoder, Example, Feed, answers, collate, grouped
from demo_model.mixture import LATE, draw
from demo_model.network import Network, Shape
from demo_model.optimizers import optimizers
from demo_model.sample import samples
from demo_model.schedule import Schedule
from demo_model.source import Source
from demo_model.template import FOLDER, Template
from demo_model.wiring import wire

WORK = Path(__file__).parent.parent / "build" / "demo_model"
KEPT = ("chat_template.jinja", "MODEL_CARD.md")  # of the model folder, which are not trained


class Training:
    """A training run that can be stopped and resumed."""

    def __init__(self, options: argparse.Namespace, tokenizer: Tokenizer) -> None:
        torch.manual_seed(options.seed)
        self.options, self.tokenizer = options, tokenizer
        self.schedule = Schedule(options.tokens, options.minutes)
        self.encoder = Encoder(tokenizer, Template())
        self.feed = Feed(self.encoder, Source(options.seed), options.batch)
        self.network = Network(Shape(vocab_size=tokenizer.get_vocab_size()))
        wire(self.network)
        if not options.eager:
            # a layer's many small steps in one go take half the time, once they are compiled
            for layer in self.network.layers:
                layer.compile(dynamic=True)
        self.optimizers = optimizers(self.network, options.matrix_lr, options.other_lr)
        self.tokens, self.steps, self.seconds = 0, 0, 0.0
        self.test = self._test_examples()

    def _test_examples(self) -> list[Example]:
        source = Source("watch")
        made = [self.encoder.example(draw(source, LATE)) for _ in range(220)]
        return [e for e in made if len(e.ids) < 1800]

    @property
    def progress(self) -> float:
        """The share of the training that is done."""
        return self.schedule.progress(self.tokens, self.seconds / 60)

    def step(self, batch: Batch) -> float:
        """One update; its loss."""
        rate = self.schedule.rate(self.progress)
        for optimizer, full in zip(self.optimizers, (self.options.matrix_lr, self.options.other_lr), strict=True):
            optimizer.param_groups[0]["lr"] = full * rate
            optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = functional.cross_entropy(self.network.predictions(batch.ids, batch.places), batch.targets)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.item()

    def run(self) -> None:
        """Train to the end of the schedule."""
        saved, watched, losses = time.monotonic(), time.monotonic(), list[float]()
        while self.progress < 1:
            began = time.monotonic()
            batch = self.feed.next(self.progress)
            losses.append(self.step(batch))
            self.tokens, self.steps = self.tokens + batch.ids.numel(), self.steps + 1
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
        done = int(self.progress * 30)
        speed = self.tokens / self.seconds
        left = self.seconds * (1 - self.progress) / max(self.progress, 1e-6) / 60
        print(
            f"[{'#' * done}{'.' * (30 - done)}] {self.progress:6.1%} step {self.steps} "
            f"loss {sum(losses) / len(losses):.3f} {speed:,.0f} tokens/s {self.tokens / 1e6:.1f}M left {left:.0f} min",
            flush=True,
        )

    def watch(self) -> None:
        """Measure answers that are right to the last token, show samples, and write the model folder."""
        scores = self.scores()
        mean = sum(right for right, _ in scores.values()) / len(scores)
        told = ", ".join(f"{kind} {right:.0%} {loss:.2f}" for kind, (right, loss) in sorted(scores.items()))
        print(f"right answers {mean:.1%}; of each kind, with the loss of a token: {told}", flush=True)
        for text in samples(self.network, self.tokenizer, self.steps):
            print("   " + text, flush=True)
        self.export()

    @torch.no_grad()
    def scores(self) -> dict[str, tuple[float, float]]:
        """By kind, the share of answers whose every token is the likeliest, and the mean loss of their tokens."""
        right: dict[str, list[bool]] = defaultdict(list)
        losses: dict[str, list[float]] = defaultdict(list)
        for group in grouped(self.test, self.options.batch):
            batch = collate(group)
            with torch.autocast("cpu", torch.bfloat16):
                predictions = self.network.predictions(batch.ids, batch.places)
            hit = predictions.argmax(-1) == batch.targets
            loss = functional.cross_entropy(predictions, batch.targets, ignore_index=IGNORED, reduction="none")
            for answer in answers(batch.targets, self.encoder.end):
                kind = group[int(batch.places[answer.stop - 1]) // batch.ids.shape[1]].kind
                right[kind].append(bool(hit[answer].all()))
                losses[kind] += loss[answer].tolist()
        return {kind: (sum(hits) / len(hits), sum(losses[kind]) / len(losses[kind])) for kind, hits in right.items()}

    def export(self) -> None:
        """Write the model folder."""
        pad = tokenization.token_id(self.tokenizer, "<|endoftext|>")
        checkpoint.export(self.network, Path(self.options.out), self.encoder.end, pad)

    def save(self) -> None:
        """Write a checkpoint to resume from."""
        state = {name: getattr(self, name) for name in ("tokens", "steps", "seconds")}
        state |= {
            "network": self.network.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "source": self.feed.source.rng.getstate(),
        }
        checkpoint.write(state, WORK / "checkpoint.pt")
        print("checkpoint written", flush=True)

    def resume(self) -> None:
        """Go on from the last checkpoint."""
        state: dict[str, Any] = torch.load(WORK / "checkpoint.pt", weights_only=False)
        self.network.load_state_dict(state["network"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.feed.source.rng.setstate(state["source"])
        for name in ("tokens", "steps", "seconds"):
            setattr(self, name, state[name])


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    made = argparse.ArgumentParser(description="Train the demo model tiles-nano.")
    made.add_argument("--out", default=str(WORK / "tiles-nano"), help="the model folder to write")
    made.add_argument("--seed", type=int, default=7)
    made.add_argument("--tokens", type=int, default=40_000_000, help="end after this many tokens")
    made.add_argument("--minutes", type=float, default=100, help="or after this many minutes")
    made.add_argument("--batch", type=int, default=3072, help="tokens of a batch")
    made.add_argument("--matrix-lr", type=float, default=0.016)
    made.add_argument("--other-lr", type=float, default=0.004)
    made.add_argument("--vocabulary", type=int, default=2560)
    made.add_argument("--watch", type=float, default=5, help="minutes between measurements")
    made.add_argument("--eager", action="store_true", help="compile nothing: slower, but without a compiler")
    made.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    return made


def main() -> None:
    """Train the tokenizer, unless resuming, then the network."""
    options = parser().parse_args()
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    if folder.resolve() != FOLDER.resolve():
        for name in KEPT:
            shutil.copy(FOLDER / name, folder / name)
    if not options.resume:
        tokenization.save(tokenization.train(Template(), options.vocabulary), folder, Shape().max_position_embeddings)
    training = Training(options, Tokenizer.from_file(str(folder / "tokenizer.json")))
    if options.resume:
        training.resume()
    training.run()
