"""What is left of a run is judged by the former run that went most like it; nothing is made up."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ai_idp.events import RunState
from ai_idp.forecast import KEPT_RECORDS, Forecast, Left, Record, forecast_of, remembered
from ai_idp.progress import PlainView, expected

COLD = Record("a cold run", 1000.0, {"prepare": 0.0, "images": 10.0, "hosts": 310.0, "site": 320.0})
WARM = Record("a warm run", 200.0, {"prepare": 0.0, "images": 12.0, "hosts": 15.0, "site": 20.0})


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run_of(clock: Clock, former: list[Record], **steps: float) -> Forecast:
    """A run whose steps began so many seconds after it."""
    forecast = Forecast(former, clock=clock)
    for step, at in steps.items():
        clock.now = 100.0 + at
        forecast.begin(step)
    return forecast


def test_without_a_former_run_there_is_no_forecast() -> None:
    assert run_of(Clock(), [], prepare=0, images=3).left() is None


def test_before_the_first_step_the_newest_run_counts() -> None:
    clock = Clock()
    forecast = run_of(clock, [COLD, WARM])
    clock.now += 30
    assert forecast.left() == Left(170.0, "a warm run")


@pytest.mark.parametrize(
    ("hosts_at", "left"),
    [(20.0, Left(185.0, "a warm run")), (290.0, Left(690.0, "a cold run"))],
)
def test_the_run_that_went_alike_counts(hosts_at: float, left: Left) -> None:
    assert run_of(Clock(), [COLD, WARM], prepare=0, images=11, hosts=hosts_at).left() == left


def test_time_passes_within_a_step_but_not_beyond_what_it_took() -> None:
    clock = Clock()
    forecast = run_of(clock, [COLD], prepare=0, images=10)
    clock.now += 100
    assert forecast.left() == Left(890.0, "a cold run")
    clock.now += 1000
    # The step is overdue; what comes after it is still to be done.
    assert forecast.left() == Left(690.0, "a cold run")


def test_a_last_step_that_is_overdue_leaves_nothing() -> None:
    clock = Clock()
    forecast = run_of(clock, [WARM], site=20)
    clock.now += 1000
    assert forecast.left() == Left(0.0, "a warm run")


def test_steps_that_no_former_run_had_change_nothing() -> None:
    clock = Clock()
    forecast = run_of(clock, [COLD], prepare=0, images=10, **{"another step": 60})
    assert forecast.left() == Left(940.0, "a cold run")


def test_of_a_step_that_comes_again_the_first_time_counts() -> None:
    assert run_of(Clock(), [COLD], images=10).left() == run_of(Clock(), [COLD], images=10).left()
    clock = Clock()
    forecast = run_of(clock, [COLD], images=10)
    clock.now += 50
    forecast.begin("images")
    assert forecast.left() == Left(940.0, "a cold run")


def test_good_runs_are_remembered_and_old_ones_forgotten(tmp_path: Path) -> None:
    for number in range(KEPT_RECORDS + 2):
        forecast = forecast_of(tmp_path, "site-lab")
        forecast.begin(f"step {number}")
        forecast.keep()
    path = tmp_path / ".ansible" / "forecast" / "site-lab.json"
    assert [next(iter(record.steps)) for record in remembered(path)] == [
        f"step {n}" for n in range(2, KEPT_RECORDS + 2)
    ]
    assert remembered(path)[0].what.startswith("the run of 20")
    assert list(path.parent.iterdir()) == [path]


def test_typical_runs_of_the_project_help_a_first_run(tmp_path: Path) -> None:
    (tmp_path / "lab" / "runs").mkdir(parents=True)
    typical = {"what": "a typical run on 2 cores", "seconds": 900, "steps": {"a": 1}}
    (tmp_path / "lab" / "runs" / "lab_up-site.json").write_text(json.dumps([typical]))
    left = forecast_of(tmp_path, "lab_up-site").left()
    assert left is not None
    assert left.what == "a typical run on 2 cores"
    assert forecast_of(tmp_path, "site-lab").left() is None


@pytest.mark.parametrize("content", ["", "[", "{}", "[1]", '[{"what": "x", "seconds": "long", "steps": {}}]', "[[]]"])
def test_a_broken_memory_is_no_memory(tmp_path: Path, content: str) -> None:
    (tmp_path / "broken.json").write_text(content)
    assert remembered(tmp_path / "broken.json") == []


def test_a_place_that_can_not_be_written_ends_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    Forecast(path=tmp_path / "file" / "runs.json").keep()


@pytest.mark.parametrize(("seconds", "said"), [(30.0, ""), (70.0, "about 1 min left"), (690.0, "about 12 min left")])
def test_what_is_said(seconds: float, said: str) -> None:
    assert expected(Forecast([Record("a run", seconds, {})], clock=Clock())) == said


def test_a_log_tells_what_is_left() -> None:
    clock, written = Clock(), StringIO()
    view = PlainView(Console(file=written, width=140, highlight=False))
    former = Record("a run", 600.0, {"A play | A task": 5.0, "A play | Another": 300.0})
    state = RunState(view=view, clock=clock, forecast=Forecast([former], clock=clock))
    view.begin(state)

    def event(kind: str, **data: Any) -> None:
        state.handle({"event": kind, "event_data": {"task_uuid": "u1", "task": "A task", **data}})

    event("playbook_on_play_start", name="A play")
    event("playbook_on_task_start", name="A task")
    event("runner_on_start", host="one")
    clock.now += 3
    state.tick()
    clock.now += 120
    state.tick()
    assert written.getvalue().splitlines() == [
        "00:00 == A play  (about 10 min left)",
        "00:03 running     one  A task  (about 10 min left)",
        "02:03 running     one  A task  (for 2 min 03 s)  (about 8 min left)",
    ]
