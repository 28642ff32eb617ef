"""Makes `tiles-nano-vl`, the demo model that sees: its scenes and questions, its training and its evaluation."""
