"""Runs Molecule's scenarios: side by side, each on a test host of its own, and from one warm process."""
