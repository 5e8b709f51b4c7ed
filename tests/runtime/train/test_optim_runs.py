"""Whole trainings of this process: stopped and resumed they give the losses and weights of a straight run."""

import hashlib
import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from ftl.config.optim import Optimizer  # noqa: E402
from ftl.contract import JobSpec, Paths, Resources  # noqa: E402
from ftl.errors import PreemptedError  # noqa: E402
from ftl_runtime.run import do_job  # noqa: E402
from ftl_runtime.stop import StopFlag  # noqa: E402


class Run:
    """A run directory that is trained in this process."""

    def __init__(self, directory: Path, base: Path, *, optim=(), rates=(), output=()) -> None:
        self.directory, self.events = directory, []
        (directory / "bundle").mkdir(parents=True)
        (directory / "run").mkdir()
        config = {
            "model": {"base": str(base)},
            "data": {
                "datasets": [{"path": "bundle:texts.jsonl", "type": "completion"}],
                "sequence_len": 24,
                "val_set_size": 4,
            },
            "optim": {"learning_rate": 1e-2, "max_steps": 6, "micro_batch_size": 2, "weight_decay": 0.1, **dict(optim)},
            "rates": dict(rates),
            "output": {"save_strategy": "no", "eval_steps": 2, "logging_steps": 1, **dict(output)},
        }
        (directory / "bundle/config.json").write_text(json.dumps(config))
        texts = [" ".join(["tales", "of", "ships", "and", "rain"][i % 5 :: -1]) + f" {i}" for i in range(24)]
        (directory / "bundle/texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))

    def train(self, stop_at: int | None = None) -> None:
        stop = StopFlag()

        def emit(event, data):
            self.events.append((event, data))
            if event == "step" and data["step"] == stop_at:
                stop.reason = "signal"

        paths = Paths(**{name: str(self.directory / name) for name in ("bundle", "run", "cache")})
        job = JobSpec(run_id="tiny", attempt=1, resources=Resources(cpus=1), paths=paths)
        do_job(job, emit, stop)

    def values(self, event: str, key: str) -> list[float]:
        return [data[key] for name, data in self.events if name == event]

    def weights(self, place: str = "output") -> str:
        return hashlib.sha256((self.directory / "run" / place / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(autouse=True)
def started(monkeypatch):
    monkeypatch.setenv("FTL_STARTED", str(time.time()))


@pytest.fixture
def make_run(tmp_path, weights):
    return lambda name, **sections: Run(tmp_path / name, weights, **sections)


def optimizer(name, package="torch", **options):
    missing = pytest.mark.skipif(not find_spec(package), reason=f"the package {package} is not installed")
    return pytest.param({"optim": {"optimizer": name, **options}}, id=name, marks=missing)


RANK_2 = {"rank": 2, "update_proj_gap": 2}
PLATEAU = {"patience": 0, "threshold": 0.9}


@pytest.mark.parametrize(
    "sections",
    [
        optimizer("adamw_bnb_8bit", "bitsandbytes"),
        optimizer("galore_adamw", "galore_torch", optimizer_options=RANK_2),
        optimizer("schedule_free_adamw", "schedulefree"),
        optimizer("adamw_torch", grokfast_alpha=0.9),
        pytest.param(
            {"optim": {"scheduler": "reduce_lr_on_plateau"}, "rates": {"scheduler_options": PLATEAU}}, id="plateau"
        ),
    ],
)
def test_resumed_run_equals_straight_run(make_run, sections):
    """Evaluated at steps 2 and 4, so that a change of weights for it would show too."""
    straight = make_run("straight", **sections)
    straight.train()
    resumed = make_run("resumed", **sections)
    with pytest.raises(PreemptedError):
        resumed.train(stop_at=3)
    resumed.train()
    for event, key in (("step", "loss"), ("step", "lr"), ("eval", "loss")):
        assert resumed.values(event, key) == straight.values(event, key)
    assert resumed.weights() == straight.weights()
    losses = straight.values("eval", "loss")
    assert losses[-1] < losses[0]


NEEDS_A_GPU = ("galore_adamw_8bit",)
OTHERS = sorted(set(get_args(Optimizer)) - {"adamw_bnb_8bit", "galore_adamw", "schedule_free_adamw"} - set(NEEDS_A_GPU))
OPTIONS = {"galore_adafactor": RANK_2, "apollo_adamw": RANK_2}


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_optimizer_resumes_bit_for_bit(make_run, name):
    sections = {
        "optim": {"optimizer": name, "optimizer_options": OPTIONS.get(name, {}), "max_steps": 4},
        "output": {"eval_strategy": "no"},
    }
    straight, resumed = make_run("straight", **sections), make_run("resumed", **sections)
    straight.train()
    with pytest.raises(PreemptedError):
        resumed.train(stop_at=2)
    resumed.train()
    assert resumed.values("step", "loss") == straight.values("step", "loss")
    assert resumed.weights() == straight.weights()


def test_plateau_goes_down_during_a_run_and_the_rate_is_told(make_run):
    """Every evaluation but the first, before step 1, is no better by nine tenths; each lowers the rate to a tenth."""
    run = make_run("run", optim={"scheduler": "reduce_lr_on_plateau"}, rates={"scheduler_options": PLATEAU})
    run.train()
    assert run.values("step", "lr") == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4])


@pytest.mark.skipif(not find_spec("schedulefree"), reason="the package schedulefree is not installed")
def test_schedule_free_is_evaluated_and_delivered_as_the_average(make_run):
    """Without momentum of the mean: the average weighs each point alike, as in eq. 5 of arXiv 2405.15682."""
    sections = {"optim": {"optimizer": "schedule_free_sgd", "warmup_steps": 0, "weight_decay": 0.0}}
    evaluated, blind = make_run("evaluated", **sections), make_run("blind", **sections, output={"eval_strategy": "no"})
    for run in (evaluated, blind):
        run.train()
    assert evaluated.values("step", "loss") == blind.values("step", "loss")
    assert evaluated.weights() == blind.weights()


def test_the_logged_rate_is_that_of_the_main_group(make_run):
    run = make_run(
        "run",
        optim={"scheduler": "constant", "max_steps": 2},
        rates={"groups": [{"name": "a", "modules": ["embed"], "lr": 0.5}]},
    )
    run.train()
    assert run.values("step", "lr") == [1e-2, 1e-2]
