"""Names in Tiles' library folder. `tiles update` removes `server` and nothing else of these."""

SERVER = "server"
ORIGINAL = "server.original"  # Tiles' own, kept aside
INCOMING = "server.incoming"  # what is about to change places with `server`, and then what has
OUTGOING = "server.outgoing"  # only for a moment, on file systems that cannot exchange two folders in one step
WORK = ".tiles-server-"  # folders that are being made or removed
