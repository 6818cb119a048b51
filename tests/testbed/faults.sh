# Things that go wrong, on purpose.
# shellcheck shell=bash

# Packets vanish in the switch, in both directions: no process of the node sees an error.
command_link() {
    address_of "$1" >/dev/null
    case ${2:-} in
        down) switch nft add element bridge testbed cut "{ \"$1\" }" ;;
        up) switch nft delete element bridge testbed cut "{ \"$1\" }" ;;
        *) fail "link needs a node and up or down" ;;
    esac
}

command_rate() {
    address_of "$1" >/dev/null
    echo "$2" >"$TESTBED_DIR/$1.rate"
    limit "$1" "$2"
}

# The file stays on the node's disk and is mounted again after a reboot. What /data held is hidden beneath it.
command_disk() {
    local image=$TESTBED_DIR/nodes/$1/data.ext4
    run_on "$1" sh -c 'mountpoint -q /data && findmnt -n -o FSTYPE,SOURCE /data | grep -q loop && umount /data' || true
    rm -f "$image"
    truncate -s "$2" "$image"
    "mkfs.${3:-ext4}" -q -m 0 "$image"
    run_on "$1" mount -o loop "$image" /data
}

command_restart_sshd() {
    run_on "$1" "$TESTBED_DIR/node/service" restart sshd
    wait_for "sshd on $1" run_on "$1" test -e /run/sshd.pid
}

command_restart_docker() {
    run_on "$1" "$TESTBED_DIR/node/service" restart docker
    await_node "$1"
}
