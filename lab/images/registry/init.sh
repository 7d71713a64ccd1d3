#!/bin/bash
# Runs the registry and the hub together; when one of them ends, so does the container.
set -u
docker-registry serve /etc/lab/registry.yml &
nginx -e stderr -c /etc/lab/nginx.conf &
# A stop of the container is a clean end, not a failure.
trap 'kill $(jobs -p) 2>/dev/null; wait; exit 0' TERM INT
wait -n
status=$?
echo "init: the registry or the hub ended with status ${status}" >&2
kill $(jobs -p) 2>/dev/null
wait
exit 1
