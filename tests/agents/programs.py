"""The programs of the matrix: how each is driven, what its tools are called, and the profile that `launch` gives it."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Place:
    """Where a program is at home, where it works, and what it talks to."""

    home: Path
    work: Path
    url: str
    model: str


def nothing(_: Place) -> Mapping[str, Any]:
    """What most programs need besides their profile."""
    return {}


@dataclass(frozen=True)
class Program:
    """A program that is driven without a terminal, one process a turn."""

    name: str
    package: str  # of npm, or of PyPI
    version: str
    executable: str
    dialect: str
    arguments: Callable[[Place, str, bool], Sequence[str]]  # for a turn's text, which may be the first
    answers: Callable[[Place], Mapping[str, Any]]  # for a turn what the model says first: a call, or a text
    agent: str | None = None  # its name for `tiles-server launch`, which starts it
    environment: Callable[[Place], Mapping[str, str]] = nothing
    files: Callable[[Place], Mapping[str, Any]] = nothing  # below its home: texts, or what is written as JSON
    source: str = "npm"
    has_tools: bool = True
    cannot: tuple[str, ...] = ()  # turns that it cannot take
    # For a text, where the model has room for little: without most tools and instructions.
    with_little: Callable[[str], Sequence[str]] | None = None
    continues: bool = True  # a session; else each turn begins one


def call(tool: str, **arguments: Any) -> dict[str, Any]:
    """A call of a tool, as a script has it."""
    return {"tool": tool, "arguments": arguments}


CLAUDE = Program(
    name="Claude Code",
    package="@anthropic-ai/claude-code",
    version="2.1.332",
    executable="claude",
    agent="claude",
    dialect="Messages",
    arguments=lambda place, text, first: [
        *("-p", "--dangerously-skip-permissions", *([] if first else ["--continue"]), text)
    ],
    with_little=lambda text: [
        *("-p", text, "--dangerously-skip-permissions", "--tools", "Read"),
        *("--system-prompt", "You are a helpful assistant."),
    ],
    environment=lambda place: {"IS_SANDBOX": "1"},  # else it refuses to run a command for root
    answers=lambda place: {
        "read": call("Read", file_path=f"{place.work}/notes.txt"),
        "write": call("Write", file_path=f"{place.work}/new.txt", content="43 tiles\n"),
        "run": call("Bash", command="wc -c < notes.txt > size.txt", description="Count the bytes"),
        "image": call("Read", file_path=f"{place.work}/tile.png"),
    },
)

CODEX = Program(
    name="Codex",
    package="@openai/codex",
    version="0.171.0",
    executable="codex",
    agent="codex",
    dialect="Responses (WebSocket)",
    arguments=lambda place, text, first: [
        *("-c", "approval_policy=never", "-c", "sandbox_mode=danger-full-access"),
        *("exec", *([] if first else ["resume", "--last"]), "--skip-git-repo-check", text),
    ],
    answers=lambda place: {
        "read": call("exec_command", cmd="cat notes.txt"),
        "write": call("exec_command", cmd="echo 43 tiles > new.txt"),
        "run": call("exec_command", cmd="wc -c < notes.txt > size.txt"),
        "image": call("view_image", path=f"{place.work}/tile.png"),
    },
)

OPENCODE = Program(
    name="opencode",
    package="opencode-ai",
    version="1.18.33",
    executable="opencode",
    agent="opencode",
    dialect="Chat completions",
    arguments=lambda place, text, first: ["run", *([] if first else ["--continue"]), text],
    environment=lambda place: {
        "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
        "npm_config_fetch_retries": "0",
    },
    answers=lambda place: {
        "read": call("read", filePath=f"{place.work}/notes.txt"),
        "write": call("write", filePath=f"{place.work}/new.txt", content="43 tiles\n"),
        "run": call("bash", command="wc -c < notes.txt > size.txt", description="Count the bytes"),
        "image": call("read", filePath=f"{place.work}/tile.png"),
    },
)

PI = Program(
    name="Pi",
    package="@earendil-works/pi-coding-agent",
    version="1.6.0",
    executable="pi",
    agent="pi",
    dialect="Responses",
    arguments=lambda place, text, first: ["-p", "--offline", *([] if first else ["--continue"]), text],
    answers=lambda place: {
        "read": call("read", path="notes.txt"),
        "write": call("write", path="new.txt", content="43 tiles\n"),
        "run": call("bash", command="wc -c < notes.txt > size.txt"),
        "image": call("read", path="tile.png"),
    },
)

QWEN = Program(
    name="Qwen Code",
    package="@qwen-code/qwen-code",
    version="0.24.4",
    executable="qwen",
    agent="qwen",
    dialect="Chat completions",
    arguments=lambda place, text, first: ["--yolo", *([] if first else ["--continue"]), text],
    answers=lambda place: {
        "read": call("read_file", file_path=f"{place.work}/notes.txt"),
        "write": call("write_file", file_path=f"{place.work}/new.txt", content="43 tiles\n"),
        "run": call("run_shell_command", command="wc -c < notes.txt > size.txt", is_background=False),
        "image": call("read_file", file_path=f"{place.work}/tile.png"),
    },
)

AIDER = Program(
    name="aider",
    package="aider-chat",
    version="0.86.2",
    executable="aider",
    agent="aider",
    dialect="Chat completions",
    source="PyPI",
    has_tools=False,
    cannot=("run", "image", "next"),
    arguments=lambda place, text, first: [
        *("--no-git", "--yes-always", "--no-pretty", "--no-gitignore", "--no-detect-urls"),
        *("--restore-chat-history", "--read", "notes.txt", "--message", text),
    ],
    answers=lambda place: {"write": "Here it is. The file new.txt says 43 tiles.\n\nnew.txt\n```\n43 tiles\n```\n"},
)

_LLM_TOOLS = """\
import subprocess


def read_file(path: str) -> str:
    "Read a file"
    return open(path).read()


def write_file(path: str, content: str) -> str:
    "Write a file"
    open(path, "w").write(content)
    return "written"


def run_command(command: str) -> str:
    "Run a command in a shell"
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout
"""

LLM = Program(
    name="llm",
    package="llm",
    version="0.36",
    executable="llm",
    dialect="Chat completions",
    source="PyPI",
    cannot=("image", "next"),
    arguments=lambda place, text, first: [
        *("--functions", f"{place.home}/tools.py", *(["-m", "tiles"] if first else ["-c"]), text)
    ],
    environment=lambda place: {"LLM_USER_PATH": f"{place.home}/llm"},
    files=lambda place: {
        "tools.py": _LLM_TOOLS,
        "llm/extra-openai-models.yaml": [
            {"model_id": "tiles", "model_name": place.model, "api_base": f"{place.url}/v1", "supports_tools": True}
        ],
    },
    answers=lambda place: {
        "read": call("read_file", path="notes.txt"),
        "write": call("write_file", path="new.txt", content="43 tiles\n"),
        "run": call("run_command", command="wc -c < notes.txt > size.txt"),
    },
)


CONTINUE = Program(
    name="Continue",
    package="@continuedev/cli",
    version="1.5.47",
    executable="cn",
    agent="continue",
    dialect="Chat completions",
    arguments=lambda place, text, first: ["--auto", "-p", *([] if first else ["--resume"]), text],
    answers=lambda place: {
        "read": call("Read", filepath=f"{place.work}/notes.txt"),
        "write": call("Write", filepath=f"{place.work}/new.txt", content="43 tiles\n"),
        "run": call("Bash", command="wc -c < notes.txt > size.txt"),
        "image": call("Read", filepath=f"{place.work}/tile.png"),
    },
)

CLINE = Program(
    name="Cline",
    package="cline",
    version="3.0.65",
    executable="cline",
    agent="cline",
    dialect="Chat completions",
    continues=False,
    cannot=("follow", "again", "next"),
    arguments=lambda place, text, first: ["--auto-approve", "true", text],
    environment=lambda place: {"CLINE_SESSION_BACKEND_MODE": "local"},  # else a server of its own stays behind
    answers=lambda place: {
        "read": call("read_files", files=[{"path": f"{place.work}/notes.txt"}]),
        "write": call("editor", path=f"{place.work}/new.txt", new_text="43 tiles\n"),
        "run": call("run_commands", commands=["wc -c < notes.txt > size.txt"]),
        "image": call("read_files", files=[{"path": f"{place.work}/tile.png"}]),
    },
)

PROGRAMS = {program.executable: program for program in (CLAUDE, CODEX, OPENCODE, PI, QWEN, AIDER, LLM, CONTINUE, CLINE)}


def write_files(program: Program, place: Place) -> None:
    """Write a program's configuration below its home."""
    for name, content in program.files(place).items():
        path = place.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=2))
