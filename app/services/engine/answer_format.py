"""What the format of a model's answers makes of requests: parsers, grammars, and the tokens around the reasoning."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.services.engine.output import harmony
from app.services.engine.output.markup import Markup
from app.services.engine.output.message_parser import MessageParser
from app.services.engine.output.parser import OutputParser
from app.services.engine.output.tool_call_notations import CallNotation
from app.services.engine.prompt import Prompt, PromptBuilder
from app.services.engine.sampling.call_constraint import CallConstraint, CallGrammars
from app.services.engine.sampling.grammar import GrammarCompiler, GrammarConstraint
from app.services.facts import ModelFacts
from app.services.generation import GenerationRequest, ToolCallGrammar


class AnswerFormat:
    """The markup of a model's answers, with what it is in tokens."""

    def __init__(
        self,
        markup: Markup,
        facts: ModelFacts,
        prompts: PromptBuilder,
        grammars: GrammarCompiler,
        tool_call_grammar: ToolCallGrammar = "lazy",
    ) -> None:
        self._markup = markup
        self._tool_call_grammar = tool_call_grammar  # where a request does not say
        self._facts = facts
        self._grammars = grammars
        self._has_efforts = "reasoning_effort" in facts.chat_template  # so that an effort is the model's own matter
        self._think_start = prompts.tokenize(markup.think_start or "")
        self._think_end = prompts.tokenize(markup.think_end or "")
        self._piece = prompts.piece
        self._think_closes = [prompts.tokenize(text) for text in markup.think_closes]
        start = prompts.tokenize(markup.calls.start) if markup.calls else []
        self.call_token = start[0] if len(start) == 1 else None  # by which every call begins, if there is one
        self._blank_tokens = [tokens[0] for text in ("\n", "\n\n") if len(tokens := prompts.tokenize(text)) == 1]

    @property
    def end_token(self) -> int:
        """The token that ends an answer: the one that the chat template writes, where there are several."""
        ends, template = sorted(self._facts.end_tokens), self._facts.chat_template
        return min(ends, key=lambda token: self._piece(token).decode(errors="replace") not in template)

    def matchers(self, prompt: Prompt, request: GenerationRequest) -> tuple[Any, Any]:
        """Make the matchers of the answer and of the headers before it, each None if there is nothing to match.

        Raises InvalidRequest that says what is wrong with a grammar.
        """
        form, request = self._form, self._with_defaults(request)
        in_text = self._ends_in_text(prompt, request)
        matcher = self._grammars.compile_request(request, form, in_message=in_text or prompt.thinking)
        if in_text or form is None or not form.has_headers:
            return matcher, None
        return matcher, self._grammars.compile_header(request, form, in_message=prompt.thinking)

    def calls(self, request: GenerationRequest) -> CallGrammars | None:
        """Give what binds the calls of an answer that is free otherwise, None for nothing; it is made on a thread."""
        calls = self._grammars.call_grammars(self._with_defaults(request), self._form)
        if calls is not None:
            calls.prepare()
        return calls

    @property
    def _form(self) -> CallNotation | None:
        return self._markup.calls.notation if self._markup.calls else None

    def _with_defaults(self, request: GenerationRequest) -> GenerationRequest:
        return replace(request, tool_call_grammar=request.tool_call_grammar or self._tool_call_grammar)

    def parser(self, prompt: Prompt, request: GenerationRequest) -> OutputParser | MessageParser:
        """Make the parser of an answer."""
        options: dict[str, Any] = {
            "stop": request.stop,
            "tools": _tools(request),
            "one_call": not request.tool_choice.parallel,
            "split_reasoning": request.split_reasoning,
            "thinking": prompt.thinking,
            "has_grammar": prompt.matcher is not None,
            "known_only": prompt.calls is not None,
            "stop_strings": prompt.stop_strings,
        }
        continues = request.continue_final_message
        if self._markup.has_headers:
            continues = continues or self._ends_in_text(prompt, request)
            return MessageParser(continues=continues, raw=request.prompt is not None, **options)
        return OutputParser(
            self._markup,
            continues=continues,
            may_think=prompt.matcher is None or self.think_token(request) is not None,
            plain=request.constraint is not None,
            **options,
        )

    def constraint(self, prompt: Prompt, request: GenerationRequest) -> GrammarConstraint | CallConstraint | None:
        """Make the state of an answer's grammar, None for one without."""
        if prompt.matcher is None:
            return CallConstraint(prompt.calls) if prompt.calls is not None else None
        return GrammarConstraint(
            prompt.matcher,
            think_start=self._think_start,
            think_end=self._think_end,
            blank=self._blank_tokens,
            end_tokens=self._facts.end_tokens,
            thinking=prompt.thinking and not self._markup.has_headers,  # whose grammars know the reasoning
            may_think=_may_think(request),
            header=prompt.header,
            piece=self._piece,
        )

    def think_token(self, request: GenerationRequest) -> int | None:
        """Give the token by which an answer with a grammar may begin its reasoning; None if it may not."""
        return self._think_start[0] if len(self._think_start) == 1 and _may_think(request) else None

    def think_closes(self, request: GenerationRequest) -> Sequence[Sequence[int]]:
        """Give the tokens that end the reasoning from outside, for the first time and for the next ones.

        With headers the model then chooses between a call and the final message, but does not reason again and again.
        """
        if not self._markup.has_headers:
            return self._think_closes
        if not _tools(request):
            return self._think_closes[-1:]
        return self._think_closes[:1] if request.tool_choice.mode == "required" else self._think_closes

    def thinking_budget(self, request: GenerationRequest, max_tokens: int) -> int | None:
        """Give the request's budget of reasoning, but a quarter of the answer's tokens stays for the answer itself."""
        budget = request.thinking_budget
        if budget is None and not (self._has_efforts and "reasoning_effort" in request.template_kwargs):
            budget = request.effort_budget
        return None if budget is None else min(budget, max_tokens - max_tokens // 4)

    def _ends_in_text(self, prompt: Prompt, request: GenerationRequest) -> bool:
        """Whether a prompt ends within the text of the answer, which goes on there."""
        continues = request.prompt is not None or request.continue_final_message
        opens = self._markup.has_headers and prompt.text.endswith(harmony.FINAL)
        return (continues or opens) and not prompt.thinking


def _may_think(request: GenerationRequest) -> bool:
    """Whether an answer may begin with reasoning by itself; one that continues a message has begun already."""
    enabled = request.template_kwargs.get("enable_thinking") is not False
    return enabled and request.prompt is None and not request.continue_final_message


def _tools(request: GenerationRequest) -> Sequence[Mapping[str, Any]]:
    """The tools whose calls are parsed."""
    return request.tools if request.tool_choice.mode != "none" else ()
