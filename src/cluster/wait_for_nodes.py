"""Returns when the Ray cluster has so many nodes and GPUs; says what is missing meanwhile."""
import sys
import time

import ray

nodes, gpus = int(sys.argv[1]), int(sys.argv[2])
while not ray.is_initialized():
    try:
        ray.init(address="auto", logging_level="ERROR")
    except Exception:
        time.sleep(1)
seen = None
while True:
    alive = [node for node in ray.nodes() if node["Alive"]]
    have = len(alive), int(sum(node["Resources"].get("GPU", 0) for node in alive))
    if have != seen:
        print(f"bundle: Ray has {have[0]} of {nodes} nodes, {have[1]} of {gpus} GPUs", flush=True)
        seen = have
    if have[0] >= nodes and have[1] >= gpus:
        break
    time.sleep(1)
