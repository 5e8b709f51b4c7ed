"""What the model is asked at an evaluation, what it answers, and how answers are scored."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from ftl_runtime.data.dataset import Document  # noqa: E402
from ftl_runtime.evaluate.generate import answers  # noqa: E402
from ftl_runtime.evaluate.prompts import Prompt, prompt_of  # noqa: E402
from ftl_runtime.evaluate.writing import score  # noqa: E402


def document(trained: str) -> Document:
    """Ids 10, 11, ...; an x is trained."""
    ids = np.arange(10, 10 + len(trained), dtype=np.int32)
    return Document(ids, np.where([mark == "x" for mark in trained], ids, -100))


@pytest.mark.parametrize(
    ("trained", "given", "expected"),
    [
        ("...xx", [10, 11, 12], [13, 14]),
        ("..xx..x", [10, 11], [12, 13]),
        (".xxxx", [10, 11], [12, 13, 14]),
        ("xxxx", [10, 11], [12, 13]),
    ],
    ids=["question and answer", "first of two answers", "text after a BOS", "text"],
)
def test_prompt_is_what_stands_before_the_answer(trained, given, expected):
    assert prompt_of(document(trained)) == Prompt(given, expected)


def test_document_without_an_answer_is_no_prompt():
    assert prompt_of(document("....")) is None
    assert prompt_of(document("x")) is None


@pytest.mark.parametrize(
    ("name", "written", "expected"),
    [
        ("sacrebleu", "the cat sat on the mat", 100.0),
        ("chrf", "the cat sat on the mat", 100.0),
        ("ter", "the cat sat on the mat", 0.0),
        ("ter", "the cat sat on the hat", 100 / 6),  # one of six words is to be replaced
        ("chrf", "QQQQ", 0.0),
    ],
)
def test_scores(name, written, expected):
    assert score(name, [written], ["the cat sat on the mat"]) == pytest.approx(expected)


def test_answers_are_those_of_a_greedy_loop_over_each_prompt_alone(weights):
    """Without a cache and without padding."""
    model = AutoModelForCausalLM.from_pretrained(weights).eval()
    tokenizer = AutoTokenizer.from_pretrained(weights)
    prompts = [[40, 41, 42, 43, 44], [50, 51], [60, 61, 62]]
    expected = []
    with torch.no_grad():
        for prompt in prompts:
            ids = list(prompt)
            while len(ids) < len(prompt) + 8 and ids[-1] != tokenizer.eos_token_id:
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
            answer = ids[len(prompt) :]
            expected.append(answer[:-1] if answer[-1] == tokenizer.eos_token_id else answer)
        found = list(answers(model, tokenizer, prompts, max_new_tokens=8, batch_size=2))
    assert found == expected
    assert any(found)


def test_prompt_near_the_end_of_the_positions_gets_the_room_that_is_left(weights):
    model = AutoModelForCausalLM.from_pretrained(weights).eval()
    tokenizer = AutoTokenizer.from_pretrained(weights)
    (answer,) = answers(model, tokenizer, [[40] * 60], max_new_tokens=100, batch_size=1)
    assert len(answer) <= 4  # of 64 positions


@pytest.mark.parametrize("is_packed", [True, False], ids=["packed", "rows"])
def test_writing_at_evaluations_changes_nothing_of_the_training(make_attempt, is_packed):
    shape = {"data__sample_packing": is_packed, "optim__max_steps": 4, "output__eval_steps": 2}
    silent, writing = (make_attempt(name, **shape) for name in ("silent", "writing"))
    writing.config["evaluation"] = {
        "num_samples": 2,
        "max_new_tokens": 6,
        "scores_text": True,
        "text_metrics": ["chrf", "ter", "perplexity"],
        "metric": "chrf",
        "load_best": True,
    }
    silent.train()
    writing.train()
    assert writing.losses() == silent.losses()
    evals = [event["data"] for event in writing.events("eval")]
    assert [sorted(data) for data in evals] == [["chrf", "loss", "perplexity", "step", "ter"]] * 3
    assert [data["loss"] for data in evals] == [event["data"]["loss"] for event in silent.events("eval")]
    events = [event["data"] for event in writing.events("samples")]
    assert [data["step"] for data in events] == [0, 2, 4]
    assert all(len(data["samples"]) == 2 for data in events)
    sample = events[0]["samples"][0]
    assert sorted(sample) == ["expected", "generated", "prompt"]
    lines = (writing.directory / "bundle" / "texts.jsonl").read_text().splitlines()
    assert f"{sample['prompt']}{sample['expected']}" in [json.loads(line)["text"] for line in lines]
