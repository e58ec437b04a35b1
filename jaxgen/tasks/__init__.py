"""The things that generative models are used for: small functions over capabilities, for every family that has them."""

from jaxgen.tasks import conformal
from jaxgen.tasks.anomalies import Anomalies, anomaly
from jaxgen.tasks.attribution import Attribution, attribution
from jaxgen.tasks.comparison import Comparison, compare
from jaxgen.tasks.detection import Detector, detector
from jaxgen.tasks.information import jensen_shannon, kl, multi_information, shared_information
from jaxgen.tasks.ratio import Ratio, ratio
from jaxgen.tasks.robust import Trimmed
from jaxgen.tasks.scores import LatentDensity, LikelihoodRatio, Reconstruction, Surprise, Typicality
from jaxgen.tasks.streams import Alarm, AlarmInfo, AlarmState, step_surprise

__all__ = [
    "Alarm", "AlarmInfo", "AlarmState", "Anomalies", "Attribution", "Comparison", "Detector", "LatentDensity",
    "LikelihoodRatio", "Ratio", "Reconstruction", "Surprise", "Trimmed", "Typicality", "anomaly", "attribution",
    "compare", "conformal", "detector", "jensen_shannon", "kl", "multi_information", "ratio", "shared_information",
    "step_surprise",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
