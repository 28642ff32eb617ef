"""What targets and models are called."""

OURS = "ours"
PEER = "mlx_lm.server"
PEER_WITH_BLAS = "mlx_lm.server + BLAS"
IN_PROCESS = "in process"
LLAMA_SERVER = "llama-server"

DEMO = "demo"
LARGER = "25M"
REAL = "Gemma 3 270M"
MODELS = (DEMO, LARGER, REAL)
