"""Runs a server as long as its cluster is whole. Stands before ray_nodes.py or ranks.py, in one program.

When the server or a part of the cluster is gone, the container ends, and its restart policy begins again.
"""
import os
import signal
import subprocess
import sys
import time


def say(text):
    print(f"bundle: {text}", flush=True)


def run_while_whole(command, missing):
    """`missing` gives the reason when a part is gone."""
    server = subprocess.Popen(command)
    reason = None
    while reason is None:
        time.sleep(1)
        reason = missing() if server.poll() is None else f"the server ended with status {server.returncode}"
    say(f"{reason}; starting over")
    # What the server started ends with this container.
    os._exit(1)


signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
