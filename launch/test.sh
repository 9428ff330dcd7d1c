#!/usr/bin/env bash
# Sets up .venv when needed, then lints and runs the tests on two workers. Arguments go to pytest:
#
#   bash launch/test.sh                 the fast suite
#   bash launch/test.sh --slow          learning runs too
#   bash launch/test.sh tests/test_optim.py -k skip
#   bash launch/test.sh --faults [--short]      kills, damage, full disks, hostile input: a table by number
#   bash launch/test.sh --types                 pyright (basic) over the library, 1 minute: with the versions of Python 3.11
#   bash launch/test.sh --scaling, --latency, --tokens   tables of how updates grow, of what a person waits for, of
#                                                        tokens a second of each network (--store)
#   bash launch/test.sh --slurm                 launch/slurm.py on a Slurm of two nodes, started here (Debian, as root)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

METALEARN_EXTRAS="${METALEARN_EXTRAS:-dev}" metalearn_setup
cd "$metalearn_root"
case "${1:-}" in
  --faults|--slurm|--scaling|--latency|--tokens) suite="tests.${1#--}"; shift; exec "$PYTHON_VENV" -m "$suite" "$@" ;;
esac
if [ "${1:-}" = --types ]; then  # JAX's own types differ from version to version
  "$PYTHON_VENV" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
    || { echo "skipped: pyright: types are checked with Python 3.11"; exit 0; }
  "$PYTHON_VENV" -c 'import basedpyright' 2>/dev/null || "$PYTHON_VENV" -m pip install --quiet --disable-pip-version-check \
    --constraint "$metalearn_root/constraints.txt" --editable ".[types]" \
    || { echo "skipped: pyright: basedpyright cannot be installed here"; exit 0; }
  exec "$PYTHON_VENV" -m basedpyright --pythonpath "$PYTHON_VENV" --level error
fi
arguments=(-n 2 --dist worksteal --durations=10)  # each worker keeps to its half, so that a module compiles once
marker="not slow"
for argument in "$@"; do
  if [ "$argument" = --slow ]; then marker=""; else arguments+=("$argument"); fi
done
"$PYTHON_VENV" -m ruff check --quiet .
# one thread per worker: two workers share two cores. Compiling is most of the work: level 0 halves it, LLVM's cheap passes
# and loops emitted without MLIR take another two fifths off, one LLVM module in the place of 32 a tenth
flags="--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
flags="$flags --xla_cpu_parallel_codegen_split_count=1"
export XLA_FLAGS="${XLA_FLAGS:-$flags --xla_llvm_disable_expensive_passes=true}"
# compiling gains nothing from huge pages (see setup.sh) and is a twentieth slower
exec env GLIBC_TUNABLES= "$PYTHON_VENV" -m pytest -q -m "$marker" "${arguments[@]}"
