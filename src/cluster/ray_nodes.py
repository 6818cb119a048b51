"""For the head: runs the server while Ray has all nodes and GPUs. Arguments: nodes, GPUs, then the server's command."""
import ray


def connect():
    while not ray.is_initialized():
        try:
            ray.init(address="auto", logging_level="ERROR", log_to_driver=False)
        except Exception:
            time.sleep(1)


def alive():
    """Ids of the nodes that are there, and their GPUs."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return {node["NodeID"] for node in nodes}, int(sum(node["Resources"].get("GPU", 0) for node in nodes))


def wait_for(nodes, gpus):
    seen = None
    while True:
        ids, have = alive()
        if (len(ids), have) != seen:
            seen = len(ids), have
            say(f"Ray has {seen[0]} of {nodes} nodes, {seen[1]} of {gpus} GPUs")
        if len(ids) >= nodes and have >= gpus:
            return ids
        time.sleep(1)


def lost(ids):
    try:
        nodes = ray.nodes()
    except Exception as error:
        return f"Ray does not answer: {error}"
    gone = [node["NodeManagerAddress"] for node in nodes if node["NodeID"] in ids and not node["Alive"]]
    return f"Ray lost {', '.join(sorted(gone))}" if gone else None


def main():
    nodes, gpus, *command = sys.argv[1:]
    connect()
    ids = wait_for(int(nodes), int(gpus))
    run_while_whole(command, lambda: lost(ids))


main()
