#!/usr/bin/env bash
# Installs the library, static and shared, and builds and runs the example through find_package and pkg-config from a
# prefix that was moved, then through add_subdirectory.
#   run.sh [FOLDER]   a folder for the builds, kept so that the next run is quick; default: a temporary one
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
jobs=${VICINAL_JOBS:-$(nproc)}

if [ $# -gt 0 ]; then
  mkdir -p "$1"
  work=$(cd "$1" && pwd)
else
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
log=$work/log
launcher=()
command -v ccache >/dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)

quietly() { "$@" >"$log" 2>&1 || { tail -n 60 "$log" >&2; echo "failed: $*" >&2; exit 1; }; }
configure() { quietly cmake -G Ninja "${launcher[@]}" -DCMAKE_BUILD_TYPE=Release "$@"; }
build() { quietly cmake --build "$1" -j "$jobs" "${@:2}"; }

for kind in static shared; do
  shared=OFF
  [ $kind = shared ] && shared=ON
  tree=$work/$kind prefix=$work/$kind-prefix moved=$work/$kind-moved
  rm -rf "$prefix" "$moved" "$tree-consumer"
  configure -S "$source" -B "$tree" -DBUILD_SHARED_LIBS=$shared -DVICINAL_TESTS=OFF -DCMAKE_INSTALL_LIBDIR=lib
  build "$tree"
  quietly cmake --install "$tree" --prefix "$prefix"
  mv "$prefix" "$moved"

  # No path of this machine in what others read.
  if grep -rIl -e "$source" -e "$work" "$moved"; then
    echo "$kind: installed files name the build machine's folders" >&2
    exit 1
  fi
  HOME=$work "$moved/bin/vicinal" check --quiet "$moved"/share/vicinal/specs/*.attn
  if [ $kind = shared ]; then
    # Hidden unless public: of our own functions only those with VICINAL_API.
    if nm -DC --defined-only "$moved/lib/libvicinal.so" | grep -E ' T vicinal::(ir|ast|syntax|check|passes|emit|cuda|cache|cpu|runtime)::'; then
      echo "shared: inner symbols are exported" >&2
      exit 1
    fi
  fi

  configure -S "$here" -B "$tree-consumer" -DCMAKE_PREFIX_PATH="$moved"
  build "$tree-consumer"
  echo "find_package, $kind: $("$tree-consumer/example")"
  "$tree-consumer/train"

  export PKG_CONFIG_PATH=$moved/lib/pkgconfig
  read -ra flags <<<"$(pkg-config --cflags --libs vicinal)"
  quietly "${CXX:-c++}" -std=c++20 -Wall -Wpedantic -Werror "$here/example.cpp" -o "$work/example-$kind" "${flags[@]}"
  echo "pkg-config, $kind: $(LD_LIBRARY_PATH=$moved/lib "$work/example-$kind")"
done

configure -S "$here" -B "$work/subdirectory" -DVICINAL_SOURCE="$source"
build "$work/subdirectory" --target example
echo "add_subdirectory: $("$work/subdirectory/example")"
