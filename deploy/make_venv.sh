#!/usr/bin/env bash
# Make .venv in the checkout with a Python of 3.11 or later. What is missing is installed where that is allowed (root on
# Debian), else the one command that does it is printed.
set -euo pipefail
cd "$(dirname "$0")/.."

find_python() {
  local name
  for name in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
    if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  return 1
}

if ! python=$(find_python); then
  install=(apt-get install -y --no-install-recommends python3 python3-venv)
  if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >&2
    "${install[@]}" >&2
  fi
  if ! python=$(find_python); then
    echo "streamlstm needs Python 3.11 or later with venv; on Debian 12 or later: sudo ${install[*]}" >&2
    exit 1
  fi
fi

rm -rf .venv
"$python" -m venv .venv
.venv/bin/pip install -q --disable-pip-version-check --upgrade pip
