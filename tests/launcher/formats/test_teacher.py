"""What a row says of its teacher, in every way it may be written."""

import pytest

from ftl.formats.example import FormatOptions, RowError, Target
from ftl.formats.teacher import read_taught

MESSAGES = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
EXPECTED = (None, Target((7, 3), (-0.5, -1.25)))
OPTIONS = FormatOptions(family="kd")


def row(logprobs, **columns):
    return {"messages": MESSAGES, "logprobs": logprobs, **columns}


@pytest.mark.parametrize(
    "given",
    [
        row([None, {"7": {"logprob": -0.5, "rank": 1, "decoded_token": "x"}, "3": {"logprob": -1.25}}]),
        row([{}, {"7": -0.5, "3": -1.25, "5": None}]),
        row([[], [{"token": "token_id:7", "logprob": -0.5}, {"token": "token_id:3", "logprob": -1.25}]]),
        row([None, [{"token_id": 7, "logprob": -0.5}, {"token_id": 3, "logprob": -1.25}]]),
        row(
            {
                "content": [
                    None,
                    {
                        "token": "token_id:7",
                        "logprob": -0.5,
                        "top_logprobs": [
                            {"token": "token_id:7", "logprob": -0.5},
                            {"token": "token_id:3", "logprob": -1.25},
                        ],
                    },
                ]
            }
        ),
        row([None, [-0.5, -1.25]], target_token_ids=[None, [7, 3]]),
        row('[null, {"7": -0.5, "3": -1.25}]'),
    ],
    ids=["vllm", "numbers", "legacy", "ids", "openai", "columns", "text"],
)
def test_every_way_to_write_them_is_read(given):
    assert read_taught(given, OPTIONS).targets == EXPECTED


def test_log_probabilities_are_brought_to_temperature_1():
    """At temperature 2 they are those of half the logits, up to a number."""
    taught = read_taught(row([{"7": -0.5, "3": -1.25}]), FormatOptions(family="kd", temperature=2.0))
    assert taught.targets == (Target((7, 3), (-1.0, -2.5)),)


def test_what_has_no_probability_is_left_out():
    assert read_taught(row([{"7": -0.5, "3": -9999.0, "4": float("-inf")}]), OPTIONS).targets == (
        Target((7,), (-0.5,)),
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"messages": MESSAGES}, "no column `logprobs`: the row has `messages`; set `logprobs_field`"),
        (row([None, {}]), "says nothing about any token"),
        (row([{"7": 0.4}]), r"logprobs\[0\]: 0.4 is no log-probability"),
        (row([{"7": float("nan")}]), "nan is no log-probability"),
        (row([[{"token": " cat", "logprob": -1.0}]]), "' cat' is no id of a token: .* return_tokens_as_token_ids"),
        (row([[-0.5]]), "no column `target_token_ids`: .* has to name"),
        (row([[-0.5], [-0.5]], target_token_ids=[[7]]), "has 1 entries and `logprobs` 2"),
        (row([[-0.5, -1.0]], target_token_ids=[[7]]), r"logprobs\[0\]: must be as many numbers"),
        (row(["x"]), r"logprobs\[0\] is a text: must be a list of tokens"),
        (row(5), "`logprobs` is a number: must be a list with an entry for each token"),
    ],
    ids=str,
)
def test_what_is_no_distribution_is_told(given, told):
    with pytest.raises(RowError, match=told):
        read_taught(given, OPTIONS)
