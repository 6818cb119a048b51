"""Prints address and state of each node that Ray has seen."""
import ray

ray.init(address="auto", logging_level="ERROR", log_to_driver=False)
for node in ray.nodes():
    print(node["NodeManagerAddress"], "alive" if node["Alive"] else "dead")
