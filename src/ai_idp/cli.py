"""The command `ai-idp`: runs playbooks, makes and removes the lab, examines the platform.

Exit codes: 0 healthy, 1 a check or play failed, 2 could not run, 130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ai_idp import __version__
from ai_idp.errors import Exit, FrontError
from ai_idp.project import DEFAULT_INVENTORY, find_project

# Ansible, ansible-runner and httpx take long to import: each command imports what it needs.


class FrontGroup(TyperGroup):
    """Commands whose expected errors end in one line on stderr."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except FrontError as error:
            typer.echo(f"ai-idp: {error}", err=True)
            raise typer.Exit(error.code) from None
        except OSError as error:
            # A closed pipe is typer's own affair.
            if error.filename is None:
                raise
            typer.echo(f"ai-idp: {error.filename}: {error.strerror}", err=True)
            raise typer.Exit(Exit.COULD_NOT_RUN) from None
        except KeyboardInterrupt:
            typer.echo("ai-idp: interrupted", err=True)
            raise typer.Exit(Exit.INTERRUPTED) from None


app = typer.Typer(
    cls=FrontGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="AI-IDP: a private AI platform of three machines, deployed by Ansible and proven by measurement.",
)
lab_app = typer.Typer(no_args_is_help=True, help="The lab: three local hosts on which everything runs.")
app.add_typer(lab_app, name="lab")

Inventory = Annotated[str, typer.Option("--inventory", "-i", metavar="NAME", help="Which inventory/NAME to work on.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ai-idp {__version__}")
        raise typer.Exit


@app.callback()
def common(
    _version_wanted: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Say the version and exit."),
    ] = False,
) -> None:
    """AI-IDP: a private AI platform of three machines, deployed by Ansible and proven by measurement."""


@app.command()
def run(
    target: Annotated[str, typer.Argument(help="A playbook of playbooks/: week2, site and so on.")],
    inventory: Inventory = DEFAULT_INVENTORY,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; show what would change, with differences.")
    ] = False,
    extra_vars: Annotated[
        list[str] | None,
        typer.Option("-e", "--extra-vars", metavar="KEY=VALUE", help="Set a variable, or @FILE for many."),
    ] = None,
    limit: Annotated[
        str | None,
        typer.Option("--limit", "-l", metavar="PATTERN", help="Only these hosts."),
    ] = None,
) -> None:
    """Run a playbook, with its progress by host and task."""
    from ai_idp.progress import make_console
    from ai_idp.runner import run_playbook

    outcome = run_playbook(
        find_project(),
        target,
        inventory=inventory,
        console=make_console(),
        check=check,
        variables=extra_vars or [],
        limit=limit,
    )
    raise typer.Exit(outcome.code)


@app.command()
def doctor(
    inventory: Inventory = DEFAULT_INVENTORY,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON and nothing else.")] = False,
) -> None:
    """Examine the platform with real requests: 0 well, 1 not well or unknown, 2 could not look."""
    from ai_idp.doctor import examine, show_report
    from ai_idp.progress import make_console

    project = find_project()
    if as_json:
        report = examine(project, inventory)
        typer.echo(report.model_dump_json(indent=2))
    else:
        console = make_console()
        with console.status(f"examining {inventory}"):
            report = examine(project, inventory)
        show_report(console, report, inventory)
    raise typer.Exit(Exit.HEALTHY if report.ok else Exit.FAILED)


@app.command()
def report(
    week: Annotated[int, typer.Option("--week", metavar="N", help="The week to report on.")] = 1,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Draw the report of a week from its findings: a page for people, and the same in Markdown."""
    from ai_idp.progress import make_console
    from ai_idp.report_command import make_report

    make_report(find_project(), make_console(), week=week, show=show)


@app.command()
def ready(
    inventory: Inventory = DEFAULT_INVENTORY,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON and nothing else.")] = False,
) -> None:
    """Is what the plan needs there? Reads only: 0 all of it, 1 something needed is missing, 2 could not look."""
    from ai_idp.progress import make_console, write_line
    from ai_idp.ready import look, show_readiness

    project = find_project()
    if as_json:
        report = look(project, inventory)
        typer.echo(report.model_dump_json(indent=2))
    else:
        console = make_console()
        write_line(console, f"asking the hosts of {inventory} …", "dim")
        report = look(project, inventory)
        show_readiness(console, report, inventory)
    raise typer.Exit(Exit.HEALTHY if report.ok else Exit.FAILED)


@app.command()
def fit(
    model: Annotated[str, typer.Argument(help="A .gguf file, a model folder, or a name of the catalogue.")],
    gpu: Annotated[
        list[str] | None,
        typer.Option("--gpu", metavar="NAME", help='A GPU to imagine: "RTX 5070 Ti", "NAME:24GiB"; more than once.'),
    ] = None,
    inventory: Annotated[
        str | None, typer.Option("--inventory", "-i", metavar="NAME", help="Ask the GPU servers of inventory/NAME.")
    ] = None,
    memory: Annotated[
        float | None, typer.Option("--memory", metavar="GIB", help="The host's memory beside imagined GPUs.")
    ] = None,
    context: Annotated[str, typer.Option("--context", metavar="TOKENS", help="A number, auto, or up to N.")] = "auto",
    sequences: Annotated[
        int | None, typer.Option("--sequences", metavar="N", help="Requests at the same time.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", metavar="NAME", help="vllm or llama_cpp; told by the model if left out.")
    ] = None,
    utilization: Annotated[
        float | None, typer.Option("--utilization", metavar="PART", help="vLLM's part of the GPU, 0.80 if left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON and nothing else.")] = False,
) -> None:
    """Does a model fit? This machine, an inventory, or GPUs that you name: 0 it fits, 1 not or unknown, 2 no answer."""
    from ai_idp import fit as fitting
    from ai_idp.progress import make_console

    if gpu and inventory:
        raise FrontError("--gpu and --inventory are two answers to one question: give one of them")
    if engine not in (None, "vllm", "llama_cpp"):
        raise FrontError(f"--engine {engine}: allowed is vllm or llama_cpp")
    project = find_project()
    found, serves = fitting.find_model(project, model, engine)
    if gpu:
        hosts = [fitting.described(gpu, memory)]
    elif inventory:
        hosts = fitting.hosts_of(project, inventory)
    else:
        hosts = [fitting.this_machine(project)]
    answers = [
        fitting.judge(project, found, serves, host, context=context, sequences=sequences, utilization=utilization)
        for host in hosts
    ]
    if as_json:
        typer.echo(fitting.as_json(answers))
    else:
        console = make_console()
        for answer in answers:
            fitting.show(console, answer)
    raise typer.Exit(Exit.HEALTHY if all(answer.verdict == "fits" for answer in answers) else Exit.FAILED)


@lab_app.command("up")
def lab_up(
    hosts_only: Annotated[bool, typer.Option("--hosts-only", help="Make the hosts, deploy nothing on them.")] = False,
) -> None:
    """Make the lab, deploy every week that exists, and examine the result."""
    from ai_idp.doctor import examine, show_report
    from ai_idp.forecast import forecast_of
    from ai_idp.lab import INVENTORY
    from ai_idp.progress import make_console, write_line
    from ai_idp.runner import run_playbook

    project, console = find_project(), make_console()
    install = os.environ.get("LAB_INSTALL")
    variables = [] if install in (None, "", "1") else ["lab_install=false"]
    if not hosts_only:
        variables.append("lab_build=true")
    playbooks = ["lab_up"] if hosts_only else ["lab_up", "site"]
    for name in playbooks:
        # Both must be there before anything is begun.
        project.playbook(name)
    forecast = forecast_of(project.root, "-".join(playbooks))
    for name in playbooks:
        outcome = run_playbook(
            project,
            name,
            inventory=INVENTORY,
            console=console,
            variables=variables if name == "lab_up" else [],
            forecast=forecast,
        )
        if outcome.code != Exit.HEALTHY:
            raise typer.Exit(outcome.code)
    forecast.keep()
    if hosts_only:
        write_line(console, "The lab's hosts are up. Next: ai-idp run week2, or ai-idp lab up for everything.")
        return
    with console.status(f"examining {INVENTORY}"):
        report = examine(project, INVENTORY)
    show_report(console, report, INVENTORY)
    if not report.ok:
        raise typer.Exit(Exit.FAILED)
    write_line(console, "\nNext, so that any OpenAI client finds the lab:", "bold")
    write_line(console, '  eval "$(ai-idp lab env)"')
    write_line(console, "Look again with `ai-idp doctor`; take it all away with `ai-idp lab down`.")


@lab_app.command("down")
def lab_down(
    everything: Annotated[bool, typer.Option("--all", help="Remove the lab's images too.")] = False,
) -> None:
    """Remove the lab: containers, networks, volumes and keys."""
    from ai_idp.lab import INVENTORY
    from ai_idp.progress import make_console
    from ai_idp.runner import run_playbook

    outcome = run_playbook(
        find_project(),
        "lab_down",
        inventory=INVENTORY,
        console=make_console(),
        variables=["lab_remove_images=true"] if everything else [],
    )
    raise typer.Exit(outcome.code)


@lab_app.command("status")
def lab_status() -> None:
    """Show the lab's containers: 0 all are up and reachable, 1 they are not."""
    from ai_idp.lab import NOT_RUNNING, containers, show_containers
    from ai_idp.progress import make_console

    found = containers(find_project())
    if not found:
        raise FrontError(NOT_RUNNING, Exit.FAILED)
    show_containers(make_console(), found)
    raise typer.Exit(Exit.HEALTHY if all(container.well for container in found) else Exit.FAILED)


@lab_app.command("env")
def lab_env() -> None:
    """Print what points an OpenAI client at the lab, for: eval "$(ai-idp lab env)"."""
    from ai_idp.lab import exports

    for line in exports(find_project()):
        typer.echo(line)


def main() -> None:
    """The entry point of the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Programs and file names may say what the terminal's character set lacks.
            stream.reconfigure(errors="backslashreplace")
    app()


if __name__ == "__main__":
    main()
