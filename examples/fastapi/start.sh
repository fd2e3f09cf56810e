#!/usr/bin/env bash
# Installs the Python packages once, then runs FastAPI and roomcast beside each other until Ctrl-C.
cd "$(dirname "${BASH_SOURCE[0]}")"
. ../beside.sh

if ! cmp -s requirements.txt .venv/requirements.txt; then
  python3 -m venv .venv
  .venv/bin/python -m pip install -q --disable-pip-version-check -r requirements.txt
  cp requirements.txt .venv/requirements.txt
fi
backend() { exec .venv/bin/python -m uvicorn main:app --port "$PORT" --log-level warning; }
beside roomcast.toml
