"""The part of the stand-in that speaks to Ray."""

import json
import os
import pathlib

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

# vLLM's own lists: what it copies from the driver to its workers, and what it does not.
COPIED = ("VLLM_", "NCCL_", "GLOO_")
NOT_COPIED = {"VLLM_HOST_IP", "VLLM_HOST_PORT", "LOCAL_RANK"}
NOT_COPIED_FILE = pathlib.Path("~/.config/vllm/ray_non_carry_over_env_vars.json").expanduser()


def copied_environment():
    kept = set(NOT_COPIED)
    if NOT_COPIED_FILE.exists():
        kept |= set(json.loads(NOT_COPIED_FILE.read_text()))
    return {key: value for key, value in os.environ.items() if key.startswith(COPIED) and key not in kept}


@ray.remote(num_cpus=0)
class Worker:
    """Holds a node's share of the GPUs."""

    def start(self, model, environment):
        from vllm.standin import check_node

        os.environ.update(environment)
        return check_node(model)

    def ping(self):
        return True


def join_ray(args, own):
    """Starts a worker on each node; returns a function that fails when one is gone."""
    gpus, stages = args.tensor_parallel_size, args.pipeline_parallel_size
    ray.init(address="auto", log_to_driver=False)
    alive = [node for node in ray.nodes() if node["Alive"]]
    have = sum(node["Resources"].get("GPU", 0) for node in alive)
    if len(alive) < stages or have < gpus * stages:
        raise ValueError(
            f"The number of required GPUs exceeds the total number of available GPUs in the placement group: "
            f"{gpus * stages} on {stages} nodes, Ray has {have:g} on {len(alive)}."
        )
    group = placement_group([{"GPU": gpus}] * stages, strategy="STRICT_SPREAD")
    if not group.wait(timeout_seconds=120):
        raise ValueError(
            f"Cannot provide a placement group of placement_group_specs={[{'GPU': gpus}] * stages} within 120 seconds. "
            "See `ray status` to make sure the cluster has enough resources."
        )
    workers = [
        Worker.options(
            num_gpus=gpus, scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
        ).remote()
        for index in range(stages)
    ]
    environment = copied_environment()
    hashes = ray.get([worker.start.remote(args.model, environment) for worker in workers])
    if set(hashes) != {own}:
        raise ValueError(f"config.json of {args.model} differs between the nodes: {hashes}")
    return lambda: ray.get([worker.ping.remote() for worker in workers], timeout=60)
