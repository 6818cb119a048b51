# Where everything is, and which processes are ours.
# shellcheck shell=bash

TESTBED_DIR=${TESTBED_DIR:-/var/lib/bundle-testbed}
ORIGIN_SOCKET=$TESTBED_DIR/origin.sock
# Parent of the containers' cgroups: that of another test bed is none of our business.
CGROUP=/bundle-testbed${TESTBED_DIR//\//-}
SUBNET=10.77.0
# As in the reference deployment, and unlike any default that a program could have.
# shellcheck disable=SC2034
INTERFACE=ens13f0
CLEAN_ENVIRONMENT=(env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    HOME=/root LANG=C.UTF-8 TERM=dumb)

fail() {
    echo "testbed: $*" >&2
    exit 1
}

# Changes to one test bed happen one after the other; several with different directories may live side by side.
lock() {
    [ "$(id -u)" = 0 ] || fail "namespaces need root"
    # The kernel's limit for the address of a socket.
    [ ${#ORIGIN_SOCKET} -le 107 ] || fail "TESTBED_DIR is too long a name"
    mkdir -p /run/lock
    exec 9>"/run/lock/bundle-testbed${TESTBED_DIR//\//-}"
    flock --wait 600 9 || fail "another command has held the lock for ten minutes"
}

# Starts a process that outlives this script and holds nothing of it open. $1: its name, then the command.
# Its id and its start time go to NAME.pid: together they are unique.
spawn() {
    local name=$1
    shift
    "${CLEAN_ENVIRONMENT[@]}" setsid "$@" </dev/null >"$TESTBED_DIR/$name.log" 2>&1 9>&- &
    echo "$! $(start_time $!)" >"$TESTBED_DIR/$name.pid"
}

# Empty for a process that has ended, reaped or not.
start_time() {
    local state
    state=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) || return 0
    [ "${state:0:1}" = Z ] || cut -d ' ' -f 20 <<<"$state"
}

# Prints the id of a process that `spawn` started, if it still runs.
pid_of() {
    local pid started
    read -r pid started 2>/dev/null <"$TESTBED_DIR/$1.pid" || return 1
    [ -n "$started" ] && [ "$(start_time "$pid")" = "$started" ] && echo "$pid"
}

# Kills what `spawn` started and waits until it is gone. `unshare --pid` has one child, whose end is the
# end of every process in its namespace, and it ends itself when they all are gone.
stop() {
    local pid
    while pid=$(pid_of "$1"); do
        pkill -KILL --parent "$pid" || kill -KILL "$pid" 2>/dev/null || true
        sleep 0.05
    done
    rm -f "$TESTBED_DIR/$1.pid"
}

address_of() {
    case $1 in
        origin) echo "$SUBNET.1" ;;
        n[1-9] | n[1-9][0-9]) echo "$SUBNET.$((10 + ${1#n}))" ;;
        *) fail "no node is called $1; there are origin, n1, n2, ..." ;;
    esac
}

# Names of the nodes that exist, in order.
nodes() {
    local dir
    for dir in "$TESTBED_DIR"/nodes/n*; do
        [ -d "$dir" ] && basename "$dir"
    done | sort -V
}

print_env() {
    cat <<TEXT
export TESTBED_DIR=$TESTBED_DIR
export TESTBED_HOSTS=$TESTBED_DIR/hosts.txt
export TESTBED_KNOWN_HOSTS=$TESTBED_DIR/known_hosts
export TESTBED_SSH_CONFIG=$TESTBED_DIR/ssh_config
export TESTBED_KEY=$TESTBED_DIR/id_ed25519
export DOCKER_HOST=unix://$ORIGIN_SOCKET
TEXT
}
