# shellcheck shell=bash
# Sourced by the other scripts: makes .venv once, installs the package with pinned versions, sets $PYTHON_VENV.
#
#   METALEARN_EXTRAS        extras to install beside the base ("dev", "rl", ...; comma-separated)
#   METALEARN_VENV          where the environment lives (default: .venv in the repository)
#   METALEARN_CONSTRAINTS   file of exact versions in the repository (default: constraints.txt)
#   METALEARN_ACCELERATOR   cpu | cuda12 | cuda13 | tpu (default: CUDA where an NVIDIA driver answers, else cpu)
#   PYTHON                  the interpreter to build it from (default: the first of python3, 3.13, 3.12, 3.11 that is >= 3.11)

# a compiled program allocates its buffers anew at each call, and touching each page first costs updates of a few 100 MB a
# tenth to a quarter of their time: huge pages (glibc 2.35 or newer) are 512 times fewer
export GLIBC_TUNABLES="${GLIBC_TUNABLES-glibc.malloc.hugetlb=1}"

metalearn_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

metalearn_fail() { echo "error: $*" >&2; exit 2; }

metalearn_find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      echo "$candidate"; return
    fi
  done
  return 1
}

metalearn_accelerator() {
  local major
  case "${METALEARN_ACCELERATOR:-}" in
    cpu) return ;;
    cuda12|cuda13|tpu) echo "$METALEARN_ACCELERATOR"; return ;;
    "") ;;
    *) metalearn_fail "METALEARN_ACCELERATOR=$METALEARN_ACCELERATOR: must be one of cpu, cuda12, cuda13, tpu" ;;
  esac
  # CUDA 13 needs driver 580 or newer; an older one gets the CUDA 12 build
  major="$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1 | cut -d. -f1)" || true
  case "$major" in
    ''|*[!0-9]*) ;;
    *) if [ "$major" -ge 580 ]; then echo cuda13; else echo cuda12; fi ;;
  esac
}

metalearn_setup() {
  local python accelerator extras stamp wanted constraints
  local venv="${METALEARN_VENV:-$metalearn_root/.venv}"
  accelerator="$(metalearn_accelerator)" || exit $?
  extras="$(printf '%s\n' "${METALEARN_EXTRAS:-}" "$accelerator" | tr ',' '\n' | sed '/^$/d' | sort -u | paste -sd, -)"
  if ! "$venv/bin/python" -c '' >/dev/null 2>&1; then
    python="$(metalearn_find_python)" || metalearn_fail "no Python >= 3.11 found; set PYTHON to one"
    echo "setting up $venv with $("$python" --version 2>&1) ..." >&2
    rm -rf "$venv"
    "$python" -m venv "$venv" || metalearn_fail "$python cannot make a virtual environment (on Debian: apt install python3-venv)"
  fi
  PYTHON_VENV="$venv/bin/python"
  stamp="$venv/.installed-${extras:-base}"
  constraints="$metalearn_root/${METALEARN_CONSTRAINTS:-constraints.txt}"
  wanted="$(cat "$metalearn_root/pyproject.toml" "$constraints" | cksum)"
  [ "$(cat "$stamp" 2>/dev/null)" = "$wanted $metalearn_root" ] && return
  echo "installing metalearn${extras:+[$extras]} (about a minute, once) ..." >&2
  "$PYTHON_VENV" -m pip install --quiet --disable-pip-version-check \
    --constraint "$constraints" --editable "$metalearn_root${extras:+[$extras]}" >&2 \
    || metalearn_fail "installation failed; run the same command again once the cause above is mended"
  echo "$wanted $metalearn_root" > "$stamp"
}
