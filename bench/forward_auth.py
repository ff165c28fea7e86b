"""nginx that asks somebody before it answers: the gateway, or a Go program that says yes to everybody.

nginx and the one it asks share the core of the proxies; the load has the other. What nginx answers itself is the
smallest thing it has (`empty_gif`): `return` would be taken before anybody is asked.

The bar is the other way to put somebody there: a bare Go handler (`ReverseProxy`) on the core of the proxies, that
carries each request to an nginx which only says 204, on the other. What asking a handler that checks nothing would
cost stands beside it, without a bar: a judgement cannot cost nothing.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from statistics import median

from bench.bars import Bar
from bench.load import Round, run
from bench.machine import Process, core_busy, cores, described, free_port
from bench.options import Options
from bench.sallyport import Asked
from bench.subjects import built, fetch, nginx, origin
from bench.throughput import QUIET

BARE = "a bare Go handler, 204"
BEFORE = "nobody: a bare Go handler before nginx `return 204`"


@dataclass(frozen=True)
class Answers:
    """By who is asked, the rounds of each."""

    rounds: dict[str, tuple[Round, ...]]
    foreign: float
    gateway: str

    def times(self, name: str, other: str) -> float:
        """How many times as fast as the other, median of the rounds."""
        return median(mine.rate / its.rate for mine, its in zip(self.rounds[name], self.rounds[other], strict=True))

    def bars(self) -> list[Bar]:
        what = f"nginx auth_request to {self.gateway} ÷ a bare Go handler before nginx `return 204`"
        return [Bar(what, self.times(self.gateway, BEFORE), 0.8, " ×", at_least=True)]

    def markdown(self) -> str:
        columns = ("requests/s", "× Go before nginx", "× asking Go", "p50", "p99", "CPU of the asked, each")
        lines = [f"| nginx asks | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
        for name, rounds in self.rounds.items():
            rate, p50, p99 = (median(getattr(one, each) for one in rounds) for each in ("rate", "p50", "p99"))
            cpu = median(one.busy / one.rate for one in rounds) * 1e6
            times = (f"{self.times(name, other):.2f}" for other in (BEFORE, BARE))
            cells = (f"{rate:,.0f}", *times, f"{p50:.2f} ms", f"{p99:.2f} ms", f"{cpu:.1f} µs")
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines += ["", described()]
        if self.foreign > QUIET:
            lines.append(
                f"**Other programs used up to {self.foreign:.0%} of the core meanwhile: measure on a quiet machine.**"
            )
        return "\n".join(lines)

    def data(self) -> dict[str, object]:
        return asdict(self)


def measure(options: Options) -> Answers:
    """In turns: nothing is asked, the bare handler, each gateway."""
    rounds, seconds = options.rounds or 3, options.seconds or 3.0
    mine, others = cores()
    with ExitStack() as stack:
        process, address = origin(others)
        stack.enter_context(process)
        process.wait_for(address)
        bare_port = free_port()
        asked: dict[str, tuple[Process, str, dict[str, str]]] = {}
        bare = Process(
            "goauth", [built("goauth"), f"127.0.0.1:{bare_port}"], cores={mine}, environment={"GOMAXPROCS": "1"}
        )
        stack.enter_context(bare).wait_for(f"http://127.0.0.1:{bare_port}/")
        asked[BARE] = (bare, f"http://127.0.0.1:{bare_port}/", {})
        for installed in options.gateways:
            gateway = Asked({mine}, installed).up(address)
            stack.callback(gateway.down)
            asked[gateway.name] = (gateway.process, f"{gateway.url}.sallyport/auth/nginx", gateway.headers)
        behind_port, before_port = free_port(), free_port()
        behind = nginx("nginx-204", others, f"server {{ listen 127.0.0.1:{behind_port}; return 204; }}")
        stack.enter_context(behind).wait_for(f"http://127.0.0.1:{behind_port}/")
        command = [built("goproxy"), f"127.0.0.1:{before_port}", f"http://127.0.0.1:{behind_port}"]
        before = Process("goproxy", command, cores={mine}, environment={"GOMAXPROCS": "1"})
        stack.enter_context(before).wait_for(f"http://127.0.0.1:{before_port}/")
        fronts = {BEFORE: (before, f"http://127.0.0.1:{before_port}/")}
        for number, (name, (_, url, headers)) in enumerate(asked.items()):
            fronts[name] = _front(stack, number, mine, url)
            _check(name, fronts[name][1], headers)
        asked[BEFORE] = (before, "", {})
        measured: dict[str, list[Round]] = {name: [] for name in asked}
        foreign = 0.0
        for number in range(rounds):
            for name, (program, _, headers) in asked.items():
                front, url = fronts[name]
                busy, by_front, by_asked = core_busy(mine), front.cpu(), program.cpu()
                one = run(url, seconds, others, headers)
                by_asked = program.cpu() - by_asked
                by_front = 0.0 if front is program else front.cpu() - by_front
                measured[name].append(replace(one, busy=by_asked / seconds))
                foreign = max(foreign, (core_busy(mine) - busy - by_front - by_asked) / seconds)
            print(f"round {number + 1}/{rounds}", flush=True)
    told = {name: tuple(each) for name, each in measured.items()}
    return Answers(told, foreign, options.gateways[0].name)


def _front(stack: ExitStack, number: int, core: int, url: str) -> tuple[Process, str]:
    """An nginx that asks at `url` with the fields of docs/deploy/nginx.md."""
    port = free_port()
    authority, _, path = url.removeprefix("http://").partition("/")
    front = nginx(
        f"nginx-front-{number}",
        {core},
        f"""
        upstream asked {{ server {authority}; keepalive 64; }}
        server {{
            listen 127.0.0.1:{port};
            location / {{ auth_request /asked; empty_gif; }}
            location = /asked {{
                internal;
                proxy_pass http://asked/{path};
                proxy_http_version 1.1;
                proxy_pass_request_body off;
                proxy_set_header Connection "";
                proxy_set_header Content-Length "";
                proxy_set_header Host {authority};
                proxy_set_header X-Original-Method $request_method;
                proxy_set_header X-Original-URL $scheme://{authority}$request_uri;
                proxy_set_header X-Forwarded-For $remote_addr;
            }}
        }}""",
    )
    stack.enter_context(front)
    front.wait_for(f"http://127.0.0.1:{port}/")
    return front, f"http://127.0.0.1:{port}/"


def _check(name: str, url: str, headers: dict[str, str]) -> None:
    """A known user is let in, and nobody else where somebody is asked."""
    status, _, _ = fetch("GET", url, headers)
    if status != 200:
        raise RuntimeError(f"{name}: nginx answered {status} to somebody who is signed in")
    status, _, _ = fetch("GET", url, {})
    if status != 401 and name != BARE:
        raise RuntimeError(f"{name}: nginx answered {status} to nobody, not 401: was anybody asked?")
