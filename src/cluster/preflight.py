"""Tries the network between all nodes inside the image, before any weights are loaded. By hand, on each node at once:

    python3 preflight.py RANK NODES GPUS HEAD PORT

RANK 0 is the head, GPUs is the number on each node, PORT and the two after it must be free on the head. The interface
is that of GLOO_SOCKET_IFNAME, else the one of VLLM_HOST_IP. Every node connects to every other one over it; then gloo
adds up a number over all nodes and NCCL over all GPUs, as far as the image has them.

What is wrong is said in one line. Status 3: wrong on this node. 4: another one cannot be reached. 5: another one did
not come, or something else failed there.
"""
import concurrent.futures
import datetime
import fcntl
import json
import os
import signal
import socket
import struct
import sys
import time

# Seconds until all nodes must have come, for one connection, and for all GPUs to have added up a number.
COMING, CONNECTING, ADDING = 30, 5, 120
SIOCGIFADDR = 0x8915
HERE, THERE, AWAY = 3, 4, 5


def say(text):
    print(f"bundle: {text}", flush=True)


def fail(status, text):
    say(text)
    os._exit(status)


def own_address():
    """The address that gloo will use, and how to call it."""
    address, name = os.environ.get("VLLM_HOST_IP"), os.environ.get("GLOO_SOCKET_IFNAME")
    if not name:
        return address, address
    if name not in (known := [name for _, name in socket.if_nameindex()]):
        fail(HERE, f"there is no interface {name} here, only {', '.join(known)}; correct iface= in hosts.txt")
    if address and ":" in address:
        return address, f"{address} ({name})"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            request = struct.pack("256s", name.encode()[:15])
            found = socket.inet_ntoa(fcntl.ioctl(any_socket, SIOCGIFADDR, request)[20:24])
        except OSError:
            fail(HERE, f"interface {name} has no IPv4 address; correct iface= in hosts.txt")
    if found.startswith("127."):
        fail(HERE, f"interface {name} leads to no other node; correct iface= in hosts.txt")
    return found, f"{found} ({name})"


def listen(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=1024)
    except OSError as error:
        fail(HERE, f"cannot listen on {address}, port {port}: {error}")


class Lines:
    """A connection on which each side says JSON, a line at a time."""

    def __init__(self, connection):
        connection.settimeout(COMING + ADDING)
        self.file = connection.makefile("rw")

    def say(self, value):
        self.file.write(json.dumps(value) + "\n")
        self.file.flush()

    def hear(self):
        line = self.file.readline()
        if not line:
            raise ConnectionError("the connection was closed")
        return json.loads(line)


def gather(door, nodes):
    """The head: hears where each other node listens."""
    end, came = time.monotonic() + COMING, {}
    while len(came) < nodes - 1:
        door.settimeout(max(end - time.monotonic(), 0.01))
        try:
            lines = Lines(door.accept()[0])
            rank, place = lines.hear()
            came[rank] = lines, place
        except TimeoutError:
            missing = [rank for rank in range(1, nodes) if rank not in came]
            fail(AWAY, f"of {nodes} nodes, number {', '.join(str(rank + 1) for rank in missing)} did not come within {COMING} s")
        except (OSError, ValueError):
            continue
    return came


def report(rank, place, me, head, port):
    """The others: tell the head where they listen."""
    end = time.monotonic() + COMING
    while True:
        try:
            lines = Lines(socket.create_connection((head, port), CONNECTING, (place[0], 0)))
            lines.say([rank, place])
            return lines
        except OSError as error:
            if time.monotonic() > end:
                fail(THERE, f"{me} cannot reach the head at {head}, port {port}: {error}; is a firewall between them?")
            time.sleep(0.5)


def answer(door):
    """Says to whoever connects that this is the right place."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        while True:
            connection = door.accept()[0]
            pool.submit(lambda open_one: (open_one.sendall(b"bundle"), open_one.close()), connection)


def connect_to(place, own):
    try:
        with socket.create_connection(tuple(place), CONNECTING, (own, 0)) as connection:
            return None if connection.recv(6, socket.MSG_WAITALL) == b"bundle" else "somebody else answers there"
    except OSError as error:
        return str(error)


def connect_to_all(places, rank, own, me):
    others = [place for number, place in enumerate(places) if number != rank]
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        for place, error in zip(others, pool.map(lambda place: connect_to(place, own), others)):
            if error:
                fail(THERE, f"{me} cannot reach {place[0]}, port {place[1]}: {error}; is a firewall between them, or is "
                            "iface= in hosts.txt another network there?")


def in_children(count, work, what):
    """Runs `work(0)` ... `work(count - 1)`, each in a process of its own; none may fail or hang."""
    children = {}
    for index in range(count):
        pid = os.fork()
        if pid == 0:
            try:
                work(index)
                os._exit(0)
            except BaseException as error:
                fail(AWAY, f"{what} failed: {type(error).__name__}: {' '.join(str(error).split())[:500]}")
        children[pid] = index
    end = time.monotonic() + ADDING
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in children:
            del children[pid]
            if status:
                os._exit(AWAY)
        elif time.monotonic() > end:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            fail(AWAY, f"{what} did not end within {ADDING} s; NCCL_DEBUG=INFO in [cluster] env says more")
        else:
            time.sleep(0.1)


def add_up(backend, rank, world, head, port, device=None):
    """All ranks add up a one each."""
    import torch
    import torch.distributed as distributed

    host = f"[{head}]" if ":" in head else head
    if device is not None:
        torch.cuda.set_device(device)
    distributed.init_process_group(
        backend, init_method=f"tcp://{host}:{port}", rank=rank, world_size=world, timeout=datetime.timedelta(seconds=ADDING - 10)
    )
    one = torch.ones(1) if device is None else torch.ones(1, device="cuda")
    distributed.all_reduce(one)
    if int(one.item()) != world:
        raise ValueError(f"{world} ones add up to {one.item()}")
    distributed.destroy_process_group()


def has_torch():
    import importlib.util

    return importlib.util.find_spec("torch") is not None


def main():
    rank, nodes, gpus = map(int, sys.argv[1:4])
    head, port = sys.argv[4], int(sys.argv[5])
    began = time.monotonic()
    own, me = own_address()
    meeting = listen(head, port) if rank == 0 else None
    door = listen(own, 0)
    place = list(door.getsockname()[:2])
    concurrent.futures.ThreadPoolExecutor(1).submit(answer, door)
    if rank == 0:
        came = gather(meeting, nodes)
        places = [place] + [came[number][1] for number in range(1, nodes)]
        for lines, _ in came.values():
            lines.say(places)
    else:
        lines = report(rank, place, me, head, port)
        places = lines.hear()
    connect_to_all(places, rank, own, me)
    # All doors stay open until everybody has knocked.
    if rank == 0:
        for lines, _ in came.values():
            lines.hear()
        for lines, _ in came.values():
            lines.say("all done")
    else:
        lines.say("done")
        lines.hear()
    what = "tcp"
    if has_torch():
        over = f"over {me}"
        in_children(1, lambda _: add_up("gloo", rank, nodes, head, port + 1), f"gloo {over}")
        what += ", gloo"
        if gpus > 0:
            work = lambda gpu: add_up("nccl", rank * gpus + gpu, nodes * gpus, head, port + 2, gpu)
            in_children(gpus, work, f"NCCL {over}")
            what += ", NCCL"
    say(f"the network is fine over {me}: {what} in {time.monotonic() - began:.1f} s")
    os._exit(0)


try:
    main()
except Exception as error:
    fail(AWAY, f"the test of the network failed: {type(error).__name__}: {error}")
