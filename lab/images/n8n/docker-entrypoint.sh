#!/bin/sh
# As in the production image: arguments are a command of n8n.
exec n8n "$@"
