"""Coding agents, and how each is started against a server without its own configuration being touched."""

from app.services.coding_agents import aider, claude, cline, codex, continue_dev, opencode, pi, qwen
from app.services.coding_agents.agent import Agent, JsonFile, Profile, ServerFacts

_MODULES = (claude, codex, opencode, qwen, pi, cline, continue_dev, aider)

AGENTS: dict[str, Agent] = {module.AGENT.name: module.AGENT for module in _MODULES}

__all__ = ["AGENTS", "Agent", "JsonFile", "Profile", "ServerFacts"]
