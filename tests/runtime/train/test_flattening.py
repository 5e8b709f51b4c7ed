"""Whole trainings with batches laid end to end, MLPs in tiles, and losses weighed, each against the plain one."""

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from ftl.config.data import DataSection  # noqa: E402
from ftl.errors import ConfigError  # noqa: E402
from ftl_runtime.data.layout import lies_end_to_end  # noqa: E402

PLAIN = {"data__sample_packing": False, "optim__num_epochs": 1, "optim__micro_batch_size": 4}


@pytest.fixture(scope="module")
def trained(attempt_below, tmp_path_factory):
    """trained(name, section__key=value): an attempt of a few steps, done once for each name."""
    done = {}

    def train(name, **changes):
        if name not in done:
            done[name] = attempt_below(tmp_path_factory.mktemp("runs"), name, **PLAIN, **changes)
            done[name].train()
        return done[name]

    return train


def test_training_on_flat_batches_is_the_training_on_padded_ones(trained):
    padded, flat = trained("padded"), trained("flat", data__batch_flattening="auto", kernels__tiled_mlp=True)
    assert flat.losses() == pytest.approx(padded.losses(), abs=2e-4)
    evaluated = [[event["data"]["loss"] for event in attempt.events("eval")] for attempt in (padded, flat)]
    assert evaluated[0] == pytest.approx(evaluated[1], abs=2e-4)
    tokens = [attempt.events("step")[-1]["data"]["tokens"] for attempt in (padded, flat)]
    assert tokens[0] == tokens[1]


def test_weighed_losses_are_lower_in_training_and_plain_in_evaluation(trained):
    """Of 304 tokens none is likely at first: a loss of log 304 times a probability of about 1 in 304."""
    plain, weighed = trained("padded"), trained("weighed", objective__scales_by_probability=True)
    assert plain.losses()[1] == pytest.approx(5.72, abs=0.1)
    assert weighed.losses()[1] == pytest.approx(5.72 / 304, rel=0.1)
    first = [attempt.events("eval")[0]["data"]["loss"] for attempt in (plain, weighed)]
    assert first[1] == pytest.approx(first[0], abs=0.5)


@pytest.mark.parametrize(
    ("keys", "documents", "expected"),
    [
        ({"batch_flattening": True}, "borders", True),
        ({"batch_flattening": "auto"}, "borders", True),
        ({"batch_flattening": "auto"}, "positions", False),
        ({"batch_flattening": "auto", "pad_to_sequence_len": True}, "borders", False),
        ({}, "borders", False),
    ],
)
def test_batches_are_flat_where_it_is_asked_for_and_attention_is_told(keys, documents, expected):
    assert lies_end_to_end(DataSection(**keys), documents) is expected


def test_flat_batches_that_attention_cannot_tell_apart_are_refused(make_attempt):
    attempt = make_attempt("refused", **PLAIN, data__batch_flattening=True, model__attention="eager")
    with pytest.raises(ConfigError, match="batch_flattening: true: the attention of this model is not told"):
        attempt.train()
