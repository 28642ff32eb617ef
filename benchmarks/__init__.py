"""How fast this server is beside `mlx_lm.server` and mlx-lm in process, on this machine, in one run.

`python -m benchmarks` measures, prints tables and writes JSON; `python -m benchmarks render FILE` writes that into
README and docs. A workload drives a target: a server process (server.py), or mlx-lm in a process of its own
(in_process.py, worker.py). A run is made of rounds, in each of which every workload is measured once on every target:
so the machine's moods hit all alike. Targets take turns and only the one at work is awake.
"""
