"""A run's results, made up: every target is twice as fast in each round as in the one before."""

import pytest

from benchmarks import names
from benchmarks.measure import Result, Series
from benchmarks.workload import FULL
from benchmarks.workloads import catalogue

WORTH = {
    names.OURS: 40.0,
    names.PEER: 10.0,
    names.PEER_WITH_BLAS: 20.0,
    names.IN_PROCESS: 50.0,
    names.LLAMA_SERVER: 25.0,
}


@pytest.fixture
def results() -> list[Result]:
    return made_up()


def made_up() -> list[Result]:
    return [
        Result(
            workload.name,
            workload.title,
            model,
            {
                target: {measure.name: Series([WORTH[target] * 2**turn for turn in range(5)]) for measure in kinds}
                for target in workload.targets[model]
            },
        )
        for model in names.MODELS
        for workload in catalogue(FULL)
        if model in workload.targets and (model != names.REAL or len(workload.targets) == 1)
        for kinds in [workload.measures]
    ]
