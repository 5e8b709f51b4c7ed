"""What of the model a full fine-tune trains, and noise that trained embeddings get."""

from typing import Annotated

from pydantic import Field

from ftl.config.marker import Flat
from ftl.section import Section


class TrainedSection(Section):
    freezes_encoders: Annotated[bool, Flat("freeze_mm_modules")] = False
    """Train the language model alone: what reads pictures or sounds stays as it is, and gets no adapter."""
    parameters: Annotated[tuple[str, ...], Flat("unfrozen_parameters")] = ()
    """Regular expressions for beginnings of weights' names: only those weights are trained. All when absent.

    `[:32000]` or `[100:]` at the end trains these rows of them alone.
    """
    spectrum_share: Annotated[float | None, Flat("spectrum_top_fraction"), Field(gt=0, le=1)] = None
    """Train this share of the weights of each kind, those with the most signal; and the embeddings and the head.

    How much of a weight is signal is told from its singular values. Source: arXiv 2406.06623.
    """
    lisa_num_layers: Annotated[int | None, Flat("lisa_n_layers"), Field(ge=1)] = None
    """Train this many layers at a time, drawn at random, and the embeddings and the head. Source: arXiv 2403.17919."""
    lisa_interval_steps: Annotated[int, Flat("lisa_step_interval"), Field(ge=1)] = 20
    """Steps until other layers are drawn. Those put away forget their optimizer states, which would take memory."""
    lisa_layers: Annotated[str | None, Flat("lisa_layers_attribute")] = None
    """Where the list of layers is in the model, such as model.layers; the longest list when absent."""
    noise_alpha: Annotated[float | None, Flat("neftune_noise_alpha"), Field(gt=0)] = None
    """Add noise to the embeddings of trained rows, by up to alpha / sqrt(tokens x width). Source: arXiv 2310.05914."""
