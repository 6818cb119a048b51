# What is sent, and how long it takes. Sourced by `run`.
# shellcheck shell=bash

# $1: name; the model is in its directory.
pack_model() {
    printf 'name = "%s"\n[[model]]\nrepo = "o/%s"\npath = "/data/m/%s"\n' "$1" "$1" "$1" >"$WORK/$1.toml"
    (cd "$WORK" && "$BUNDLE" pack "$1.toml" --model-dir "$1" >/dev/null)
}

pack_noise() {
    mkdir "$WORK/noise"
    head -c "${MB}000000" /dev/urandom >"$WORK/noise/model.safetensors"
    pack_model noise
}

# Gaussian bf16: 10 MB of them again and again, so that no two chunks are equal.
pack_weights() {
    mkdir "$WORK/weights"
    perl -e '
        srand 1;
        my $block = "";
        for (1 .. 5_000_003) {
            my $x = 0.02 * sqrt(-2 * log(1 - rand)) * cos(6.283185307 * rand);
            $block .= substr pack("f<", $x), 2;
        }
        my $left = $ARGV[0] * 1_000_000;
        while ($left > 0) {
            print substr $block, 0, $left;
            $left -= length $block;
        }' "$MB" >"$WORK/weights/model.safetensors"
    pack_model weights
}

# Nodes that have the executable already: it is sent once per version.
up() {
    $BED up "$1" --rate "$RATE" --no-docker
    ARGS="--hosts $TESTBED_DIR/hosts.txt --known-hosts $TESTBED_DIR/known_hosts"
    on_origin "$BUNDLE check noise.bundle $ARGS" >/dev/null
}

# Seconds that a command takes on the origin.
on_origin() {
    local start
    start=$(date +%s.%N)
    $BED exec origin bash -c "cd '$WORK' && $*" >"$WORK/log" 2>&1 || { cat "$WORK/log" >&2; exit 1; }
    since "$start"
}

since() { echo "$(date +%s.%N) - $1" | bc; }

# Keeps what the origin used, see `times` of bash.
install() { on_origin "$BUNDLE install $1.bundle --no-start $ARGS && times >'$WORK/origin'"; }

# Likewise; keeps what the agent of node $2 used, 10 times a second: ticks of user and system time, KiB at most.
install_watched() {
    local watcher
    $BED exec "$2" bash -c '
        while sleep 0.1; do
            for pid in $(pgrep bundle); do
                echo "$(cut -d " " -f 14,15 /proc/$pid/stat) $(sed -n "s/VmHWM:\s*\([0-9]*\) kB/\1/p" /proc/$pid/status)"
            done 2>/dev/null
        done' >"$WORK/agent" &
    watcher=$!
    install "$1"
    kill "$watcher"
}

# The last look but one may be the last that was whole.
describe_agent() {
    awk -v mb="$MB" -v hz="$(getconf CLK_TCK)" -v who="$1" '
        NF == 3 { user = $1; sys = $2; if ($3 > top) top = $3 }
        END {
            printf "    the agent %s: %.2f s user and %.2f s system per GB, %d MiB at most\n",
                who, user / hz * 1000 / mb, sys / hz * 1000 / mb, top / 1024
        }' "$WORK/agent"
}

# The second line of `times` is about the children of the shell: 1m2.345s 0m0.678s.
describe_origin() {
    awk -F '[ms ]+' -v mb="$MB" '
        NR == 2 {
            user = $1 * 60 + $2; sys = $3 * 60 + $4
            printf "    the origin: %.2f s user and %.2f s system per GB\n", user * 1000 / mb, sys * 1000 / mb
        }' "$WORK/origin"
}

# Seconds until an install says $2; it is broken off then.
install_until() {
    local start
    start=$(date +%s.%N)
    $BED exec origin bash -c "cd '$WORK' && exec $BUNDLE install $1.bundle --no-start $ARGS" >"$WORK/log" 2>&1 &
    until grep -q "$2" "$WORK/log" || ! kill -0 $! 2>/dev/null; do
        sleep 0.05
    done
    grep -q "$2" "$WORK/log" || { cat "$WORK/log" >&2; exit 1; }
    since "$start"
    # It may be done by now.
    kill -INT $! 2>/dev/null || true
    wait $! || true
}

# Nothing but ssh comes in any more.
close_ports() {
    local number
    for number in $(seq "$1"); do
        $BED exec "n$number" sh -c '
            nft add table inet f
            nft add chain inet f i "{ type filter hook input priority 0; }"
            nft add rule inet f i iif lo accept
            nft add rule inet f i ct state established accept
            nft add rule inet f i tcp dport != 22 tcp flags syn drop'
    done
}

row() { printf '%-44s %7.2f s   %5.2f x one scp\n' "$1" "$2" "$(echo "scale=4; $2 / $ONE" | bc)"; }
