"""Tools of MCP servers on this machine, for the Web UI, over standard input and output."""
