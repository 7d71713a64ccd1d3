"""What the module host_state compares and sets: accounts, packages, files and systemd units of one host."""
