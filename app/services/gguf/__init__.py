"""GGUF files, llama.cpp's: what is in them, and how MLX can hold it. Knows numpy, never MLX."""
