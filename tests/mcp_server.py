"""An MCP server for tests, which speaks the protocol over standard input and output: `python mcp_server.py [FILE]`.

Its tools do what is hard for who calls them. FILE gets the ids of what was cancelled. With `--clock` it has two that a
clock has, and nothing else.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
NONE = {"type": "object", "properties": {}}
PAGES = [
    [("echo", "Say it again", TEXT), ("fail", "Always fails", NONE)],
    [("environment", "The names of what is in its environment", NONE), ("die", "Ends the server", NONE)],
    [("never", "Never answers", NONE), ("picture", "Gives no text", NONE), ("child", "Starts a process", NONE)],
]
CLOCK = [[("datetime", "The date and the time", NONE), ("info", "What is known of this machine", NONE)]]
TIME = "noon, by the clock of the server"


def send(**message: Any) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def call(number: int, name: str, arguments: dict[str, Any]) -> None:
    match name:
        case "datetime" | "info":
            send(id=number, result={"content": [{"type": "text", "text": TIME}]})
        case "echo":
            parts = [{"type": "text", "text": arguments["text"]}, {"type": "image"}, {"type": "text", "text": "!"}]
            send(id=number, result={"content": parts})
        case "fail":
            send(id=number, result={"content": [{"type": "text", "text": "no tile left"}], "isError": True})
        case "environment":
            send(id=number, result={"content": [{"type": "text", "text": " ".join(sorted(os.environ))}]})
        case "die":
            sys.exit(1)
        case "picture":
            send(id=number, result={"content": [{"type": "image", "data": ""}]})
        case "child":
            child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
            send(id=number, result={"content": [{"type": "text", "text": f"{os.getpid()} {child.pid}"}]})
        case "never":
            pass
        case _:
            send(id=number, error={"code": -32602, "message": f"no tool {name}"})


def main() -> None:
    pages = CLOCK if "--clock" in sys.argv else PAGES
    print("this line is no message", flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        match message:
            case {"id": number, "method": "initialize"}:
                send(id="of the server", method="ping")
                send(id="another", method="sampling/createMessage", params={})
                send(method="notifications/message", params={})
                send(id=number, result={"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}})
            case {"id": number, "method": "tools/list"}:
                page = int(message.get("params", {}).get("cursor", 0))
                tools = [
                    {"name": name, "description": text, "inputSchema": schema} for name, text, schema in pages[page]
                ]
                more = {"nextCursor": str(page + 1)} if page + 1 < len(pages) else {}
                send(id=number, result={"tools": tools, **more})
            case {"id": number, "method": "tools/call"}:
                call(number, message["params"]["name"], message["params"]["arguments"])
            case {"method": "notifications/cancelled"} if sys.argv[1:]:
                Path(sys.argv[1]).write_text(str(message["params"]["requestId"]))


if __name__ == "__main__":
    main()
