# Nodes: namespaces for network, mounts, names and processes, with a disk that outlives them.
# shellcheck shell=bash

command_up() {
    local count=${1:-} rate=unlimited docker=yes
    [[ $count =~ ^[0-9]+$ ]] && [ "$count" -le 89 ] || fail "up needs a number of nodes"
    shift
    while [ $# -gt 0 ]; do
        case $1 in
            --rate) rate=$2 && shift 2 ;;
            --no-docker) docker=no && shift ;;
            *) fail "up does not know $1" ;;
        esac
    done
    command_down
    mkdir -p "$TESTBED_DIR/nodes"
    # Nodes have their own /home, /root, /tmp, so the project may be out of their sight.
    cp -r "$HERE/node" "$TESTBED_DIR/node"
    echo "$CGROUP" >"$TESTBED_DIR/node/cgroup"
    echo "$rate" >"$TESTBED_DIR/rate"
    echo "$docker" >"$TESTBED_DIR/docker"
    ssh-keygen -q -t ed25519 -N '' -C testbed -f "$TESTBED_DIR/id_ed25519"
    touch "$TESTBED_DIR"/{hosts.txt,known_hosts,ssh_config}
    start_switch
    start_origin
    local number
    for ((number = 1; number <= count; number++)); do create_node "n$number"; done
    for ((number = 1; number <= count; number++)); do await_node "n$number"; done
    [ "$docker" = no ] || wait_for "the origin's dockerd" docker --host "unix://$ORIGIN_SOCKET" version
}

command_add() {
    local last
    last=$(nodes | tail -n 1)
    local name=n$((${last#n} + 1))
    create_node "$name"
    await_node "$name"
    tail -n 1 "$TESTBED_DIR/hosts.txt"
}

command_down() {
    local name
    for name in $(nodes); do stop "$name" & done
    wait
    stop_origin
    stop switch
    remove_cgroups
    rm -rf "$TESTBED_DIR"
}

# As after a power cut: the others hear nothing.
command_reboot() {
    switch ip link delete "$1"
    stop "$1"
    start_node "$1"
    await_node "$1"
}

# The origin is this machine with another network: it sees all files of the host.
start_origin() {
    cp "$TESTBED_DIR/rate" "$TESTBED_DIR/origin.rate"
    spawn origin unshare --net --uts sh -c 'hostname origin; exec sleep infinity'
    wait_for "the origin" own_network origin
    plug origin
    [ "$(cat "$TESTBED_DIR/docker")" = no ] || start_origin_docker
}

# Everything in the origin's network is ours, also what a killed test left there.
stop_origin() {
    local pid network process
    stop origin-docker
    if pid=$(pid_of origin); then
        network=$(readlink "/proc/$pid/ns/net")
        for process in /proc/[0-9]*; do
            if [ "$(readlink "$process/ns/net" 2>/dev/null)" = "$network" ]; then
                kill -KILL "${process#/proc/}" 2>/dev/null || true
            fi
        done
    fi
    stop origin
}

create_node() {
    local name=$1 etc=$TESTBED_DIR/nodes/$1/etc
    cp "$TESTBED_DIR/rate" "$TESTBED_DIR/$name.rate"
    mkdir -p "$etc/ssh" "$etc/cdi" "$TESTBED_DIR/nodes/$name/root/.ssh"
    ssh-keygen -q -t ed25519 -N '' -C "$name" -f "$etc/ssh/ssh_host_ed25519_key"
    cp "$TESTBED_DIR/id_ed25519.pub" "$TESTBED_DIR/nodes/$name/root/.ssh/authorized_keys"
    cp "$TESTBED_DIR/node/sshd_config" "$etc/ssh/sshd_config"
    cp "$TESTBED_DIR/node/gpus.csv" "$etc/gpus.csv"
    cp "$TESTBED_DIR/node/cdi.yaml" "$etc/cdi/nvidia.yaml"
    echo "$name" >"$etc/hostname"
    printf '127.0.0.1 localhost\n%s %s\n' "$(address_of "$name")" "$name" >"$etc/hosts"
    announce_node "$name"
    start_node "$name"
}

# Writes a node into the files that a client needs.
announce_node() {
    local name=$1 address
    address=$(address_of "$name")
    echo "$address user=root port=22 key=$TESTBED_DIR/id_ed25519" >>"$TESTBED_DIR/hosts.txt"
    echo "$address $(cut -d ' ' -f 1,2 "$TESTBED_DIR/nodes/$name/etc/ssh/ssh_host_ed25519_key.pub")" >>"$TESTBED_DIR/known_hosts"
    cat >>"$TESTBED_DIR/ssh_config" <<TEXT
Host $name $address
    HostName $address
    User root
    IdentityFile $TESTBED_DIR/id_ed25519
    IdentitiesOnly yes
    UserKnownHostsFile $TESTBED_DIR/known_hosts
TEXT
}

start_node() {
    local name=$1
    spawn "$name" unshare --net --mount --uts --pid --fork --kill-child --mount-proc \
        "$TESTBED_DIR/node/init" "$name" "$TESTBED_DIR/nodes/$name" "$(cat "$TESTBED_DIR/docker")"
    wait_for "$name" own_network "$name"
    plug "$name"
}

await_node() {
    wait_for "sshd on $1" run_on "$1" test -e /run/sshd.pid
    [ "$(cat "$TESTBED_DIR/docker")" = no ] || wait_for "dockerd on $1" run_on "$1" docker version
}

# Sets ENTER to what must stand before a command to run it on a node. A command on the origin keeps its
# environment; one on a node dies with the process that runs it here.
entry_to() {
    local name=$1 pid
    pid=$(pid_of "$name") || fail "$name is not up"
    if [ "$name" = origin ]; then
        ENTER=(env "DOCKER_HOST=unix://$ORIGIN_SOCKET" nsenter --target "$pid" --net --uts --)
    else
        ENTER=(nsenter --target "$pid" --net --uts --mount --pid="/proc/$pid/ns/pid_for_children" --wd=/ --
            setpriv --pdeathsig KILL -- "${CLEAN_ENVIRONMENT[@]}")
    fi
}

run_on() {
    local ENTER
    entry_to "$1"
    # A daemon that it starts must not keep the lock.
    "${ENTER[@]}" "${@:2}" 9>&-
}

# As `run_on`, and in the place of this process: a signal to it reaches the command.
exec_on() {
    [ $# -gt 1 ] || fail "exec needs a node and a command"
    local ENTER
    entry_to "$1"
    exec "${ENTER[@]}" "${@:2}"
}
