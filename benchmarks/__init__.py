"""How fast this server is beside `mlx_lm.server` and mlx-lm in process, on this machine, in one run.

`python -m benchmarks` prints a table and writes JSON; `--quick` is a smoke run. A workload (workloads.py) drives a
target: a server process (server.py) or mlx-lm in a process of its own (in_process.py, worker.py). Targets take turns
inside each repetition and only the one at work is awake, so that the machine's noise hits all alike.
"""
