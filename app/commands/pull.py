"""`tiles-server pull`: download a model into the Hugging Face cache, or have a server download it."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import click
from rich.filesize import decimal

from app.commands.download_report import DownloadReport
from app.commands.server_client import ServerClient, ServerFailure
from app.commands.server_options import connect, server_options
from app.commands.usage_error import UsageError
from app.services import catalog
from app.services.downloads import client, transfer
from app.services.downloads.plan import Plan, split
from app.services.errors import AppError, InvalidRequest, LoadFailed
from app.services.hub import hugging_face_cache
from app.services.model_folder import ModelFolder


@click.command()
@click.argument("name", metavar="ID")
@server_options("Have the server at this address download it, with its own disk and its own token.")
def pull(name: str, url: str | None, api_key: str | None) -> None:
    """Download the model ID (org/name on Hugging Face). If it is interrupted, run it again to continue.

    Of a repo with GGUF files one is downloaded: name its quantization as in org/name:Q4_K_M. Without a terminal it
    prints a line of JSON for each step.
    """
    try:
        repo, quant = split(name)
    except InvalidRequest as error:
        raise UsageError(error.message) from error
    name = f"{repo}:{quant}" if quant else repo
    if url:
        _pull_by_server(name, connect(url, api_key))
    else:
        _pull(name, hugging_face_cache())


def _pull(name: str, cache: Path) -> None:
    try:
        plan = client.look_up(name)
        with DownloadReport(plan.model, plan.total) as report:
            snapshot = transfer.fetch(plan, cache, lambda present: report.note(sum(present.values())))
            model = _inspect(snapshot, plan)
            report.finish(
                {"path": str(model.path), "precision": model.precision, "command": f"tiles-server --model {model.id}"},
                f"{model.id}: {model.model_type}, {model.precision}, {decimal(model.weight_bytes)} of weights",
                f"Serve it with: tiles-server --model {model.id}",
            )
    except AppError as error:
        raise click.ClickException(error.message) from error
    except KeyboardInterrupt:
        raise click.ClickException(f"Stopped. `tiles-server pull {name}` continues the download.") from None


def _inspect(snapshot: Path, plan: Plan) -> ModelFolder:
    first = snapshot / plan.files[0].path
    try:
        return catalog.inspect(first if ":" in plan.model else snapshot)
    except LoadFailed as error:
        raise LoadFailed(f"{plan.model} is downloaded but cannot be served: {error.message}") from error


def _pull_by_server(name: str, server: ServerClient) -> None:
    try:
        with closing(server.open()) as connection:
            events = server.request(connection, "GET", "/models/sse")  # before it begins: nothing is missed
            model = server.call("POST", "/models", {"model": name})["id"]
            report: DownloadReport | None = None
            for line in events:
                event = json.loads(line[6:]) if line.startswith(b"data: ") else {}
                if event.get("model") != name or not str(event.get("event")).startswith("download_"):
                    continue
                files: list[dict[str, Any]] = list(event["data"]["progress"].values())
                if report is None:
                    report = DownloadReport(model, sum(file["total"] for file in files)).__enter__()
                report.note(sum(file["done"] for file in files))
                if event["event"] == "download_failed":
                    raise ServerFailure(event["data"]["error"])
                if event["event"] == "download_finished":
                    return report.finish({"server": server.url}, f"{model} is on the server at {server.url}")
        raise ServerFailure(f"The server at {server.url} has ended")
    except (ServerFailure, OSError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        text = f"The server goes on. `tiles-server stop {name} --url {server.url}` stops the download."
        raise click.ClickException(text) from None
