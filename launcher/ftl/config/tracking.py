"""Trackers: services and files that the numbers of a training go to, beside its own events.jsonl.

An empty name is as good as none.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from ftl.config.marker import Flat
from ftl.section import Section


class TrackingSection(Section):
    wandb: Annotated[bool | None, Flat("use_wandb")] = None
    """Report to Weights & Biases; true where wandb_project is given."""
    wandb_project: Annotated[str | None, Flat("wandb_project")] = None
    """The project there; WANDB_PROJECT, else ftl, when absent."""
    wandb_entity: Annotated[str | None, Flat("wandb_entity")] = None
    """The team or user that the project belongs to."""
    wandb_name: Annotated[str | None, Flat("wandb_name")] = None
    """What the run is called there; its id when absent."""
    wandb_run_id: Annotated[str | None, Flat("wandb_run_id"), Field(pattern=r"^[^/\\#?%:]*$", max_length=64)] = None
    """The id there, under which a run is gone on with; that of the ftl run when absent."""
    wandb_mode: Annotated[Literal["online", "offline", "disabled"] | None, Flat("wandb_mode")] = None
    """offline writes files below the run's trackers/wandb, for `wandb sync`; WANDB_MODE, else online, when absent."""
    mlflow: Annotated[bool | None, Flat("use_mlflow")] = None
    """Report to MLflow; true where mlflow_tracking_uri or mlflow_experiment_name is given."""
    mlflow_tracking_uri: Annotated[str | None, Flat("mlflow_tracking_uri")] = None
    """Its server; MLFLOW_TRACKING_URI, else files below the run's trackers/mlflow, when absent."""
    mlflow_experiment_name: Annotated[str | None, Flat("mlflow_experiment_name")] = None
    """The experiment there, made if it is not there; MLFLOW_EXPERIMENT_NAME, else ftl, when absent."""
    mlflow_run_name: Annotated[str | None, Flat("mlflow_run_name")] = None
    """What the run is called there; its id when absent."""
    comet: Annotated[bool | None, Flat("use_comet")] = None
    """Report to Comet; true where comet_project_name is given."""
    comet_project: Annotated[str | None, Flat("comet_project_name")] = None
    """The project there; Comet's own default when absent."""
    comet_workspace: Annotated[str | None, Flat("comet_workspace")] = None
    """The workspace there; that of the API key when absent."""
    comet_experiment_key: Annotated[
        str | None, Flat("comet_experiment_key"), Field(pattern=r"^([0-9A-Za-z]{32,50})?$")
    ] = None
    """The experiment to report to; one made from the run's id when absent."""
    comet_mode: Annotated[Literal["get_or_create", "create", "get"], Flat("comet_mode")] = "get_or_create"
    """Whether the experiment may be there, must not be, or must be. A resumed run gets its own in any case."""
    comet_online: Annotated[bool | None, Flat("comet_online")] = None
    """False writes archives below the run's trackers/comet, for `comet upload`; online when absent."""
    comet_experiment_config: Annotated[dict[str, Any], Flat("comet_experiment_config")] = {}  # Any: Comet's own
    """Arguments of comet_ml.ExperimentConfig."""
    tensorboard: Annotated[bool | None, Flat("use_tensorboard")] = None
    """Write event files below the run's trackers/tensorboard."""
    trackio: Annotated[bool | None, Flat("use_trackio")] = None
    """Report to trackio; true where trackio_project_name is given."""
    trackio_project: Annotated[str | None, Flat("trackio_project_name")] = None
    """The project there; ftl when absent."""
    trackio_name: Annotated[str | None, Flat("trackio_run_name")] = None
    """What the run is called there; its id when absent."""
    trackio_space: Annotated[str | None, Flat("trackio_space_id")] = None
    """The Hub Space to report to; without it, files in TRACKIO_DIR or below the run's trackers/trackio."""
