"""What the API takes and answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.limits.standing import How

Channel = Literal["email", "sms"]
TRUST = "Whether to trust this browser from now on, where that is possible; the answer says what came of it."
Code = Annotated[str, Field(min_length=1, max_length=64, description="What the person typed.")]
FactorName = Annotated[str, Field(max_length=64)]


class Takes(BaseModel):
    """A request body: unknown members are refused, and so is what is nearly of the right type (`0` for `false`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Answers(BaseModel):
    """A response body."""

    model_config = ConfigDict(frozen=True)


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as RFC 3339 writes them."""
    return datetime.fromtimestamp(int(seconds), UTC)


class MfaStatus(Answers):
    """Where the caller stands."""

    enrolled: bool = Field(description="Whether a second factor is set up and usable.")
    required: bool = Field(description="Whether the caller must have one.")
    enrol_by: datetime | None = Field(
        description="Until when one has to be set up; then nothing else is open (403 ERR-MFA-ENROL). Null: it is done."
    )
    factors: list[str] = Field(description="Factors that could be used now.", examples=[["totp", "backup_code"]])
    preferred: str = Field(description="The one to be asked for first; empty: the one used last.", examples=["totp"])
    backup_codes_left: int
    backup_codes_expire_at: datetime | None
    hint: str = Field(description="What to see to, for people; may be empty.")
    acr: str = Field(description="Assurance level of this session.", examples=["aal1"])
    amr: list[str] = Field(description="Methods shown in this session (RFC 8176).", examples=[["pwd"]])
    auth_time: datetime = Field(description="When the newest proof was given.")
    may_change: Literal["yes", "sign_in_again", "step_up"] = Field(
        description="Whether factors may be changed now, or what is needed first."
    )


class Requirement(Takes):
    """A second factor, demanded of somebody."""

    grace: int = Field(default=0, ge=0, le=31_536_000, description="Seconds they have to set one up.")


class Required(Answers):
    """What somebody must have."""

    user: str
    required: bool = Field(description="Whether they must have a second factor, by whosever word.")
    required_from: datetime | None = Field(description="From when on, by an administrator's word about them.")
    enrol_by: datetime | None = Field(description="Until when they have to set one up; null: they have one, or time.")
    devices: list[str] = Field(description="Kinds of the second factors they have, backup codes left out.")


class Preference(Takes):
    """Which factor to be asked for first."""

    factor: str = Field(max_length=64, description="Its name; empty: the one used last.", examples=["webauthn", ""])


class Method(Answers):
    """One factor of the caller."""

    id: str
    kind: str = Field(examples=["totp"])
    label: str
    created_at: datetime
    last_used_at: datetime | None
    disabled: bool = Field(description="Too many wrong answers; remove it and set it up anew.")


class Methods(Answers):
    """The caller's factors."""

    methods: list[Method]


class TotpSetup(Answers):
    """A secret, shown this once, to put into an authenticator app."""

    id: str
    secret: str = Field(description="RFC 4648 base32.")
    uri: str = Field(description="`otpauth://` URI, for a QR code.")


class Confirm(Takes):
    """The first code of a new authenticator app."""

    code: Code
    label: str = Field(default="", max_length=64, description="What to call the device.")


class Confirmed(Answers):
    """The factor is set up."""

    backup_codes: list[str] = Field(description="Fresh backup codes, shown this once; empty where there were some.")


class NewNumber(Takes):
    """A phone number to be set up."""

    number: str = Field(min_length=1, max_length=64, description="With its country.", examples=["+90 532 123 45 67"])


class NewAddress(Takes):
    """An e-mail address to be set up."""

    address: str = Field(min_length=1, max_length=320, examples=["ann@example.org"])


class CodeSetup(Answers):
    """A code is on its way there, whatever becomes of it."""

    id: str
    to: str = Field(description="The address, masked.", examples=["+90 *** ** 12"])
    again_in: int = Field(description="Seconds until another code may be asked for.")


class OwnAddress(Answers):
    """The address of the caller's account."""

    address: str = Field(description="Empty: it has none.", examples=["ann@example.org"])
    confirmed_at: datetime | None = Field(
        description="When it was confirmed that the caller reads it; null: it is not."
    )
    sent: bool = Field(description="Whether a code that was sent there in this session can be answered.")
    again_in: int = Field(description="Seconds until a code may be asked for.")


class ConfirmAddress(Takes):
    """The code that came to the address."""

    code: Code


class KeyAnswer(Takes):
    """A security key's answer to a challenge."""

    challenge: str = Field(min_length=1, max_length=256)
    credential: dict[str, Any] = Field(description="`AuthenticationResponseJSON` (Web Authentication, 5.1).")
    trust: bool = Field(default=False, description=TRUST)


class KeyAsk(Takes):
    """Which challenge a security key is to answer."""

    challenge: str = Field(min_length=1, max_length=256)


class KeyQuestion(Answers):
    """What to ask of the browser; for five minutes and one answer."""

    public_key: dict[str, Any] = Field(
        description="For `navigator.credentials.create` or `.get`, as `parseCreationOptionsFromJSON` and "
        "`parseRequestOptionsFromJSON` read it (Web Authentication, 5.1.8)."
    )


class NewKey(Takes):
    """A security key to be set up."""

    credential: dict[str, Any] = Field(description="`RegistrationResponseJSON` (Web Authentication, 5.1).")
    label: str = Field(default="", max_length=64, description="What to call the key.")


class BackupCodes(Answers):
    """Fresh backup codes, shown this once. The old ones no longer work."""

    backup_codes: list[str]


class TrustedDevice(Answers):
    """A browser in which the password is enough, for rules that allow it."""

    id: str
    current: bool = Field(description="Whether it is the one that asks.")
    created_at: datetime = Field(description="When a second factor was shown there.")
    expires_at: datetime
    last_used_at: datetime | None
    address: str = Field(description="Where it was last used, or trusted.")
    agent: str


class TrustedDeviceList(Answers):
    """Browsers that the caller trusts, the newest first."""

    trusted_devices: list[TrustedDevice]


class Forgotten(Answers):
    """How many browsers are trusted no more."""

    forgotten: int


class Ask(Takes):
    """What to prove. Nothing: any second factor, now."""

    acr_values: Literal["aal1", "aal2", "aal3"] = "aal2"
    factors: list[FactorName] = Field(default=[], max_length=8, description="Factors that count; empty: any.")
    max_age: int | None = Field(default=None, ge=0, le=86_400, description="Seconds.")
    user_verification: Literal["required"] | None = Field(
        default=None, description="Only a key counts whose device made sure who its user is, by a PIN or a finger."
    )
    return_to: str = Field(default="", max_length=4096, description="A path here, for the page at `verify_uri`.")


class SendTo(Answers):
    """Where a code can be sent."""

    factor: str = Field(examples=["sms"])
    id: str = Field(description="Of the method.")
    to: str = Field(description="The address, masked.", examples=["+90 *** ** 12"])


class Asked(Answers):
    """A challenge."""

    challenge: str
    offered: list[str] = Field(description="Factors that answer it.")
    send_to: list[SendTo] = Field(description="Of those whose code has to be sent first: where it can be.")
    expires_at: datetime
    verify_uri: str = Field(description="The page where a person can answer it.")


class Send(Takes):
    """Which code to send."""

    challenge: str = Field(min_length=1, max_length=256)
    factor: str = Field(min_length=1, max_length=64, examples=["sms"])
    id: str = Field(default="", max_length=64, description="Of the method; empty: the one used last.")


class Sent(Answers):
    """A code is on its way, whatever becomes of it. The one before is void."""

    to: str = Field(description="The address, masked.", examples=["+90 *** ** 12"])
    again_in: int = Field(description="Seconds until another code may be asked for.")


class Answer(Takes):
    """The answer to a challenge."""

    challenge: str = Field(min_length=1, max_length=256)
    factor: str = Field(min_length=1, max_length=64, examples=["totp"])
    code: Code
    trust: bool = Field(default=False, description=TRUST)


class Proven(Answers):
    """What the session is worth now. Its cookie has a new value."""

    acr: str
    amr: list[str]
    auth_time: datetime
    trusted: bool = Field(description="Whether this browser is trusted from now on, for this answer said so.")


class SessionItem(Answers):
    """A browser somebody signed in with."""

    id: str
    current: bool
    created_at: datetime
    expires_at: datetime
    last_seen_at: datetime
    address: str
    agent: str
    acr: str
    amr: list[str]


class SessionList(Answers):
    """Somebody's sessions; `current` is the one of this request."""

    sessions: list[SessionItem]


class Invalidate(Takes):
    """Which sessions to end."""

    keep_current: bool = True


class Ended(Answers):
    """How many sessions were ended."""

    ended: int


class Stats(Answers):
    """Numbers about all sessions; for administrators."""

    sessions: dict[str, int]


class LimitItem(Answers):
    """One counter."""

    rule: str
    limit: str
    key: str = Field(description="Who is counted.", examples=["user:ann", "address:2001:db8::/64"])
    counted: How = Field(description="Where. `away`: by this replica alone, while the shared store was away.")
    shadow: bool = Field(description="Whether it only counts, and refuses nobody.")
    allowed: bool = Field(description="Whether the next request would be let through.")
    remaining: int = Field(description="How many would be, at once.")
    reset: float = Field(description="Seconds until it is whole again.")
    retry_after: float = Field(description="Seconds until the next would be let through.")
    offences: int = Field(description="How often it was run into, of limits with a backoff.")
    wait: float = Field(description="Seconds of `retry_after` that are waited for that reason.")


class LimitList(Answers):
    """Counters: those of all replicas together, and this replica's own."""

    limits: list[LimitItem]
    more: bool = Field(description="Whether there are more than are shown.")
    shared_away: bool = Field(description="Whether those of all replicas could not be looked at.")


class LimitReset(Takes):
    """What is to begin anew: `key`, or `all` counters of the rule."""

    rule: str = Field(min_length=1, max_length=64)
    limit: str = Field(default="", max_length=80, description="Left out: every limit of the rule.")
    key: str = Field(default="", max_length=4096, examples=["user:ann"])
    all: bool = Field(default=False, description="Whether everybody is meant.")
    reason: str = Field(max_length=500, pattern=r"\S", description="Kept with the event.")

    @model_validator(mode="after")
    def _says_whom(self) -> LimitReset:
        if bool(self.key) == self.all:
            raise ValueError("say whom, with `key`, or `all: true` for everybody")
        return self


class WereReset(Answers):
    """How many counters were there, on the shared store and in this replica; others do not answer."""

    counters: int


class RecoveryBegun(Answers):
    """Somebody gets back in, if nobody objects. The same for everybody, whether there is an address or not."""

    asked_at: datetime
    due_at: datetime = Field(description="When the link is sent by e-mail.")


class RecoveryAsk(Takes):
    """Why somebody is to be recovered."""

    reason: str = Field(max_length=500, pattern=r"\S", description="How you made sure who they are; it is kept.")


class RecoveryItem(Answers):
    """A recovery."""

    id: str
    user: str
    way: Literal["email", "administrators"]
    state: Literal["waiting", "ready", "pending", "done", "ended"] = Field(
        description="`waiting` for its delay; `ready`: the link was sent; `pending`: another administrator must agree."
    )
    outcome: str = Field(description="What it ended by; empty while it is open.", examples=["cancelled"])
    reason: str
    asked_at: datetime
    asked_by: str = Field(description="The user, or an administrator.")
    due_at: datetime
    expires_at: datetime
    settled_at: datetime | None
    settled_by: str = Field(description="The administrator who agreed or refused; else empty.")


class RecoveryList(Answers):
    """Recoveries, the newest first."""

    recoveries: list[RecoveryItem]


class AddressItem(Answers):
    """An address that nothing is sent to."""

    channel: Channel
    address: str = Field(examples=["ann@example.com"])
    why: Literal["bounced", "complained"]
    at: datetime


class AddressList(Answers):
    """The newest first."""

    addresses: list[AddressItem]
    more: bool = Field(description="Whether there are more than are shown.")


class AddressRelease(Takes):
    """Which of them is to be sent to again."""

    address: str = Field(min_length=1, max_length=320, description="As the list shows it.")
    channel: Channel = "email"


class Notices(Answers):
    """What the caller is told."""

    more: bool = Field(description="Whether beside changes to security: sign-ins from new browsers, and reminders.")


class ChooseNotices(Takes):
    """What the caller wants to be told."""

    more: bool = Field(description="Whether beside changes to security: sign-ins from new browsers, and reminders.")
