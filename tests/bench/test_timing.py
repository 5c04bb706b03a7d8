"""What the benchmarks compute of times: ratios, bars, turns."""

import pytest

from cifar_fast.bench import suite
from cifar_fast.bench.timing import Bar, alternate, compare, rate, seconds


def test_the_ratio_is_the_median_of_the_rounds_own_ratios():
    found = compare([10, 40, 90, 20, 5], [10, 20, 100, 40, 5], "images/s", Bar(must=0.9, goal=1.1), "the rest")
    assert found["ratio"] == 1 and found["spread"] == [0.5, 2] and found["rounds"] == 5
    assert found["measured"] == 20 and found["reference"] == 20  # their quotient need not be the ratio
    assert found["meets"] is True and found["meets_goal"] is False
    other = compare([30, 10, 20], [10, 20, 50], "s")
    assert other["ratio"] == 0.5 != other["measured"] / other["reference"]


@pytest.mark.parametrize("bar, met, goal", [
    (Bar(must=1.5, goal=1.4, at_most=True), True, False),
    (Bar(must=1.6, goal=1.5), False, True),
    (Bar(must=0.5, at_most=True, of="difference_s"), False, None),
    (Bar(goal=1.0, at_most=True, of="difference_s"), None, True),
    (Bar(), None, None),
])
def test_a_bar_is_met_from_its_own_side(bar, met, goal):
    found = compare([3.0, 3.0], [2.0, 2.0], "s", bar)  # ratio 1.5, difference 1
    assert (found["meets"], found["meets_goal"]) == (met, goal)
    assert ("difference_s" in found) == (bar.of == "difference_s")


def test_differences_are_paired_too():
    found = compare([5, 9, 4], [4, 1, 3.5], "s", Bar(of="difference_s"))
    assert found["difference_s"] == 1 and found["difference_spread"] == [0.5, 8]


def test_sides_take_turns_and_the_order_turns_round():
    calls, clock = [], iter(range(100))
    sides = {n: lambda n=n: calls.append(n) or next(clock) for n in "abc"}
    found = alternate(sides, 3)
    assert "".join(calls) == "abc" + "abc" + "cba" + "abc"  # the first is to warm up
    assert found == {"a": [3, 8, 9], "b": [4, 7, 10], "c": [5, 6, 11]}
    calls.clear()
    assert alternate(sides, 1, warm=False).keys() == set("abc") and len(calls) == 3


def test_seconds_and_rates_follow_the_clock(monkeypatch):
    ticks, worked = iter([10.0, 12.5]), []
    assert seconds(lambda: worked.append(1), clock=lambda: next(ticks)) == 2.5 and worked == [1]
    monkeypatch.setattr("cifar_fast.bench.timing.seconds", lambda work: work() or 0.5)
    assert rate(100, lambda: None)() == 200


def test_text_says_meets_below_and_above():
    low = compare([6, 6], [10, 10], "images/s", Bar(must=0.7, goal=0.9))
    assert suite.verdict(low) == "ratio, at least 0.7: below; goal 0.9: below"
    slow = compare([1.05], [1.0], "s/step", Bar(must=1.1, goal=1.03, at_most=True))
    assert suite.verdict(slow) == "ratio, at most 1.1: meets; goal 1.03: above"
    assert suite.table([{"way": "a", "n": 1200}, {"way": "bcd", "n": None}]) == [
        "    way      n", "    a    1,200", "    bcd      –"]
