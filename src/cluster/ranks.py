"""For nodes without Ray: runs this rank's server while all ranks are there. vLLM's ranks cannot rejoin, so when one is
gone, all of them end; their restart policies bring them back to the same meeting, and they start together.

Arguments: rank, number of ranks, the head's address and port for the meeting, then the server's command. The head
waits for a connection from each rank, then tells them all to go. Over the same connections they hear of each other.
"""
import contextlib
import socket

# Seconds without a sign of life after which a rank is gone.
SILENCE = 20
# Seconds for one connection or greeting.
PATIENCE = 5
BEAT, GO = b".", b"!"


class Link:
    """A connection to another rank."""

    def __init__(self, connection, name):
        self.connection, self.name = connection, name
        self.heard, self.go = time.monotonic(), False
        connection.setblocking(False)

    def send(self, sign):
        with contextlib.suppress(BlockingIOError):
            self.connection.send(sign)

    def lost(self):
        """Gives and takes signs of life; the reason when the other is gone."""
        try:
            self.send(BEAT)
            signs = self.connection.recv(4096)
            if not signs:
                return f"{self.name} is gone"
            self.heard, self.go = time.monotonic(), self.go or GO in signs
        except BlockingIOError:
            if time.monotonic() - self.heard > SILENCE:
                return f"{self.name} is silent"
        except OSError as error:
            return f"{self.name} is gone: {error}"


def greet(connection, peer, ranks):
    """Hears which rank a new connection is."""
    connection.settimeout(PATIENCE)
    try:
        words = connection.makefile("r").readline(100).split()
        if len(words) == 5 and words[:2] == ["bundle", "rank"] and words[3:] == ["of", str(ranks)]:
            rank = range(1, ranks)[int(words[2]) - 1]
            return rank, Link(connection, f"rank {rank} ({peer[0]})")
    except (OSError, ValueError, IndexError):
        pass
    connection.close()
    return None, None


def gather(address, ranks):
    """The head: a connection from every other rank, all alive at the same moment."""
    links, seen = {}, None
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.create_server(address, family=family) as door:
        door.settimeout(1)
        while len(links) < ranks - 1:
            with contextlib.suppress(TimeoutError):
                rank, link = greet(*door.accept(), ranks)
                if link:
                    links[rank] = link
            links = {rank: link for rank, link in links.items() if not link.lost()}
            missing = [rank for rank in range(1, ranks) if rank not in links]
            if missing != seen:
                seen = missing
                say(f"{ranks - len(missing)} of {ranks} ranks are here" + (f", not {missing}" if missing else ""))
    for link in links.values():
        link.send(GO)
    return list(links.values())


def join(address, rank, ranks):
    """The other ranks: a connection to the head, once it has said go."""
    own = os.environ.get("VLLM_HOST_IP")
    seen = None
    while True:
        try:
            connection = socket.create_connection(address, PATIENCE, (own, 0) if own else None)
            connection.sendall(f"bundle rank {rank} of {ranks}\n".encode())
            link = Link(connection, f"the head ({address[0]})")
            while not link.go:
                reason = link.lost()
                if reason:
                    raise OSError(reason)
                time.sleep(0.2)
            return [link]
        except OSError as error:
            if str(error) != seen:
                seen = str(error)
                say(f"waiting for the head at {address[0]}: {error}")
            time.sleep(1)


def main():
    rank, ranks, head, port, *command = sys.argv[1:]
    address, rank, ranks = (head, int(port)), int(rank), int(ranks)
    links = gather(address, ranks) if rank == 0 else join(address, rank, ranks)
    say(f"all {ranks} ranks are here; rank {rank} starts")
    run_while_whole(command, lambda: next(filter(None, (link.lost() for link in links)), None))


main()
