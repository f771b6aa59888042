#!/bin/bash
# Makes one cluster of the three nodes, and in it the database and its users. Safe to repeat.
set -euo pipefail

cockroach=${COCKROACH:-/cockroach/cockroach}
certs=${CERTS_DIR:-/certs}
node="cockroach-1:26257"

for ((try = 1; ; try++)); do
  if said=$("$cockroach" init --certs-dir="$certs" --host="$node" 2>&1) || [[ $said == *"already been initialized"* ]]; then
    break
  fi
  ((try < 60)) || { echo "$said" >&2; exit 1; }
  sleep 1
done

for ((try = 1; ; try++)); do
  if "$cockroach" sql --certs-dir="$certs" --host="$node" --file=/scripts/database.sql; then
    break
  fi
  ((try < 30)) || exit 1
  sleep 1
done
