"""All claims, in the order of the paper's observations."""

from collections.abc import Mapping
from types import MappingProxyType

from pytest_joules.claims import (
    architecture,
    batch_size,
    dataset_facts,
    diffusion,
    gpu_generation,
    modality,
    multi_gpu,
    precision,
    task_type,
    throughput_per_watt,
)
from pytest_joules.claims.claim import Claim

GROUPS: Mapping[str, tuple[Claim, ...]] = MappingProxyType(
    {
        "The data": dataset_facts.CLAIMS,
        "Observation 1: task type": task_type.CLAIMS,
        "Observation 2: modality": modality.CLAIMS,
        "Observation 3: diffusion": diffusion.CLAIMS,
        "Observation 4: batch size": batch_size.CLAIMS,
        "Observation 5: architecture": architecture.CLAIMS,
        "Observation 6: GPU generation": gpu_generation.CLAIMS,
        "Observation 7: precision": precision.CLAIMS,
        "Observation 8: multiple GPUs": multi_gpu.CLAIMS,
        "Appendix C: throughput per watt": throughput_per_watt.CLAIMS,
    }
)
"""Claims by the part of the paper that makes them."""

CLAIMS: Mapping[str, Claim] = MappingProxyType(
    {claim.id: claim for claims in GROUPS.values() for claim in claims}
)
"""Claims by id."""
