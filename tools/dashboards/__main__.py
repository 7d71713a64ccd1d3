"""Writes each dashboard's JSON for the role grafana. ``--check`` only compares."""

import argparse
import sys
from pathlib import Path

from dashboards import BOARDS

FOLDER = Path(__file__).resolve().parents[2] / "roles" / "grafana" / "files" / "dashboards"


def main() -> int:
    """Write or compare every file; return 1 where one is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only, and exit 1 where a file is out of date")
    check = parser.parse_args().check
    wanted = {FOLDER / f"{board.name}.json": board.render() for board in BOARDS}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    left_over = [path for path in FOLDER.glob("*.json") if path not in wanted]
    if not check:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for path in stale:
            path.write_text(wanted[path], encoding="utf-8")
        for path in left_over:
            path.unlink()
    if stale or left_over:
        names = ", ".join(sorted(path.name for path in stale + left_over))
        print(f"{'out of date' if check else 'written or removed'}: {names}")
    return 1 if check and (stale or left_over) else 0


if __name__ == "__main__":
    sys.exit(main())
