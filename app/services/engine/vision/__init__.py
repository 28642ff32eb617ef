"""Models that see: images become embeddings, which stand in a prompt for the tokens of their places."""
