"""`tiles-server pull`: download a model into the Hugging Face cache."""

import os
import sys
from collections.abc import Collection, Mapping
from fnmatch import fnmatch
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.filesize import decimal

from app.commands.checks import free_bytes
from app.commands.usage_error import UsageError
from app.services import catalog
from app.services.errors import LoadFailed
from app.services.gguf.names import choose, is_gguf, models
from app.services.hub import entry_name, hugging_face_cache, split
from app.services.model_folder import ModelFolder
from app.services.safetensors import WEIGHTS

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

# What mlx-lm downloads, without Python files: no code of a repo is ever run.
_TEXTS = ["*.json", "*.txt", "*.jsonl", "*.jinja", "README.md"]  # the README tells a reranker
PATTERNS = [*_TEXTS, WEIGHTS, "*_Dense/model.safetensors", "tokenizer.model", "*.tiktoken", "tiktoken.model"]
TIMEOUT = 10  # seconds for the first response; huggingface_hub itself has none


@click.command()
@click.argument("name", metavar="ID")
def pull(name: str) -> None:
    """Download the model ID (org/name on Hugging Face). If it is interrupted, run it again to continue.

    Of a repo with GGUF files one is downloaded: name its quantization as in org/name:Q4_K_M.
    """
    name = name.removeprefix("https://huggingface.co/").strip("/")
    repo_id, quant = split(name)
    if repo_id is None:
        raise UsageError(f"{name!r} is no repo id: give org/name, or org/name:QUANT for a GGUF file.")
    folder = _served(_download(repo_id, quant, hugging_face_cache(), os.environ.get("HF_ENDPOINT")), name)
    click.echo(f"{folder.id}: {folder.model_type}, {folder.precision}, {decimal(folder.weight_bytes)} of weights")
    click.echo(f"Serve it with: tiles-server --model {folder.id}")


def _download(repo_id: str, quant: str | None, hub: Path, endpoint: str | None) -> Path:
    """Download a model. Returns its folder, or its GGUF file."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        info = HfApi(endpoint=endpoint).model_info(repo_id, timeout=TIMEOUT, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        paths = _choose(repo_id, quant, sizes)
        _check_disk(info, {path: sizes[path] for path in paths}, hub)
        patterns = PATTERNS if not is_gguf(paths[0]) else [escape(path) for path in paths]
        folder = Path(snapshot_download(repo_id, cache_dir=hub, endpoint=endpoint, allow_patterns=patterns))
        return folder / paths[0] if is_gguf(paths[0]) else folder
    except LoadFailed as error:
        raise click.ClickException(error.message) from error
    except click.ClickException:
        raise
    except KeyboardInterrupt:
        name = f"{repo_id}:{quant}" if quant else repo_id
        raise click.ClickException(f"Stopped. `tiles-server pull {name}` continues the download.") from None
    except Exception as error:
        raise click.ClickException(_reason(repo_id, error)) from error


def _served(folder: Path, repo_id: str) -> ModelFolder:
    try:
        return catalog.inspect(folder)
    except LoadFailed as error:
        raise click.ClickException(f"{repo_id} is downloaded but cannot be served: {error.message}") from error


def _choose(repo_id: str, quant: str | None, names: Collection[str]) -> list[str]:
    """Give the files to download: those of an MLX model, or of one GGUF file. Raises LoadFailed, before a download."""
    is_mlx = "config.json" in names and any(fnmatch(name, WEIGHTS) for name in names)
    if is_mlx and quant is None:
        return sorted(filter(_is_model_file, names))
    if quant is None and not any(map(is_gguf, names)):
        raise LoadFailed(f"{repo_id} has no MLX model: config.json and {WEIGHTS} are needed, or a GGUF file.")
    return list(choose(models(names), quant, repo_id).paths)


def _check_disk(info: "ModelInfo", sizes: Mapping[str, int], hub: Path) -> None:
    """Refuse what does not fit on the disk, before anything is downloaded."""
    here = hub / entry_name(info.id) / "snapshots" / (info.sha or "")
    missing = sum(size for name, size in sizes.items() if not (here / name).exists())
    if missing > (free := free_bytes(hub)):
        raise click.ClickException(f"{info.id} needs {decimal(missing)} more, and {hub} has only {decimal(free)} free.")


def _is_model_file(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in PATTERNS)


def _reason(repo_id: str, error: Exception) -> str:
    """Give the reason of a failed download in one line."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    # huggingface_hub wraps what went wrong on the way to the hub.
    error = (
        error.__cause__ if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception) else error
    )
    match error:
        case GatedRepoError():
            return f"{repo_id} is gated: accept its terms at huggingface.co/{repo_id}, then `hf auth login`."
        case RepositoryNotFoundError():
            return f"Hugging Face has no model {repo_id}, or it is private: then `hf auth login` first."
        case OfflineModeIsEnabled():
            return "HF_HUB_OFFLINE is set, so nothing can be downloaded."
        case HfHubHTTPError():
            return f"Hugging Face answered {error.response.status_code} for {repo_id}; try again later."
        case OSError():
            return f"The download stopped: {error.strerror or _first_line(error)}. The same command continues it."
    return f"Hugging Face cannot be reached ({_first_line(error)}). Models that are downloaded already work without it."


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
