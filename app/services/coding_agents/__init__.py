"""Coding agents, and how each is started against a server without its own configuration being touched."""

from app.services.coding_agents import claude, codex, opencode, pi
from app.services.coding_agents.agent import Agent, JsonFile, Profile, ServerFacts

AGENTS: dict[str, Agent] = {agent.name: agent for agent in (claude.AGENT, codex.AGENT, opencode.AGENT, pi.AGENT)}

__all__ = ["AGENTS", "Agent", "JsonFile", "Profile", "ServerFacts"]
