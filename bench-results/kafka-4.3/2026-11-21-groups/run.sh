#!/usr/bin/env bash
# Groups on Millrace and on Apache Kafka in turns, broker on CPU 0, members on CPU 1.
#
# MILLRACE and GROUP_COSTS name the release builds, KAFKA a program that knows
# `start VERSION --port P --dir D --fresh --cpus C --override K=V` (prints the process id) and
# `stop --port P --dir D`. usage: run.sh FOLDER ROUNDS
set -euo pipefail
folder=$1 rounds=$2
delay=group.initial.rebalance.delay.ms=0
exec 2>&1
for round in $(seq "$rounds"); do
  for broker in millrace kafka; do
    if [ "$broker" = millrace ]; then
      port=29511
      rm -rf "$folder/millrace"
      taskset -c 0 "$MILLRACE" serve --override listeners=PLAINTEXT://127.0.0.1:$port \
        --override log.dirs="$folder/millrace" --override millrace.cpus=0 --override $delay \
        >"$folder/millrace.log" &
      pid=$!
    else
      port=29512
      pid=$("$KAFKA" start 4.3.1 --port $port --dir "$folder/kafka" --fresh --cpus 0 --override $delay)
    fi
    sleep 3
    echo "== $broker, round $round"
    costs() { taskset -c 1 "$GROUP_COSTS" 127.0.0.1:$port "$pid" "$@"; }
    # The first work warms the JVM, and is printed like the rest.
    costs commits 1000 15
    costs commits 1000 15
    costs rebalance 100 200 3
    costs rebalance 100 3000 1
    if [ "$broker" = millrace ]; then kill "$pid"; wait "$pid"; else
      "$KAFKA" stop --port $port --dir "$folder/kafka" >/dev/null; fi
  done
done
