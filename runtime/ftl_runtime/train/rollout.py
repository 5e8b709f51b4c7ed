"""Completions that the model draws in training, with their rewards: prompts of a step to batches that are learned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerBase

from ftl.config.grpo import GrpoSection
from ftl.config.train import TrainConfig
from ftl.tokens import MASKED
from ftl_runtime import ranks
from ftl_runtime.context import Context
from ftl_runtime.data.compare import padded
from ftl_runtime.data.dataset import Document
from ftl_runtime.data.prompts import Prompt
from ftl_runtime.evaluate.generate import ends_of, plain_attention
from ftl_runtime.objectives.grpo import advantages, weighted_sums
from ftl_runtime.objectives.terms import Batch
from ftl_runtime.train.rewards import Reward, load_rewards, rewards_of


def plan_rollouts(cfg: TrainConfig, tokenizer: PreTrainedTokenizerBase, ctx: Context) -> "Rollouts | None":
    """None unless the objective learns from completions. Raises ConfigError for reward functions that do not load."""
    grpo = cfg.objective.grpo
    if cfg.objective.kind != "grpo" or grpo is None:
        return None
    return Rollouts(tokenizer, grpo, tuple(load_rewards(grpo.reward_funcs, ctx)), ctx)


@dataclass(frozen=True)
class _Drawn:
    ids: list[int]
    is_ended: bool


@dataclass(frozen=True)
class Rollouts:
    tokenizer: PreTrainedTokenizerBase
    section: GrpoSection
    functions: tuple[Reward, ...]
    ctx: Context

    def play(self, model: nn.Module, batches: Sequence[Batch], *, step: int | None) -> list[Batch]:
        """The micro-batches of a step, with completions and what was above its group, in the place of prompts.

        Draws random numbers, the same ones after a resume. As many are drawn at a time as are trained at a time. At a
        `step` some are shown, where the config says so.
        """
        drawn = [self._draw(model, batch["prompts"]) for batch in batches]
        prompts = [prompt for batch in batches for prompt in batch["prompts"]]
        completions = [one for batch in drawn for one in batch]
        texts = self.tokenizer.batch_decode([one.ids for one in completions], skip_special_tokens=True)
        said = [
            [{"role": "assistant", "content": text}] if isinstance(prompt.given, list) else text
            for prompt, text in zip(prompts, texts, strict=True)
        ]
        rewards_NF = rewards_of(self.functions, prompts, said, [one.ids for one in completions])
        advantages_N = self._advantages(rewards_NF)
        if step is not None and self.section.log_completions and self.ctx.device.is_main:
            self._show(step, prompts, texts, rewards_NF)
        played, start = [], 0
        for batch, own in zip(batches, drawn, strict=True):
            stop = start + len(own)
            played.append(self._batch(batch["prompts"], own, rewards_NF[start:stop], advantages_N[start:stop]))
            start = stop
        return played

    def _advantages(self, rewards_NF: Tensor) -> Tensor:
        """Those of this rank, compared with the completions of all ranks."""
        device = self.ctx.device
        everywhere = torch.cat([torch.tensor(rewards) for rewards in ranks.gather(rewards_NF.tolist(), device)])
        start = device.rank * len(rewards_NF)
        return advantages(everywhere, self.section)[start : start + len(rewards_NF)]

    @torch.no_grad()
    def _draw(self, model: nn.Module, prompts: Sequence[Prompt]) -> list[_Drawn]:
        writer: Any = model  # Any: nn.Module does not know that every causal model, and peft's, can generate
        base = writer.get_base_model() if hasattr(writer, "get_base_model") else writer
        section, pad, ends = self.section, self.tokenizer.pad_token_id, ends_of(self.tokenizer, base)
        width = max(len(prompt.ids) for prompt in prompts)
        limit = getattr(base.config, "max_position_embeddings", None)
        room = max(1, min(section.max_completion_length, limit - width) if limit else section.max_completion_length)
        config = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=True,
            temperature=section.temperature,
            top_p=section.top_p,
            top_k=section.top_k,
            min_p=section.min_p,
            repetition_penalty=section.repetition_penalty,
            max_new_tokens=room,
            pad_token_id=pad,
            eos_token_id=ends,
        )
        rows = [[pad] * (width - len(prompt.ids)) + list(prompt.ids) for prompt in prompts]
        mask = [[0] * (width - len(prompt.ids)) + [1] * len(prompt.ids) for prompt in prompts]
        was_training = model.training
        model.eval()  # without dropout, and without recomputing activations, which takes the cache away
        try:
            with plain_attention(base):
                written = writer.generate(
                    input_ids=torch.tensor(rows, device=base.device),
                    attention_mask=torch.tensor(mask, device=base.device),
                    generation_config=config,
                    use_cache=True,
                )
        finally:
            model.train(was_training)
        return [_up_to_end(row, ends) for row in written[:, width:].tolist()]

    def _batch(self, prompts: Sequence[Prompt], drawn: list[_Drawn], rewards_BF: Tensor, advantages_B: Tensor) -> Batch:
        documents = [self._document(prompt, one) for prompt, one in zip(prompts, drawn, strict=True)]
        return {
            **padded(documents, self.tokenizer.pad_token_id, None),
            "advantages": advantages_B,
            "rewards": rewards_BF,
            "reward": weighted_sums(rewards_BF, self.section),
            "completion_lengths": torch.tensor([len(one.ids) for one in drawn]),
            "is_truncated": torch.tensor([not one.is_ended for one in drawn]),
        }

    def _document(self, prompt: Prompt, drawn: _Drawn) -> Document:
        ids = np.array([*prompt.ids, *drawn.ids], np.int32)
        labels = ids.copy()
        is_left_out = self.section.mask_truncated_completions and not drawn.is_ended
        labels[: None if is_left_out else len(prompt.ids)] = MASKED
        return Document(ids, labels)

    def _show(self, step: int, prompts: Sequence[Prompt], texts: Sequence[str], rewards_NF: Tensor) -> None:
        sums = weighted_sums(rewards_NF, self.section).tolist()
        shown = [
            {"prompt": self.tokenizer.decode(list(prompt.ids)), "expected": f"reward {reward:.4g}", "generated": text}
            for prompt, text, reward in zip(prompts, texts, sums, strict=True)
        ]
        self.ctx.emit("samples", {"step": step, "samples": shown[: self.section.num_completions_to_print]})


def _up_to_end(ids: list[int], ends: list[int]) -> _Drawn:
    """The completion with the token that ends it."""
    stop = next((place for place, id in enumerate(ids) if id in ends), None)
    return _Drawn(ids if stop is None else ids[: stop + 1], stop is not None)
