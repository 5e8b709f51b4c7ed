"""The optimizer that the config names, over the groups of groups.py. One row of OPTIMIZERS each.

All of them are resumable bit for bit: what a step depends on is in the state that goes into a checkpoint.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ftl.config.optim import Optimizer as Name
from ftl.config.optim import OptimSection
from ftl.config.rates import RatesSection
from ftl.errors import ConfigError
from ftl_runtime.context import Device
from ftl_runtime.train.adopt import Adopt
from ftl_runtime.train.grokfast import Grokfast
from ftl_runtime.train.groups import Group, parameter_groups
from ftl_runtime.train.pair import Pair

Dicts = list[dict[str, Any]]  # Any: settings of a group, as torch takes them


@dataclass(frozen=True)
class Request:
    """What an optimizer is built from."""

    model: nn.Module
    groups: list[Group]
    optim: OptimSection
    warmup_steps: int

    @property
    def eps(self) -> float:
        return 1e-8 if self.optim.adam_epsilon is None else self.optim.adam_epsilon

    def adam(self) -> dict[str, Any]:  # Any: as torch takes them
        return {**self.betas(), "eps": self.eps}

    def betas(self) -> dict[str, Any]:  # Any: as torch takes them
        return {"betas": (self.optim.adam_beta1, self.optim.adam_beta2)}

    def options(self, **defaults: Any) -> dict[str, Any]:  # Any: options of a library
        """The optimizer's own options, over ours."""
        return {**defaults, **self.optim.optimizer_options}

    def dicts(self, groups: list[Group] | None = None) -> Dicts:
        """The groups as torch takes them."""
        return [
            {
                "params": [parameter for _, parameter in group.parameters],
                "lr": group.rate,
                "weight_decay": group.weight_decay,
            }
            for group in (self.groups if groups is None else groups)
        ]

    def split(self, belongs: Callable[[str, nn.Parameter], bool]) -> tuple[list[Group], list[Group]]:
        """The groups of the parameters that belong, and those of all others."""
        sides: tuple[list[Group], list[Group]] = ([], [])
        for group in self.groups:
            for side, wanted in zip(sides, (True, False), strict=True):
                members = tuple(item for item in group.parameters if belongs(*item) == wanted)
                if members:
                    side.append(Group(group.rate, group.weight_decay, members))
        return sides


Build = Callable[[Request], Optimizer]


@dataclass(frozen=True)
class Recipe:
    """How an optimizer is built and what it needs."""

    build: Build
    module: str | None = None
    """What is imported for it."""
    package: str | None = None
    """What that is called on PyPI."""
    on_cpu: bool = True


def make_optimizer(model: nn.Module, optim: OptimSection, rates: RatesSection, *, warmup_steps: int) -> Optimizer:
    """The optimizer for all trained parameters of `model`. Raises ConfigError where a rate or option has no place."""
    request = Request(model, parameter_groups(model, optim, rates), optim, warmup_steps)
    try:
        built = OPTIMIZERS[optim.optimizer].build(request)
    except (TypeError, ValueError) as error:
        # The libraries check their own options, each in its own words.
        raise ConfigError(f"optimizer: {optim.optimizer}: {error}") from error
    if optim.grokfast_alpha is None and optim.grokfast_lamb is None:
        return built
    return Grokfast(built, alpha=optim.grokfast_alpha or 0.98, lamb=optim.grokfast_lamb or 2.0)


def optimizer_problems(optim: OptimSection, device: Device) -> list[str]:
    """What this machine lacks for the optimizer, a sentence each."""
    name, recipe = optim.optimizer, OPTIMIZERS[optim.optimizer]
    if device.kind == "cpu" and not recipe.on_cpu:
        return [f"optimizer: {name}: runs on NVIDIA GPUs only; without one use adamw_torch_fused"]
    if recipe.module is not None and find_spec(recipe.module) is None:
        told = f"needs the package {recipe.package}, which is not installed here"
        return [f"optimizer: {name}: {told}; install it, or use adamw_torch_fused"]
    if name == "ao_adamw_fp8" and device.kind == "cuda" and torch.cuda.get_device_capability() < (8, 9):
        return ["optimizer: ao_adamw_fp8: this GPU has no fp8 (it needs compute capability 8.9); use adamw_torch_8bit"]
    return []


def _torch(cls: type[Optimizer], *, uses_adam: bool = False, **fixed: Any) -> Build:  # Any: as torch takes them
    def build(request: Request) -> Optimizer:
        settings = request.adam() if uses_adam else {}
        return cls(request.dicts(), **request.options(**settings, **fixed))

    return build


def _muon(request: Request) -> Optimizer:
    """Muon for the matrices of the layers; AdamW for embeddings, the head, and whatever is no matrix."""
    ends = {
        id(parameter)
        for getter in ("get_input_embeddings", "get_output_embeddings")
        if (module := getattr(request.model, getter)()) is not None
        for parameter in module.parameters()
    }
    matrices, others = request.split(lambda name, parameter: parameter.ndim == 2 and id(parameter) not in ends)
    if not matrices:
        raise ConfigError("optimizer: muon: there is no matrix of a layer to train; use adamw_torch_fused")
    # The scale that lets it share the rate and the decay of AdamW. Source: arXiv 2502.16982.
    options = request.options(momentum=0.95, adjust_lr_fn="match_rms_adamw")
    muon = torch.optim.Muon(request.dicts(matrices), **options)
    return Pair(muon, torch.optim.AdamW(request.dicts(others), **request.adam(), fused=True)) if others else muon


def _adafactor(request: Request) -> Optimizer:
    from transformers import Adafactor

    settings = request.options(scale_parameter=False, relative_step=False)
    built: Optimizer = Adafactor(request.dicts(), lr=request.optim.learning_rate, **settings)  # type: ignore[no-untyped-call]
    return built


def _bitsandbytes(cls: str, *, bits: int, is_paged: bool = False) -> Build:
    def build(request: Request) -> Optimizer:
        library = import_module("bitsandbytes").optim
        settings: dict[str, Any] = {"optim_bits": bits}  # Any: as the library takes them
        if cls == "RMSprop":
            settings |= {"alpha": 0.99, "eps": request.eps}
        else:
            settings |= request.betas() | {"is_paged": is_paged}
        if cls == "AdEMAMix":
            settings["betas"] = (*settings["betas"], request.optim.adam_beta3 or 0.9999)
        if cls in ("AdamW", "AdEMAMix"):
            settings["eps"] = request.eps
        if bits == 8:
            _keep_embedding_states_whole(request.model, library)
        built: Optimizer = getattr(library, cls)(request.dicts(), **request.options(**settings))
        return built

    return build


def _keep_embedding_states_whole(model: nn.Module, library: Any) -> None:  # Any: bitsandbytes.optim has no types
    """32-bit states for embeddings, whose gradients differ too much between rows. Source: arXiv 2110.02861, 2.3."""
    manager = library.GlobalOptimManager.get_instance()
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            manager.register_module_override(module, "weight", {"optim_bits": 32})


def _torchao(cls: str) -> Build:
    def build(request: Request) -> Optimizer:
        make = getattr(import_module("torchao.optim"), cls)
        built: Optimizer = make(request.dicts(), **request.options(**request.adam()))
        if _is_on_cpu(request.model):
            # Compiling its step takes half a minute for each shape of a weight, and a C++ compiler.
            built.register_step_pre_hook(lambda *_: _set_stance("force_eager"))
            built.register_step_post_hook(lambda *_: _set_stance("default"))
        return built

    return build


def _set_stance(stance: str) -> None:
    torch.compiler.set_stance(stance)


def _is_on_cpu(model: nn.Module) -> bool:
    return next(model.parameters()).device.type == "cpu"


def _low_rank(module: str, cls: str, *, uses_adam: bool, **defaults: Any) -> Build:  # Any: options of a library
    """galore and apollo: the gradients of chosen linear layers are projected to `rank` dimensions."""

    def build(request: Request) -> Optimizer:
        library = import_module(module)
        torch.serialization.add_safe_globals(list(_projectors(library)))  # checkpoints hold them
        chosen = _linear_layers(request.model, request.optim.low_rank_modules)
        projected, others = request.split(lambda name, parameter: name in chosen)
        if not projected:
            raise ConfigError("optim_target_modules: no trained linear layer is named so")
        options = request.options(**defaults)
        dicts = [*request.dicts(others), *({**group, **options} for group in request.dicts(projected))]
        dicts.sort(key=lambda group: group["lr"] != request.optim.learning_rate)
        fixed = request.adam() if uses_adam else {"scale_parameter": False, "relative_step": False}
        built: Optimizer = getattr(library, cls)(dicts, **fixed)
        return built

    return build


def _projectors(library: Any) -> Iterator[type]:  # Any: a module
    """The classes of an optimizer's library that its states are made of."""
    for name in ("galore_projector.GaLoreProjector", "svd_projector.GaLoreProjector"):
        module, _, cls = name.partition(".")
        if find_spec(f"{library.__name__}.{module}") is not None:
            yield getattr(import_module(f"{library.__name__}.{module}"), cls)
    if find_spec(f"{library.__name__}.random_projector") is not None:
        yield import_module(f"{library.__name__}.random_projector").GradientProjector


def _linear_layers(model: nn.Module, wanted: tuple[str, ...] | str | None) -> set[str]:
    """Names of the weights of the linear layers that are wanted. Raises ConfigError where a name finds none."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if wanted is None or (isinstance(wanted, str) and wanted.replace("-", "_") == "all_linear"):
        return {f"{name}.weight" for name in names}
    if isinstance(wanted, str):
        found = {wanted: [name for name in names if re.fullmatch(wanted, name)]}
    else:
        found = {piece: [name for name in names if piece in name] for piece in wanted}
    if missing := [piece for piece, chosen in found.items() if not chosen]:
        raise ConfigError(f"optim_target_modules: {', '.join(missing)}: no linear layer is named so")
    return {f"{name}.weight" for chosen in found.values() for name in chosen}


def _schedule_free(cls: str, *, uses_adam: bool = True, has_warmup: bool = True) -> Build:
    def build(request: Request) -> Optimizer:
        settings = request.adam() if uses_adam else {}
        if has_warmup:
            settings["warmup_steps"] = request.warmup_steps
        built: Optimizer = getattr(import_module("schedulefree"), cls)(request.dicts(), **request.options(**settings))
        return built

    return build


def _optimi(cls: str) -> Build:
    def build(request: Request) -> Optimizer:
        settings = {**request.adam(), **({"triton": False} if _is_on_cpu(request.model) else {})}
        built: Optimizer = getattr(import_module("optimi"), cls)(
            request.dicts(), lr=request.optim.learning_rate, **request.options(**settings)
        )
        return built

    return build


def _came(request: Request) -> Optimizer:
    optim = request.optim
    eps = (optim.adam_epsilon or 1e-30, optim.adam_epsilon2 or 1e-16)
    betas = (optim.adam_beta1, optim.adam_beta2, optim.adam_beta3 or 0.9999)
    built: Optimizer = import_module("came_pytorch").CAME(
        request.dicts(), lr=optim.learning_rate, **request.options(eps=eps, betas=betas)
    )
    return built


_GALORE = {"rank": 128, "update_proj_gap": 200, "scale": 0.25, "proj_type": "std"}
_APOLLO = {"rank": 128, "proj": "random", "scale_type": "channel", "update_proj_gap": 200, "scale": 1.0}


def _bnb(cls: str, *, bits: int, is_paged: bool = False) -> Recipe:
    return Recipe(_bitsandbytes(cls, bits=bits, is_paged=is_paged), "bitsandbytes", "bitsandbytes")


OPTIMIZERS: dict[Name, Recipe] = {
    "adamw_torch_fused": Recipe(_torch(torch.optim.AdamW, uses_adam=True, fused=True)),
    "adamw_torch": Recipe(_torch(torch.optim.AdamW, uses_adam=True)),
    "sgd": Recipe(_torch(torch.optim.SGD)),
    "adagrad": Recipe(_torch(torch.optim.Adagrad)),
    "rmsprop": Recipe(_torch(torch.optim.RMSprop)),
    "muon": Recipe(_muon),
    "adafactor": Recipe(_adafactor),
    "adopt_adamw": Recipe(_torch(Adopt, uses_adam=True)),
    "adamw_bnb_8bit": _bnb("AdamW", bits=8),
    "paged_adamw_32bit": _bnb("AdamW", bits=32, is_paged=True),
    "paged_adamw_8bit": _bnb("AdamW", bits=8, is_paged=True),
    "ademamix": _bnb("AdEMAMix", bits=32),
    "ademamix_8bit": _bnb("AdEMAMix", bits=8),
    "paged_ademamix_32bit": _bnb("AdEMAMix", bits=32, is_paged=True),
    "paged_ademamix_8bit": _bnb("AdEMAMix", bits=8, is_paged=True),
    "lion_32bit": _bnb("Lion", bits=32),
    "lion_8bit": _bnb("Lion", bits=8),
    "paged_lion_32bit": _bnb("Lion", bits=32, is_paged=True),
    "paged_lion_8bit": _bnb("Lion", bits=8, is_paged=True),
    "rmsprop_bnb_32bit": _bnb("RMSprop", bits=32),
    "rmsprop_bnb_8bit": _bnb("RMSprop", bits=8),
    "adamw_torch_8bit": Recipe(_torchao("AdamW8bit"), "torchao", "torchao"),
    "adamw_torch_4bit": Recipe(_torchao("AdamW4bit"), "torchao", "torchao"),
    "ao_adamw_fp8": Recipe(_torchao("AdamWFp8"), "torchao", "torchao"),
    "galore_adamw": Recipe(
        _low_rank("galore_torch", "GaLoreAdamW", uses_adam=True, **_GALORE), "galore_torch", "galore-torch"
    ),
    "galore_adamw_8bit": Recipe(
        _low_rank("galore_torch", "GaLoreAdamW8bit", uses_adam=True, **_GALORE),
        "galore_torch",
        "galore-torch",
        on_cpu=False,
    ),
    "galore_adafactor": Recipe(
        _low_rank("galore_torch", "GaLoreAdafactor", uses_adam=False, **_GALORE), "galore_torch", "galore-torch"
    ),
    "apollo_adamw": Recipe(
        _low_rank("apollo_torch", "APOLLOAdamW", uses_adam=True, proj_type="std", **_APOLLO),
        "apollo_torch",
        "apollo-torch",
    ),
    "schedule_free_adamw": Recipe(_schedule_free("AdamWScheduleFree"), "schedulefree", "schedulefree"),
    "schedule_free_radam": Recipe(
        _schedule_free("RAdamScheduleFree", has_warmup=False), "schedulefree", "schedulefree"
    ),
    "schedule_free_sgd": Recipe(_schedule_free("SGDScheduleFree", uses_adam=False), "schedulefree", "schedulefree"),
    "optimi_adamw": Recipe(_optimi("AdamW"), "optimi", "torch-optimi"),
    "stable_adamw": Recipe(_optimi("StableAdamW"), "optimi", "torch-optimi"),
    "came_pytorch": Recipe(_came, "came_pytorch", "came-pytorch"),
}
