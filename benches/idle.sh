#!/usr/bin/env bash
# What does forewarn cost while it watches this host and three BEAM nodes every 10 s? Prints CPU as a share of one core and
# the resident set. Needs erl; uses target/release/forewarn, or the binary in $1, for $2 seconds (default 300).
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$(realpath "${1:-target/release/forewarn}")
seconds=${2:-300}
dir=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$dir"' EXIT
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
port=$(free_port)
ERL_EPMD_PORT=$(free_port)
export ERL_EPMD_PORT HOME="$dir"
echo idle-bench > "$dir/.erlang.cookie"
chmod 400 "$dir/.erlang.cookie"
epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 & pids+=($!)
for n in 1 2 3; do
  erl -noinput -start_epmd false -name "idle$n@127.0.0.1" >/dev/null 2>&1 & pids+=($!)
done
"$binary" --data "$dir/data" --listen "127.0.0.1:$port" > "$dir/out" 2>&1 & pids+=($!); pid=$!

ticks() { awk '{print $14 + $15}' "/proc/$pid/stat"; }
sleep 20                                        # the start is not idle
before=$(ticks)
sleep "$seconds"
after=$(ticks)
nodes=$(python3 -c 'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode().count("\"collector\":\"beam\""))' \
  "http://127.0.0.1:$port/api/v1/nodes")
echo "BEAM nodes watched: $nodes"
awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" -v s="$seconds" 'BEGIN { printf "CPU: %.3f %% of a core over %d s\n", 100 * t / hz / s, s }'
awk '/VmRSS/ {printf "RSS: %.0f MiB\n", $2 / 1024} /VmHWM/ {printf "peak RSS: %.0f MiB\n", $2 / 1024}' "/proc/$pid/status"
