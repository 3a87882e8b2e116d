#!/usr/bin/env bash
# Adds the trained engines to .venv: torch, nnU-Net, TotalSegmentator. Usage: [TORCH=cpu|cuda] tools/setup-totalsegmentator.sh
# A CUDA torch is several gigabytes: it is taken only where TORCH=cuda asks for it.
set -euo pipefail
cd "$(dirname "$0")/.."
torch=2.13.0
flavour=${TORCH:-cpu}
lock=requirements/totalsegmentator.txt
case "$flavour" in cpu | cuda) ;; *)
  echo "TORCH is cpu or cuda, not $flavour" >&2
  exit 1
  ;;
esac
pip() { .tools/bin/python -m pip --python .venv/bin/python --disable-pip-version-check "$@"; }

# What pip would take: "2.13.0+cpu cpu", or "2.13.0 cuda" where the build asks for NVIDIA's libraries.
found=$(pip install --quiet --dry-run --ignore-installed --no-deps --report - "torch==$torch" 2>/dev/null |
  .venv/bin/python -c '
import json, sys
metadata = json.load(sys.stdin)["install"][0]["metadata"]
cuda = any(name.startswith(("nvidia", "cuda", "triton")) for name in metadata.get("requires_dist", ()))
print(metadata["version"], "cuda" if cuda and not metadata["version"].endswith("+cpu") else "cpu")') || {
  echo "no torch $torch can be found for this machine" >&2
  exit 1
}
if [ "${found#* }" = cuda ] && [ "$flavour" = cpu ]; then
  cat >&2 <<TEXT
pip would take torch ${found% *}, a CUDA build of several gigabytes. Choose one:
  a CPU build: name the index or the folder that holds it, PIP_EXTRA_INDEX_URL=... or PIP_FIND_LINKS=...
               make setup-totalsegmentator (pytorch.org, "Start locally", names the index of CPU builds)
  the CUDA build: make setup-totalsegmentator TORCH=cuda
TEXT
  exit 1
fi
if [ "${found#* }" = cpu ] && [ "$flavour" = cuda ]; then
  echo "pip would take torch ${found% *}, a CPU build: is PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL set?" >&2
  exit 1
fi

echo "adding torch ${found% *}, nnU-Net and TotalSegmentator to .venv (a few minutes the first time)"
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
# torch's own dependencies may not move what the locks hold.
grep -hoE '^[a-z0-9._-]+==[^ ;\\]+' requirements/dev.txt "$lock" | sort -u >"$constraints"
pip install --quiet --constraint "$constraints" "torch==${found% *}"
.tools/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python --no-deps --require-hashes -r "$lock"
