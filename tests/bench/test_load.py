from __future__ import annotations

import pytest

from bench.load import LoadError, read

GOOD = """\
Running 3s test @ http://127.0.0.1:8080/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.02ms  300.00us   9.92ms   97.53%
    Req/Sec    31.52k     1.19k   33.25k    80.00%
  Latency Distribution
     50%  980.00us
     75%    1.04ms
     90%    1.12ms
     99%    2.31ms
  94142 requests in 3.00s, 24.42MB read
Requests/sec:  31376.19
Transfer/sec:      8.14MB
"""


def test_rate_and_latencies_in_milliseconds() -> None:
    one = read(GOOD)
    assert (one.rate, one.p50, one.p99) == (31376.19, 0.98, 2.31)


@pytest.mark.parametrize(
    "line",
    [
        "  Non-2xx or 3xx responses: 94142\n",
        "  Socket errors: connect 0, read 0, write 0, timeout 3\n",
    ],
)
def test_answers_that_are_not_answers_void_the_round(line: str) -> None:
    with pytest.raises(LoadError):
        read(GOOD.replace("Requests/sec:", f"{line}Requests/sec:"))


@pytest.mark.parametrize("output", ["", "unable to connect to 127.0.0.1:8080 Connection refused\n"])
def test_no_measurement_is_an_error(output: str) -> None:
    with pytest.raises(LoadError, match="measured nothing"):
        read(output)
