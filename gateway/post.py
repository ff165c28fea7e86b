"""The post of a gateway: from `notify` in the settings to notices, codes, senders and the outbox.

Loaded where `notify` names a sender, and of the senders only those it names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

from gateway.audit.deliveries import Deliveries
from gateway.audit.notices import CHANNEL, Count, Notices
from gateway.core.errors import ConfigError
from gateway.identity.users import canonical_email
from gateway.mfa.addressees import Addressees
from gateway.mfa.aside import Aside
from gateway.mfa.codes.bound import bound_to
from gateway.mfa.posted import Posted, opened
from gateway.mfa.recovery_letters import RecoveryLetters
from gateway.notify.outbox import Limits, Outbox
from gateway.notify.route import Route, names
from gateway.settings import EmailSender, SmsSender
from gateway.store.outbox_table import OutboxTable

if TYPE_CHECKING:
    from pydantic import SecretStr

    from gateway.audit.metrics import Metrics
    from gateway.core.clock import Clock
    from gateway.core.contracts import Callback, Ledger, Sender
    from gateway.crypto.keys import KeyRing
    from gateway.crypto.sealing import Sealer
    from gateway.notify.sigv4 import Keys
    from gateway.settings import Aws, Settings, Webhook
    from gateway.store.sql import Records

COMMON: Final = frozenset({"webhook", "console"})
"""Kinds of senders that carry anything; those of another channel than e-mail have it before their name."""

T = TypeVar("T", EmailSender, SmsSender)


def make_notices(
    settings: Settings, count: Count = lambda channel, outcome: None, *, sealer: Sealer | None = None
) -> Notices | None:
    """Who writes notices; None where nothing could carry them. `sealer` opens the addresses that
    codes go to; None: none of them is told."""
    if not settings.notify.channels:
        return None
    return Notices(
        issuer=_our_name(settings),
        account=f"{settings.public_url}{settings.prefix}account",
        language=settings.pages.language,
        count=count,
        mail=bool(settings.notify.email),
        bound=partial(bound_to, sealer, _spelled(settings)) if sealer is not None else None,
    )


def make_aside(settings: Settings, keys: KeyRing) -> Aside:
    """Who tells the addresses that codes go to."""
    return Aside(
        partial(bound_to, keys.sealer, _spelled(settings)),
        issuer=_our_name(settings),
        account=f"{settings.public_url}{settings.prefix}account",
        language=settings.pages.language,
        mail=bool(settings.notify.email),
    )


def make_letters(settings: Settings, keys: KeyRing, aside: Aside) -> RecoveryLetters:
    """Who writes to people that are being recovered."""
    return RecoveryLetters(
        keys.sealer,
        Addressees(keys.sealer, keys.mac),
        site=f"{settings.public_url}{settings.prefix}",
        issuer=_our_name(settings),
        language=settings.pages.language,
        mail=bool(settings.notify.email),
        aside=aside,
    )


def _spelled(settings: Settings) -> Mapping[str, Callable[[str], str]]:
    """By channel that somebody carries: how an address is spelled. Raises `ConfigError` where a library is missing."""
    spelled: dict[str, Callable[[str], str]] = {}
    if settings.notify.email:
        spelled["email"] = canonical_email
    if settings.notify.sms:
        spelled["sms"] = _canonical_number(settings)
    return spelled


def make_post(settings: Settings, keys: KeyRing, clock: Clock) -> Posted:
    """Who takes codes. Raises `ConfigError` where a library is missing."""
    notify = settings.notify
    most = notify.per_address, notify.per_user
    addressees = Addressees(keys.sealer, keys.mac)
    return Posted(
        keys.sealer,
        addressees,
        clock,
        channels=_spelled(settings),
        host=_our_name(settings),
        site=f"{settings.public_url}{settings.prefix}",
        most=most,
    )


def _canonical_number(settings: Settings) -> Callable[[str], str]:
    try:
        from gateway.notify.numbers import Numbers as Spelling
    except ModuleNotFoundError as error:
        raise ConfigError("notify.sms needs a library that is not installed", "pip install 'sallyport[sms]'") from error
    rules = settings.notify.numbers
    return Spelling(region=rules.region, deny=rules.deny, allow=rules.allow).canonical


def make_outbox(
    settings: Settings, records: Records, keys: KeyRing, clock: Clock, ledger: Ledger, metrics: Metrics
) -> Outbox:
    """What sends them. Raises `ConfigError` for a sender that is not fit to be used."""
    notify = settings.notify
    senders = {
        CHANNEL: [_mail(each, settings, clock) for each in notify.email],
        "sms": [_sms(each, name, settings, clock) for name, each in _named(notify.sms, "sms")],
    }
    return Outbox(
        OutboxTable(records, Addressees(keys.sealer, keys.mac)),
        {channel: Route(some, clock, metrics.delivery) for channel, some in senders.items() if some},
        clock,
        ledger,
        limits=Limits(notify.per_address, notify.per_user),
        count=metrics.notification,
        opened=partial(opened, keys.sealer),
    )


def make_deliveries(records: Records, keys: KeyRing, clock: Clock, ledger: Ledger, metrics: Metrics) -> Deliveries:
    """What becomes of messages."""
    opened = Addressees(keys.sealer, keys.mac).open
    return Deliveries(records, clock, ledger, metrics.delivery_report, opened=opened)


def make_callbacks(settings: Settings, clock: Clock) -> Mapping[str, Callback]:
    """How what senders tell is read, by their names. Raises `ConfigError` for a certificate that is none."""
    found: dict[str, Callback] = {}
    senders: list[tuple[str, EmailSender | SmsSender]] = [*_named(settings.notify.email, CHANNEL)]
    senders += _named(settings.notify.sms, "sms")
    for name, each in senders:
        if (hook := each.webhook) is not None and hook.callbacks:
            from gateway.notify.webhook import WebhookCallback

            found[name] = WebhookCallback(hook.key, clock)
        if (aws := _at_aws(each)) is not None and aws.topic:
            found[name] = _topic(aws, clock)
        if isinstance(each, SmsSender) and (twilio := each.twilio) is not None and twilio.callbacks:
            from gateway.notify.twilio import TwilioCallback

            url = f"{settings.public_url}{settings.prefix}callbacks/{name}"
            found[name] = TwilioCallback(url, _revealed(twilio.token))
        if isinstance(each, SmsSender) and (vonage := each.vonage) is not None and vonage.signature_secret is not None:
            from gateway.notify.vonage import VonageCallback

            found[name] = VonageCallback(vonage.key, vonage.signature_secret.get_secret_value(), clock)
    return found


def _named(senders: Sequence[T], channel: str) -> list[tuple[str, T]]:
    """Each with its name, as `Route` tells them apart."""
    kinds = [next(kind for kind, said in sender if said is not None) for sender in senders]
    prefix = "" if channel == CHANNEL else f"{channel}-"
    return list(zip(names([prefix + kind if kind in COMMON else kind for kind in kinds]), senders, strict=True))


def _at_aws(wanted: EmailSender | SmsSender) -> Aws | None:
    return wanted.sns if isinstance(wanted, SmsSender) else wanted.ses


def _topic(aws: Aws, clock: Clock) -> Callback:
    from gateway.notify.topic import Topic

    try:
        pinned = aws.certificate.read_bytes() if aws.certificate is not None else None
        return Topic(aws.topic, clock, certificate=pinned)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{aws.certificate}: no certificate can be read from it: {error}") from error


def _mail(wanted: EmailSender, settings: Settings, clock: Clock) -> Sender:
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
        return SmtpSender(server, sender=settings.notify.from_, our_name=_our_name(settings))
    if (ses := wanted.ses) is not None:
        from gateway.notify.ses import SesSender

        return SesSender(
            _aws(ses, "ses", clock),
            clock,
            sender=settings.notify.from_,
            configuration_set=ses.configuration_set,
            url=ses.url,
            timeout=ses.timeout,
        )
    return _hook(wanted.webhook, clock, CHANNEL) if wanted.webhook is not None else _console(CHANNEL)


def _sms(wanted: SmsSender, name: str, settings: Settings, clock: Clock) -> Sender:
    callback = f"{settings.public_url}{settings.prefix}callbacks/{name}"
    if (twilio := wanted.twilio) is not None:
        from gateway.notify.twilio import TwilioSender

        return TwilioSender(
            twilio.account,
            _revealed(twilio.secret if twilio.key else twilio.token),
            sender=twilio.from_,
            key=twilio.key,
            callback=callback if twilio.callbacks else "",
            url=twilio.url,
            timeout=twilio.timeout,
        )
    if (vonage := wanted.vonage) is not None:
        from gateway.notify.vonage import VonageSender

        return VonageSender(
            vonage.key,
            vonage.secret.get_secret_value(),
            sender=vonage.from_,
            callback=callback if vonage.signature_secret is not None else "",
            url=vonage.url,
            timeout=vonage.timeout,
        )
    if (sns := wanted.sns) is not None:
        from gateway.notify.sns import SnsSender

        return SnsSender(_aws(sns, "sns", clock), clock, sender=sns.from_, url=sns.url, timeout=sns.timeout)
    return _hook(wanted.webhook, clock, "sms") if wanted.webhook is not None else _console("sms")


def _revealed(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret is not None else ""


def _aws(said: Aws, service: str, clock: Clock) -> Keys:
    """Who we are there: by keys, or by the role of this machine."""
    if said.access_key is None or said.secret_key is None:
        from gateway.notify.aws_role import AwsRole

        return AwsRole(said.region, service, clock, os.environ)
    from gateway.notify.sigv4 import AwsKeys

    return AwsKeys(
        said.access_key,
        said.secret_key.get_secret_value(),
        said.region,
        service,
        said.session_token.get_secret_value() if said.session_token is not None else "",
    )


def _hook(hook: Webhook, clock: Clock, channel: str) -> Sender:
    from gateway.notify.webhook import WebhookSender

    return WebhookSender(
        hook.url.get_secret_value(), hook.key, clock, channel=channel, ca=hook.ca, timeout=hook.timeout
    )


def _console(channel: str) -> Sender:
    from gateway.notify.console import ConsoleSender

    return ConsoleSender(channel=channel)


def _our_name(settings: Settings) -> str:
    """Our host, as people know it."""
    return urlsplit(settings.public_url).hostname or "localhost"
