import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from ftl.console import notice, show_error
from ftl.contract import Event, RunResult
from ftl.errors import ConfigError, Problem
from ftl.runview import views as module
from ftl.runview.panels import result_panel
from ftl.runview.views import JsonView, LiveView, PlainView, make_view


def event(kind: str, t: float = 0.0, attempt: int = 1, **data) -> Event:
    return Event(t=t, attempt=attempt, event=kind, data=data)


def step(number: int, t: float, **data) -> Event:
    known = {"max_steps": 100, "loss": 2.0, "tokens_per_s": 1000.0, "memory_gib": 1.5}
    return event("step", t, step=number, **(known | data))


def result(**changes) -> RunResult:
    fields = {
        "run_id": "k3m-quickstart",
        "attempt": 1,
        "steps": 240,
        "epochs": 2.0,
        "tokens": 123456,
        "train_loss_first": 5.0,
        "train_loss_last": 2.5,
        "eval_loss_first": 4.5,
        "eval_loss_last": 2.75,
        "tokens_per_s": 3210.4,
        "seconds": 83.0,
        "peak_memory_gib": 1.25,
        "num_parameters": 1000000,
        "num_trainable": 25000,
    }
    return RunResult(**(fields | changes))


def drawn(panel, *, width: int, encoding: str = "utf-8") -> list[str]:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=stream, width=width, highlight=False).print(panel)
    stream.seek(0)
    return stream.read().splitlines()


def shown(view, *events: Event, capsys) -> list[str]:
    with view:
        for one in events:
            view.on_event(one)
    return capsys.readouterr().out.splitlines()


def test_plain_view_shows_a_step_every_ten_seconds_and_the_last(capsys):
    events = [step(n, t=float(n)) for n in range(1, 26)] + [step(100, t=26.0)]
    out = shown(PlainView(), *events, capsys=capsys)
    assert [line.split("  ")[0] for line in out] == ["step 1/100", "step 11/100", "step 21/100", "step 100/100"]
    assert out[1] == "step 11/100  loss 2.0000  1000 tok/s  1.5 GiB  ETA 1:29"  # 89 steps at one a second


@pytest.mark.parametrize("view", [PlainView, LiveView])
def test_losses_of_a_lost_machine_are_gathered_and_not_shown(view, capsys):
    history = event("history", train=[[1, 3.0], [2, 2.5]], eval=[[2, 2.75]])
    follows = view()
    assert shown(follows, history, capsys=capsys) == shown(view(), capsys=capsys)
    follows.on_event(step(3, t=1.0))
    assert (follows.losses.train, follows.losses.eval) == ([(1, 3.0), (2, 2.5), (3, 2.0)], [(2, 2.75)])


def test_plain_view_tells_what_happens(capsys):
    out = shown(
        PlainView(),
        event("phase", name="data"),
        event("phase", name="training"),
        event("eval", step=5, loss=2.5),
        event("checkpoint", step=5, path="c", state="saved", seconds=0.1, bytes=2**20),
        event("checkpoint", step=5, path="c", state="verified", seconds=0.1, bytes=2**20),
        event("phase", name="training"),
        event("warning", message="3 rows left out"),
        event("stopping", reason="deadline", step=6),
        event("stopped", step=6, checkpoint=5),
        event("resumed", attempt=2, step=5, checkpoint="c"),
        capsys=capsys,
    )
    assert out == [
        "reading data",
        "training",
        "step 5: eval loss 2.5000",
        "step 5: checkpoint saved and verified, 1.0 MiB",
        "warning: 3 rows left out",
        "stopping at step 6, the time limit is near: saving",
        "stopped at step 6; checkpoint 5",
        "attempt 2 goes on from the checkpoint of step 5",
    ]


KINDS = (
    *("phase", "step", "history", "eval", "samples", "profile", "early_stop", "checkpoint", "delivered", "memory"),
    *("warning", "waiting", "stopping", "stopped", "resumed", "result", "error"),
)


@pytest.mark.parametrize("view", [PlainView, LiveView, JsonView])
def test_view_that_was_given_events_with_nothing_in_them_gathers_what_follows(view, capsys):
    follows = view()
    shown(follows, *map(event, KINDS), step(1, 1.0, loss=None), step(2, 2.0), event("eval", step=2), capsys=capsys)
    assert (follows.losses.train, follows.losses.eval) == ([(2, 2.0)], [])


def test_plain_view_leaves_out_what_is_not_known_of_a_step(capsys):
    out = shown(PlainView(), step(1, 0.0, loss=None, tokens_per_s=None), capsys=capsys)
    assert out == ["step 1/100  loss nan  1.5 GiB"]


def test_view_strips_control_characters_and_keeps_brackets(capsys):
    view = PlainView()
    view.on_log("a\x1b[2Jb\x07[bold]c[/] \x9b31md")
    assert capsys.readouterr().out == "ab[bold]c[/] 31md\n"


def test_view_counts_a_repeated_step_once():
    view = PlainView()
    for one in (step(1, 0, loss=3.0), step(2, 1, loss=2.0), step(2, 9, loss=2.5), event("eval", step=2, loss=4.0)):
        view.on_event(one)
    assert view.losses.train == [(1, 3.0), (2, 2.5)]
    assert view.losses.eval == [(2, 4.0)]


def test_json_view_prints_every_event_as_it_is(capsys):
    events = [step(1, 0.5), event("warning", 1.0, message="[x]")]
    out = shown(JsonView(), *events, capsys=capsys)
    assert [json.loads(line) for line in out] == [one.model_dump() for one in events]


def test_make_view_fits_what_it_writes_to(monkeypatch):
    monkeypatch.setattr(module, "console", Console(force_terminal=False))
    assert isinstance(make_view(json=False), PlainView)
    assert isinstance(make_view(json=True), JsonView)
    monkeypatch.setattr(module, "console", Console(force_terminal=True))
    assert isinstance(make_view(json=False), LiveView)


@pytest.mark.parametrize("width", [80, 120])
def test_live_bar_shows_step_loss_speed_memory_and_eta_on_one_line(monkeypatch, width):
    stream = io.StringIO()
    monkeypatch.setattr(module, "console", Console(file=stream, force_terminal=True, width=width, color_system=None))
    with LiveView() as view:
        for one in (event("phase", name="training"), step(1, 0.0, max_steps=1000), step(101, 100.0, max_steps=1000)):
            view.on_event(one)
    (bar,) = {line.rstrip() for line in stream.getvalue().splitlines() if "101/1000" in line}
    for part in ("training", "loss 2.0000", "1000 tok/s", "1.5 GiB", "ETA 14:59"):
        assert part in bar


READING = event("phase", 1.0, name="data", dataset="datasets.0", share=0.43, rows_per_s=12000.0, eta_s=20.0)


def test_live_bar_shows_how_far_tokenising_is_and_goes_with_it(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(module, "console", Console(file=stream, force_terminal=True, width=80, color_system=None))
    with LiveView() as view:
        view.on_event(READING)
        view._progress.refresh()
        (bar,) = {line.rstrip() for line in stream.getvalue().splitlines() if "43/100" in line}
        view.on_event(event("phase", 2.0, name="model"))
        assert len(view._progress.tasks) == 1
    for part in ("tokenising datasets.0", "12,000 rows/s", "ETA 0:20"):
        assert part in bar


def test_plain_view_tells_how_far_tokenising_is_every_ten_seconds(capsys):
    later = READING.model_copy(update={"t": 5.0})
    out = shown(PlainView(), READING, later, capsys=capsys)
    assert out == ["tokenising datasets.0 43%  12,000 rows/s  ETA 0:20"]


def test_plain_view_tells_how_far_the_download_of_a_model_is(capsys):
    data = {"name": "model", "label": "org/base", "share": 0.25, "bytes": 1, "total_bytes": 4, "bytes_per_s": 2.5e7}
    out = shown(PlainView(), READING.model_copy(update={"data": data}), capsys=capsys)
    assert out == ["downloading org/base 25%  25 MB/s"]


@pytest.mark.parametrize(("width", "panel_width"), [(60, 60), (80, 80), (120, 100)])
def test_result_panel_fits_the_console(width, panel_width):
    lines = drawn(result_panel(result(), train=[(1, 5.0), (240, 2.5)], evals=[(120, 3.0)]), width=width)
    assert {len(line) for line in lines} == {panel_width}


def test_result_panel_tells_the_facts():
    text = "\n".join(drawn(result_panel(result(), output=Path("/home/me/adapter")), width=80))
    for fact in (
        "done k3m-quickstart",
        "240 in 2 epochs, 123,456 tokens",
        "5.0000 -> 2.5000",
        "4.5000 -> 2.7500",
        "3,210 tokens/s",
        "1:23",
        "1.2 GiB",
        "1,000,000, of which 25,000 trained (2.50%)",
        "/home/me/adapter",
    ):
        assert fact in text


def test_result_panel_leaves_out_what_is_not_known():
    known = result(eval_loss_first=None, eval_loss_last=None, peak_memory_gib=None, num_trainable=1000000)
    text = "\n".join(drawn(result_panel(known), width=80))
    assert "eval loss" not in text
    assert "peak memory" not in text
    assert "all trained" in text


def test_result_panel_is_ascii_where_the_encoding_is():
    lines = drawn(result_panel(result(), train=[(1, 5.0), (9, 2.5)], evals=[(5, 3.0)]), width=80, encoding="ascii")
    assert all(line.isascii() for line in lines)
    assert "?" not in "".join(lines)


def test_show_error_gives_one_line_a_problem_on_stderr(capsys):
    show_error(ConfigError(Problem("cfg.yml:1", "lora_r = 0", "must be at least 1"), "text \x1b[31m[red]"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "ftl: 2 problems\n  cfg.yml:1: lora_r = 0: must be at least 1\n  text [red]\n"


def test_show_error_of_one_problem_is_one_line_however_long(capsys):
    show_error(ConfigError(Problem("cfg.yml:1", "x" * 300, "must be shorter")))
    assert capsys.readouterr().err == f"ftl: cfg.yml:1: {'x' * 300}: must be shorter\n"


def test_notice_goes_to_stderr(capsys):
    notice("cfg.yml:1: [key] is not used")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "note: cfg.yml:1: [key] is not used\n")


def test_importing_the_views_loads_no_progress_bar():
    import subprocess

    code = "import sys, ftl.runview.views; sys.exit('rich.progress' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
