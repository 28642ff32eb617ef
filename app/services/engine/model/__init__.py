"""A model and its tokenizer: reading them, adapters, chat templates, and computing prompts with them."""
