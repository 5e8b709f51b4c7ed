"""Each cloud template of SkyPilot loads, and SkyPilot takes the task that is made of it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sky_places import SKY_PYTHON, make_home, write_config
from typer.testing import CliRunner

from ftl.backends import load
from ftl.backends.sky_client import Sky, SkyError
from ftl.backends.skypilot import SkypilotBackend
from ftl.cli import app
from ftl.cloudfile import load_cloud
from ftl.contract import Bundle, JobSpec
from ftl.errors import ConfigError
from ftl.plan import plan

TEMPLATES = Path(__file__).parents[2] / "cloud_templates"
NAMES = ("aws", "aws-spot", "gcp-spot", "runpod", "any-cloud", "multi-node", "slurm", "kubernetes")
SLURM = "Host lab\n  HostName 127.0.0.1\n  User nobody\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """SkyPilot's own schema and catalogs, in a home of their own, for all tests of this file."""
    home = make_home(tmp_path_factory.mktemp("sky-home"))
    (home / ".slurm").mkdir()
    (home / ".slurm/config").write_text(SLURM)
    if not os.environ.get("FTL_SKYPILOT_PYTHON") and not SKY_PYTHON.exists():
        pytest.skip("needs `make .venv/sky/complete`")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("FTL_SKYPILOT_PYTHON", os.environ.get("FTL_SKYPILOT_PYTHON") or str(SKY_PYTHON))
        yield patch


@pytest.fixture(scope="module")
def sky(home: pytest.MonkeyPatch) -> Iterator[Sky]:
    worker = Sky()
    yield worker
    worker.close()


def backend_of(text: str, tmp_path: Path, sky: Sky) -> SkypilotBackend:
    path = tmp_path / "cloud.yml"
    path.write_text(text)
    return backend_at(path, sky)


def backend_at(path: Path, sky: Sky) -> SkypilotBackend:
    backend = load_cloud(path)
    assert isinstance(backend, SkypilotBackend)
    backend._sky = sky
    return backend


def spec_of(backend: SkypilotBackend) -> JobSpec:
    return plan(backend.cloud, backend.spec_fields(), run_id="abc234-quick", mounts=())


def task_of(backend: SkypilotBackend, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "bundle").mkdir()
    bundle = Bundle(sha256="b" * 64, path=str(tmp_path / "bundle"), size_bytes=1)
    return backend.describe(spec_of(backend), bundle, tmp_path)


@pytest.mark.parametrize("template", sorted(TEMPLATES.glob("*.yml")), ids=lambda path: path.stem)
def test_dry_run_of_template_prints_the_task(
    template: Path, sky: Sky, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it prints is what SkyPilot takes, of SkyPilot's own. What of the machine stands in the way is not asked."""
    monkeypatch.setattr("ftl.backends.skypilot.shared_worker", lambda without: sky)
    for name in ("local", "docker", "modal", "skypilot"):
        monkeypatch.setattr(load(name), "preflight", lambda self, spec: [])
    config, _ = write_config(tmp_path / "files", "")
    words = ["train", str(config), "--cloud", str(template), "--dry-run"]
    done = CliRunner(env={"HF_TOKEN": "hf_canary", "WANDB_API_KEY": "canary"}).invoke(app, words)
    assert done.exit_code == 0, (done.output, done.exception)
    request = yaml.safe_load(done.stdout)["request"]
    assert "canary" not in done.stdout
    assert request
    if template.stem in NAMES:
        found = sky.ask("check", task=request)
        assert (found["problems"], found["unknown"]) == ([], None)


def test_price_is_that_of_the_cheapest_machine_and_bounds_that_of_the_dearest(sky: Sky, tmp_path: Path) -> None:
    backend = backend_of("provider: skypilot\nany_of: [aws, gcp]\ngpu: L4:1\nimage: none\n", tmp_path, sky)
    price = backend.price(spec_of(backend))
    assert price is not None
    assert (price.usd_per_hour, price.most_usd_per_hour) == (2.0, 4.0)  # of the invented catalogs
    assert "g6.xlarge" in str(price)


def test_machine_that_costs_more_by_the_hour_is_not_offered(sky: Sky, tmp_path: Path) -> None:
    text = "provider: skypilot\ninfra: aws\ngpu: L4:1\nimage: none\nnodes: 2\nmax_usd_per_hour: 2.5\n"
    backend = backend_of(text, tmp_path, sky)
    price = backend.price(spec_of(backend))
    assert price is not None
    assert (price.usd_per_hour, price.most_usd_per_hour) == (4.0, 4.0)  # two at 2 USD; others cost 3
    assert task_of(backend, tmp_path)["resources"]["max_hourly_cost"] == 2.5


def test_budget_becomes_the_time_that_it_buys(sky: Sky, tmp_path: Path) -> None:
    text = "provider: skypilot\ninfra: aws\ngpu: L4:1\nimage: none\nmax_usd: 3\ntimeout: 2h\n"
    backend = backend_of(text, tmp_path, sky)
    assert '"timeout_s": 5400' in task_of(backend, tmp_path)["run"]  # 3 USD at 2 USD an hour


@pytest.mark.parametrize(
    ("keys", "key", "told"),
    [
        pytest.param("infra: aws\ngpu: A1000:8", "gpu", "AWS has no A1000:8", id="unknown GPU"),
        pytest.param("infra: gcp\ngpu: H100:3", "gpu", "GCP has no H100:3", id="number nobody has"),
        pytest.param(
            "infra: aws\ngpu: L4\nmax_usd_per_hour: 1.9",
            "max_usd_per_hour",
            "AWS has no L4:1 for at most $1.9",
            id="price",
        ),
        pytest.param(
            "infra: gcp\ngpu: L4\nmax_usd_per_hour: 3", "max_usd_per_hour", "GCP has no L4:1", id="with its GPU"
        ),
        pytest.param("infra: aws/us-esat-1\ngpu: L4", "infra", "us-east-1", id="misspelt region"),
        pytest.param("infra: aws/us-east-1/us-east-9z\ngpu: L4", "infra", "us-east-9z", id="unknown zone"),
        pytest.param("infra: slurm/other", "infra", "lab", id="unknown cluster"),
        pytest.param("infra: aws\nsky: {nam: x}", "sky", "nam", id="unknown key of a task"),
        pytest.param("infra: aws\nsky: {resources: {gpuz: x}}", "sky", "gpuz", id="unknown key of resources"),
        pytest.param("infra: kubernetes\nmax_usd: 5", "max_usd", "no prices", id="budget without a price"),
        pytest.param("max_usd: 5", "max_usd", "infra", id="budget without a cloud"),
    ],
)
def test_mistake_is_a_sentence_that_names_the_key(keys: str, key: str, told: str, sky: Sky, tmp_path: Path) -> None:
    backend = backend_of(f"provider: skypilot\nimage: none\n{keys}\n", tmp_path, sky)
    problem = backend._machine_problems(spec_of(backend))[0]
    assert problem.where == key, problem
    assert told in str(problem)
    assert "\n" not in str(problem)


def test_clusters_of_a_server_elsewhere_are_not_judged_by_what_this_computer_knows(home: pytest.MonkeyPatch) -> None:
    with home.context() as elsewhere:
        elsewhere.setenv("SKYPILOT_API_SERVER_ENDPOINT", "http://sky.invalid:46580")
        sky = Sky()
        found = sky.ask("check", task={"run": "true", "resources": {"infra": "slurm/other"}})
        told = sky.ask("check", task={"run": "true", "resources": {"infra": "aws", "accelerators": "A1000:8"}})
        sky.close()
    assert found == {"problems": [], "offers": [], "unknown": None}
    assert "AWS has no A1000:8" in told["problems"][0]


def test_image_that_nobody_published_is_refused(tmp_path: Path, sky: Sky) -> None:
    backend = backend_of("provider: skypilot\ninfra: aws\nimage: cuda\n", tmp_path, sky)
    with pytest.raises(Exception, match=r"'cuda'.*is not published.*image: none"):
        backend._image(spec_of(backend))


def test_exception_of_skypilot_is_one_sentence(sky: Sky) -> None:
    with pytest.raises(SkyError, match="nam"):
        sky.ask("launch", task={"nam": "x"}, name="ftl-x-1", managed=False, autostop=5)


def test_mistake_in_the_cloud_file_is_told_with_its_line(tmp_path: Path, sky: Sky) -> None:
    with pytest.raises(ConfigError, match=r"cloud\.yml:2"):
        backend_of("provider: skypilot\ninfra: awz\n", tmp_path, sky)


def test_mistake_of_the_cloud_file_is_not_told_as_one_of_the_config(tmp_path: Path) -> None:
    config, cloud = write_config(tmp_path / "files", "provider: skypilot\ninfra: aws\ngpu: L44\nimage: none\n")
    done = CliRunner().invoke(app, ["train", str(config), "--cloud", str(cloud), "--dry-run"])
    assert str(done.exception) == "gpu: 'L44': is no GPU; did you mean `L4`?"
