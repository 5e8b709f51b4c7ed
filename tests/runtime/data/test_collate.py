"""Batches, and the proof that documents of one row do not see each other.

Shapes: B rows, T tokens, V ids.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ftl.tokens import MASKED  # noqa: E402
from ftl_runtime.data.collate import Collator  # noqa: E402
from ftl_runtime.data.dataset import Document, Row  # noqa: E402
from ftl_runtime.kernels import varlen  # noqa: E402, F401  # registers its attention

pytestmark = pytest.mark.torch

VOCAB = 40


def document(*ids: int, masked: int = 0) -> Document:
    labels = np.array([MASKED] * masked + list(ids[masked:]), np.int32)
    return Document(np.array(ids, np.int32), labels)


def collator(documents: str = "positions", **keys: Any) -> Collator:
    return Collator(**{"pad_id": 9, "sequence_len": 8, "pad_to_sequence_len": False, "documents": documents, **keys})


ROWS: list[Row] = [(document(1, 2, 3), document(4, 5, masked=1)), (document(6, 7, 8, masked=2),)]


def test_documents_lie_side_by_side_with_positions_of_their_own() -> None:
    batch = collator()(ROWS)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 0, 1]]
    assert "attention_mask" not in batch


def test_first_label_of_a_document_and_padding_are_masked() -> None:
    labels = collator()(ROWS)["labels"].tolist()
    assert labels == [[-100, 2, 3, -100, 5], [-100, -100, 8, -100, -100]]


def test_num_tokens_counts_no_padding_and_is_an_int() -> None:
    num_tokens = collator(pad_to_sequence_len=True)(ROWS)["num_tokens"]
    assert (type(num_tokens), num_tokens) == (int, 8)


def test_rows_are_padded_to_sequence_len_on_demand() -> None:
    batch = collator(pad_to_sequence_len=True)(ROWS)
    assert {tuple(batch[name].shape) for name in ("input_ids", "labels", "position_ids")} == {(2, 8)}


def test_trained_tokens_are_told_with_the_place_that_predicts_them() -> None:
    batch = collator()(ROWS)
    assert batch["trained_rows"].tolist() == [0, 1, 3, 6]
    assert batch["trained_targets"].tolist() == [2, 3, 5, 8]


def test_rows_become_one_with_the_borders_of_documents_and_padding() -> None:
    batch = collator("borders", pad_to_sequence_len=True)(ROWS)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5, 9, 9, 9, 6, 7, 8, 9, 9, 9, 9, 9]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 3, 5, 8, 11, 16]
    assert batch["cu_seq_lens_q"].dtype == torch.int32
    assert (batch["max_length_q"], type(batch["max_length_q"])) == (5, int)


def test_flat_rows_have_no_padding_between_them() -> None:
    batch = collator("borders", is_flat=True)(ROWS)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert batch["labels"].tolist() == [[-100, 2, 3, -100, 5, -100, -100, 8]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1, 2]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 3, 5, 8]
    assert (batch["num_tokens"], batch["max_length_q"]) == (8, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mask_lets_a_token_see_its_own_document_up_to_itself(dtype: torch.dtype) -> None:
    mask = collator("mask", dtype=dtype)(ROWS)["attention_mask"]
    assert (mask.shape, mask.dtype) == ((2, 1, 5, 5), dtype)
    visible = (mask[0, 0] == 0).int().tolist()
    assert visible == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 1, 1]]
    assert mask[0, 0, 0, 1] == torch.finfo(dtype).min


def test_every_padding_token_sees_something() -> None:
    mask = collator("mask", pad_to_sequence_len=True)(ROWS)["attention_mask"]
    assert bool((mask == 0).any(-1).all())


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    rng = np.random.default_rng(0)
    return [document(*rng.integers(0, VOCAB, n).tolist(), masked=n // 3) for n in (12, 7, 9, 3, 14, 5)]


def losses(attention: str, batch: dict[str, Any]) -> list[float]:
    """The summed loss of each document of a batch, padding left out, by a tiny random Llama."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.5,  # large, so that a wrong mask changes the losses a lot
        attn_implementation=attention,
    )
    model = LlamaForCausalLM(config).eval()
    left_out = ("labels", "num_tokens", "trained_rows", "trained_targets")
    inputs = {name: value for name, value in batch.items() if name not in left_out}
    with torch.no_grad():
        logits_BTV = model(**inputs, use_cache=False).logits
    labels_BT = batch["labels"][:, 1:]
    losses_BT = torch.nn.functional.cross_entropy(
        logits_BTV[:, :-1].transpose(1, 2), labels_BT, ignore_index=MASKED, reduction="none"
    )
    document_BT = (batch["position_ids"] == 0).cumsum(1)[:, 1:]
    sums = [
        float(loss_T[document_T == number].sum())
        for loss_T, document_T in zip(losses_BT, document_BT, strict=True)
        for number in range(1, int(document_T.max()) + 1)
    ]
    return [loss for loss in sums if loss]


def packed(documents: Sequence[Document]) -> list[Row]:
    return [tuple(documents[:3]), tuple(documents[3:])]  # 28 and 22 tokens: the second row is padded


def alone(attention: str, documents: Sequence[Document]) -> list[float]:
    """Each document by itself with nothing but its ids: the truth the packed losses are held to."""
    return [
        losses(attention, {**collator()([(document,)]), "position_ids": torch.arange(len(document.ids))[None]})[0]
        for document in documents
    ]


@pytest.mark.parametrize(
    ("attention", "kind"),
    [("varlen", "borders"), ("sdpa", "positions"), ("eager", "positions"), ("sdpa", "mask"), ("eager", "mask")],
)
def test_packed_losses_equal_those_of_the_documents_alone(documents: list[Document], attention: str, kind: str) -> None:
    batch = collator(kind, sequence_len=32, pad_to_sequence_len=True)(packed(documents))
    truth = alone("sdpa" if attention == "varlen" else attention, documents)
    assert losses(attention, batch) == pytest.approx(truth, abs=1e-5)


def test_flat_losses_equal_those_of_the_documents_alone(documents: list[Document]) -> None:
    batch = collator("borders", sequence_len=32, is_flat=True)([(document,) for document in documents])
    assert losses("varlen", batch) == pytest.approx(alone("sdpa", documents), abs=1e-5)


def test_unpacked_padded_rows_equal_the_documents_alone(documents: list[Document]) -> None:
    batch = collator(sequence_len=32)([(document,) for document in documents])
    assert losses("sdpa", batch) == pytest.approx(alone("sdpa", documents), abs=1e-5)


@pytest.mark.parametrize("harm", ["2d-mask", "one-document"])
def test_losses_differ_once_documents_see_each_other(documents: list[Document], harm: str) -> None:
    """The control: the comparison above can fail."""
    batch = collator(sequence_len=32)(packed(documents))
    if harm == "2d-mask":
        batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    else:
        batch["attention_mask"] = collator("mask")([(document(*row.tolist()),) for row in batch["input_ids"]])[
            "attention_mask"
        ]
    truth = alone("sdpa", documents)
    given = losses("sdpa", batch)
    # The first document of a row has nobody before it.
    assert [given[0], given[3]] == pytest.approx([truth[0], truth[3]], abs=1e-5)
    assert all(abs(given[i] - truth[i]) > 1e-2 for i in (1, 2, 4, 5))
