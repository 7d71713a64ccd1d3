"""AI-IDP: a private AI platform of three machines, deployed by Ansible and proven by measurement."""

__version__ = "0.1.0"
