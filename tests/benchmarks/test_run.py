"""A small run against the real server and mlx-lm in process, from the command line to README."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import render
from benchmarks.__main__ import main

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_quick_run_measures_and_writes_its_figures(tmp_path: Path) -> None:
    kept = tmp_path / "run.json"
    some = [f"--only={name}" for name in ("one-stream", "streams-32", "long-prompt", "json-schema", "restart")]
    arguments = ["--quick", *some, "--no-blas-peer", f"--cache={tmp_path / 'models'}", f"--json={kept}"]
    command = [sys.executable, "-m", "benchmarks", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=900)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    content = json.loads(kept.read_text())
    assert not any(result["failures"] for result in content["results"])
    assert all(goal["median"] > 0 for goal in content["goals"])
    assert CliRunner().invoke(main, ["--quick", "--only=one-stream", f"--resume={kept}"]).exit_code == 0
    again = json.loads(kept.read_text())
    assert sorted(map(str, again["results"])) == sorted(map(str, content["results"]))  # all of it was there
    (tmp_path / "README.md").write_text(f"{render.START}\n{render.END}\n")
    assert "32 streams of 16 tokens" in (render.render(kept, tmp_path)[-1]).read_text()


def test_the_command_says_what_it_can_do() -> None:
    told = CliRunner().invoke(main, ["--help"])
    assert told.exit_code == 0
    assert all(word in told.stdout for word in ("--quick", "--only", "--minutes", "--profile", "render"))


def test_a_file_without_figures_cannot_be_rendered(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    told = CliRunner().invoke(main, ["render", str(tmp_path / "run.json")])
    assert told.exit_code == 1
    assert "holds no figures" in told.stderr


def test_a_workload_that_has_no_such_model_is_refused(tmp_path: Path) -> None:
    told = CliRunner().invoke(main, ["--only", "start", "--model", "25M", "--json", str(tmp_path / "run.json")])
    assert told.exit_code == 2
    assert not (tmp_path / "run.json").exists()
