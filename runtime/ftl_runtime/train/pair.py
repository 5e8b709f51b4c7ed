"""Two optimizers that share the parameters of a model and look like one to the training loop."""

from collections import ChainMap
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer


class _States(ChainMap[Any, Any]):  # Any: as torch keeps them
    """The states of both by parameter; to drop one drops it from the optimizer that has it."""

    def __delitem__(self, parameter: Any) -> None:  # Any: as above
        for states in self.maps:
            states.pop(parameter, None)

    def pop(self, parameter: Any, *default: Any) -> Any:  # Any: as above
        found = self.get(parameter, *default)
        del self[parameter]
        return found


class Pair(Optimizer):
    """Steps `first`, then `second`. The groups are theirs, so a rate that is set here is set there."""

    def __init__(self, first: Optimizer, second: Optimizer) -> None:
        super().__init__([*first.param_groups, *second.param_groups], {})  # torch keeps the very dicts it is given
        self._pair = (first, second)
        self._share_states()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure() if closure is not None else None
        for optimizer in self._pair:
            optimizer.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimizer in self._pair:
            optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:  # Any: as torch writes them
        return {"pair": [optimizer.state_dict() for optimizer in self._pair]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:  # Any: as torch writes them
        for optimizer, state in zip(self._pair, state_dict["pair"], strict=True):
            optimizer.load_state_dict(state)
        self.param_groups = [group for optimizer in self._pair for group in optimizer.param_groups]
        self._share_states()

    def _share_states(self) -> None:
        self.state = _States(*(optimizer.state for optimizer in self._pair))  # type: ignore[assignment]
