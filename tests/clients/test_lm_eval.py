"""lm-evaluation-harness has the same scores and texts from the server as from mlx-lm in its own process."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.services.engine.model import blas
from tests.conftest import Server

pytest.importorskip("lm_eval", reason="lm-eval is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # it warns of what it does itself

DEMO = Path(__file__).parents[2] / "app" / "tiles_nano"
ITEMS = [
    {"text": "The soup was cold and the waiter was rude.", "label": 1},
    {"text": "What a wonderful evening, we will come back!", "label": 0},
    {"text": "It broke after two days: “quality”, they said.", "label": 1},
    {"text": "Größer, schneller, schöner: 10/10 🙂", "label": 0},
]
QUESTION = "Review: {{text}}\nThis review is"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("tasks")
    with pytest.MonkeyPatch.context() as patch:  # nothing is fetched, and nothing left in the user's cache
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
        data = folder / "data.jsonl"
        data.write_text("\n".join(map(json.dumps, ITEMS)))
        common = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test"}
        return [
            common
            | {
                "task": "choices",
                "output_type": "multiple_choice",
                "doc_to_text": QUESTION,
                "doc_to_choice": ["positive", "negative and unhappy"],
                "doc_to_target": "label",
                "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
            },
            common
            | {
                "task": "likelihoods",
                "output_type": "loglikelihood",
                "doc_to_text": "Review:",
                "doc_to_target": " {{text}}",
                "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
            },
            common
            | {
                "task": "texts",
                "output_type": "generate_until",
                "doc_to_text": QUESTION,
                "doc_to_target": "positive",
                "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 12, "do_sample": False, "temperature": 0.0},
                "metric_list": [{"metric": "exact_match"}],
            },
        ]


def evaluate(model: Any, tasks: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """What a model says of each item, by task."""
    import lm_eval

    results = lm_eval.simple_evaluate(model=model, tasks=tasks, log_samples=True, bootstrap_iters=0)
    return {name: [sample["resps"] for sample in samples] for name, samples in results["samples"].items()}


def test_scores_and_texts_are_those_of_mlx_lm(demo: Server, tasks: list[dict[str, Any]]) -> None:
    blas.preload()
    import mlx.core as mx
    from lm_eval.models.openai_completions import LocalCompletionsAPI
    from mlx_lm.evaluate import MLXLM

    over_http = LocalCompletionsAPI(
        base_url=f"{demo.url}/v1/completions", model="m", tokenizer=str(DEMO), batch_size=3, max_retries=1
    )
    alone = MLXLM(str(DEMO), use_chat_template=False)  # its max_tokens would cut prompts as well as answers
    alone._model.set_dtype(mx.float32)
    ours, theirs = evaluate(over_http, tasks), evaluate(alone, tasks)
    for task in ("choices", "likelihoods"):
        pairs = list(zip(flat(ours[task]), flat(theirs[task]), strict=True))
        np.testing.assert_allclose([one[0] for one, _ in pairs], [other[0] for _, other in pairs], atol=0.002)
        assert [bool(one[1]) for one, _ in pairs] == [bool(other[1]) for _, other in pairs]
    assert len(set(map(str, ours["choices"]))) == len(ITEMS)  # each context counts
    assert ours["texts"] == theirs["texts"]


def flat(responses: list[Any]) -> list[Any]:
    """Give the pairs of a score and whether the text is the greedy one."""
    return [(float(one[0]), one[1]) for item in responses for (one,) in item]
