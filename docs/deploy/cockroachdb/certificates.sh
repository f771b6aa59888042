#!/bin/bash
# The certificates of CockroachDB, by its own program: an authority, one certificate for each node, and one for each
# user. What is there stays; to renew, delete the certificate (not the authority) and run it again.
set -euo pipefail
umask 077

folder=${1:?usage: certificates.sh FOLDER}
cockroach=${COCKROACH:-/cockroach/cockroach}
tokenserver=10001 # the user of the server's image
authority=$folder/authority

mkdir -p "$authority"
[[ -f $authority/ca.crt ]] ||
  "$cockroach" cert create-ca --certs-dir="$authority" --ca-key="$authority/ca.key"

for node in cockroach-1 cockroach-2 cockroach-3; do
  mkdir -p "$folder/$node"
  cp "$authority/ca.crt" "$folder/$node/ca.crt"
  [[ -f $folder/$node/node.crt ]] ||
    "$cockroach" cert create-node "$node" localhost 127.0.0.1 \
      --certs-dir="$folder/$node" --ca-key="$authority/ca.key"
done

# root administers, tokenserver_owner migrates, tokenserver serves (database.sql).
client() {
  local user=$1 place=$folder/$2
  mkdir -p "$place"
  cp "$authority/ca.crt" "$place/ca.crt"
  [[ -f $place/client.$user.crt ]] ||
    "$cockroach" cert create-client "$user" --certs-dir="$place" --ca-key="$authority/ca.key"
}
client root admin
client tokenserver_owner owner
client tokenserver client
# libpq refuses a key that others may read.
for place in owner client; do
  chmod 0755 "$folder/$place"
  chmod 0444 "$folder/$place"/*.crt
  chmod 0400 "$folder/$place"/*.key
  chown "$tokenserver:$tokenserver" "$folder/$place"/*
done
