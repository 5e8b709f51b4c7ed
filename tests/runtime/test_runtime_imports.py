"""What the processes load: a supervisor that answers at once, a trainer without what it does not use."""

import subprocess
import sys

import pytest


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after the statement."""
    code = f"{statement}\nimport sys\nsys.stdout.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("module", ["ftl_runtime.supervisor", "ftl_runtime.rank", "ftl_runtime.checkpoint.volume"])
def test_what_runs_before_training_is_light(module):
    assert not loaded_by(f"import {module}") & {"torch", "transformers", "numpy", "peft", "accelerate", "tokenizers"}


def test_signal_handlers_of_the_supervisor_come_before_anything_heavy():
    assert "pydantic" not in loaded_by("import ftl_runtime.__main__")
    assert "pydantic" not in loaded_by("import ftl_runtime.rank")


@pytest.mark.torch
def test_trainer_loads_nothing_it_does_not_use():
    # As ftl_runtime.lean does for a plain training: transformers and peft import these wherever they are installed.
    packages = ["bitsandbytes", "comet_ml", "datasets", "deepspeed", "torchao"]
    left_out = f"import sys\nsys.modules.update(dict.fromkeys({packages}))\n"
    unused = {"trl", "docker", "s3fs", "gcsfs", "rich", "typer", "wandb", "mlflow", "trackio", "pandas"}
    assert not loaded_by(f"{left_out}import ftl_runtime.run") & unused
