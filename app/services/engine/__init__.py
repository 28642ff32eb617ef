"""The only place that imports MLX and mlx-lm: one thread, a continuous batch, a prefix cache."""
