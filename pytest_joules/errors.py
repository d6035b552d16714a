"""What can go wrong, as a tree.

::

  JoulesError
    ConfigurationError     an option, marker or pyproject table is wrong
    InvalidPoint           a declaration contradicts itself or the GPU
    MissingDependency      a package or program that this job needs is not installed
    LaunchError            the engine did not become ready
    FleetError             no node of the fleet can run it, or those that could were lost
    MeterError             the GPUs or their counters cannot be read or trusted
    LeaseError             others keep the GPUs, or GPUs cannot be leased safely
    InvalidMeasurement     a measurement broke the validity contract
      ServerDied           the engine ended while it was being measured
      LoadError            requests could not be offered or were answered wrongly
      NoSteadyState        the load never kept the engine full long enough
    Inconclusive           measured, but not enough to tell
    Incomparable           results cannot be put side by side: unmatched, mixed or none
    NoneQualifies          no result keeps the limits that were asked
    FormatError            a file does not hold what its format says
    BaselineError
      BaselineMissing      nothing recorded for this point
      BaselineMismatch     recorded on other hardware or with other work
    WrongUnit              energy per token was asked of images, or the other way round
    NotMeasured            a quantity was asked that this result does not hold

``EnergyRegression`` and ``OrderingFailed`` are not in the tree: they are
``AssertionError``, because a regression is a failed test and everything above is a broken
or insufficient measurement.
"""

from typing import Any

from pytest_joules.hiding import told
from pytest_joules.visible import lines


class _Told(Exception):
    """Quotes names and logs of others: nothing in it may steer a terminal or tell a secret."""

    def __str__(self) -> str:
        return lines(told(super().__str__()))


class JoulesError(_Told):
    """Base of everything that keeps a measurement from being made or trusted."""


class ConfigurationError(JoulesError):
    """An option, marker or pyproject table is wrong."""


class InvalidPoint(JoulesError):
    """A declaration contradicts itself or the GPU it is meant for."""


class MissingDependency(JoulesError):
    """A package or program that this job needs is not installed."""


class LaunchError(JoulesError):
    """The engine did not become ready."""


class FleetError(JoulesError):
    """No node of the fleet can run it, or those that could were lost."""


class MeterError(JoulesError):
    """The GPUs or their counters cannot be read or trusted."""


class LeaseError(JoulesError):
    """Others keep the GPUs, or GPUs cannot be leased safely."""


class InvalidMeasurement(JoulesError):
    """A measurement broke the validity contract; it can be neither passed nor recorded."""


class ServerDied(InvalidMeasurement):
    """The engine ended while it was being measured."""


class LoadError(InvalidMeasurement):
    """Requests could not be offered or were answered wrongly."""


class NoSteadyState(InvalidMeasurement):
    """The load never kept the engine full long enough."""


class Inconclusive(JoulesError):
    """Measured, but not enough to tell; neither a pass nor a regression."""

    ordering: object = None
    """The ``expect.ordering.Ordering`` that it is about, where it is about one."""


class Incomparable(JoulesError):
    """Results cannot be put side by side: unmatched, mixed or none at all."""


class NoneQualifies(JoulesError):
    """No result keeps the limits that were asked."""


class FormatError(JoulesError):
    """A file does not hold what its format says; names file, place and field."""


class BaselineError(JoulesError):
    """A baseline cannot be used."""


class BaselineMissing(BaselineError):
    """Nothing is recorded for this point on this GPU model."""


class BaselineMismatch(BaselineError):
    """The baseline was recorded on other hardware or with other work."""


class WrongUnit(JoulesError):
    """A quantity was asked per a work unit that the task does not produce."""


class NotMeasured(JoulesError):
    """A quantity was asked that this result does not hold."""


class EnergyRegression(_Told, AssertionError):
    """Energy per work unit rose by more than the tolerance."""


class OrderingFailed(_Told, AssertionError):
    """Results do not stand in the expected order."""

    ordering: object = None
    """The ``expect.ordering.Ordering`` that failed."""


def is_expected(excinfo: Any) -> bool:
    """Tell whether an exception's message says all that a user needs.

    As ``__tracebackhide__`` of a module it keeps pytest from showing the module's frames
    under such an error; those of a bug are still shown.
    """
    return isinstance(excinfo.value, JoulesError | EnergyRegression | OrderingFailed)
