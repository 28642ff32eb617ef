"""llama.cpp's own routes: completions, properties, slots, tokens, models."""
