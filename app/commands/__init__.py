"""The commands of tiles-server beside serve."""
