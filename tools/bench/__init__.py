"""Times no-change runs against the lab: this tree, the same with Ansible's stock settings, and a former tree."""
