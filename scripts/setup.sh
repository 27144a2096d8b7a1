#!/usr/bin/env bash
# Installs what a build needs and is missing: Debian packages, and .venv with a suitable torch; and the packages of
# a file that is named, e.g. requirements-docs.txt.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(build-essential cmake ninja-build ccache libcli11-dev libtomlplusplus-dev nlohmann-json3-dev
          libutf8proc-dev libtcmalloc-minimal4 libgtest-dev libgmock-dev libbenchmark-dev python3-venv)

say() { printf 'setup: %s\n' "$*" >&2; }

missing_packages() {
  for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || echo "$package"
  done
}

install_packages() {
  command -v apt-get >/dev/null || { say "no apt-get: the shared library is built, the command and the tests need $*"; return; }
  local root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { say "expected root or sudo to install: $*"; return; }
    root=(sudo)
  fi
  say "installing $*"
  if ! { "${root[@]}" apt-get update -qq &&
         DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }; then
    say "apt-get could not install: $*. The shared library is built all the same; what needs them is left out."
  fi
}

suitable_torch() {  # prints the site folder of a torch from 2.11 to 2.13
  "$1" - 2>/dev/null <<'PY'
import os, torch
major, minor = (int(part) for part in torch.__version__.split(".")[:2])
assert (2, 11) <= (major, minor) <= (2, 13)
print(os.path.dirname(os.path.dirname(torch.__file__)))
PY
}

make_venv() {
  local site
  say "creating .venv"
  python3 -m venv .venv
  if site=$(suitable_torch python3); then
    say "using the torch of $(command -v python3)"
    echo "$site" >"$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch_of_the_system.pth"
  else
    say "installing torch (see requirements.txt)"
    .venv/bin/python -m pip install -q -r requirements.txt
  fi
}

if command -v dpkg-query >/dev/null; then
  mapfile -t missing < <(missing_packages)
  [ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
fi

suitable_torch .venv/bin/python >/dev/null || make_venv
suitable_torch .venv/bin/python >/dev/null || { say "expected torch 2.11 to 2.13 in .venv; found none"; exit 1; }

# The stamp spares later calls pip's start-up time.
install_requirements() {  # FILE WHAT_IS_MISSING_WITHOUT
  cmp -s "$1" ".venv/${1%.txt}.stamp" && return
  if .venv/bin/python -m pip install -q -r "$1"; then
    cp "$1" ".venv/${1%.txt}.stamp"
  else
    say "pip could not install $1: $2"
  fi
}

install_requirements requirements-dev.txt "the Python tests need it"
install_requirements requirements-oracles.txt "tests that compare with these packages are skipped"
[ $# -eq 0 ] || install_requirements "$1" "what asked for it cannot run"
