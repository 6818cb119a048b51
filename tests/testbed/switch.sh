# The network: one bridge in a namespace of its own, and a cable from it to each node.
# Nothing else is connected to it: no node, and not the origin, has a way to any other network.
# shellcheck shell=bash

switch() {
    nsenter --target "$(pid_of switch)" --net "$@"
}

start_switch() {
    spawn switch unshare --net sleep infinity
    wait_for "the switch" own_network switch
    switch ip link add br0 type bridge
    switch ip link set br0 up
    switch nft add table bridge testbed
    switch nft add set bridge testbed cut '{ type ifname; }'
    switch nft add chain bridge testbed forward '{ type filter hook forward priority 0; }'
    switch nft add rule bridge testbed forward iifname @cut drop
    switch nft add rule bridge testbed forward oifname @cut drop
}

# True as soon as a process has left this script's network namespace.
own_network() {
    local pid
    pid=$(pid_of "$1") && [ "$(readlink "/proc/$pid/ns/net")" != "$(readlink /proc/self/ns/net)" ]
}

# Connects the namespace of $1 to the bridge and gives it its address.
plug() {
    local name=$1 pid address hardware
    pid=$(pid_of "$name")
    address=$(address_of "$name")
    # A rebooted node's old cable may not have been removed yet.
    switch ip link delete "$name" 2>/dev/null || true
    # The hardware address survives a reboot, as on a real machine: other nodes remember it.
    hardware=$(printf '02:00:00:00:00:%02x' "$(cut -d . -f 4 <<<"$address")")
    switch ip link add "$name" type veth peer name "$INTERFACE" address "$hardware" netns "$pid"
    switch ip link set "$name" master br0 up
    nsenter --target "$pid" --net ip address add "$address/24" dev "$INTERFACE"
    nsenter --target "$pid" --net ip link set lo up
    nsenter --target "$pid" --net ip link set "$INTERFACE" up
    limit "$name" "$(cat "$TESTBED_DIR/$name.rate")"
    [ -z "$(nsenter --target "$pid" --net ip route show default)" ] || fail "$name has a default route"
}

# Limits what a node sends and what it receives to a rate of tc, e.g. 400mbit.
limit() {
    local name=$1 rate=$2 pid
    pid=$(pid_of "$name")
    switch tc qdisc delete dev "$name" root 2>/dev/null || true
    nsenter --target "$pid" --net tc qdisc delete dev "$INTERFACE" root 2>/dev/null || true
    [ "$rate" = unlimited ] && return
    switch tc qdisc add dev "$name" root tbf rate "$rate" burst 256kb latency 100ms
    nsenter --target "$pid" --net tc qdisc add dev "$INTERFACE" root tbf rate "$rate" burst 256kb latency 100ms
}

# $1: what is awaited, then a command that succeeds when it is there.
wait_for() {
    local what=$1 tries
    shift
    for ((tries = 0; tries < 3600; tries++)); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.05
    done
    fail "waited three minutes in vain for $what; see the logs in $TESTBED_DIR"
}
