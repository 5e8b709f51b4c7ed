"""Two ranks train preferences as one process does on the same batch: the loss, what it measures, the divergence."""

import json

import pytest
from together import train_together

pytestmark = pytest.mark.torch

WORDS = ("cat", "mat", "rain", "hill", "tale", "ship")
PAIRS = [
    {"prompt": f"say {word} {n}", "chosen": f" {word}" * (1 + n % 3), "rejected": f" no {word}" * (1 + n % 2)}
    for n in range(4)
    for word in WORDS
]
JUDGED = [{"prompt": row["prompt"], "completion": row["chosen"], "label": n % 2 == 0} for n, row in enumerate(PAIRS)]


@pytest.mark.parametrize(
    ("objective", "rows"),
    [
        ({"kind": "dpo", "precompute_reference": True}, PAIRS),
        ({"kind": "orpo"}, PAIRS),
        ({"kind": "kto"}, JUDGED),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_two_ranks_give_the_losses_of_one_process(make_attempt, tmp_path, objective, rows):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "data__datasets": [{"path": str(file)}],
        "data__sample_packing": False,
        "data__val_set_size": 5,  # of which the ranks get 3 and 2
        "optim__learning_rate": 1e-3,
        "optim__max_steps": 3,
        "output__save_strategy": "no",
        "output__save_steps": None,
    }
    one, two = (make_attempt(name, optim__micro_batch_size=size, **config) for name, size in (("one", 2), ("two", 1)))
    for attempt in (one, two):
        attempt.config["objective"] = objective
    one.train()
    train_together(two, 2)
    for event in ("step", "eval"):
        found, expected = ([_numbers(line["data"]) for line in attempt.events(event)] for attempt in (two, one))
        assert len(found) == len(expected) > 1
        for a, b in zip(found, expected, strict=True):
            assert a == pytest.approx(b, rel=1e-4, abs=1e-5)


def _numbers(data: dict) -> dict[str, float]:
    """Accuracies left out: before the first step answers tie, and the last bit decides."""
    return {name: data[name] for name in data if name in ("loss", "kl") or name.startswith(("logps/", "rewards/"))} | {
        "rewards/accuracies": 0.0
    }
