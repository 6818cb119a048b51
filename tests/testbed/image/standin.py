"""Stands in for vLLM in the test image: the same command line, log lines and HTTP answers, no model.

It serves only after it has seen what vLLM would need: every node in the Ray cluster (or connected by rank),
the GPUs, the same model files and a right VLLM_HOST_IP on each. When a node is lost it ends, as vLLM does.
STANDIN_FAIL=text makes it print that text and fail.
"""

import argparse
import hashlib
import json
import os
import pathlib
import signal
import socket
import sys
import threading
import time
from importlib.metadata import version

import vllm.api
from vllm.ranks import join_ranks


def log(text, level="INFO"):
    """One line in the manner of vLLM 0.6."""
    print(f"{level} {time.strftime('%m-%d %H:%M:%S')} standin.py:1] {text}", file=sys.stderr, flush=True)


def parse(argv):
    parser = argparse.ArgumentParser(prog="vllm", allow_abbrev=False)
    parser.add_argument("model_tag", nargs="?")
    parser.add_argument("--model")
    parser.add_argument("--served-model-name", nargs="+")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--tensor-parallel-size", "-tp", type=int, default=1)
    parser.add_argument("--pipeline-parallel-size", "-pp", type=int, default=1)
    parser.add_argument("--distributed-executor-backend", choices=["ray", "mp"])
    parser.add_argument("--nnodes", "-n", type=int, default=1)
    parser.add_argument("--node-rank", "-r", type=int, default=0)
    parser.add_argument("--master-addr", default="127.0.0.1")
    parser.add_argument("--master-port", type=int, default=29501)
    parser.add_argument("--headless", action="store_true")
    args, unknown = parser.parse_known_args(argv)
    args.model = args.model_tag or args.model or parser.error("no model")
    args.served_model_name = args.served_model_name or [args.model]
    log(f"vLLM API server version {version('vllm')}")
    log(f"args: {args}")
    if unknown:
        log(f"options without a meaning here: {unknown}", "WARNING")
    return args


def check_model(model):
    """The SHA-256 of the model's config.json; fails where vLLM does and with its words."""
    if not os.path.isdir(model):
        raise ValueError(
            "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or "
            f"'namespace/repo_name': '{model}'. Use `repo_type` argument if needed."
        )
    config = pathlib.Path(model, "config.json")
    if not config.is_file():
        raise OSError(f"{model} does not appear to have a file named config.json.")
    return hashlib.sha256(config.read_bytes()).hexdigest()


def check_dtype(args):
    """The GPUs of the test bed are T4, and docker tells the container of `--gpus`."""
    stored = json.loads(pathlib.Path(args.model, "config.json").read_text()).get("torch_dtype")
    wanted = stored if args.dtype == "auto" else args.dtype
    # A command of `docker exec` lacks the variable.
    first = pathlib.Path("/proc/1/environ").read_bytes()
    if b"NVIDIA_VISIBLE_DEVICES=" in first and wanted == "bfloat16":
        raise ValueError(
            "Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU has "
            "compute capability 7.5. You can use float16 instead by explicitly setting the`dtype` flag in CLI, "
            "for example: --dtype=half."
        )


def check_node(model):
    """What has to be right on each node; the hash of the model's config."""
    address = os.environ.get("VLLM_HOST_IP")
    if address:
        with socket.socket() as own:
            try:
                own.bind((address, 0))
            except OSError as error:
                raise ValueError(f"VLLM_HOST_IP {address} is no address of {socket.gethostname()}") from error
    interfaces = [name for _, name in socket.if_nameindex()]
    for key in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if os.environ.get(key, interfaces[0]) not in interfaces:
            raise RuntimeError(f"{key}: Unable to find address for: {os.environ[key]}")
    return check_model(model)


def watch(check):
    """Ends the process as soon as `check` fails."""
    try:
        while True:
            check()
            time.sleep(2)
    except Exception as error:
        log(f"Engine core initialization failed. See root cause above. {type(error).__name__}: {error}", "ERROR")
        os._exit(1)


def use_ray(args):
    if args.distributed_executor_backend:
        return args.distributed_executor_backend == "ray"
    try:
        import ray  # noqa: F401
    except ImportError:
        return False
    return args.nnodes == 1 and args.tensor_parallel_size * args.pipeline_parallel_size > 1


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if "--version" in argv or "-v" in argv:
        print(version("vllm"))
        return
    args = parse(argv[1:] if argv[:1] == ["serve"] else argv)
    try:
        if "STANDIN_FAIL" in os.environ:
            raise RuntimeError(os.environ["STANDIN_FAIL"])
        own = check_node(args.model)
        check_dtype(args)
        if use_ray(args):
            from vllm.ray_cluster import join_ray

            check = join_ray(args, own)
        else:
            check = join_ranks(args, own)
    except Exception as error:
        log(f"{type(error).__name__}: {error}", "ERROR")
        sys.exit(1)
    log(f"# GPU blocks: 2048, # CPU blocks: 2048; {args.tensor_parallel_size} x {args.pipeline_parallel_size} workers")
    if args.headless:
        watch(check)
    threading.Thread(target=watch, args=(check,), daemon=True).start()
    vllm.api.serve(args, log)
