"""Claude Code: variables say everything; its folder is CLAUDE_CONFIG_DIR."""

from pathlib import Path

from app.services.coding_agents.agent import Agent, JsonFile, Profile, ServerFacts

_SUMMARY_RESERVE = 33_000  # tokens that it keeps free to summarize a conversation, of which the prompt takes most
_MODEL_VARIABLES = (
    "ANTHROPIC_MODEL",
    "ANTHROPIC_SMALL_FAST_MODEL",
    "ANTHROPIC_DEFAULT_OPUS_MODEL",
    "ANTHROPIC_DEFAULT_SONNET_MODEL",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL",
    "CLAUDE_CODE_SUBAGENT_MODEL",
)
_OTHER_PROVIDERS = (
    "ANTHROPIC_API_KEY",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_VERTEX",
)


def _make(server: ServerFacts, folder: Path) -> Profile:
    env: dict[str, str | None] = {
        "CLAUDE_CONFIG_DIR": str(folder),
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_AUTH_TOKEN": server.key,
        **dict.fromkeys(_OTHER_PROVIDERS),
        **dict.fromkeys(_MODEL_VARIABLES, server.model),
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS": str(server.context),
        "CLAUDE_CODE_AUTO_COMPACT_WINDOW": str(server.context),
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(server.output),
        # Both change the beginning of each prompt, which would then be computed anew.
        "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
        "CLAUDE_CODE_TOTAL_TOKENS_REMINDER": "off",
        "API_TIMEOUT_MS": "3600000",  # a long prompt takes a slow machine longer than its ten minutes
    }
    if server.context < 2 * _SUMMARY_RESERVE:
        env["DISABLE_AUTO_COMPACT"] = "1"  # it would summarize before the first answer, and again and again
    files = {
        ".claude.json": JsonFile({"hasCompletedOnboarding": True}),  # it would ask for a login
        # Its own default lets the model judge which commands are harmless. A small one is no judge.
        "settings.json": JsonFile({}, {"permissions": {"defaultMode": "default"}}),
    }
    return Profile(env, files=files)


AGENT = Agent(
    name="claude",
    title="Claude Code",
    command="claude",
    install="npm install -g @anthropic-ai/claude-code",
    least_context=24_000,
    make=_make,
    quiet={
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "CLAUDE_CODE_DISABLE_FEEDBACK_SURVEY": "1",
    },
    paths=(".local/bin/claude", ".claude/local/claude"),
)
