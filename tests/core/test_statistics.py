import numpy as np
import pytest

from jepakit.core.statistics import wilson_interval


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_the_published_one(hits: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(hits, n) == pytest.approx((low, high), abs=5e-5)


def test_the_interval_contains_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    for p in (0.05, 0.5, 0.9):
        inside = [low <= p <= high for low, high in (wilson_interval(int(h), 60) for h in rng.binomial(60, p, 3000))]
        assert 0.93 < np.mean(inside) < 0.98


def test_the_interval_never_leaves_the_unit_range_and_is_symmetric() -> None:
    for n in range(1, 30):
        for hits in range(n + 1):
            low, high = wilson_interval(hits, n)
            assert 0 <= low <= hits / n <= high <= 1
            assert wilson_interval(n - hits, n) == pytest.approx((1 - high, 1 - low))
