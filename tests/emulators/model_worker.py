"""Fetches base models: a worker, see worker.py.

in:   {"model": {section...}, "wanted": "all"}
out:  {"files": ["config.json", ...], "tokenizer_files": those of a tokenizer from elsewhere, "directory", "revision",
      "told": [shares...]}
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from worker import Worker, serve

from ftl.config.model import ModelSection


class ModelWorker(Worker):
    file = __file__

    def fetch(
        self, env: dict[str, str] | None = None, wanted: str = "all", **model: Any
    ) -> dict[str, Any]:  # Any: JSON
        """What comes of a model section with these fields."""
        return self.ask(model=model, wanted=wanted, env=env)


def _answer(request: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    from ftl_runtime.context import Device
    from ftl_runtime.models.hub import on_this_machine

    told: list[float] = []
    ctx: Any = SimpleNamespace(
        device=Device("cpu", has_bf16=True, rank=0, num_ranks=1),
        resolve_model=lambda given: given,
        emit=lambda event, data: told.append(data["share"]),
    )
    section = ModelSection.model_validate(request["model"])
    found, revision = on_this_machine(section, ctx, wanted=request["wanted"])
    files, tokenizer_files = (
        sorted(path.name for path in Path(place).iterdir()) if place else [] for place in (found.base, found.tokenizer)
    )
    return {
        "files": files,
        "tokenizer_files": tokenizer_files,
        "directory": found.base,
        "revision": revision,
        "told": told,
    }


if __name__ == "__main__":
    serve(_answer)
