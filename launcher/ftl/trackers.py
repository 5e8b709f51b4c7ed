"""Which trackers a training reports to, and what each of them needs. Launcher and runtime ask the same table."""

from collections.abc import Callable
from dataclasses import dataclass

from ftl.config.tracking import TrackingSection


@dataclass(frozen=True)
class Needs:
    """What must be there for a tracker to work."""

    package: str
    """What is imported."""
    distribution: str
    """What is installed."""
    is_chosen: Callable[[TrackingSection], bool]
    key: str
    """The config key that people choose it by."""
    secret: str | None = None
    """The variable with the password of its service."""
    needs_secret: Callable[[TrackingSection], bool] = lambda tracking: True
    without: str = ""
    """What to write to do without the secret."""


def _on(switch: bool | None, *names: str | None) -> bool:
    """The switch where it is given, else whether any name is."""
    return any(names) if switch is None else switch


TRACKERS: dict[str, Needs] = {
    "wandb": Needs(
        "wandb",
        "wandb",
        lambda t: t.wandb_mode != "disabled" and _on(t.wandb, t.wandb_project),
        "wandb_project",
        "WANDB_API_KEY",
        lambda t: t.wandb_mode != "offline",
        "wandb_mode: offline",
    ),
    "mlflow": Needs(
        "mlflow",
        "mlflow-skinny",
        lambda t: _on(t.mlflow, t.mlflow_tracking_uri, t.mlflow_experiment_name),
        "mlflow_tracking_uri",
    ),
    "comet": Needs(
        "comet_ml",
        "comet-ml",
        lambda t: _on(t.comet, t.comet_project),
        "use_comet",
        "COMET_API_KEY",
        lambda t: t.comet_online is not False,
        "comet_online: false",
    ),
    "tensorboard": Needs("tensorboard", "tensorboard", lambda t: bool(t.tensorboard), "use_tensorboard"),
    "trackio": Needs(
        "trackio",
        "trackio",
        lambda t: _on(t.trackio, t.trackio_project),
        "trackio_space_id",
        "HF_TOKEN",
        lambda t: t.trackio_space is not None,
        "no trackio_space_id",
    ),
}


def chosen(tracking: TrackingSection) -> tuple[str, ...]:
    """The names of the trackers that the config asks for."""
    return tuple(name for name, needs in TRACKERS.items() if needs.is_chosen(tracking))
