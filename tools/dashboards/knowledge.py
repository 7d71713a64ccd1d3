"""Runs and notes: commits that become notes, and the services that this takes."""

from dashboards.parts import UP_OR_DOWN, Board, Query, Row, Steps, host_variable, lines, number, states

HOST = 'host=~"$host"'
VAULT = f'job="knowledge_vault", {HOST}'
PROBE = f'job=~"mlflow|n8n", {HOST}'


def notes(state: str) -> str:
    """How many notes are in a state."""
    return f'sum(ai_idp_vault_notes{{{VAULT}, state="{state}"}})'


BOARD = Board(
    name="knowledge",
    title="AI-IDP: knowledge",
    description="Commits that become notes, what waits for whom, and the services that this takes.",
    requires="knowledge_vault",
    variables=[host_variable('label_values(up{job="knowledge_vault"}, host)', "Gateway")],
    rows=[
        Row(
            "Notes",
            [
                number(
                    "Completed notes",
                    "Notes with title, summary and tags from the model.",
                    "none",
                    Query(notes("done")),
                    decimals=0,
                    width=6,
                ),
                number(
                    "Notes that wait for the model",
                    "They are plain, and completed once the model answers.",
                    "none",
                    Query(notes("pending")),
                    decimals=0,
                    steps=Steps(1, 100),
                    width=6,
                ),
                number(
                    "Notes that were given up",
                    "The model answered with nonsense again and again. They stay plain.",
                    "none",
                    Query(notes("failed")),
                    decimals=0,
                    steps=Steps(1, 10),
                    width=6,
                ),
                number(
                    "Commits that wait",
                    "They are on the disk, and n8n has not taken them yet.",
                    "none",
                    Query(f"sum(ai_idp_vault_spool_events{{{VAULT}}})"),
                    decimals=0,
                    steps=Steps(1, 100),
                    width=6,
                ),
                lines(
                    "Notes by state",
                    "All commits' notes: done by the model, pending, given up, or the owner's own since.",
                    "none",
                    Query(f"sum by (state) (ai_idp_vault_notes{{{VAULT}}})", "{{state}}"),
                    stacked=True,
                    width=12,
                ),
                lines(
                    "Waiting",
                    "Commits that n8n has not taken, and notes that the model has not completed.",
                    "none",
                    Query(f"sum(ai_idp_vault_spool_events{{{VAULT}}})", "commits"),
                    Query(notes("pending"), "notes"),
                    width=12,
                ),
            ],
        ),
        Row(
            "Services",
            [
                states(
                    "MLflow, n8n and the vault",
                    "The first two as people reach them, through the gateway.",
                    Query(f"probe_success{{{PROBE}}}", "{{job}}"),
                    Query(f"up{{{VAULT}}}", "vault"),
                    words=UP_OR_DOWN,
                    width=12,
                ),
                lines(
                    "Time to answer",
                    "How long each took to say that it is well, through the gateway.",
                    "s",
                    Query(f"probe_duration_seconds{{{PROBE}}}", "{{job}}"),
                    width=12,
                ),
            ],
        ),
    ],
)
