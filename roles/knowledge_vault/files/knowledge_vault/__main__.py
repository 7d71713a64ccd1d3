"""Starts the service, or looks once for commits and sends what waits."""

import argparse
import sys
from pathlib import Path

from . import events, service, settings


def main() -> int:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="knowledge_vault", description=__doc__)
    parser.add_argument("command", choices=["serve", "poll"])
    parser.add_argument("--config", type=Path, required=True)
    arguments = parser.parse_args()
    known = settings.load(arguments.config)
    if arguments.command == "serve":
        service.serve(known)
        return 0
    known.spool.mkdir(parents=True, exist_ok=True)
    events.poll(known)
    while events.send(known):
        # What was committed meanwhile would otherwise wait for the timer.
        events.poll(known)
    return 0


if __name__ == "__main__":
    sys.exit(main())
