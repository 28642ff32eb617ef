"""The engine thread, its commands, and the loaded models put together. Only this package imports MLX and mlx-lm."""
