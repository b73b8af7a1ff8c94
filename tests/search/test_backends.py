"""The same contributions wherever joblib runs the measurements."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import joblib
import pytest

from kilograd.compiler import Prepared
from kilograd.errors import InputError
from kilograd.search.measure import Plan, measure
from kilograd.search.store import Store
from tests.search.networks import bench

PLAN = Plan((0, 2), (), (0, 1))


@dataclass(frozen=True, eq=False)
class Witness:
    """Builds as the network does, and leaves the number of its process in a folder."""

    network: Prepared
    folder: Path

    def session(self, update, judge):
        self.folder.mkdir(exist_ok=True)
        (self.folder / str(os.getpid())).touch()
        return self.network.session(update, judge)


def in_this_process(tmp_path):
    place = bench(tmp_path, store=None)
    return place, measure(place[2], place[1], PLAN, name="net")


def elsewhere(place, directory):
    """The contributions by whatever backend is configured, and the files it left."""
    network, layers, inside = place
    folder = directory.with_name("processes")
    witness = Witness(network, folder)
    outside = replace(inside, trainer=witness, store=Store(directory), jobs=None)
    found = measure(outside, layers, PLAN, name="net")
    assert str(os.getpid()) not in {path.name for path in folder.iterdir()}
    return found, len(list(directory.glob("*/*.json")))


def test_processes_of_this_computer(tmp_path):
    place, expected = in_this_process(tmp_path)
    with joblib.parallel_config(backend="loky", n_jobs=2):
        assert elsewhere(place, tmp_path / "store") == (expected, 4)


@dataclass(frozen=True, eq=False)
class Killed:
    """Builds nothing; the process that asks is killed."""

    parent: int

    def session(self, update, judge):
        assert os.getpid() != self.parent
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_told(tmp_path):
    _, layers, inside = bench(tmp_path)
    place = replace(inside, trainer=Killed(os.getpid()), jobs=2)
    with pytest.raises(InputError, match=r"was killed.*the same call goes on from there"):
        measure(place, layers, PLAN, name="net")


def test_dask(tmp_path):
    distributed = pytest.importorskip("distributed", reason="kilograd[cluster] brings it")
    place, expected = in_this_process(tmp_path)
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path)
    )
    with cluster, distributed.Client(cluster), joblib.parallel_config(backend="dask"):
        assert elsewhere(place, tmp_path / "store") == (expected, 4)


def test_ray(tmp_path):
    ray = pytest.importorskip("ray", reason="kilograd[cluster] brings it")
    from ray.util.joblib import register_ray

    place, expected = in_this_process(tmp_path)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        register_ray()
        with joblib.parallel_config(backend="ray"):
            assert elsewhere(place, tmp_path / "store") == (expected, 4)
    finally:
        ray.shutdown()
