"""Who may import whom, read from the source: the plan of the house as a table."""

import ast
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

ROOT = Path(__file__).parents[2]
BASE = {"atomic", "errors", "section", "state"}
CONTRACT = BASE | {"contract", "cloud"}
YAML = BASE | {"yamlfile", "yamlparse"}
# Room -> the rooms of ftl it may import from, itself apart.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "section": set(),
    "atomic": set(),
    "state": set(),
    "packaged": set(),
    "redact": set(),
    "yamlparse": BASE,
    "yamlfile": YAML,
    "formats": {"errors"},
    "config": YAML | {"formats", "packaged"},
    "sources": BASE | {"config"},
    "tokens": BASE | {"formats", "config"},
    "contract": BASE,
    "cloud": BASE,
    "backends": CONTRACT | {"bundletar", "cost", "image", "packaged", "redact", "runstores", "sources"},
    "cost": {"errors"},
    "image": BASE | {"packaged", "backends"},
    "cloudenv": YAML | {"cloud", "redact"},
    "cloudfile": YAML | {"backends", "cloud", "cloudenv", "redact"},
    "trackers": {"config"},
    "plan": CONTRACT | {"config"},
    "jobs": CONTRACT,
    "references": BASE | {"config", "formats", "sources"},
    "bundletar": CONTRACT,
    "bundle": CONTRACT | {"bundletar", "config", "formats", "jobs", "redact", "references", "sources"},
    "garbage": CONTRACT | {"bundle", "jobs"},
    "gpus": YAML,
    "importers": YAML | {"gpus", "redact"},
    "manual": YAML | {"config"},
    "sweep": YAML | {"config"},
    "migrate": YAML | {"config"},
    "render": CONTRACT | {"backends", "image", "yamlout"},
    "yamlout": set(),
    "precheck": CONTRACT | {"config", "references", "gpus", "trackers", "rewards", "sources"},
    "rewards": {"errors", "config", "references"},
    "launch": CONTRACT | {"backends", "jobs", "redact"},
    "inspect": YAML | {"formats", "config", "sources", "tokens", "references", "console"},
    "deliver": CONTRACT | {"backends", "jobs", "launch"},
    "runstores": CONTRACT | {"backends", "sources"},
    "refetch": CONTRACT | {"bundletar", "jobs", "runstores"},
    "carry": CONTRACT | {"backends", "jobs", "deliver"},
    "losschart": set(),
    "sampletext": set(),
    "console": BASE | {"redact"},
    "runview": CONTRACT | {"losschart", "redact", "sampletext", "console"},
    "completion": {"state"},
    "commands": {"*"},
    "cli": {"__init__", "errors", "commands", "console", "completion", "redact"},
    "__init__": set(),
}
RUNTIME_MAY_USE = {
    "__init__",
    "bundletar",
    "errors",
    "section",
    "formats",
    "tokens",
    "config",
    "contract",
    "redact",
    "sources",
    "trackers",
}
SKY_WORKER = "launcher/ftl/backends/sky_worker/"
"""Runs where there is no ftl, so its modules know each other by relative names alone."""
# A heavy package -> the only places that may import it.
WEIGHT = {
    "docker": ("launcher/ftl/backends/docker",),
    "modal": ("launcher/ftl/backends/modal", "runtime/ftl_runtime/modal_entry.py"),
    "sky": (SKY_WORKER,),
    "torch": ("runtime/",),
    "transformers": ("runtime/",),
    "peft": ("runtime/",),
    "datasets": ("launcher/ftl/sources/hub.py", "runtime/"),
    "huggingface_hub": (
        *("launcher/ftl/sources/hubrepo.py", "launcher/ftl/sources/patientclient.py"),
        *("launcher/ftl/inspect/", "runtime/"),
    ),
    "ray": ("runtime/ftl_runtime/parallel/raydriver.py", "runtime/ftl_runtime/parallel/rayworker.py"),
    "fsspec": ("launcher/ftl/sources/remote.py", "runtime/ftl_runtime/checkpoint/bucketclient.py"),
    "pyarrow": ("launcher/ftl/sources/columnar.py", "runtime/"),
    "tokenizers": ("launcher/ftl/tokens", "runtime/"),
    "jinja2": ("launcher/ftl/tokens", "runtime/"),
}


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Dotted names a file imports anywhere, `if TYPE_CHECKING` apart."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if SKY_WORKER in str(path):
                assert node.level <= 1
            else:
                assert node.level == 0, f"{path}: relative imports hide the room"
            names.append(node.module or "")
            if node.module == "ftl":
                names += [f"ftl.{alias.name}" for alias in node.names]
    return tuple(names)


def room(path: Path, package: Path) -> str:
    return path.relative_to(package).parts[0].removesuffix(".py")


LAUNCHER = ROOT / "launcher/ftl"
LAUNCHER_FILES = sorted(LAUNCHER.rglob("*.py"))
RUNTIME_FILES = sorted((ROOT / "runtime/ftl_runtime").rglob("*.py"))


def rooms_of_ftl(path: Path) -> set[str]:
    names = {name.split(".")[1] for name in imports(path) if name.startswith("ftl.")}
    return {name if (LAUNCHER / name).is_dir() or (LAUNCHER / f"{name}.py").exists() else "__init__" for name in names}


@pytest.mark.parametrize("path", LAUNCHER_FILES, ids=lambda p: str(p.relative_to(LAUNCHER)))
def test_launcher_file_imports_only_from_rooms_it_may_know(path: Path) -> None:
    here = room(path, LAUNCHER)
    assert here in ALLOWED, f"{here} is a new room: say in this table what it may know"
    allowed = ALLOWED[here]
    strangers = set() if "*" in allowed else rooms_of_ftl(path) - allowed - {here, "__init__"}
    assert not strangers, f"{path.relative_to(ROOT)} may not import from {sorted(strangers)}"


@pytest.mark.parametrize("path", RUNTIME_FILES, ids=lambda p: str(p.relative_to(ROOT / "runtime")))
def test_runtime_file_uses_only_the_shared_rooms(path: Path) -> None:
    strangers = rooms_of_ftl(path) - RUNTIME_MAY_USE
    assert not strangers, f"{path.relative_to(ROOT)} may not import from {sorted(strangers)}"


def test_nothing_imports_the_runtime() -> None:
    offenders = [p for p in LAUNCHER_FILES if any(n.split(".")[0] == "ftl_runtime" for n in imports(p))]
    assert offenders == []


@pytest.mark.parametrize("package", WEIGHT)
def test_heavy_package_has_one_address(package: str) -> None:
    offenders = []
    for path in [*LAUNCHER_FILES, *RUNTIME_FILES]:
        where = path.relative_to(ROOT).as_posix()
        if any(name.split(".")[0] == package for name in imports(path)) and not where.startswith(WEIGHT[package]):
            offenders.append(where)
    assert offenders == []


def test_backends_never_see_the_config() -> None:
    for path in sorted((LAUNCHER / "backends").glob("*.py")):
        assert "config" not in rooms_of_ftl(path), f"{path.name} reads the config"


def test_objectives_import_torch_alone() -> None:
    for path in sorted((ROOT / "runtime/ftl_runtime/objectives").glob("*.py")):
        others = [name for name in imports(path) if name not in ("ftl.config.objective", "ftl.config.grpo")]
        outside = {n.split(".")[0] for n in others} - set(sys.stdlib_module_names) - {"torch", "ftl_runtime"}
        assert not outside, f"{path.name} imports {outside}"


def test_formats_import_the_standard_library_alone() -> None:
    for path in sorted((LAUNCHER / "formats").glob("*.py")):
        # The answers of creative_acr are YAML as PyYAML writes it.
        known = {"ftl", "yaml"} if path.name == "columns.py" else {"ftl"}
        outside = {n.split(".")[0] for n in imports(path)} - set(sys.stdlib_module_names) - known
        assert not outside, f"{path.name} imports {outside}"


@pytest.mark.parametrize("path", sorted((LAUNCHER / "cli").glob("*.py")), ids=lambda p: p.name)
def test_cli_imports_only_typer_and_pathlib_at_the_top(path: Path) -> None:
    top = {
        n.names[0].name if isinstance(n, ast.Import) else str(n.module)
        for n in ast.parse(path.read_text()).body
        if isinstance(n, ast.Import | ast.ImportFrom)
    }
    assert top <= {"typer", "typer.core", "pathlib", "typing", "ftl.cli", "ftl.cli.options"}


RUNTIME_STACK = ("torch", "transformers", "datasets", "accelerate", "peft", "numpy")
FORBIDDEN = (
    *("torch", "transformers", "datasets", "docker", "modal", "sky", "yaml", "peft"),
    *("pyarrow", "tokenizers", "jinja2", "huggingface_hub", "fsspec", "pydantic"),
)


@pytest.mark.parametrize(
    ("arguments", "forbidden"),
    [
        pytest.param(["--help"], FORBIDDEN, id="help"),
        pytest.param(["--version"], FORBIDDEN, id="version"),
        # typer itself converts a command's parameters with pydantic
        pytest.param(["train", "--help"], FORBIDDEN[:-1], id="train help"),
        pytest.param(["ps"], ("torch", "transformers", "datasets", "docker", "modal", "sky", "peft"), id="ps"),
    ],
)
def test_command_loads_nothing_heavy(arguments: list[str], forbidden: tuple[str, ...], tmp_path: Path) -> None:
    assert loaded_by(arguments, forbidden, tmp_path) == []


@pytest.mark.parametrize("arguments", [["check", "--no-network"], ["preview"], ["explain"]], ids=lambda a: a[0])
def test_command_reads_local_data_with_the_base_install_alone(arguments: list[str], tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"hello": 0, "</s>": 1}, unk_token="hello"))
    (tmp_path / "model").mkdir()
    tokenizer.save(str(tmp_path / "model/tokenizer.json"))
    (tmp_path / "model/tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    (tmp_path / "model/config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "rows.jsonl").write_text('{"text": "hello"}\n')
    (tmp_path / "cfg.yml").write_text(
        f"base_model: {tmp_path}/model\nreinit_weights: true\nlearning_rate: 1e-4\n"
        f"datasets:\n  - path: {tmp_path}/rows.jsonl\n    type: completion\n"
    )
    command, *options = arguments
    assert loaded_by([command, str(tmp_path / "cfg.yml"), *options], RUNTIME_STACK, tmp_path) == []


def loaded_by(arguments: list[str], forbidden: tuple[str, ...], state: Path) -> list[str]:
    """The forbidden modules that are there after a command that ends well."""
    program = (
        "import sys; sys.argv = ['ftl', *sys.argv[1:]]\n"
        "import ftl.cli\n"
        "try:\n    ftl.cli.main()\nexcept SystemExit as end:\n    assert end.code in (0, None), end.code\n"
        f"print(' '.join(['LOADED', *(name for name in {forbidden!r} if name in sys.modules)]))"
    )
    environment = {**os.environ, "FTL_STATE_DIR": str(state)}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    told, *names = done.stdout.splitlines()[-1].split()
    assert told == "LOADED"
    return names
