"""TrainConfig: the sections of one training."""

from ftl.config.adapter import LoraSection
from ftl.config.data import DataSection
from ftl.config.evaluation import EvaluationSection
from ftl.config.harness import HarnessSection
from ftl.config.hub import HubSection
from ftl.config.kernels import KernelsSection
from ftl.config.model import ModelSection
from ftl.config.objective import ObjectiveSection
from ftl.config.optim import OptimSection
from ftl.config.output import OutputSection
from ftl.config.parallel import ParallelSection
from ftl.config.precision import PrecisionSection
from ftl.config.quantize import QuantSection
from ftl.config.rates import RatesSection
from ftl.config.ray import RaySection
from ftl.config.rounding import RoundingSection
from ftl.config.tracking import TrackingSection
from ftl.config.trained import TrainedSection
from ftl.config.watch import WatchSection
from ftl.section import Section


class TrainConfig(Section):
    """One training. YAML is the flat dialect people write; this nested form is what machines write, as JSON."""

    model: ModelSection
    data: DataSection
    optim: OptimSection
    rates: RatesSection = RatesSection()
    adapter: LoraSection | None = None
    objective: ObjectiveSection = ObjectiveSection()
    precision: PrecisionSection = PrecisionSection()
    parallel: ParallelSection = ParallelSection()
    ray: RaySection = RaySection()
    kernels: KernelsSection = KernelsSection()
    quant: QuantSection = QuantSection()
    rounding: RoundingSection = RoundingSection()
    trained: TrainedSection = TrainedSection()
    output: OutputSection = OutputSection()
    hub: HubSection = HubSection()
    evaluation: EvaluationSection = EvaluationSection()
    harness: HarnessSection = HarnessSection()
    watch: WatchSection = WatchSection()
    tracking: TrackingSection = TrackingSection()
