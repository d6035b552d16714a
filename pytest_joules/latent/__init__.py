"""The latent model: expect a point's time and energy from its model's shape and its GPU.

The paper's framework (section 5, Figure 10) as an analytical model: what a step asks of the
GPU (``serving``, ``rendering``), what that costs (``parameters``), step by step (``machine``)
and in steady state (``predict``).
"""

from pytest_joules.latent.architecture import (
    Architecture,
    DiffusionArchitecture,
    LanguageArchitecture,
    architecture_of,
    architectures,
)
from pytest_joules.latent.fitted import KnownError, fitted_gpus, known_error, parameters_of
from pytest_joules.latent.machine import (
    DiffusionMachine,
    LanguageMachine,
    Machine,
    Step,
    machine,
)
from pytest_joules.latent.parameters import Parameters
from pytest_joules.latent.prediction import Prediction, predict, predicted

__all__ = [
    "Architecture",
    "DiffusionArchitecture",
    "DiffusionMachine",
    "KnownError",
    "LanguageArchitecture",
    "LanguageMachine",
    "Machine",
    "Parameters",
    "Prediction",
    "Step",
    "architecture_of",
    "architectures",
    "fitted_gpus",
    "known_error",
    "machine",
    "parameters_of",
    "predict",
    "predicted",
]
