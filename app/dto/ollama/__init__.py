"""Ollama, for programs that know nothing else."""
