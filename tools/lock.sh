#!/usr/bin/env bash
# Compiles requirements/*.txt from pyproject.toml. The locks hold versions and hashes, and no registry's name.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=.tools/bin/uv
compile() { "$uv" pip compile --quiet --universal --generate-hashes --no-header --no-annotate "$@"; }
compile --python-version 3.11 requirements/uv.in --output-file requirements/uv.txt
compile pyproject.toml --output-file requirements/runtime.txt
compile pyproject.toml --group dev --constraints requirements/runtime.txt --output-file requirements/dev.txt
# torch is chosen per machine (CPU or CUDA) and installed before this lock, which is installed with --no-deps.
# It goes into the same environment as the lock above, so it follows that one's versions.
compile pyproject.toml --extra totalsegmentator --constraints requirements/dev.txt \
  --overrides requirements/totalsegmentator-overrides.txt --output-file requirements/totalsegmentator.txt
