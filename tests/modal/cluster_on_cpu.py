"""The ftl command, whose clusters on Modal train on the CPU: the emulated one has no GPU to give."""

from ftl.backends import modal_plan
from ftl.cli import main

job_of = modal_plan._job


def _on_cpu(spec, *, is_on_cpu):
    return job_of(spec, is_on_cpu=True)


modal_plan._job = _on_cpu
main()
