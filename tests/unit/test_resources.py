from pathlib import Path
from types import SimpleNamespace

import pytest

from inferd.control.resources import Machine, cpu_quota, observe, share_threads, thread_variables, worker_environment


def machine(cpus: int, quota: float | None = None) -> Machine:
    return Machine(tuple(range(cpus)), quota, {}, Path("/nonexistent"))


@pytest.mark.parametrize(("cpus", "quota", "cores"), [(8, None, 8), (8, 2.5, 3), (2, 16.0, 2), (4, 0.2, 1)])
def test_cores_are_the_affinity_within_the_quota(cpus, quota, cores):
    assert machine(cpus, quota).cores == cores


def test_replicas_share_the_cores_and_each_has_one_thread_at_least():
    assert [share_threads(8, replicas) for replicas in (1, 2, 3, 8, 100)] == [8, 4, 2, 1, 1]


def test_the_data_plane_sets_the_variables_of_threads_that_nobody_named():
    assert "OMP_NUM_THREADS" in thread_variables({})
    assert "OMP_NUM_THREADS" not in thread_variables({"OMP_NUM_THREADS": "3"})


def test_the_least_quota_of_a_group_and_those_above_it_counts(tmp_path):
    memberships = tmp_path / "cgroup"
    memberships.write_text("0::/outer/inner\n")
    mount = tmp_path / "fs"
    (mount / "outer/inner").mkdir(parents=True)
    (mount / "outer/inner/cpu.max").write_text("max 100000\n")
    assert cpu_quota(memberships, mount) is None
    (mount / "outer/cpu.max").write_text("150000 100000\n")
    assert cpu_quota(memberships, mount) == 1.5


def test_quotas_of_the_first_form_of_cgroups_are_read_too(tmp_path):
    memberships = tmp_path / "cgroup"
    memberships.write_text("4:memory:/\n1:cpu,cpuacct:/box\n")
    box = tmp_path / "fs/cpu,cpuacct/box"
    box.mkdir(parents=True)
    (box / "cpu.cfs_quota_us").write_text("-1\n")
    (box / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_quota(memberships, tmp_path / "fs") is None
    (box / "cpu.cfs_quota_us").write_text("300000\n")
    assert cpu_quota(memberships, tmp_path / "fs") == 3


def test_a_worker_sees_what_is_allowed_and_what_was_named_and_no_secrets():
    own = {"PATH": "/bin", "TOKEN": "secret", "KEY": "kept", "OMP_NUM_THREADS": "64"}
    environment = worker_environment(own, {"KEY": None, "ABSENT": None, "A": "b"}, threads=3)
    assert environment["PATH"] == "/bin"
    assert environment["KEY"] == "kept"
    assert environment["A"] == "b"
    assert environment["OMP_NUM_THREADS"] == environment["OPENBLAS_NUM_THREADS"] == "3"
    assert not {"TOKEN", "ABSENT"} & environment.keys()


def test_workers_ask_for_huge_pages_unless_they_are_told_something_else():
    assert worker_environment({}, {}, 1)["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    own = {"GLIBC_TUNABLES": "glibc.malloc.check=3"}
    assert worker_environment(own, {"GLIBC_TUNABLES": None}, 1)["GLIBC_TUNABLES"] == "glibc.malloc.check=3"
    assert worker_environment(own, {"GLIBC_TUNABLES": ""}, 1)["GLIBC_TUNABLES"] == ""


@pytest.mark.parametrize(
    ("environment", "cache"),
    [
        ({"XDG_CACHE_HOME": "/c", "HOME": "/h"}, "/c/inferd"),
        ({"HOME": "/h"}, "/h/.cache/inferd"),
        # By the list of users; where that has no home either, nothing can be written, above all not where others can.
        ({"HOME": ""}, "/listed/.cache/inferd"),
        ({}, "/dev/null/.cache/inferd"),
    ],
)
def test_the_cache_is_in_the_users_home_or_nowhere(environment, cache, monkeypatch):
    def listed(_):
        if not environment:
            raise KeyError
        return SimpleNamespace(pw_dir="/listed")

    monkeypatch.setattr("os.environ", environment)
    monkeypatch.setattr("pwd.getpwuid", listed)
    assert str(observe().cache) == cache
