"""Starts the service, or the sender that watches repositories."""

import argparse
import sys
from pathlib import Path

from . import events, service, settings


def main() -> int:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="knowledge_vault", description=__doc__)
    parser.add_argument("command", choices=["serve", "watch"])
    parser.add_argument("--config", type=Path, required=True)
    arguments = parser.parse_args()
    known = settings.load(arguments.config)
    if arguments.command == "serve":
        service.serve(known)
    else:
        events.watch(known)
    return 0


if __name__ == "__main__":
    sys.exit(main())
