"""Each algorithm is written twice, in Python and in Lua. Both must say the same, step by step, number by number."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from gateway import limits
from gateway.catalog import ALGORITHMS
from gateway.limits import backoff
from tests.limits.test_token_bucket import MICRO, seconds
from tests.rig.redis import a_server, needs_redis

LUA = Path(limits.__file__).parent

STEPS = """
local step = (function() %s end)()
local trace, told, kept = cjson.decode(ARGV[1]), {}, nil
for at, one in ipairs(trace) do
  local state = kept and {cmsgpack.unpack(kept)} or nil
  local after, allowed, remaining, reset, retry_after = step(state, one[1], one[2], one[3], one[4])
  kept = cmsgpack.pack(unpack(after))
  local line = {allowed and '1' or '0', after == state and '1' or '0'}
  for _, number in ipairs({remaining, reset, retry_after}) do line[#line + 1] = string.format('%%.17g', number) end
  for _, number in ipairs(after) do line[#line + 1] = string.format('%%.17g', number) end
  told[at] = table.concat(line, ' ')
end
return told
"""

WAITS = """
local backoff = (function() %s end)()
local trace, told, kept = cjson.decode(ARGV[1]), {}, nil
for at, one in ipairs(trace) do
  local state = kept and {cmsgpack.unpack(kept)} or nil
  local line = {string.format('%%.17g', backoff.check(state, one[1]))}
  if one[2] == 1 then
    state = backoff.offend(state, one[1], one[3], one[4], one[5], one[6])
    kept = cmsgpack.pack(unpack(state))
  end
  for _, number in ipairs(state or {}) do line[#line + 1] = string.format('%%.17g', number) end
  told[at] = table.concat(line, ' ')
end
return told
"""


pytestmark = needs_redis


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    with a_server() as server, Redis(port=server.port, decode_responses=True) as client:
        yield client


def read(line: str) -> list[float]:
    return [float(number) for number in line.split()]


def micros(value: float) -> int:
    return round(value * MICRO)


def both(redis: Redis, algorithm: str, trace: list[tuple[int, int, int, int]]) -> int:
    """Run `(now, rate, window, burst)`, times in microseconds, through both; how many were allowed."""
    lua = STEPS % (LUA / f"{algorithm}.lua").read_text()
    told: Any = redis.eval(lua, 0, json.dumps(trace))
    assert len(told) == len(trace)
    state, granted, earlier = None, 0, 0
    for (now, rate, window, burst), line in zip(trace, told, strict=True):
        before = state
        answer = ALGORITHMS[algorithm](state, seconds(now), rate, window / MICRO, burst)
        state, allowed, remaining, reset, retry_after = answer
        said = [float(allowed), float(state is before), remaining, micros(reset), micros(retry_after), *state]
        assert said == read(line), (before, now, rate, window, burst)
        assert all(number == number // 1 for number in said)
        changed = (rate, burst) != trace[0][1::2]
        assert allowed or state is before or now < earlier or changed, "a refusal changes nothing"
        if changed:
            earlier = 10**18
        earlier = max(now, earlier)
        granted += allowed
    return granted


gaps = st.one_of(
    st.just(0),
    st.integers(0, 3),
    st.integers(0, 2 * MICRO),
    st.integers(0, 7200 * MICRO),
    st.integers(-20 * MICRO, 0),
    st.integers(-(10**11), 0),
)


@st.composite
def traces(draw: st.DrawFn) -> list[tuple[int, int, int, int]]:
    rate = draw(st.integers(1, 40) | st.integers(1, 100_000))
    window = draw(st.sampled_from([1, 7, 30, 60, 3600, 86400])) * MICRO
    burst = draw(st.integers(1, 20) | st.just(rate))
    now = draw(st.integers(10**12, 2 * 10**12) | st.integers(17 * 10**14, 18 * 10**14))
    trace = []
    for gap, share in draw(st.lists(st.tuples(gaps, st.sampled_from([1.0, 1.0, 1.0, 0.5, 0.1])), max_size=80)):
        now = max(now + gap, 0)
        trace.append((now, max(1, int(rate * share)), window, max(1, int(burst * share))))
    return trace


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
@settings(max_examples=150, deadline=None)
@given(trace=traces())
def test_twins_agree_at_every_step(redis: Redis, algorithm: str, trace: list[tuple[int, int, int, int]]) -> None:
    both(redis, algorithm, trace)


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
@pytest.mark.parametrize(("rate", "window", "burst"), [(3, 7, 3), (17, 60, 5), (1000, 60, 1000), (700, 3, 90)])
def test_twins_agree_for_long(redis: Redis, algorithm: str, rate: int, window: int, burst: int) -> None:
    dice = random.Random(f"{algorithm}/{rate}")
    now, trace, mean = 1_700_000_000 * MICRO, [], window * MICRO / rate
    while len(trace) < 8_000:
        gap = dice.choice([0.0, 0.1, 0.5, 1.0, 1.0, 3.0]) * mean
        for _ in range(dice.randrange(1, 60)):
            now += int(dice.expovariate(1 / gap)) if gap else 0
            trace.append((now, rate, window * MICRO, burst))
        if dice.random() < 0.02:
            now -= dice.randrange(2 * window * MICRO)
    granted = both(redis, algorithm, trace)
    assert len(trace) // 20 < granted < len(trace)  # both answers were met, and often


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(st.tuples(gaps | st.integers(0, 200_000 * MICRO), st.booleans()), max_size=120),
    after=st.integers(0, 4),
    wait=st.sampled_from([0.25, 1.0, 30.0, 7.5]),
    longest=st.sampled_from([30.0, 3600.0]),
    forget=st.sampled_from([3600.0, 86400.0]),
)
def test_twins_of_the_wait_agree(
    redis: Redis, steps: list[tuple[int, bool]], after: int, wait: float, longest: float, forget: float
) -> None:
    now, trace = 17 * 10**14, []
    for gap, offends in steps:
        now += gap
        trace.append((now, int(offends), after, micros(wait), micros(longest), micros(forget)))
    told: Any = redis.eval(WAITS % (LUA / "backoff.lua").read_text(), 0, json.dumps(trace))
    assert len(told) == len(trace)
    state: tuple[float, ...] | None = None
    for (now, offends, *_), line in zip(trace, told, strict=True):
        waited = backoff.check(state, seconds(now))
        if offends:
            state = backoff.offend(state, seconds(now), after, wait, longest, forget)
        assert [micros(waited), *(state or ())] == read(line)


def test_every_algorithm_has_a_twin() -> None:
    walks = {"spend", "lease", "status", "replicas"}
    assert {path.stem for path in LUA.glob("*.lua")} - walks == {*ALGORITHMS, "backoff"}
