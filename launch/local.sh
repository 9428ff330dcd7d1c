#!/usr/bin/env bash
# Runs one of the programs on this machine, setting up .venv first when needed:
#
#   bash launch/local.sh --config=configs/gpicl.py:digits --workdir=runs/gpicl      (train is the default)
#   bash launch/local.sh eval --workdir=runs/gpicl
#   bash launch/local.sh sweep --config=configs/gpicl.py:phases --out=runs/phases
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

program=train
case "${1:-}" in
  ''|-*) ;;
  *) program="$1"; shift ;;
esac
metalearn_setup
exec "$PYTHON_VENV" -m metalearn "$program" "$@"
