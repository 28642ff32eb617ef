"""What the requests of a session show: refusals, and how much of each prompt came from the cache."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.agents.session import Session


@dataclass(frozen=True)
class Turn:
    """One request of the conversation, after the first."""

    turn: str
    seconds: float
    prompt: int  # tokens
    cached: int  # tokens
    before: int  # tokens of the prompt before it and of its answer

    @property
    def share(self) -> float:
        """How much of what the request before it held came from the cache."""
        return min(1.0, self.cached / self.before)


def outcome(session: Session) -> dict[str, Any]:
    """Everything the tables say of a session; JSON."""
    turns = conversation(session)
    every = [record for records in session.requests.values() for record in records]
    return {
        "program": session.program.name,
        "version": session.program.version,
        "dialect": session.program.dialect,
        "requests": len(every),
        "longest_prompt": max((record["log"].get("prompt_tokens", 0) for record in every), default=0),
        "refusals": refusals(every),
        "seconds": round(statistics.median([turn.seconds for turn in turns] or [0.0]), 2),
        "shares": {name: [round(turn.share, 4) for turn in turns if turn.turn == name] for name in session.requests},
        "outside": sorted(session.outside),
        "faults": session.faults,
    }


def conversation(session: Session) -> list[Turn]:
    """The requests that carry the conversation on, each with what came before; those for titles are left out."""
    turns: list[Turn] = []
    before, turn = 0, None
    for record in (record for records in session.requests.values() for record in records):
        log = record["log"]
        if record["turn"] is None or record["status"] != 200:
            continue
        if record["turn"] != turn and not session.program.continues:
            before = 0
        turn = record["turn"]
        if before and "cached_tokens" in log:
            cached = log["cached_tokens"]
            turns.append(Turn(record["turn"], record["seconds"], log["prompt_tokens"], cached, before))
        # Of an answer that was left, the program has as much as it had read by then.
        before = log["prompt_tokens"] + (log.get("completion_tokens", 0) if "finish" in log else 0)
    return turns


def refusals(records: Iterable[dict[str, Any]]) -> list[str]:
    """Say of each request that the server refused or failed, which and how."""
    return [
        f"{record['method']} {record['path']}: {record['status']} {record['log'].get('error', '')}".strip()
        for record in records
        if record["status"] >= 400 or "error" in record["log"]
    ]


def lowest(shares: Sequence[float]) -> str:
    """The lowest share of a turn's requests, as the table has it."""
    return f"{min(shares) * 100:.1f} %" if shares else "-"
