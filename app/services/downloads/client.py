"""What is asked of the Hugging Face hub, or of the one that `HF_ENDPOINT` names. Everything blocks: call on a thread.

huggingface_hub does the asking: tokens, mirrors, offline mode and certificates are as in all its programs.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from app.services.downloads import plan
from app.services.downloads.plan import Plan, RemoteFile
from app.services.errors import AppError, DownloadFailed, DownloadForbidden, ModelNotFound

TIMEOUT = 10  # seconds for an answer; huggingface_hub itself has none


@dataclass(frozen=True, slots=True)
class Match:
    """A repo that a search finds."""

    id: str
    downloads: int  # in the last 30 days
    likes: int
    gated: bool


def look_up(name: str, environ: Mapping[str, str] = os.environ) -> Plan:
    """Find out which files a model consists of.

    Raises InvalidRequest, ModelNotFound, DownloadForbidden or DownloadFailed.
    """
    repo, quant = plan.split(name)
    from huggingface_hub import HfApi

    try:
        info = HfApi(endpoint=environ.get("HF_ENDPOINT")).model_info(repo, timeout=TIMEOUT, files_metadata=True)
    except Exception as error:
        raise reason(repo, error) from error
    files = [
        RemoteFile(file.rfilename, size, (file.lfs.sha256 if file.lfs else file.blob_id) or "")
        for file in info.siblings or []
        if (size := file.lfs.size if file.lfs else file.size) is not None
    ]
    return plan.make(repo, quant, info.sha or "", files)


def search(text: str, limit: int, environ: Mapping[str, str] = os.environ) -> list[Match]:
    """Give the repos with weights that can be served and with these words in their names, the most used first.

    Raises DownloadFailed.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=environ.get("HF_ENDPOINT"))
    try:
        by_kind = [
            list(
                api.list_models(
                    search=text, filter=kind, sort="downloads", limit=limit, expand=["downloads", "likes", "gated"]
                )
            )
            for kind in ("mlx", "gguf")
        ]
    except Exception as error:
        raise reason(text, error) from error
    matches = {
        model.id: Match(model.id, model.downloads or 0, model.likes or 0, bool(model.gated))
        for models in by_kind
        for model in models
    }
    return sorted(matches.values(), key=lambda match: -match.downloads)[:limit]


def reason(repo: str, error: Exception) -> AppError:
    """Say in one line why the hub gave nothing."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    match error:
        case AppError():
            return error
        case GatedRepoError():
            text = f"{repo} is gated: accept its terms at huggingface.co/{repo}, then `hf auth login`."
            return DownloadForbidden(text)
        case RepositoryNotFoundError():
            return ModelNotFound(f"Hugging Face has no model {repo}, or it is private: then `hf auth login` first.")
        case OfflineModeIsEnabled():
            return DownloadFailed("HF_HUB_OFFLINE is set, so nothing can be downloaded.")
        case HfHubHTTPError():
            return DownloadFailed(f"Hugging Face answered {error.response.status_code} for {repo}; try again later.")
        case OSError():
            why = error.strerror or _first_line(error)
            return DownloadFailed(f"The download stopped: {why}. The same again continues it.")
    local = "Models that are downloaded already work without it."
    return DownloadFailed(f"Hugging Face cannot be reached ({_first_line(error)}). {local}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
