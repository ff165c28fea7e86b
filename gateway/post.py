"""The post of a gateway: from `notify` in the settings to notices, senders and the outbox.

Loaded where `notify.email` names a sender, and of the senders only those it names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.audit.notices import CHANNEL, Count, Notices
from gateway.core.errors import ConfigError
from gateway.notify.outbox import Limits, Outbox
from gateway.notify.route import Route
from gateway.store.outbox_table import OutboxTable

if TYPE_CHECKING:
    from gateway.audit.metrics import Metrics
    from gateway.core.clock import Clock
    from gateway.core.contracts import Ledger, Sender
    from gateway.settings import EmailSender, Settings
    from gateway.store.sql import Records


def make_notices(settings: Settings, count: Count = lambda channel, outcome: None) -> Notices | None:
    """Who writes notices; None where nothing could carry them."""
    if not settings.notify.email:
        return None
    host = urlsplit(settings.public_url).hostname or "localhost"
    return Notices(issuer=host, account=f"{settings.public_url}{settings.prefix}account", count=count)


def make_outbox(settings: Settings, records: Records, clock: Clock, ledger: Ledger, metrics: Metrics) -> Outbox | None:
    """What sends them. Raises `ConfigError` for a sender that is not fit to be used."""
    notify = settings.notify
    if not notify.email:
        return None
    senders = [_sender(each, settings, clock) for each in notify.email]
    return Outbox(
        OutboxTable(records),
        {CHANNEL: Route(senders, clock, metrics.delivery)},
        clock,
        ledger,
        limits=Limits(notify.per_address, notify.per_user),
        count=metrics.notification,
    )


def _sender(wanted: EmailSender, settings: Settings, clock: Clock) -> Sender:
    if (smtp := wanted.smtp) is not None:
        try:
            from gateway.notify.smtp import SmtpSender, SmtpServer
        except ModuleNotFoundError as error:
            raise ConfigError(
                "notify.email: smtp needs a library that is not installed", "pip install 'sallyport[email]'"
            ) from error
        server = SmtpServer(
            smtp.host,
            smtp.port,
            tls=smtp.tls,
            username=smtp.username,
            password=smtp.password.get_secret_value() if smtp.password is not None else "",
            ca=smtp.ca,
            timeout=smtp.timeout,
        )
        our_name = urlsplit(settings.public_url).hostname or "localhost"
        return SmtpSender(server, sender=settings.notify.from_, our_name=our_name)
    if (hook := wanted.webhook) is not None:
        from gateway.notify.webhook import WebhookSender

        return WebhookSender(
            hook.url.get_secret_value(), hook.key, clock, channel=CHANNEL, ca=hook.ca, timeout=hook.timeout
        )
    from gateway.notify.console import ConsoleSender

    return ConsoleSender()
