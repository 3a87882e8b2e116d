#!/usr/bin/env bash
# Peers that the tests talk to: DCMTK, dicom3tools, Orthanc with its web viewer, Chromium, redis-server, PostgreSQL; and the font
# of Chinese pictures. Installed for root or CI.
set -euo pipefail
declare -A package=(
  [/usr/bin/storescu]=dcmtk [/usr/bin/dciodvfy]=dicom3tools [/usr/sbin/Orthanc]=orthanc
  [/usr/lib/orthanc/libOrthancWebViewer.so.2.8]=orthanc-webviewer [/usr/bin/chromium]=chromium
  [/usr/bin/redis-server]=redis-server [/usr/bin/pg_ctlcluster]=postgresql
  [/usr/share/fonts/truetype/wqy/wqy-microhei.ttc]=fonts-wqy-microhei
)
missing=()
for tool in "${!package[@]}"; do [ -e "$tool" ] || missing+=("${package[$tool]}"); done
[ ${#missing[@]} -eq 0 ] && exit 0
if { [ "$(id -u)" = 0 ] || [ "${CI:-}" = true ]; } && command -v apt-get >/dev/null; then
  echo "installing ${missing[*]}"
  # Debian starts a server as soon as it is installed; this policy, put back afterwards, keeps it from doing so.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  exit 0
fi
echo "missing system tools. Install them: sudo apt-get install ${missing[*]}" >&2
[ "${CI:-}" = true ] && exit 1
echo "tests that need them will be skipped, and say so" >&2
