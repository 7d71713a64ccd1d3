#!/bin/sh
# Starts Chromium, which trusts the authority that was mounted, as an owner's browser does who has imported it.
#
# DevTools listen on loopback, at a port that is free; the log says at which address.
set -eu
authorities="sql:$HOME/.pki/nssdb"
mkdir -p "$HOME/.pki/nssdb"
certutil -N -d "$authorities" --empty-password
if [ -f /ca.crt ]; then
  certutil -A -d "$authorities" -n ai-idp -t C,, -i /ca.crt
fi
# The container is the sandbox: in it Chromium can't make one of its own. Its shared memory is small, too.
exec chromium-headless-shell --no-sandbox --disable-dev-shm-usage --disable-gpu --disable-background-networking \
  --remote-debugging-port=0 --user-data-dir="$HOME/profile" "$@" about:blank
