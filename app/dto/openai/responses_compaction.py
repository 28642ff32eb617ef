"""OpenAI's Responses: a summary of the conversation in the place of an answer, which the model writes itself."""

from dataclasses import replace

import app.services.generation as gen

_MOST_TOKENS = 8192  # of a summary with its reasoning: a model that repeats itself does not fill the context
_MOST_REASONING = 2048  # tokens, so that there is room for the summary
_SUMMARIZE = """\
Stop here, and summarize this conversation. You will go on with it from your summary: apart from the messages of the \
user nothing else of it will be left. Say what is wanted, what was done and decided and why, which tools were called \
and what came of it that still matters, with the names of files, commands, numbers and errors as they are, and what is \
to be done next. Write the summary and nothing else."""


def summarizing(request: gen.GenerationRequest) -> gen.GenerationRequest:
    """Give the request for the summary. Tools stay in the prompt, so that its beginning is found in the cache."""
    budget = request.effort_budget
    return replace(
        request,
        messages=(*request.messages, gen.Message("user", _SUMMARIZE)),
        tool_choice=gen.ToolChoice("none"),
        constraint=None,
        logprobs=None,
        max_tokens=_MOST_TOKENS if request.max_tokens is None else request.max_tokens,
        effort_budget=_MOST_REASONING if budget is None else min(budget, _MOST_REASONING),
    )
