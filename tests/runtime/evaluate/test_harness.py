"""lm-eval on a model of ours: its scores are those counted by hand, after a training and alone."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("lm_eval")
pytestmark = pytest.mark.torch

from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

QUESTIONS = ("the cat sat on a", "rain fell over", "old men told", "while grey hills and", "tales of")
CHOICES = (" mat", " ships", " rain")
TASK = """task: cats
dataset_path: json
dataset_kwargs: {data_files: {test: rows.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: 0
doc_to_choice: "{{choices}}"
target_delimiter: ""
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "tasks"
    place.mkdir()
    (place / "cats.yaml").write_text(TASK)
    rows = ({"question": question, "choices": CHOICES} for question in QUESTIONS)
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


def share_right(directory: Path) -> float:
    """Questions whose first choice is the likeliest of the three, by the sum of the log-probabilities of its tokens."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)

    def likelihood(question: str, choice: str) -> float:
        before, whole = tokenizer(question)["input_ids"], tokenizer(question + choice)["input_ids"]
        with torch.no_grad():
            logs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        return sum(float(logs[at - 1, whole[at]]) for at in range(len(before), len(whole)))

    right = [max(CHOICES, key=lambda choice: likelihood(question, choice)) == CHOICES[0] for question in QUESTIONS]
    return sum(right) / len(right)


def test_scores_of_a_training_and_of_its_model_alone_are_those_counted_by_hand(
    attempt_below, weights, folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    training = attempt_below(
        tmp_path, model=weights, harness__tasks=[str(folder)], harness__batch_size=2, optim__max_steps=6
    )
    training.train()
    expected = share_right(training.run / "output")
    result = json.loads((training.run / "result.json").read_text())
    assert result["scores"]["cats"]["acc"] == pytest.approx(expected)
    assert 0 <= result["scores"]["cats"]["stderr of acc"] <= 0.5

    alone = attempt_below(tmp_path, "b", model=training.run / "output", harness__tasks=[str(folder)])
    alone.spec = {"task": "lm-eval"}
    alone.train()
    assert json.loads((alone.run / "result.json").read_text())["scores"] == result["scores"]
    kept = json.loads((alone.run / "output" / "results.json").read_text())
    assert kept["cats"]["acc,none"] == pytest.approx(expected)

    (folder / "cats.yaml").write_text("no: task\n")
    broken = attempt_below(tmp_path, "c", model=weights, harness__tasks=[str(folder)], optim__max_steps=1)
    broken.train()
    assert json.loads((broken.run / "result.json").read_text())["scores"] == {}
    told = broken.events("warning")[-1]["data"]["message"]
    assert told.startswith("the model is trained and kept, but was not measured: lm_eval_tasks.0: ")
    assert "has no YAML file with a `task`" in told
