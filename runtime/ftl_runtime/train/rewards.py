"""The user's reward functions, run where the training runs."""

import hashlib
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ftl.errors import ConfigError, Problem, TrainingError
from ftl.formats.python import strategy_file
from ftl_runtime.context import Context
from ftl_runtime.data.prompts import Prompt

Reward = Callable[..., Any]  # Any: whatever a user's function returns


def load_rewards(functions: Sequence[str], ctx: Context) -> list[Reward]:
    """The functions, each named as FILE:NAME. Raises ConfigError for a file that does not run or lacks it."""
    return [_load(function, ctx) for function in functions]


def rewards_of(
    functions: Sequence[Reward],
    prompts: Sequence[Prompt],
    completions: Sequence[Any],  # Any: a text, or a list with one message
    completion_ids: Sequence[list[int]],
) -> Tensor:
    """[N, F], on the host; nan where a function gives None. Raises TrainingError for what is no list of numbers.

    A function gets the prompts, the completions, their tokens, and every other column of the data by its name.
    """
    names = dict.fromkeys(name for prompt in prompts for name in prompt.columns)
    columns = {name: [prompt.columns.get(name) for prompt in prompts] for name in names}
    given = {**columns, "prompts": [prompt.given for prompt in prompts], "completions": list(completions)}
    found = [_values(function, given | {"completion_ids": list(completion_ids)}) for function in functions]
    return torch.tensor(found, dtype=torch.float32).t().contiguous()


def _values(function: Reward, given: dict[str, Any]) -> list[float]:  # Any: the user's JSON
    name = getattr(function, "__name__", "the reward function")
    try:
        with redirect_stdout(sys.stderr):
            values = function(**given)
    except Exception as e:  # the user's program may raise anything
        raise TrainingError(f"{name}: {type(e).__name__}: {e}") from e
    wanted = len(given["completions"])
    if not isinstance(values, list | tuple) or len(values) != wanted:
        raise TrainingError(f"{name} gave no list of {wanted} rewards, one a completion")
    try:
        return [float("nan") if value is None else float(value) for value in values]
    except (TypeError, ValueError) as e:
        raise TrainingError(f"{name} gave a reward that is no number: {e}") from e


def _load(named: str, ctx: Context) -> Reward:
    file = strategy_file(named)
    assert file is not None, "the config names functions by their file"
    path, name = ctx.resolve(file), named.rpartition(":")[2]
    module_name = f"ftl_rewards_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    if module_name not in sys.modules:
        _run(path, module_name)
    function = vars(sys.modules[module_name]).get(name)
    if not callable(function):
        raise ConfigError(Problem("trl", f"reward_funcs: {path.name} has no function {name}"))
    found: Reward = function
    return found


def _run(path: Path, module_name: str) -> None:
    spec = spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickle look a module up by its name
    try:
        with redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as e:  # the user's program may raise anything
        del sys.modules[module_name]
        given = f"reward_funcs: {path.name}: {type(e).__name__}: {e}"
        raise ConfigError(Problem("trl", given, remedy="the file must run by itself")) from e
