"""Opens sources of rows: a worker, see worker.py.

in:   {"dataset": {...}, "downloads": "...", "is_streamed": false, "start": 0}
out:  {"rows": [[number, where, data]...], "problems": ["..."], "revision", "identity", "num_rows"}
"""

from pathlib import Path
from typing import Any

from worker import Worker, serve

from ftl.config.data import DatasetSection
from ftl.errors import Problem
from ftl.sources import open_source


class SourceWorker(Worker):
    file = __file__

    def read(self, dataset: dict[str, Any], **request: Any) -> dict[str, Any]:  # Any: JSON
        """What comes of that dataset section."""
        return self.ask(dataset=dataset, **request)


def _answer(request: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    downloads = Path(request["downloads"]) if "downloads" in request else None
    dataset = DatasetSection.model_validate(request["dataset"])
    source = open_source(
        dataset, lambda _: None, seed=42, download_dir=downloads, is_streamed=request.get("is_streamed", False)
    )
    found = list(source.scan(start=request.get("start", 0)))
    return {
        "rows": [[row.number, row.where, row.data] for row in found if not isinstance(row, Problem)],
        "problems": [str(problem) for problem in found if isinstance(problem, Problem)],
        "revision": source.revision,
        "identity": source.identity(),
        "num_rows": source.num_rows(),
    }


if __name__ == "__main__":
    serve(_answer)
