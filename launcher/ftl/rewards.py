"""Reward functions as they are written: read, never run, on the laptop."""

import ast
from collections.abc import Iterator
from pathlib import Path

from ftl.config.train import TrainConfig
from ftl.errors import Problem
from ftl.references import REWARDS, Reference

_GIVEN = ("prompts", "completions", "completion_ids")


def reward_problems(config: TrainConfig, refs: list[Reference]) -> Iterator[Problem]:
    """What is wrong with the files that reward functions are in."""
    functions = config.objective.grpo.reward_funcs if config.objective.grpo else ()
    for reference in refs:
        if reference.key.startswith(REWARDS):
            name = functions[int(reference.key.rpartition(".")[2])].rpartition(":")[2]
            problem = _problem(reference.path, name)
            if problem is not None:
                yield Problem("trl", f"reward_funcs: {problem}", "write `def NAME(completions, **kwargs)`")


def _problem(path: Path, name: str) -> str | None:
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (OSError, SyntaxError, ValueError) as e:
        line = getattr(e, "lineno", None)
        return f"{path}{f':{line}' if line else ''} cannot be read: {getattr(e, 'msg', e)}"
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    if not found:
        others = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"]
        return f"{path} has no function {name}: it has {', '.join(others) or 'none'}"
    arguments = found[-1].args
    names = {argument.arg for argument in (*arguments.args, *arguments.kwonlyargs)}
    if arguments.kwarg is None:
        return f"{path}:{found[-1].lineno}: {name} must take **kwargs, for the columns of the data and what else comes"
    if not names & set(_GIVEN):
        return f"{path}:{found[-1].lineno}: {name} takes none of {', '.join(_GIVEN)}, so it cannot judge them"
    return None
