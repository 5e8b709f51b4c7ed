"""A run as the task of a tool that starts containers, for people who take it elsewhere: text, and nothing starts."""

from collections.abc import Callable

from ftl.render.asked import Asked
from ftl.render.dstack import dstack_task
from ftl.render.kubernetes import kubernetes_job

OWN = {"sky": "skypilot", "modal": "modal", "docker": "docker"}
"""Target -> the provider whose own request it is: what `ftl train` with such a cloud file submits."""
OTHERS: dict[str, Callable[[Asked], str]] = {"dstack": dstack_task, "kubernetes": kubernetes_job}
"""Target -> what writes it, from any cloud file that asks for a machine with an image."""
TARGETS = (*OWN, *OTHERS)
