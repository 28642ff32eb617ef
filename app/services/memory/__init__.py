"""The memory agent: a conversation whose model keeps notes by running code in a sandbox."""
