"""The part of the stand-in for vLLM's own multi-node mode: ranks that hold a connection to rank 0."""

import json
import socket
import time

PATIENCE = 300
SILENCE = 20


def exchange(connections, greeting):
    """Says one line to every peer and hears one from each."""
    for connection in connections:
        connection.write(json.dumps(greeting) + "\n")
        connection.flush()
    lines = [connection.readline() for connection in connections]
    if not all(lines):
        raise ConnectionError("[../third_party/gloo] Connection closed by peer")
    return [json.loads(line) for line in lines]


def open_stream(connection):
    connection.settimeout(PATIENCE)
    return connection.makefile("rw")


def accept_all(args):
    """Rank 0: one connection from each other rank."""
    with socket.create_server((args.master_addr, args.master_port)) as server:
        server.settimeout(PATIENCE)
        return [server.accept()[0] for _ in range(args.nnodes - 1)]


def connect(args):
    """Other ranks: rank 0 may start later."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return [socket.create_connection((args.master_addr, args.master_port), timeout=5)]
        except OSError as error:
            if time.monotonic() > end:
                raise TimeoutError(
                    f"The client socket has timed out after {PATIENCE}000ms while trying to connect to "
                    f"({args.master_addr}, {args.master_port})."
                ) from error
            time.sleep(0.5)


def join_ranks(args, own):
    """Returns a function that fails when a rank is gone."""
    if args.nnodes == 1:
        return lambda: None
    sockets = accept_all(args) if args.node_rank == 0 else connect(args)
    streams = [open_stream(connection) for connection in sockets]
    told = exchange(streams, {"rank": args.node_rank, "nnodes": args.nnodes, "config": own})
    ranks = sorted([args.node_rank] + [peer["rank"] for peer in told])
    expected = list(range(args.nnodes)) if args.node_rank == 0 else [0, args.node_rank]
    if ranks != expected or any(peer["nnodes"] != args.nnodes for peer in told):
        raise ValueError(f"ranks {ranks} of {args.nnodes} joined, expected {expected}")
    if any(peer["config"] != own for peer in told):
        raise ValueError(f"config.json of {args.model} differs between the nodes")
    for connection in sockets:
        connection.settimeout(SILENCE)
    return lambda: exchange(streams, "alive")
