"""Supervised fine-tuning: next-token cross-entropy over the tokens marked as trained.

Shapes: B rows, T tokens, M of them trained, D hidden size, V vocabulary.
"""

from torch import Tensor
from torch.nn.functional import cross_entropy

from ftl.config.objective import ObjectiveSection
from ftl_runtime.objectives.terms import IGNORED, Batch, Counts, Scorer, Terms


def sft_loss(logits_BTV: Tensor, labels_BT: Tensor, num_items: int) -> Tensor:
    """Summed cross-entropy of each trained token given the tokens before it, over `num_items`, in nats, in fp32.

    Logits at position t predict the label at t + 1. `num_items` is the number of trained tokens of the whole
    accumulated batch over all ranks, so micro-batches add up to the mean of the batch; 0 of them give 0.
    """
    logits_NV = logits_BTV[:, :-1].flatten(0, 1).float()
    targets_N = labels_BT[:, 1:].flatten()
    return cross_entropy(logits_NV, targets_N, ignore_index=IGNORED, reduction="sum") / max(num_items, 1)


def scaled_sft_loss(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """As sft_loss over 1 item, the loss of each token times its probability, which carries no gradient."""
    logits_NV = logits_BTV[:, :-1].flatten(0, 1).float()
    losses_N = cross_entropy(logits_NV, labels_BT[:, 1:].flatten(), ignore_index=IGNORED, reduction="none")
    return (losses_N * losses_N.detach().neg().exp()).sum()


def sft_terms(scorer: Scorer, batch: Batch, section: ObjectiveSection) -> Terms:
    return Terms((scorer.cross_entropy(batch),))


def count_sft(batch: Batch, section: ObjectiveSection) -> Counts:
    """Tokens that are trained."""
    return (int((batch["labels"][:, 1:] != IGNORED).sum()),)
