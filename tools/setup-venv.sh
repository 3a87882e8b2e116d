#!/usr/bin/env bash
# Prepares .venv from the hashed locks. Usage: tools/setup-venv.sh [PYTHON 3.11]
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3.11}
command -v "$python" >/dev/null || python=python3
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || {
  echo "Osteonode needs Python 3.11 (pyradiomics 3.0.1 does not build on 3.12). Name it: make setup PYTHON=/path/to/python3.11" >&2
  exit 1
}
as_root() { [ "$(id -u)" = 0 ] || [ "${CI:-}" = true ]; }
missing=()
"$python" -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
command -v cc >/dev/null || missing+=(gcc libc6-dev) # pyradiomics compiles its C extension
[ -e "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] || missing+=(python3-dev)
if [ ${#missing[@]} -gt 0 ]; then
  if as_root && command -v apt-get >/dev/null; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  else
    echo "missing: ${missing[*]}. Install them: sudo apt-get install ${missing[*]}" >&2
    exit 1
  fi
fi
echo "preparing .venv (a few minutes the first time)"
[ -x .tools/bin/pip ] || "$python" -m venv .tools
.tools/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
uv=.tools/bin/uv
export UV_SYSTEM_CERTS=1 # a hospital's own certificate authority is in the system's store
[ -x .venv/bin/python ] || "$uv" venv --quiet --no-python-downloads --python "$python" .venv
# Compiled now: whoever runs the commands may not write here, and each would compile two thousand files anew.
"$uv" pip sync --quiet --compile-bytecode --python .venv/bin/python --require-hashes requirements/dev.txt
"$uv" pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
