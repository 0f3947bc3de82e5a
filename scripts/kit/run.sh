#!/bin/sh
# Runs forkstep out of this folder, on Linux x86-64 with nothing installed: ./run says what there is to run. Set up here is what the
# processes to come cannot set up themselves, Node and the libraries it starts with; scripts/kit/main.mjs does the rest.
set -u
PATH=${PATH:-/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}
export PATH
here=$(CDPATH='' cd -- "$(dirname -- "$(readlink -f -- "$0")")" && pwd) || exit 1

if [ "$(uname -s) $(uname -m)" != 'Linux x86_64' ]; then
  echo "run: this kit is for Linux x86_64, and this is $(uname -s) $(uname -m)" >&2
  exit 1
fi

# Whether Node starts and Dawn's binding loads, with the libraries there are.
starts() {
  "$here/bin/node" -e 'require(process.argv[1])' "$here/node_modules/webgpu/dist/linux-x64/dawn.node"
}

if ! starts >/dev/null 2>&1; then
  LD_LIBRARY_PATH=$here/lib/c++${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  export LD_LIBRARY_PATH
  if ! starts; then
    echo 'run: Node or Dawn does not start here (above); they need glibc 2.34 or newer' >&2
    exit 1
  fi
fi
exec "$here/bin/node" "$here/scripts/kit/main.mjs" "$@"
