"""OpenAI's chat completions, completions, responses and embeddings."""
