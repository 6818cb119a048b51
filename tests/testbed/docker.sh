# The origin's dockerd. Those of the nodes are started by node/init.
# shellcheck shell=bash

# Its /run is its own: the host's holds another containerd and docker, or those of other test beds.
start_origin_docker() {
    mkdir -p "$TESTBED_DIR/origin"
    spawn origin-docker nsenter --target "$(pid_of origin)" --net --uts \
        unshare --mount --pid --fork --kill-child --mount-proc \
        bash -c 'mount -t tmpfs tmpfs /run && exec "$@"' - \
        "$TESTBED_DIR/node/dockerd" "$ORIGIN_SOCKET" "$TESTBED_DIR/origin" "$CGROUP/origin"
}

# Docker leaves the groups of containers that were killed.
remove_cgroups() {
    find /sys/fs/cgroup -depth -type d \( -path "*$CGROUP" -o -path "*$CGROUP/*" \) -exec rmdir {} + 2>/dev/null || true
}
