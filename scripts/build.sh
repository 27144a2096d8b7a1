#!/usr/bin/env bash
# build.sh PRESET [TARGET...]: configures with a CMake preset and compiles the targets, or everything.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-cpu}
shift || true
case $preset in
  cpu | cuda) folder=build ;;
  *) folder=build-$preset ;;
esac
mkdir -p "$folder"
if ! cmake --preset "$preset" >"$folder/configure.log" 2>&1; then
  cat "$folder/configure.log" >&2
  exit 1
fi
grep -A2 -E 'CMake Warning' "$folder/configure.log" >&2 || true
# Each job of a file that includes torch holds up to 1.5 GiB.
memory_jobs=$(awk '/MemAvailable/ {print int($2 / 1572864)}' /proc/meminfo)
jobs=$(nproc)
[ "$memory_jobs" -ge "$jobs" ] || jobs=$((memory_jobs > 0 ? memory_jobs : 1))
ninja -C "$folder" -j "$jobs" "$@"
