import sys
from types import ModuleType

import numpy as np
import pytest
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_info, threadpool_limits

from fsasd.runtime import threads
from fsasd.runtime.threads import cores, one_blas_thread, thread_pool


def counts(api):
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == api}


@pytest.fixture(autouse=True)
def _three_threads():
    np.linalg.inv(np.eye(2))
    KMeans(1, n_init=1).fit(np.eye(2))
    with threadpool_limits(3):
        yield


def test_a_worker_has_its_share_of_the_cores(monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert cores() == 1
    with thread_pool("one") as pool:
        assert pool._max_workers == 1


def test_blas_has_one_thread_and_then_as_many_as_before():
    with one_blas_thread():
        assert counts("blas") == {1}
    assert counts("blas") == {3}


def test_a_limit_within_another_leaves_that_in_place():
    with one_blas_thread():
        with one_blas_thread():
            pass
        assert counts("blas") == {1}


def test_only_threads_of_the_pool_have_one_openmp_thread():
    with thread_pool("pool") as pool:
        assert pool.submit(counts, "openmp").result() == {1}
    assert counts("openmp") == {3}


def test_libraries_are_searched_again_once_a_module_was_imported(monkeypatch):
    first = threads._controller()
    assert threads._controller() is first
    monkeypatch.setitem(sys.modules, "a_module_that_may_have_loaded_blas", ModuleType("a_module"))
    assert threads._controller() is not first
