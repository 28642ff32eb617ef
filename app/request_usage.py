"""What one request used, counted when its answer is over. Of a WebSocket, or of a stream that outlives its reader, that
is at another time than the end of the request."""

import time

from app.request_context import LogFields
from app.services.usage_file import Usage
from app.services.usage_ledger import UsageLedger

# Dialects whose refusals count: those of lists and health checks say nothing of use.
_ANSWERING = frozenset({"OpenAI", "Anthropic", "Ollama", "llama.cpp"})


class RequestUsage:
    """Counts what the log's fields of a request say, each number once."""

    def __init__(self, ledger: UsageLedger, client: str, key: str) -> None:
        self._ledger = ledger
        self._client = client
        self._key = key
        self._since = time.perf_counter()
        self._counted = (0, 0, 0)  # tokens of prompts, cached ones, tokens of answers
        self._answers = 0
        self._is_over = False

    def end_answer(self, log_fields: LogFields) -> None:
        """Count an answer that is over."""
        if "model" in log_fields:
            self._answers += 1
            self._count(log_fields, requests=0 if self._is_over else 1, refused="error" in log_fields)

    def end_request(self, log_fields: LogFields, method: str, dialect: str, status: int) -> None:
        """Count a request of which no answer was counted: it was refused, or has its answer in one piece."""
        refused = status >= 400 and method == "POST" and (dialect in _ANSWERING or status in {401, 403})
        if not self._answers and ("model" in log_fields or refused):
            self._is_over = True
            self._count(log_fields, requests=1, refused=refused or "error" in log_fields)

    def _count(self, log_fields: LogFields, *, requests: int, refused: bool) -> None:
        now = time.perf_counter()
        total = tuple(int(log_fields.get(f"{kind}_tokens", 0)) for kind in ("prompt", "cached", "completion"))
        prompt, cached, completion = (new - old for new, old in zip(total, self._counted, strict=True))
        usage = Usage(requests, int(refused), prompt, cached, completion, now - self._since)
        self._since, self._counted = now, (total[0], total[1], total[2])
        self._ledger.count(str(log_fields.get("model", "")), self._client, self._key, usage)
