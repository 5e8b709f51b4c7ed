"""Runs the model, and the one it is compared with, over batches."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from peft import PeftModel
from torch import Tensor, nn

from ftl_runtime.kernels.head import chosen_logits, head_gives, summed_cross_entropy
from ftl_runtime.objectives.logprobs import log_sum_squares, token_logprobs
from ftl_runtime.objectives.sft import scaled_sft_loss, sft_loss
from ftl_runtime.objectives.terms import IGNORED, Batch, Logprobs

_WITH_DROPOUT: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
_INPUTS = (
    *("input_ids", "position_ids", "attention_mask"),
    *("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"),
)


@dataclass(frozen=True)
class Reference:
    """The model before training."""

    model: nn.Module
    """A frozen model of its own, or the one in training, without what is trained of it."""
    has_adapter: bool
    """`model` is the one in training, and is the reference while its adapter is off."""


@dataclass(frozen=True)
class Inputs:
    """What the model is given."""

    accepted: frozenset[str]
    """The parameters of the base model's forward."""
    splits_head: bool = False
    """The loss of texts is made from what the head is given, without logits: see ftl_runtime.kernels.head."""
    scales_by_probability: bool = False
    """In training the loss of each token of a text is multiplied by its probability."""


@dataclass(frozen=True)
class ModelScorer:
    """The Scorer of ftl_runtime.objectives.terms."""

    model: nn.Module
    """As it is called in training: wrapped for several ranks, maybe."""
    inputs: Inputs
    compared_with: Reference | None = None

    def packed_logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.model(**self._given(batch), use_cache=False).logits, batch["labels"]

    def cross_entropy(self, batch: Batch) -> Tensor:
        is_scaled = self.inputs.scales_by_probability and self.model.training
        if not self.inputs.splits_head:
            logits_and_labels = self.packed_logits(batch)
            return scaled_sft_loss(*logits_and_labels) if is_scaled else sft_loss(*logits_and_labels, 1)

        def loss(hidden_BTD: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
            trained = batch["trained_rows"], batch["trained_targets"]
            hidden_ND = hidden_BTD.flatten(0, 1)
            return summed_cross_entropy(hidden_ND, weight_VD, bias_V, *trained, by_probability=is_scaled)

        with head_gives(_unwrapped(self.model), loss):
            total: Tensor = self.model(**self._given(batch), use_cache=False).logits
        return total

    def chosen_logits(self, batch: Batch, ids_MK: Tensor, temperatures: tuple[float, ...]) -> tuple[Tensor, Tensor]:
        rows_M, num_ids = batch["trained_rows"], ids_MK.shape[1]
        if not self.inputs.splits_head:
            logits_MV = self.packed_logits(batch)[0].flatten(0, 1)[rows_M].float()
            log_sums = [(logits_MV / temperature).logsumexp(1) for temperature in temperatures]
            return logits_MV.gather(1, ids_MK), torch.stack(log_sums, 1)

        def choose(hidden_BTD: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
            return chosen_logits(hidden_BTD.flatten(0, 1), weight_VD, bias_V, rows_M, ids_MK, temperatures)

        with head_gives(_unwrapped(self.model), choose):
            found: Tensor = self.model(**self._given(batch), use_cache=False).logits
        return found[:, :num_ids], found[:, num_ids:]

    def class_logits(self, batch: Batch) -> Tensor:
        logits: Tensor = self.model(**self._given(batch), use_cache=False).logits
        return logits

    def logprobs(self, batch: Batch, *, with_squares: bool = False, temperature: float = 1.0) -> Logprobs:
        logits_BKV, labels_BK = self._answer_logits(self.model, batch)
        logits_BKV = logits_BKV if temperature == 1 else logits_BKV / temperature
        squares_BK = log_sum_squares(logits_BKV.detach(), labels_BK) if with_squares else None
        return Logprobs(token_logprobs(logits_BKV, labels_BK), labels_BK[:, 1:] != IGNORED, squares_BK)

    @torch.no_grad()
    def measure(self, batch: Batch) -> Tensor:
        with _without_dropout(self.model):
            return token_logprobs(*self._answer_logits(self.model, batch)).sum(1)

    @torch.no_grad()
    def reference_logprobs(self, batch: Batch, *, temperature: float = 1.0) -> Tensor:
        assert self.compared_with is not None, "ObjectiveSection.is_compared says who has one"
        with _as_before_training(self.compared_with), _without_dropout(self.compared_with.model):
            logits_BKV, labels_BK = self._answer_logits(self.compared_with.model, batch)
            return token_logprobs(logits_BKV if temperature == 1 else logits_BKV / temperature, labels_BK)

    @torch.no_grad()
    def reference(self, batch: Batch) -> Tensor:
        """Those that came with the batch, where they were computed before training."""
        if "reference" in batch:
            found: Tensor = batch["reference"]
            return found
        assert self.compared_with is not None, "OBJECTIVES says which objectives are compared"
        with _as_before_training(self.compared_with), _without_dropout(self.compared_with.model):
            return token_logprobs(*self._answer_logits(self.compared_with.model, batch)).sum(1)

    def _answer_logits(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits and labels from just before the first label on; the head is not run on what comes before."""
        num_kept: int = batch["labels"].shape[1] - batch["first_label"] + 1
        kept = {"logits_to_keep": num_kept} if "logits_to_keep" in self.inputs.accepted else {}
        logits_BTV: Tensor = model(**self._given(batch), **kept, use_cache=False).logits
        return logits_BTV[:, -num_kept:], batch["labels"][:, -num_kept:]

    def _given(self, batch: Batch) -> dict[str, Any]:  # Any: tensors
        given = {key: batch[key] for key in _INPUTS if key in batch}
        given |= {key: value for key, value in batch.get("pictures", {}).items() if key in self.inputs.accepted}
        if "position_ids" not in self.inputs.accepted:
            given.pop("position_ids", None)
        return given


def _unwrapped(model: nn.Module) -> nn.Module:
    """Without what distributes it: torch's wrapper, or DeepSpeed's engine."""
    inner = getattr(model, "module", None)
    return inner if isinstance(inner, nn.Module) else model


def _as_before_training(reference: Reference) -> Any:  # Any: a context manager of peft's, or none
    if not reference.has_adapter:
        return nullcontext()
    assert isinstance(reference.model, PeftModel)
    return reference.model.disable_adapter()


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    """A model that has none is left as it is: going to evaluation and back repacks 4-bit layers on a CPU."""
    if not model.training or not _has_dropout(model):
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train()


def _has_dropout(model: nn.Module) -> bool:
    if model not in _WITH_DROPOUT:
        _WITH_DROPOUT[model] = _find_dropout(model)
    return _WITH_DROPOUT[model]


def _find_dropout(model: nn.Module) -> bool:
    config = getattr(_unwrapped(model), "config", None)
    settings = config.to_dict() if config is not None else {}
    in_config = (value for key, value in settings.items() if "drop" in key and isinstance(value, float))
    in_layers = (layer.p for layer in model.modules() if isinstance(layer, nn.Dropout))
    return any(share > 0 for share in (*in_config, *in_layers))
