#!/bin/bash
# How the rate grows with gateways at fixed shards, and with shard nodes at fixed gateways.
#
#   benches/scaling.sh [-o FOLDER] [-r ROUNDS] [-q PERCENT] [-- OPTIONS]
#
# OPTIONS go to `dunlin load pub`; without any: 64 clients, 32 in flight, 256 bytes, QoS 1, 5 s after 2 s.
# The loop is closed unless they have --rate or -I. JSON of each run goes to FOLDER (target/scaling), in place of
# earlier ones, medians to standard output. Configurations take turns, each with a cluster of its own that is
# started and ended here.
#
# On a machine with few cores all nodes share them, and no more of them makes anything faster. So each node of
# the kind that is varied gets PERCENT (20) of a core, a gateway a quarter of that, by a cpu control group whose
# periods are 20 ms, and the others get what they like: what is seen is the rate of that kind.
#
# One shard node keeps one copy; three and five keep three, each shard on three of them. An acknowledgement
# means synced on a majority of these, as always.
#
# Needs: root, for control groups (version 1 or 2).
set -u

root=$(cd "$(dirname "$0")/.." && pwd)
program=${DUNLIN:-$root/target/release/dunlin}
folder=$root/target/scaling
rounds=3
percent=20
while getopts o:r:q: option; do
    case $option in
        o) folder=$OPTARG ;;
        r) rounds=$OPTARG ;;
        q) percent=$OPTARG ;;
        *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || set -- -c 64 -F 32 -s 256 --duration 5 --warm-up 2
case " $*" in
    *" --rate"* | *" -I"* | *" --interval"* | *" --closed"*) ;;
    *) set -- "$@" --closed ;;
esac

[ -x "$program" ] || { echo "build the program first: cargo build --release" >&2; exit 2; }
mkdir -p "$folder" || exit 2
data=$(mktemp -d "$folder/data-XXXXXX") || exit 2
groups=/sys/fs/cgroup/cpu
[ -d $groups ] || groups=/sys/fs/cgroup
mine=$groups/dunlin-scaling-$$

cluster=""
stop() {
    [ -n "$cluster" ] && kill "$cluster" 2>/dev/null && wait "$cluster"
    cluster=""
    for group in "$mine"-*; do [ -d "$group" ] && rmdir "$group"; done
    rm -rf "${data:?}"/*
}
trap 'stop; rm -rf "$data"' EXIT
trap 'exit 130' INT TERM

# Gives process $2 the share $3 of a core, in percent; $1 names the group.
limit() {
    mkdir "$mine-$1" || return 1
    if [ -e "$mine-$1/cpu.cfs_quota_us" ]; then
        echo 20000 >"$mine-$1/cpu.cfs_period_us" && echo $(($3 * 200)) >"$mine-$1/cpu.cfs_quota_us"
    else
        echo "$(($3 * 200)) 20000" >"$mine-$1/cpu.max"
    fi && echo "$2" >"$mine-$1/cgroup.procs"
}

# $1 shard nodes, $2 gateways, $3 the kind that is limited, $4 the number of the round.
run() {
    name=s$1-g$2-$3
    "$program" up -n "$1" --gateways "$2" --data "$data/$name" --mqtts-port 21402 --mqtt-port 21401 \
        --https-port 21403 --cluster-port 21404 >"$data/$name.log" 2>&1 &
    cluster=$!
    i=0
    until "$program" cluster status --data "$data/$name" 2>/dev/null | grep -q 'is healthy'; do
        i=$((i + 1))
        [ $i -gt 300 ] && { echo "$name is not healthy"; return 1; }
        sleep 0.2
    done
    # The nodes are the children of `up`: gateways first.
    place=0
    for node in $(pgrep -P "$cluster" | sort -n); do
        place=$((place + 1))
        kind=shard
        [ $place -le "$2" ] && kind=gateway
        share=$percent
        [ $kind = gateway ] && share=$((percent / 4))
        [ $kind = "$3" ] && { limit "$place" "$node" "$share" || return 1; }
    done
    # What is in the folder is of runs that ended well.
    "$program" load pub --data "$data/$name" --plain -o json "${options[@]}" >"$data/result" || return 1
    mv "$data/result" "$folder/$name-$4.json"
    stop
}

options=("$@")
rm -f "$folder"/s*-g*-*.json
configurations="3:1:gateway 3:2:gateway 3:4:gateway 1:2:shard 3:2:shard 5:2:shard"
round=1
while [ $round -le "$rounds" ]; do
    for configuration in $configurations; do
        IFS=: read -r shards gateways kind <<<"$configuration"
        run "$shards" "$gateways" "$kind" "$round" || { echo "$configuration: no result in round $round"; stop; }
    done
    round=$((round + 1))
done

python3 - "$folder" "$percent" $configurations <<'PYTHON'
import glob, json, statistics, sys
folder, percent = sys.argv[1:3]
print(f"| shard nodes | gateways | limited to {percent} % of a core each, gateways to {int(percent) // 4} % | messages/s, median (smallest to largest) | p50 | p99 |")
print("|---|---|---|---|---|---|")
for configuration in sys.argv[3:]:
    shards, gateways, kind = configuration.split(":")
    runs = []
    for name in glob.glob(f"{folder}/s{shards}-g{gateways}-{kind}-*.json"):
        with open(name) as file:
            runs.append(json.loads(file.read().strip().splitlines()[-1]))
    if not runs:
        print(f"| {shards} | {gateways} | {kind} | no result | | |")
        continue
    rates = [run["acked_per_s"] for run in runs]
    middle = lambda key: statistics.median(run["latency_us"][key] for run in runs) / 1000
    print(f"| {shards} | {gateways} | {kind} nodes | {statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
          f" | {middle('p50'):.0f} ms | {middle('p99'):.0f} ms |")
PYTHON
