#!/usr/bin/env bash
# Trains on every worker of a TPU slice: copies this repository there, then starts one process on each worker.
#
#   ZONE=us-central2-b bash launch/tpu_pod.sh my-tpu --config=configs/gpicl.py:paper --workdir=/mnt/runs/paper
#
# The first word is the slice's name; the others go to `metalearn train`. Needs gcloud, logged in. The work directory
# must be in a file system that every worker has mounted. PRINT=1 shows the commands.
# The same command again goes on from the last checkpoint. Not run here, where there is neither gcloud nor a TPU: the
# script is checked by a test that puts another program in gcloud's place.
set -euo pipefail

usage() { echo "usage: ZONE=<zone> bash launch/tpu_pod.sh NAME --config=... --workdir=..." >&2; exit 2; }
name="${1:-}"
case "$name" in ''|-*) usage ;; esac
[ -n "${ZONE:-}" ] || usage
shift

show() { if [ -n "${PRINT:-}" ]; then printf '%q ' "$@"; echo; else "$@"; fi; }
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
archive="$(mktemp)"
trap 'rm -f "$archive"' EXIT
git -C "$root" archive --format=tar.gz --output="$archive" HEAD

# who a worker is, and where the first one is, stands in the machine's own metadata
read -r -d '' remote <<'EOF' || true
set -euo pipefail
mkdir -p metalearn && tar -xzf metalearn.tar.gz -C metalearn && cd metalearn
told() { curl -sf -H 'Metadata-Flavor: Google' "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"; }
IFS=, read -r -a workers <<< "$(told worker-network-endpoints)"
first="$(cut -d: -f3 <<< "${workers[0]}")"
METALEARN_ACCELERATOR=tpu exec bash launch/local.sh train --processes="${#workers[@]}" \
  --process="$(told agent-worker-number)" --coordinator="$first:8476" --join_timeout=600
EOF
words=""
for word in "$@"; do words+=" $(printf '%q' "$word")"; done

show gcloud compute tpus tpu-vm scp "$archive" "$name:metalearn.tar.gz" --zone="$ZONE" --worker=all
show gcloud compute tpus tpu-vm ssh "$name" --zone="$ZONE" --worker=all --command="$remote$words"
