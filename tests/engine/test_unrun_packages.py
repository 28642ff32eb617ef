"""transformers and the Hub's client, of which the server imports a part, are whole for whoever asks for more."""

import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "app" / "tiles_nano"


def run(code: str) -> list[str]:
    """Run code in a process that has imported mlx-lm as a server does. Gives the lines that it prints."""
    start = """
import sys
from app.services.engine.model.unrun_packages import defer_transformers
defer_transformers()
from app.services.engine.model import loading
"""
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_tokenizer_is_that_of_transformers_without_its_index() -> None:
    code = f"""
tokenizer = loading.read_tokenizer(loading.Path({str(DEMO)!r}), None)
print(type(tokenizer._tokenizer).__module__)
print(type(sys.modules["transformers"]).__name__)
"""
    assert run(code) == ["transformers.tokenization_utils_tokenizers", "_UnrunPackage"]


@pytest.mark.parametrize(
    "code",
    [
        "from transformers import Qwen2Config as it",
        "import transformers; it = transformers.Qwen2Config",
        "import transformers.models; it = transformers.models.qwen2.Qwen2Config",
        "from transformers.models import Qwen2Config as it",
        "from transformers.models.qwen2 import Qwen2Config as it",
    ],
)
def test_everything_else_of_the_package_is_there(code: str) -> None:
    assert run(f"{code}\nprint(it().model_type)") == ["qwen2"]


def test_its_classes_are_the_same_before_and_after_its_index_is_made() -> None:
    code = """
import transformers
early = transformers.PreTrainedTokenizerFast, transformers.AutoTokenizer
transformers.Qwen2Config
from transformers import PreTrainedTokenizerFast, AutoTokenizer
print(early == (PreTrainedTokenizerFast, AutoTokenizer))
"""
    assert run(code) == ["True"]


def test_what_the_package_has_not_is_refused_as_ever() -> None:
    code = """
import transformers
for name in ("NoSuchTokenizer", "__no_such_name__"):
    print(hasattr(transformers, name))
"""
    assert run(code) == ["False", "False"]


def test_the_client_of_the_hub_is_not_imported_for_a_model_on_this_machine() -> None:
    code = f"""
loading.read_tokenizer(loading.Path({str(DEMO)!r}), None)
print("transformers.utils.hub" in sys.modules, "huggingface_hub.hf_api" in sys.modules)
"""
    assert run(code) == ["True False"]


def test_the_client_of_the_hub_is_there_for_whoever_uses_it() -> None:
    code = """
from transformers.utils import hub
api = hub.hf_api()
print(isinstance(api, hub.HfApi), isinstance(1, hub.HfApi), hub.HfApi.__name__, callable(hub.HfApi.model_info))
import huggingface_hub
from huggingface_hub.hf_api import HfApi
print(huggingface_hub.HfApi is HfApi, type(api) is HfApi)
"""
    assert run(code) == ["True False HfApi True", "True True"]


def test_what_is_not_on_this_machine_is_looked_for_as_ever() -> None:
    code = """
from mlx_lm.utils import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
try:
    snapshot_download("nobody/nothing", cache_dir="/nowhere", local_files_only=True)
except LocalEntryNotFoundError:
    print("not here")
"""
    assert run(code) == ["not here"]
