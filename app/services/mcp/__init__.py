"""MCP servers for the Web UI: the tools of those on this machine, and a proxy to those with a URL."""
