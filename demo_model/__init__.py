"""Makes `tiles-nano`, the demo model: its data, its tokenizer, its training and its evaluation."""
