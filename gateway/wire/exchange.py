"""One request and its answer, from the first byte of the head to the last byte of the body.

    read      facts, or a rejection that closes the connection
    judge     the gate's verdict
    forward   one head of ours, the body as it comes
    relay     the service's head, rewritten; its body as it comes
    finish    counted and logged; the client connection goes on to the next

`run` is that walk up to `forward`; it is stepped eagerly and becomes a task only where something is not known yet.
What follows is driven by the sockets.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from gateway.core.decision import Allow, Decision, SignIn, StepUp, Verdict
from gateway.core.eager import run_eagerly
from gateway.core.errors import StoreAway
from gateway.core.facts import Facts
from gateway.core.header_names import folded
from gateway.core.reasons import Reason
from gateway.limits.headers import ratelimit_lines
from gateway.wire import answers, forward_auth, interruption, request
from gateway.wire.headers import without
from gateway.wire.request import Caller, Declined, Field, Rejected
from gateway.wire.retries import IDEMPOTENT, RESET
from gateway.wire.terms import Terms
from gateway.wire.upstream import Times, Upstream
from gateway.wire.upstream_connection import UpstreamConnection

if TYPE_CHECKING:
    from gateway.mfa.interrupted import Interrupted
    from gateway.wire.client import ClientConnection
    from gateway.wire.endpoint import Endpoint

_log = logging.getLogger(__name__)

_WITH_BODY = frozenset(("POST", "PUT", "PATCH"))
HIGH_WATER = 65_536
"""Bytes of a body that may wait for a service; a client with more is held back."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Exchange:
    """One request on its way. Made by the client connection at the first byte of a head."""

    # Most exchanges never touch most of these: a value of the class costs nothing to make.
    request_id = ""
    raw_target = b""
    method = ""
    version = "1.1"
    bytes_in = 0
    """Body bytes so far."""
    raw_in = 0
    """Bytes on the wire for them."""
    pending = 0
    """Body bytes that have arrived and not gone on."""
    complete = False
    """Whether the whole request has arrived."""
    close = False
    """Whether the client connection ends with this exchange."""
    caller: Caller | None = None
    facts: Facts | None = None
    verdict: Verdict | None = None
    task: asyncio.Task[None] | None = None
    waiter: asyncio.Future[None] | None = None
    resumed: Interrupted | None = None
    """The interrupted request that this one turned out to be."""
    resumed_by: tuple[str, str] = ("", "")
    """Its ticket and owner."""
    begun: bool = False
    """Whether a resumed request has gone to a service, with its first byte at least."""
    held: bool = False
    """Whether the service can take no more of the body for now."""
    forward_auth = ""
    """Which kind of proxy asks, where somebody else carries the request."""
    length = 0
    """Length of the body sent to the service; -1 for chunked."""
    upstream: Upstream | None = None
    times: Times | None = None
    """How long to wait for the service, where the rule says so itself."""
    endpoint: Endpoint | None = None
    """Which of the service's; None where it has but one."""
    tried: tuple[Endpoint, ...] = ()
    """Endpoints that have failed this exchange."""
    tries = 1
    connection: UpstreamConnection | None = None
    head_only = False
    resumes = True
    """Whether it may turn out to be an interrupted request going on."""
    sent = b""
    """What was sent first, for one more try on a fresh connection; empty when that would not be safe."""
    retried = False
    """Whether it was tried again because a kept connection had ended; no failure of anybody's."""
    responded = False
    finished = False
    events = False
    """Whether the answer is an event stream, which has no end of its own."""
    status = 0
    bytes_out = 0
    ended = 0.0
    upstream_started = 0.0
    upstream_seconds = 0.0
    """From sending the head to the first byte of the answer; 0.0 without a service."""
    _outgoing: tuple[Facts, bytes, bytes] | None = None
    """What goes to the service as soon as there is a connection: facts, header lines, the name of the id's header."""
    _head_out: bytes | None = None
    _chunked_out = False
    _body_sent = False
    """Whether the end of the body has gone on."""

    def __init__(self, client: ClientConnection) -> None:
        self.client = client
        self.wire = client.wire
        self.started = client.now()
        self.fields: list[Field] = []
        self.chunks: list[bytes] = []
        """Body bytes that have arrived and not gone on."""

    # -- the walk --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; called when the request's head is whole and its turn has come."""
        self.request_id = self.wire.next_id()
        if self.wire.overloaded and self.wire.admission.refuses():
            self.close = True
            self.refuse(Reason.OVERLOADED)
            return
        try:
            run_eagerly(self.run(), self._spawn)
        except RuntimeError:
            _log.exception("request %s: a wait outside a task", self.request_id)
            self.fault("RuntimeError")

    async def run(self) -> None:
        """Read, judge, and forward or answer. Never raises: a fault closes the gate."""
        wire = self.wire
        try:
            if self.raw_target.startswith(wire.auth):
                question = forward_auth.dialect_of(self.raw_target[len(wire.auth) :])
                if question is not None:
                    await forward_auth.answer(self, *question)
                    return
            caller = self.caller = self.client.caller_of(self)
            facts = self.facts = request.read(self.method, self.raw_target, caller, self.request_id)
            self.head_only = self.method == "HEAD"
            self.length = caller.length
            if 0 < wire.bounds.body < max(caller.length, self.bytes_in):
                raise Rejected(Reason.BODY_TOO_LARGE)
            if facts.path.startswith(wire.prefix):
                if wire.desk is None:
                    raise Declined(Reason.NO_RULE)
                upstream, block, id_name = wire.desk, caller.desk_block(), b"Sallyport-Request-Id"
            else:
                # One with a body stays what it is: its bytes would follow those of the kept request to the service.
                if facts.method == "GET" and self.length == 0 and wire.resume_mark in facts.cookie and self.resumes:
                    facts = await interruption.resume(self, facts)
                verdict = self.verdict = await wire.gate.judge(facts)
                if self.finished:  # it was no clear request after all
                    return
                if type(verdict.decision) is not Allow:
                    await interruption.answer(self, facts, verdict)
                    return
                upstream, block, id_name = wire.upstream_of(verdict), self._block(facts, verdict), b"X-Request-Id"
                if verdict.rule is not None and verdict.rule.timeouts is not None:
                    self.times = upstream.times_for(verdict.rule.timeouts)
            self.upstream = upstream
            self.upstream_started = self.client.now()
            connection = upstream.take(self)
            if connection is None:
                self._outgoing = facts, block, id_name
                if upstream.admit(self):
                    self._go_by(await upstream.connect(self))
                return
            connection.fresh = False
            self._forward(facts, connection, block, id_name)
        except Rejected as rejected:
            self.reject(rejected.reason)
        except Declined as declined:
            self.refuse(declined.reason, declined.retry_after)
        except StoreAway as away:
            _log.error("request %s: %s", self.request_id, away)
            self.fault("StoreAway")
        except Exception as error:
            _log.exception("request %s failed", self.request_id)
            self.fault(type(error).__name__)

    def turn(self, connection: UpstreamConnection | None) -> None:
        """What was waited for in line: a connection that has become free, or None: the right to make one."""
        try:
            if connection is None:
                run_eagerly(self._connect(), self._spawn)
            else:
                connection.fresh = False
                self.endpoint = connection.endpoint
                self._go_by(connection)
        except Exception as error:  # it is somebody else's turn of the loop, and must not end with ours
            _log.exception("request %s failed", self.request_id)
            self.fault(type(error).__name__)

    async def _connect(self) -> None:
        """Go by a connection of its own, once it is made."""
        try:
            if self.upstream is None:
                raise RuntimeError("a connection to no service")
            self._go_by(await self.upstream.connect(self))
        except Declined as declined:
            self.refuse(declined.reason, declined.retry_after)
        except Exception as error:
            _log.exception("request %s failed", self.request_id)
            self.fault(type(error).__name__)

    def _go_by(self, connection: UpstreamConnection) -> None:
        """Send what waits to be sent: the request, or the same request once more."""
        self.upstream_started = self.client.now()
        outgoing, self._outgoing = self._outgoing, None
        if outgoing is not None:
            facts, block, id_name = outgoing
            self._forward(facts, connection, block, id_name)
        elif self.finished:  # the client left meanwhile
            connection.abort()
        else:
            self.connection = connection
            connection.begin(self, self.sent, self.upstream_started)
            if self.client.write_paused:
                connection.pause_reading()

    def _forward(self, facts: Facts, connection: UpstreamConnection, block: bytes, id_name: bytes) -> None:
        """Send the head, and what there is of the body, to the service."""
        if self.finished:  # the client left meanwhile
            connection.abort()
            return
        if self.length > 0:
            framing = b"Content-Length: %d\r\n" % self.length
        elif self.length < 0:
            framing = b"Transfer-Encoding: chunked\r\n"
        else:
            framing = b"Content-Length: 0\r\n" if facts.method in _WITH_BODY else b""
        data = b"%b %b HTTP/1.1\r\n%b%b: %b\r\n%b\r\n" % (
            facts.method.encode(),
            facts.target,
            block,
            id_name,
            facts.request_id.encode(),
            framing,
        )
        self.invite_body()
        if self.complete and self.length == 0 and facts.method in IDEMPOTENT:
            self.sent = data
        if self.resumed is not None and self.resumed.large:
            self.complete = False  # its body is still to be read from where it was kept
        if self.chunks or self.length < 0:
            data += self._body_out()
        self.connection = connection
        connection.begin(self, data, self.upstream_started)
        if self.client.write_paused:
            connection.pause_reading()
        if not self.held:
            self.client.resume_reading()
        if self.resumed is not None:
            self.begun = True
            if self.verdict is not None:
                self.wire.went_on(facts, self.verdict)
            if self.resumed.large:
                self.task = self.wire.spawn(interruption.carry(self))

    def invite_body(self) -> None:
        """Tell a client that waits for it (RFC 9110, section 10.1.1) to go on with the body."""
        if self.caller is not None and self.caller.expects and not self.complete and not self.chunks:
            self.client.write(_CONTINUE)

    def _block(self, facts: Facts, verdict: Verdict) -> bytes:
        """Header lines for a service: what passes, and then what only we may say."""
        if self.caller is None or verdict.rule is None:
            raise RuntimeError("allowed without a caller or a rule")
        block = self.caller.block
        if verdict.rule.headers:
            block = without(frozenset(folded(name.encode()) for name, _ in verdict.rule.headers), block)
        return block + self.wire.told(facts, verdict, verdict.rule)

    # -- answers of ours -------------------------------------------------------------------------------------------

    def reject(self, reason: Reason) -> None:
        """Not a request we can trust the framing of: say so, and end the connection."""
        self.close = True
        if self.waiter is not None:
            self.waiter.cancel()  # the rest of the body never comes; nobody may wait for it for ever
        if self.upstream is not None:
            self.upstream.leave(self)
        if reason is not Reason.TIMED_OUT:
            self.wire.rejected(self, reason)
        self.refuse(reason)

    def fault(self, error: str) -> None:
        """Something of ours broke, of the kind `error`: nothing more goes through."""
        self.wire.faulted(self, error)
        self.refuse(Reason.FAULT)

    def refuse(self, reason: Reason, retry_after: float = 0.0) -> None:
        """Answer with a refusal; where an answer has begun already, break it off. `retry_after`: seconds, if known."""
        if self.finished:
            return
        if self.responded:
            self._break_off()
            return
        self._drop_connection()
        if self.resumed is not None and not self.begun:
            self.begun = True  # once is enough
            self.wire.owe(interruption.not_sent(self, reason, retry_after))
            return
        self.answer_refusal(reason, retry_after)

    def answer_refusal(self, reason: Reason, retry_after: float, action: tuple[str, str] | None = None) -> None:
        """Answer with a refusal. `action`: label and path of a way on, where it is told on a page."""
        page = answers.page_for(self.wire.error_page, self.facts)
        try:
            answer = answers.refusal(reason, self.request_id, page, retry_after=retry_after, action=action)
        except Exception:  # also a page that cannot be made is a refusal
            _log.exception("request %s: no page", self.request_id)
            answer = answers.refusal(reason, self.request_id, None, retry_after=retry_after)
        self.reply(*answer)
        if reason in answers.SOON and not self.close:
            self.client.rest()

    def reply(self, status: int, headers: Iterable[answers.Header], body: bytes) -> None:
        """Send an answer of ours, whole."""
        if self.finished:
            return
        self._begin_reply()
        self.status = status
        lines = [*headers, (b"X-Request-Id", self.request_id.encode())]
        data = answers.encode(status, lines, body, close=self.close, head_only=self.method == "HEAD")
        self.bytes_out += len(data)
        self.client.write(data)
        self.finish(None)

    def _begin_reply(self) -> None:
        """An answer of ours begins; what cannot go on after it ends with it."""
        self.close = (
            self.close or not self.complete or self.version != "1.1" or (self.wire.draining and self.client.last)
        )
        self.responded = True

    def reply_bare(self, status: int, lines: bytes, meaning: int = 0) -> None:
        """Send an answer of ours without a body, its header lines made already.

        `meaning`: the status it stands for, where the other side does not understand that one.
        """
        if self.finished:
            return
        self._begin_reply()
        self.status = meaning or status
        data = b"%b%bX-Request-Id: %b\r\nCache-Control: no-store\r\nContent-Length: 0\r\n%b\r\n" % (
            answers.status_line(status),
            lines,
            self.request_id.encode(),
            b"Connection: close\r\n" if self.close else b"",
        )
        self.bytes_out += len(data)
        self.client.write(data)
        self.finish(None)

    # -- the client's side -----------------------------------------------------------------------------------------

    def receive(self, body: bytes) -> None:
        """Some of the request's body has arrived."""
        self.bytes_in += len(body)
        self.chunks.append(body)
        self.pending += len(body)

    def received(self) -> None:
        """The parser has taken all there was for now: pass the body on, or hold the client back."""
        limit = self.wire.bounds.body
        if 0 < limit < self.bytes_in and not self.finished:
            self._drop_connection()
            self.reject(Reason.BODY_TOO_LARGE)
            return
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)
        connection = self.connection
        if connection is not None and not self.finished:
            if self.chunks or self.complete:
                data = self._body_out()
                if data:
                    connection.send(data)
        elif self.pending > HIGH_WATER and not self.complete:
            self.client.pause_reading()

    def _body_out(self) -> bytes:
        """The body bytes at hand, framed for the service."""
        if self._body_sent:
            return b""
        body = self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)
        self.chunks.clear()
        self.pending = 0
        self._body_sent = self.complete
        if self.length >= 0:
            return body
        framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return framed + b"0\r\n\r\n" if self.complete else framed

    def hold_back(self) -> None:
        """The service can take no more of the body for now."""
        self.held = True
        self.client.pause_reading()

    def go_on(self) -> None:
        """It can take more."""
        self.held = False
        self.client.resume_reading()
        if self.resumed is not None and self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    @property
    def request_sent(self) -> bool:
        """Whether the service has got the whole request."""
        return self.complete and not self.chunks

    # -- the service's side ----------------------------------------------------------------------------------------

    @property
    def terms(self) -> Terms:
        """What the answer may say: our own pages set our cookies, and say themselves who may keep them."""
        wire = self.wire
        if self.upstream is wire.desk:
            return wire.desk_terms
        return wire.personal if self.verdict is not None and self.verdict.identity is not None else wire.anybodys

    @property
    def holds_head(self) -> bool:
        """Whether a head waits to be written."""
        return self._head_out is not None

    def respond(self, status: int, reason: bytes, block: bytes, length: int | None, *, bodiless: bool) -> None:
        """The service's head: written together with what comes of the body."""
        self.responded = True
        self.status = status
        self.upstream_seconds = self.client.now() - self.upstream_started
        if self.upstream is not None:
            self.upstream.took(self.upstream_seconds)
        if not self.complete:
            self.close = True
        if length is not None and status != 204:
            framing = b"Content-Length: %d\r\n" % length
        elif bodiless:
            framing = b""
        elif self.version == "1.1":
            self._chunked_out = True
            framing = b"Transfer-Encoding: chunked\r\n"
        else:
            self.close = True
            framing = b""
        verdict = self.verdict
        more = ratelimit_lines(verdict.quotas) if verdict is not None and verdict.quotas else b""
        if self.resumed is not None:
            more += self.wire.resumed_lines
        if self.close or (self.wire.draining and self.client.last):
            self.close = True
            more += b"Connection: close\r\n"
        elif self.version == "1.0":
            more += b"Connection: keep-alive\r\n"
        self._head_out = b"HTTP/1.1 %d %b\r\n%bX-Request-Id: %b\r\n%b%b\r\n" % (
            status,
            reason,
            block,
            self.request_id.encode(),
            framing,
            more,
        )

    def relay(self, body: bytes, *, last: bool) -> None:
        """Write to the client what the service has sent."""
        if body and self._chunked_out:
            body = b"%x\r\n%b\r\n" % (len(body), body)
        if last and self._chunked_out:
            body += b"0\r\n\r\n"
        if self._head_out is not None:
            body = self._head_out + body
            self._head_out = None
        if body:
            self.bytes_out += len(body)
            self.client.write(body)

    def upstream_lost(self, connection: UpstreamConnection) -> None:
        """The service closed the connection before its answer was whole."""
        self.connection = None
        if self.responded:
            self._break_off()
        elif not connection.heard and not connection.fresh and self.sent and not self.retried:
            self.retried = True  # it had given up a kept connection just as we used it
            self.send_again()
        elif self.may_send_again(RESET):
            self.send_again()
        else:
            self.refuse(Reason.UPSTREAM_UNREACHABLE if not connection.heard else Reason.UPSTREAM_INVALID)

    def may_send_again(self, why: str) -> bool:
        """Whether the request, which failed for `why`, can do no harm a second time and is granted one."""
        return bool(self.sent) and not self.responded and self.upstream is not None and self.upstream.grants(self, why)

    def send_again(self) -> None:
        """Send the whole request once more, on another connection."""
        self.connection = None
        try:
            if self.upstream is None:
                raise RuntimeError("sent again without a service")
            if self.upstream.admit(self):
                run_eagerly(self._connect(), self._spawn)
        except Declined as declined:
            self.refuse(declined.reason, declined.retry_after)

    def upstream_broke(self) -> None:
        """The service's answer is not one clear response."""
        self.connection = None
        if self.responded and self._head_out is None:
            self._break_off()
        else:
            self._head_out = None
            self.responded = False
            self.refuse(Reason.UPSTREAM_INVALID)

    def upstream_late(self) -> None:
        """The service took too long."""
        self.connection = None
        if self.responded:
            self._break_off()
        else:
            self.refuse(Reason.UPSTREAM_TIMED_OUT)

    def agree(self, fields: list[Field]) -> None:
        """Whether the service's 101, with these fields, is what was asked for. Raises ValueError."""
        raise ValueError("an upgrade nobody asked for")

    def switch(self, connection: UpstreamConnection, early: bytes) -> None:
        """Both sides have agreed to speak something else. `early`: what the service has said of it already."""
        raise RuntimeError("an upgrade nobody asked for")

    # -- the end ---------------------------------------------------------------------------------------------------

    def finish(self, connection: UpstreamConnection | None) -> None:
        """The answer is whole. `connection`: the service's, where it can be used again."""
        if self.finished:
            return
        client = self.client
        now = client.now()
        self.finished = True
        self.connection = None
        if self.resumed is not None and self.waiter is not None:
            self.waiter.cancel()  # nobody waits to bring more
        if connection is not None:
            if client.write_paused:
                connection.resume_reading()
            connection.endpoint.give_back(connection, now)
        self.wire.completed(self, now)
        client.exchange_finished(self, now)

    def end_events(self) -> None:
        """An event stream ends here in good order: its client asks again, for what comes after the last event it has
        (HTML, section 9.2.3).
        """
        if self.responded and not self.finished:
            self.close = True
            self.relay(b"", last=True)
            self._drop_connection()
            self.finish(None)

    def abandon(self) -> None:
        """The client is gone."""
        if self.finished:
            return
        self.finished = True
        if self.task is not None:
            self.task.cancel()
        if self.connection is None and self.upstream is not None:
            self.upstream.leave(self)
        if self.resumed is not None and not self.begun:
            self.wire.owe(interruption.left(self))
        self._drop_connection()
        self.status = self.status or 499
        self.wire.completed(self, self.client.now())

    @property
    def over(self) -> bool:
        """Whether nothing goes on any more."""
        return self.finished

    def cut(self, decision: Decision) -> None:
        """Who asked would not be let through any more: say so, or break the answer off where it has begun."""
        if self.responded:
            self._break_off()
            return
        self._drop_connection()
        if self.upstream is not None:
            self.upstream.leave(self)
        if isinstance(decision, SignIn | StepUp):
            prefix = self.wire.prefix if self.wire.desk is not None else ""
            self.reply(*answers.unauthorized(decision, self.request_id, prefix))
        elif answers.owes_factor(decision):
            self.reply(*answers.enrol_first(self.request_id, self.wire.prefix if self.wire.desk is not None else ""))
        elif not isinstance(decision, Allow):
            self.reply(*answers.denied(decision, self.request_id, None))

    def _break_off(self) -> None:
        """An answer that has begun cannot be ended well: the client must see that it is not whole."""
        self.finished = True
        if self.resumed is not None and self.waiter is not None:
            self.waiter.cancel()
        self._drop_connection()
        self.wire.completed(self, self.client.now())
        self.client.abort()

    def _drop_connection(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abort()

    def _spawn(self, work: object) -> None:
        self.task = self.wire.spawn(work)  # type: ignore[arg-type]
