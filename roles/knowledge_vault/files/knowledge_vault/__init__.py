"""A Git commit becomes a note in an Obsidian vault: the events' sender, and the service that n8n asks.

    poller -> spool -> n8n's webhook -> service -> note -> n8n asks the model -> service -> completed note

Only the standard library is needed. ``python3 -m knowledge_vault serve`` runs the service, ``poll`` looks for commits
and sends what waits in the spool.
"""
