"""The training: what is trained on, and the copying circuit that the weights start from."""

from statistics import mean

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is a tool for training only")

from tokenizers import Tokenizer  # noqa: E402

from demo_model.batches import IGNORED, Encoder, collate, grouped, repetition  # noqa: E402
from demo_model.conversation import Conversation  # noqa: E402
from demo_model.mixture import LATE, draw  # noqa: E402
from demo_model.network import Network, Shape  # noqa: E402
from demo_model.source import Source  # noqa: E402
from demo_model.template import FOLDER, Template  # noqa: E402
from demo_model.tokenization import slot_words  # noqa: E402
from demo_model.wiring import wire  # noqa: E402


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(Tokenizer.from_file(str(FOLDER / "tokenizer.json")), Template())


def trained_text(encoder: Encoder, talk: Conversation) -> str:
    example = encoder.example(talk)
    ids = [token for token, trained in zip(example.ids, example.trained, strict=True) if trained]
    return str(encoder.tokenizer.decode(ids, skip_special_tokens=False))


def test_only_answers_are_trained_on(encoder: Encoder) -> None:
    talk = Conversation("").user("Hi").answer("Hello!", "A greeting.").user("Bye").answer("Goodbye!", "The end.")
    assert trained_text(encoder, talk) == "Hello!<|im_end|>Goodbye!<|im_end|>"


def test_a_thinking_conversation_trains_its_last_answer_after_the_tag(encoder: Encoder) -> None:
    talk = (
        Conversation("", thinking=True)
        .user("Hi")
        .answer("Hello!", "A greeting.")
        .user("Bye")
        .answer("Goodbye!", "The end.")
    )
    assert trained_text(encoder, talk) == "The end.\n</think>\n\nGoodbye!<|im_end|>"


def test_of_a_structured_answer_only_what_no_grammar_forces_is_trained_on(encoder: Encoder) -> None:
    talk = Conversation("json", schema={}).user("Ada is 36").answer('{"who": "Ada", "about": {"age": 36}}', "")
    assert trained_text(encoder, talk) == '": "Ada", "": {"": 36}}<|im_end|>'


def test_scattered_tokenizers_spell_known_words_in_pieces(encoder: Encoder) -> None:
    text = " ".join(sorted(slot_words()))
    whole = encoder.tokenizer.encode(text).ids
    spelled = [tokenizer.encode(text).ids for tokenizer in encoder.scattered]
    assert mean(map(len, spelled)) > 1.1 * len(whole)
    assert min(map(len, spelled)) > 1.08 * len(whole)
    for tokenizer, pieces in zip(encoder.scattered, spelled, strict=True):
        assert tokenizer.decode(pieces) == text
        assert tokenizer.encode("assistant").ids == encoder.assistant


def test_batches_predict_the_trained_tokens(encoder: Encoder) -> None:
    source = Source(1)
    examples = [encoder.example(draw(source, LATE)) for _ in range(30)]
    for group in grouped([e for e in examples if len(e.ids) < 1000], 4000):
        batch = collate(group)
        real = batch.targets != IGNORED
        assert torch.equal(batch.ids.flatten()[batch.places + 1][real], batch.targets[real])
        assert int(real.sum()) == sum(sum(e.trained) for e in group)


def test_the_circuit_copies_before_any_training(encoder: Encoder) -> None:
    torch.manual_seed(0)
    source, network = Source(2), Network(Shape(vocab_size=encoder.tokenizer.get_vocab_size()))
    batch = collate([repetition(source, encoder.plain) for _ in range(10)])
    assert copied(network, batch) < 0.05
    wire(network)
    assert copied(network, batch) > 0.5


def copied(network: Network, batch: object) -> float:
    with torch.no_grad():
        right = network.predictions(batch.ids, batch.places).argmax(-1) == batch.targets  # type: ignore[attr-defined]
    return float(right[batch.targets != IGNORED].float().mean())  # type: ignore[attr-defined]
