"""A map in threads that works a few items ahead."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from fsasd.runtime.ahead import map_ahead


def test_no_more_items_are_taken_than_are_to_be_worked_on_ahead():
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(2) as threads:
        results = map_ahead(threads, lambda number: 2 * number, items(), ahead=5)
        assert [next(results) for _ in range(10)] == list(range(0, 20, 2))
        assert len(taken) == 10 + 5
        assert list(results) == list(range(20, 200, 2))


def test_an_error_is_raised_where_its_result_would_be():
    with ThreadPoolExecutor(2) as threads:
        results = map_ahead(threads, lambda x: 1 // x, [1, 0, 1], ahead=2)
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)
