"""Distillation from the tokens that a teacher found likeliest.

Shapes: M trained tokens, K tokens that the teacher expects in the place of each, at most, S temperatures.
"""

import torch
from torch import Tensor

from ftl.config.objective import ObjectiveSection
from ftl_runtime.objectives.terms import IGNORED, Batch, Counts, Scorer, Terms

_TINY = 1e-12


def divergence(
    student_MK: Tensor,
    teacher_MK: Tensor,
    log_sums_M: Tensor | None = None,
    *,
    temperature: float = 1.0,
    spread: float | None = None,
) -> Tensor:
    """[M], in nats: KL(teacher || student) over the K tokens at that temperature; 0 where there is no teacher.

    Both are logits of the same tokens; the teacher's are -inf where it has none, and its probabilities are those among
    the K. The student's are those among the whole vocabulary, whose log sum exp(logits / temperature) is
    `log_sums_M`; without that, those among the K. With `spread` both logits are first brought to mean 0 and standard
    deviation 1 / spread over the K, which asks for no log_sums_M. Source: arXiv 2403.01643, eq. 9 and 10.
    """
    is_given_MK = teacher_MK > -torch.inf
    is_taught_M1 = is_given_MK.any(1, keepdim=True)
    is_used_MK = is_given_MK | ~is_taught_M1  # something to take a softmax of, where nothing is given
    teacher_MK = teacher_MK.masked_fill(~is_given_MK, 0)
    if spread is not None:
        student_MK, teacher_MK = (_standard(logits, is_given_MK) / spread for logits in (student_MK, teacher_MK))
    teacher_logprobs_MK = _log_softmax(teacher_MK / temperature, is_used_MK)
    if log_sums_M is None:
        student_logprobs_MK = _log_softmax(student_MK / temperature, is_used_MK)
    else:
        student_logprobs_MK = student_MK / temperature - log_sums_M[:, None]
    difference_MK = (teacher_logprobs_MK - student_logprobs_MK).masked_fill(~is_given_MK, 0)
    return (teacher_logprobs_MK.exp() * difference_MK).sum(1)


def kd_terms(scorer: Scorer, batch: Batch, section: ObjectiveSection) -> Terms:
    """Cross-entropy of the trained tokens, and the divergence of those that the teacher speaks of. The latter counts
    times the square of what logits are divided by, so that its gradient is as large at any temperature."""
    teacher_MK, temperature, spread = batch["teacher_logits"], section.kd_temperature, section.kd_zscore_base_temp
    ids = torch.cat([batch["trained_targets"][:, None], batch["teacher_ids"]], 1)
    logits, log_sums_MS = scorer.chosen_logits(batch, ids, (1.0, temperature))
    cross_entropy = (log_sums_MS[:, 0] - logits[:, 0]).sum()
    is_among_given = section.kd_top_k_before_softmax or spread is not None
    divergence_M = divergence(
        logits[:, 1:],
        teacher_MK,
        None if is_among_given else log_sums_MS[:, 1],
        temperature=temperature,
        spread=spread,
    )
    scale = (temperature * (spread or 1.0)) ** 2
    kl = divergence_M.sum()
    num_taught = (teacher_MK > -torch.inf).any(1).sum()
    num_trained = torch.tensor(float(len(teacher_MK)), device=kl.device)
    return Terms(
        (section.kd_ce_alpha * cross_entropy, section.kd_alpha * scale * kl),
        {
            "cross_entropy": torch.stack([cross_entropy.detach(), num_trained]),
            "kl": torch.stack([kl.detach(), num_taught.float()]),
        },
    )


def count_kd(batch: Batch, section: ObjectiveSection) -> Counts:
    """Tokens that are trained, and those of them that the teacher speaks of."""
    num_trained = int((batch["labels"][:, 1:] != IGNORED).sum())
    return num_trained, int((batch["teacher_logits"] > -torch.inf).any(1).sum())


def _log_softmax(logits_MK: Tensor, is_used_MK: Tensor) -> Tensor:
    """Among those that are used; 0 for the others."""
    lowest = torch.finfo(logits_MK.dtype).min
    return logits_MK.masked_fill(~is_used_MK, lowest).log_softmax(1).masked_fill(~is_used_MK, 0)


def _standard(logits_MK: Tensor, is_given_MK: Tensor) -> Tensor:
    """The logits at mean 0 and standard deviation 1 among those given."""
    count_M1 = is_given_MK.sum(1, keepdim=True).clamp(min=1)
    mean_M1 = logits_MK.masked_fill(~is_given_MK, 0).sum(1, keepdim=True) / count_M1
    centred_MK = (logits_MK - mean_M1).masked_fill(~is_given_MK, 0)
    variance_M1 = centred_MK.square().sum(1, keepdim=True) / count_M1
    return centred_MK / (variance_M1 + _TINY).sqrt()
