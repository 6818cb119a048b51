# What people do by hand. Sourced by `run`.
# shellcheck shell=bash

# $1: node, $2: name there.
scp_to() { echo "scp -q -F $TESTBED_DIR/ssh_config noise/model.safetensors $1:/data/$2"; }

rsync_to() { echo "rsync -e 'ssh -F $TESTBED_DIR/ssh_config' noise/model.safetensors $1:/data/rsync"; }

# A torrent of one file in pieces of 1 MiB.
torrent() {
    perl -MDigest::SHA=sha1 -e '
        open my $file, "<:raw", $ARGV[0] or die;
        my ($pieces, $piece) = ("");
        $pieces .= sha1($piece) while read $file, $piece, 1 << 20;
        printf "d4:infod6:lengthi%de4:name17:model.safetensors12:piece lengthi%de6:pieces%d:%see",
            -s $ARGV[0], 1 << 20, length $pieces, $pieces;' "$WORK/noise/model.safetensors"
}

# Seconds until every node has all from a swarm in which everybody knows everybody.
swarm() {
    local start number peers=10.77.0.1:4240
    local options="--disable-dht --disable-trackers --disable-lsd --disable-upnp-port-forward
        --listen-port 4240 --listen-ip 0.0.0.0 --http-api-listen-addr 127.0.0.1:3030"
    torrent >"$WORK/noise.torrent"
    for number in $(seq "$NODES"); do
        peers+=,10.77.0.$((10 + number)):4240
        mkdir "$TESTBED_DIR/nodes/n$number/data/swarm"
        cp "$RQBIT" "$WORK/noise.torrent" "$TESTBED_DIR/nodes/n$number/data/swarm"
    done
    # shellcheck disable=SC2086
    $BED exec origin "$RQBIT" $options download -o "$WORK/noise" --overwrite "$WORK/noise.torrent" >"$WORK/seed" 2>&1 &
    await_all origin
    start=$(date +%s.%N)
    for number in $(seq "$NODES"); do
        # shellcheck disable=SC2086
        $BED exec "n$number" /data/swarm/rqbit $options download -o /data/swarm --initial-peers "$peers" \
            /data/swarm/noise.torrent >"$WORK/peer$number" 2>&1 &
    done
    await_all $(seq -f 'n%g' "$NODES")
    since "$start"
    kill $(jobs -p)
    wait || true
}

await_all() {
    local node state
    for node in "$@"; do
        while sleep 0.1; do
            state=$($BED exec "$node" curl -s --noproxy '*' --max-time 5 http://127.0.0.1:3030/torrents/0/stats/v1 || true)
            [[ $state == *'"finished":true'* ]] && break
            [[ $state != *'"state":"error"'* ]] || { echo "$node: $state" >&2; exit 1; }
        done
    done
}

# The nodes share a disk.
remove_copies() { rm -rf "$TESTBED_DIR"/nodes/n*/data/{one,all,rsync,swarm}; }
