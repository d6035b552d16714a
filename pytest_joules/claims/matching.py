"""The cheapest configurations of two GPUs that meet the same latency constraint."""

from dataclasses import dataclass

from pytest_joules.claims.dataset import Dataset, cheapest, number
from pytest_joules.errors import NotMeasured
from pytest_joules.result import Result


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Cheapest configurations of one model on both GPUs under one latency constraint."""

    task: str
    model: str
    limit_s: float
    b200: Result
    h100: Result

    @property
    def reduction_percent(self) -> float:
        """Energy that B200 saves; negative where H100 is cheaper."""
        ours, theirs = self.b200.energy_per_work_unit_j, self.h100.energy_per_work_unit_j
        return 100 * (1 - ours / theirs)


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """The tasks that are compared and the latencies that may not be exceeded."""

    tasks: tuple[str, ...]
    limits_s: tuple[float, ...]
    quantity: str


def matched(dataset: Dataset, constraints: Constraints) -> list[Matched]:
    """Compare every model of the tasks that meets a constraint on both GPUs.

    Raises:
        NotMeasured: No model does.
    """
    found = [
        comparison
        for task in constraints.tasks
        for model in dataset.models_of(task)
        for comparison in matched_of_model(dataset, task, model=model, constraints=constraints)
    ]
    if not found:
        raise NotMeasured("no model meets a latency constraint on both GPUs in the data.")
    return found


def matched_of_model(
    dataset: Dataset, task: str, *, model: str, constraints: Constraints
) -> list[Matched]:
    """Compare one model under each constraint that it meets on both GPUs."""
    rows = dataset.rows(task, model=model)
    comparisons = []
    for limit_s in constraints.limits_s:
        meeting = [row for row in rows if number(row, constraints.quantity) <= limit_s]
        b200 = [row for row in meeting if row.gpu == "b200"]
        h100 = [row for row in meeting if row.gpu == "h100"]
        if b200 and h100:
            comparisons.append(
                Matched(
                    task=task,
                    model=model,
                    limit_s=limit_s,
                    b200=cheapest(b200),
                    h100=cheapest(h100),
                )
            )
    return comparisons
