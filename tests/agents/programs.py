"""The programs of the matrix: how each is set up against a server, started, and what its tools are called."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEY = "local"  # the server has none, but most programs want one


@dataclass(frozen=True)
class Place:
    """Where a program is at home, where it works, and what it talks to."""

    home: Path
    work: Path
    url: str
    model: str
    context: int  # tokens
    output: int  # tokens that an answer may have


@dataclass(frozen=True)
class Program:
    """A program that is driven without a terminal, one process a turn."""

    name: str
    package: str  # of npm, or of PyPI
    version: str
    executable: str
    dialect: str
    arguments: Callable[[Place, str, bool], Sequence[str]]  # for a turn's text, which may be the first
    environment: Callable[[Place], Mapping[str, str]]
    files: Callable[[Place], Mapping[str, Any]]  # below its home: texts, or what is written as JSON
    answers: Callable[[Place], Mapping[str, Any]]  # for a turn what the model says first: a call, or a text
    source: str = "npm"
    has_tools: bool = True
    cannot: tuple[str, ...] = ()  # turns that it cannot take


def call(tool: str, **arguments: Any) -> dict[str, Any]:
    """A call of a tool, as a script has it."""
    return {"tool": tool, "arguments": arguments}


def _claude_environment(place: Place) -> dict[str, str]:
    return {
        "ANTHROPIC_BASE_URL": place.url,
        "ANTHROPIC_AUTH_TOKEN": KEY,
        "ANTHROPIC_MODEL": place.model,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": place.model,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "IS_SANDBOX": "1",  # else it refuses to run a command for root
    }


CLAUDE = Program(
    name="Claude Code",
    package="@anthropic-ai/claude-code",
    version="2.1.332",
    executable="claude",
    dialect="Messages",
    arguments=lambda place, text, first: [
        *("-p", "--dangerously-skip-permissions", *([] if first else ["--continue"]), text)
    ],
    environment=_claude_environment,
    files=lambda place: {},
    answers=lambda place: {
        "read": call("Read", file_path=f"{place.work}/notes.txt"),
        "write": call("Write", file_path=f"{place.work}/new.txt", content="43 tiles\n"),
        "run": call("Bash", command="wc -c < notes.txt > size.txt", description="Count the bytes"),
        "image": call("Read", file_path=f"{place.work}/tile.png"),
    },
)


def _codex_config(place: Place) -> str:
    return f"""\
model = "{place.model}"
model_provider = "tiles"
model_context_window = {place.context}
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false

[analytics]
enabled = false

[model_providers.tiles]
name = "Tiles"
base_url = "{place.url}/v1"
wire_api = "responses"

[projects."{place.work}"]
trust_level = "trusted"
"""


CODEX = Program(
    name="Codex",
    package="@openai/codex",
    version="0.171.0",
    executable="codex",
    dialect="Responses",
    arguments=lambda place, text, first: [
        *("exec", *([] if first else ["resume", "--last"]), "--skip-git-repo-check", text)
    ],
    environment=lambda place: {"CODEX_HOME": f"{place.home}/.codex"},
    files=lambda place: {".codex/config.toml": _codex_config(place)},
    answers=lambda place: {
        "read": call("exec_command", cmd="cat notes.txt"),
        "write": call("exec_command", cmd="echo 43 tiles > new.txt"),
        "run": call("exec_command", cmd="wc -c < notes.txt > size.txt"),
        "image": call("view_image", path=f"{place.work}/tile.png"),
    },
)


def _opencode_config(place: Place) -> dict[str, Any]:
    limit = {"context": place.context, "output": place.output}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "Tiles",
        "options": {"baseURL": f"{place.url}/v1", "apiKey": KEY},
        "models": {place.model: {"name": place.model, "tool_call": True, "limit": limit}},
    }
    return {
        "$schema": "https://opencode.ai/config.json",
        "provider": {"tiles": provider},
        "model": f"tiles/{place.model}",
        "small_model": f"tiles/{place.model}",
        "autoupdate": False,
        "share": "disabled",
    }


OPENCODE = Program(
    name="opencode",
    package="opencode-ai",
    version="1.18.33",
    executable="opencode",
    dialect="Chat completions",
    arguments=lambda place, text, first: ["run", *([] if first else ["--continue"]), text],
    environment=lambda place: {
        "OPENCODE_CONFIG": f"{place.home}/opencode.json",
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
        "npm_config_fetch_retries": "0",
    },
    files=lambda place: {"opencode.json": _opencode_config(place)},
    answers=lambda place: {
        "read": call("read", filePath=f"{place.work}/notes.txt"),
        "write": call("write", filePath=f"{place.work}/new.txt", content="43 tiles\n"),
        "run": call("bash", command="wc -c < notes.txt > size.txt", description="Count the bytes"),
        "image": call("read", filePath=f"{place.work}/tile.png"),
    },
)


def _pi_models(place: Place) -> dict[str, Any]:
    model = {"id": place.model, "reasoning": False, "contextWindow": place.context, "maxTokens": place.output}
    provider = {"api": "openai-responses", "apiKey": KEY, "baseUrl": f"{place.url}/v1", "models": [model]}
    return {"providers": {"tiles": provider}}


PI = Program(
    name="Pi",
    package="@earendil-works/pi-coding-agent",
    version="1.6.0",
    executable="pi",
    dialect="Responses",
    arguments=lambda place, text, first: [
        *("-p", "--offline", "--model", f"tiles/{place.model}", *([] if first else ["--continue"]), text)
    ],
    environment=lambda place: {"PI_CODING_AGENT_DIR": f"{place.home}/agent", "PI_OFFLINE": "1"},
    files=lambda place: {"agent/models.json": _pi_models(place)},
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
    dialect="Chat completions",
    arguments=lambda place, text, first: ["--yolo", *([] if first else ["--continue"]), text],
    environment=lambda place: {
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": f"{place.url}/v1",
        "OPENAI_MODEL": place.model,
    },
    files=lambda place: {
        ".qwen/settings.json": {
            "security": {"auth": {"selectedType": "openai"}},
            "privacy": {"usageStatisticsEnabled": False},
            "telemetry": {"enabled": False},
            "general": {"enableAutoUpdate": False},
            "model": {"generationConfig": {"contextWindowSize": place.context}},
        }
    },
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
    dialect="Chat completions",
    source="PyPI",
    has_tools=False,
    cannot=("run", "image", "next"),
    arguments=lambda place, text, first: [
        *("--model", f"openai/{place.model}", "--no-git", "--yes-always", "--no-pretty", "--no-show-model-warnings"),
        *("--no-check-update", "--no-analytics", "--no-show-release-notes", "--no-gitignore", "--no-detect-urls"),
        *("--restore-chat-history", "--read", "notes.txt", "--message", text),
    ],
    environment=lambda place: {"OPENAI_API_KEY": KEY, "OPENAI_API_BASE": f"{place.url}/v1"},
    files=lambda place: {},
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


def _continue_config(place: Place) -> dict[str, Any]:
    model = {"name": place.model, "provider": "openai", "model": place.model, "apiBase": f"{place.url}/v1"}
    options = {"contextLength": place.context, "maxTokens": place.output}
    model |= {"apiKey": KEY, "roles": ["chat"], "capabilities": ["tool_use"], "defaultCompletionOptions": options}
    return {"name": "Tiles", "version": "1.0.0", "schema": "v1", "models": [model]}


CONTINUE = Program(
    name="Continue",
    package="@continuedev/cli",
    version="1.5.47",
    executable="cn",
    dialect="Chat completions",
    arguments=lambda place, text, first: [
        *("--config", f"{place.home}/config.yaml", "--auto", "-p", *([] if first else ["--resume"]), text)
    ],
    environment=lambda place: {"CONTINUE_TELEMETRY_ENABLED": "0"},
    files=lambda place: {"config.yaml": _continue_config(place)},
    answers=lambda place: {
        "read": call("Read", filepath=f"{place.work}/notes.txt"),
        "write": call("Write", filepath=f"{place.work}/new.txt", content="43 tiles\n"),
        "run": call("Bash", command="wc -c < notes.txt > size.txt"),
        "image": call("Read", filepath=f"{place.work}/tile.png"),
    },
)

PROGRAMS = {program.executable: program for program in (CLAUDE, CODEX, OPENCODE, PI, QWEN, AIDER, LLM, CONTINUE)}


def write_files(program: Program, place: Place) -> None:
    """Write a program's configuration below its home."""
    for name, content in program.files(place).items():
        path = place.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=2))
