"""The best evaluation: what is judged best, when patience ends, what is kept and delivered."""

import hashlib
import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from ftl.config.evaluation import EvaluationSection  # noqa: E402
from ftl.config.watch import WatchSection  # noqa: E402
from ftl.errors import ConfigError, DivergedError, ExitCode  # noqa: E402
from ftl_runtime.train.best import Selection  # noqa: E402
from ftl_runtime.train.losswatch import LossWatch  # noqa: E402
from ftl_runtime.train.progress import Progress  # noqa: E402


def judged(values, **keys):
    """(step of the best, step at which patience ended) for the evaluations 1, 2, ..."""
    progress = Progress()
    selection = Selection(EvaluationSection.model_validate(keys), progress, saves_best=True)
    name = selection.metric
    ends = [step for step, value in enumerate(values, 1) if selection.judge(step, {name: value}).is_exhausted]
    return progress.best_step, ends[0] if ends else None


@pytest.mark.parametrize(
    ("values", "keys", "expected"),
    [
        ([3.0, 2.0, 2.5, 1.9, 2.0], {}, (4, None)),
        ([3.0, 2.0, 2.0, 2.1], {"early_stopping_patience": 2}, (2, 4)),
        ([3.0, 3.1, 2.9, 3.0, 2.8], {"early_stopping_patience": 2}, (5, None)),
        ([3.0, float("nan"), float("nan")], {"early_stopping_patience": 2}, (1, 3)),
        ([0.5, 0.7, 0.6], {"metric": "eval_rewards/accuracies"}, (2, None)),
        ([30.0, 20.0], {"metric": "perplexity"}, (2, None)),
        ([0.5, 0.7, 0.6], {"metric": "score", "greater_is_better": False}, (1, None)),
    ],
    ids=["lowest", "as good is no better", "begins anew", "no number", "more is better", "perplexity", "as told"],
)
def test_best_step_and_end_of_patience(values, keys, expected):
    assert judged(values, **keys) == expected


def test_metric_that_no_evaluation_gives_is_named():
    selection = Selection(EvaluationSection(metric="accuracy", load_best=True), Progress(), saves_best=False)
    with pytest.raises(ConfigError, match=r"metric_for_best_model: accuracy: .* it gives loss, perplexity"):
        selection.check({"loss": 1.0, "perplexity": 2.7})


def test_loss_watch_ends_at_the_last_of_so_many_in_a_row():
    progress = Progress()
    watch = LossWatch(WatchSection(loss_threshold=5.0, loss_patience=2), progress)
    for step, loss in enumerate([6.0, 4.0, 6.0], 1):
        watch.see(step, loss)
    with pytest.raises(DivergedError, match=r"above loss_watchdog_threshold 5 for 2 .* 7.5000 at step 4"):
        watch.see(4, 7.5)


SHORT = {"output__eval_steps": 1, "output__save_steps": 2, "output__save_total_limit": 1, "optim__max_steps": 12}


def checkpoints(attempt) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in (attempt.run / "checkpoints").glob("checkpoint-*"))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_stops_early_keeps_the_best_and_delivers_it(make_attempt, weights, kind):
    """Judged the wrong way round, a training that gets better is best after its first step."""
    adapter = {"kind": "lora", "rank": 4, "alpha": 8} if kind == "lora" else None
    attempt = make_attempt(
        model=weights,
        adapter=adapter,
        evaluation__greater_is_better=True,
        evaluation__early_stopping_patience=2,
        **SHORT,
    )
    attempt.train()
    evals = {e["data"]["step"]: e["data"]["loss"] for e in attempt.events("eval")}
    trained = {step: loss for step, loss in evals.items() if step}
    best, last = 1, 3
    assert max(trained) == last and trained[1] > trained[2] > trained[3]
    assert attempt.events("early_stop")[0]["data"] == {
        "step": last,
        "metric": "loss",
        "best": trained[best],
        "best_step": best,
        "patience": 2,
    }
    assert checkpoints(attempt) == [best, last]
    result = json.loads((attempt.run / "result.json").read_text())
    assert (result["steps"], result["best_step"]) == (last, best)
    assert result["train_loss_last"] == attempt.losses()[last]
    name = "adapter_model.safetensors" if kind == "lora" else "model.safetensors"
    kept = [attempt.run / "checkpoints" / f"checkpoint-{step}" / name for step in (best, last)]
    output = attempt.run / "output" / name
    assert digest(output) == digest(kept[0]) != digest(kept[1])
    (attempt.run / "result.json").unlink()
    attempt.train()  # as after a kill before the result: nothing is trained any more
    assert len(attempt.events("early_stop")) == 1
    assert max(attempt.losses()) == last
    assert digest(output) == digest(kept[0])


def test_saving_the_best_writes_nothing_else(make_attempt):
    attempt = make_attempt(**{**SHORT, "output__save_steps": None, "output__save_strategy": "best"})
    attempt.train()
    trained = {e["data"]["step"]: e["data"]["loss"] for e in attempt.events("eval") if e["data"]["step"]}
    bests = [step for step in trained if trained[step] == min(loss for s, loss in trained.items() if s <= step)]
    saved = [e["data"]["step"] for e in attempt.events("checkpoint") if e["data"]["state"] == "verified"]
    assert saved == bests
    assert checkpoints(attempt) == bests[-1:]


def test_diverged_training_has_its_own_exit_code_and_is_not_taken_up_again(make_attempt):
    from ftl.launch import _RETRIED

    attempt = make_attempt(watch__loss_threshold=1.0, watch__loss_patience=2)
    assert attempt.go() == ExitCode.DIVERGED == 71
    record = attempt.exit_record()
    assert record["cause"] == "diverged" and record["cause"] not in _RETRIED
    assert list(attempt.losses()) == [1, 2]
    assert "Traceback" not in attempt.log()
