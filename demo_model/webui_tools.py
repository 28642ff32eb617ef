"""The tools that the Web UI adds to every chat, described in many ways, and those of an MCP server beside them.

Names, parameters and the form of the results are those of the Web UI. The descriptions are put together from parts, so
that the model reads them instead of knowing one by heart; the evaluation has parts of its own.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

from demo_model.conversation import Tool
from demo_model.schemas import Parameter, Skill, invented_skill
from demo_model.source import Source
from demo_model.table import choices

DATETIME, INFO, SCRIPT = "get_datetime", "get_info", "run_javascript"
BROWSER_TOOLS = (DATETIME, INFO, SCRIPT)
# The parts of a description, in their order, for the training and, behind the bars, for the evaluation.
_DESCRIPTIONS = {
    DATETIME: (
        ("Returns|Gives|Tells|Gets|Get|Fetches|Reads|Return", "Provides|Looks up"),
        (
            """ the current local date and time| the current date and time| the date and time of the user
 today's date and the time| the local time and date| the present date and time| the user's own date and time""",
            " the date and the time of now| the local date and the time of day",
        ),
        (" in ISO 8601 format| in ISO 8601| as an ISO 8601 string| in ISO form|", " in the form of ISO 8601|"),
        (
            """, with the IANA time zone name|, with the time zone|, and the IANA name of the time zone
, together with the name of the time zone| of the browser|""",
            ", and in which time zone|, with the zone's IANA name",
        ),
    ),
    INFO: (
        ("Get|Gives|Returns|Tells|Read|Gets|Reports", "Provides|Looks up"),
        (
            """ runtime info| information about the runtime| info on this environment| system information
 what the chat runs on| the platform| information about the system""",
            " info about the runtime| information on the platform",
        ),
        (
            " (OS name)| (name of the OS)|, such as the operating system| (the operating system)|",
            " (name of the system)|",
        ),
        (
            """, for questions about local files or the shell|, to be called when the user asks about files or commands
. Call it when the user wants to read local files or to run shell commands|. Says whether there are files and a shell
, may be used when local files or shell commands are asked for|""",
            ", where the user asks for files or for shell commands|. Tells of files and commands",
        ),
    ),
    SCRIPT: (
        ("Execute|Run|Runs|Evaluates|Executes", "Carries out|Computes"),
        (
            " JS| JavaScript| JavaScript code| a script in JavaScript| a piece of JavaScript",
            " some JavaScript| JS code",
        ),
        (
            """ in a sandboxed browser worker| in a sandbox| in a worker of the browser| in the browser| safely
 in a sandboxed worker""",
            " in the sandbox of a worker| in a browser worker",
        ),
        (" (no DOM/page access)| (without the page)|, apart from the page| (no page)|", " (cannot see the page)|"),
        (
            """. A top-level return is the result; console.log shows what is in between|. Use return to give a result
. Top-level await is fine. What is returned or logged comes back|. The returned value is the result|""",
            ". What is returned is the result|. return gives the result, console.log more",
        ),
    ),
}
_CODE = choices("JavaScript source to run|The JavaScript|Source code|The code to execute|JavaScript to be run")
_TIMEOUT = choices("""Timeout in milliseconds, default 10000, max 30000|Milliseconds until it is stopped
How long it may take, in milliseconds (default 10000)""")
ZONES = choices("""Europe/Berlin|Europe/London|Europe/Paris|Europe/Warsaw|America/New_York|America/Los_Angeles|UTC
America/Sao_Paulo|Asia/Tokyo|Asia/Kolkata|Asia/Shanghai|Australia/Sydney|Africa/Nairobi|Pacific/Auckland""")
SYSTEMS = choices("Linux|macOS|Windows|Android|iOS|ChromeOS|unknown")
_NOTES = choices("""There is only a browser here: no local files can be read or changed, and no shell commands run.
This is a browser. Files of the machine and a shell are out of reach; the server has to be started with {flag} for them.
Browser only. It has no access to local files and no shell. Tell the user to start the server with {flag}.
The environment has neither files nor a shell. For local files launch the server with the {flag} argument.""")


def described(source: Source, name: str) -> str:
    """A description of a tool of the Web UI, of this split."""
    return "".join(source.any(choices(parts[source.held_out])) for parts in _DESCRIPTIONS[name])


def browser_tool(source: Source, name: str) -> Tool:
    """A tool of the Web UI, in OpenAI's form."""
    properties: dict[str, Any] = {}
    if name == SCRIPT:
        properties["code"] = {"type": "string", "description": source.any(_CODE)}
        properties["timeout_ms"] = {"type": "number", "description": source.any(_TIMEOUT)}
    schema = {"type": "object", "properties": properties, "required": ["code"] if name == SCRIPT else []}
    function = {"name": name, "description": described(source, name), "parameters": schema}
    return {"type": "function", "function": function}


@dataclass(frozen=True)
class Moment:
    """A moment as the clock of the Web UI gives it."""

    date: str
    time: str
    zone: str
    text: str


def moment(source: Source) -> Moment:
    """Any moment, and the JSON that tells it."""
    date, time = source.date(), source.time()
    zone = source.any(ZONES) if source.chance(0.7) else f"{source.any(('Europe', 'Asia', 'America'))}/{source.place()}"
    offset = f"{source.any('+-')}{source.rng.randint(0, 12):02d}:{source.any(('00', '00', '00', '30'))}"
    result = {"result": f"{date}T{time}:{source.rng.randint(0, 59):02d}{offset}", "timezone": zone.replace(" ", "_")}
    return Moment(date, time, result["timezone"], json.dumps(result, ensure_ascii=False, separators=(",", ":")))


def environment(source: Source) -> tuple[str, str]:
    """The JSON that tells of the environment, and its operating system."""
    system = source.any(SYSTEMS)
    note = source.any(_NOTES).format(flag=f"--{source.any(('agent', 'tools', source.plain()))}")
    return json.dumps({"note": note, "os": system}, ensure_ascii=False, separators=(",", ":")), system


def mcp_skill(source: Source) -> Skill:
    """A tool as MCP servers have them: some under a prefix, some without a description or with an untyped parameter."""
    one = invented_skill(source)
    if source.chance(0.25):
        one = replace(one, name=f"{source.plain()}{source.any(('_', '__', '-', '.'))}{one.name}")
    if source.chance(0.2):
        one = replace(one, description="")
    name = source.word("PARAMETERS")
    if source.chance(0.3) and all(p.name != name for p in one.parameters):
        free = Parameter(name, {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}, Source.plain, False)
        one = replace(one, parameters=(*one.parameters, free))
    return one


def mcp_skills(source: Source, count: int) -> list[Skill]:
    """At most that many tools of an MCP server, of different names."""
    return list({one.name: one for one in (mcp_skill(source) for _ in range(count))}.values())
