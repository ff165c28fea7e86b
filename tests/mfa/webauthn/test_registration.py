"""A new key: every step of section 7.1 that says MUST, once broken; who may set one up, and which."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable
from typing import Any

import cbor2
import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from sqlalchemy import exists, false, select, update

from gateway.core.clock import ManualClock
from gateway.core.errors import NotProven, UserError
from gateway.core.events import Kind
from gateway.core.identity import DEFAULT_TENANT, Level, Proof, level_of
from gateway.mfa.webauthn import attestation, binding
from gateway.mfa.webauthn.base64url import decode
from gateway.mfa.webauthn.binding import KEYS
from gateway.mfa.webauthn.ceremony import LIFETIME
from gateway.store.tables import kept
from tests.mfa.conftest import proven
from tests.mfa.webauthn.conftest import BOTH, Furnish, KeyRoom
from tests.rig.authenticator import BE, BS, ORIGIN, UP, UV, Authenticator, b64

MODEL = bytes.fromhex("2fc0579f811347eab116bb5a8db9202a")
NAME = "2fc0579f-8113-47ea-b116-bb5a8db9202a"


async def labels(room: KeyRoom, subject: str = "s-ann") -> list[str]:
    return [one.label for one in await room.factors.of(DEFAULT_TENANT, subject) if one.kind == "webauthn"]


async def test_what_a_new_key_is_asked(room: KeyRoom) -> None:
    options = await room.binding.begin(room.fresh("ann"))
    assert options["rp"] == {"id": "app.example.com", "name": "Sallyport"}
    assert [one["alg"] for one in options["pubKeyCredParams"]] == [-7, -8, -257]
    assert len(options["challenge"]) == 43  # 256 bit
    assert "ann" not in options["user"]["id"]
    assert options["attestation"] == "none"
    assert options["timeout"] == 300_000


@pytest.mark.parametrize("alg", [-7, -8, -257])
async def test_every_algorithm_that_is_offered_works(room: KeyRoom, alg: int) -> None:
    key = await room.set_up(Authenticator(alg=alg))
    ann = room.fresh("ann")
    ticket, options = await room.question(ann)
    assert (await room.give(ann, ticket, key.answer(options))).key == "hwk"


async def test_several_keys_with_names_each_of_which_answers(room: KeyRoom) -> None:
    one, other = await room.set_up(), await room.set_up()
    assert await labels(room) == ["blue", "blue"]
    ann = room.fresh("ann")
    for key in (one, other):
        ticket, options = await room.question(ann)
        assert len(options["allowCredentials"]) == 2
        assert (await room.give(ann, ticket, key.answer(options))).factor == "webauthn"


@BOTH
async def test_the_first_key_brings_backup_codes_and_proves_two_factors(room: KeyRoom, clock: ManualClock) -> None:
    ann = room.fresh("ann")
    options = await room.binding.begin(ann)
    answer = Authenticator().register(options)
    proof, codes = await room.binding.complete(ann, orjson.dumps(answer).decode(), label=" my\nkey ")
    assert len(codes) == 10
    assert proof == Proof("webauthn", clock.now(), "hwk")
    assert level_of((Proof("password", 0.0), proof)) is Level.AAL2  # not aal3: nothing was signed yet
    assert await labels(room) == ["my key"]
    assert [event.detail["factor"] for event in room.ledger.of(Kind.FACTOR_ENROLLED)] == ["webauthn"]
    assert await room.factors.counts() == {"webauthn": 1.0, "backup_code": 1.0}
    assert room.setups == [("webauthn", "started"), ("webauthn", "completed")]


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "type of an answer": ("type", {"client": {"type": "webauthn.get"}}),
    "another challenge": ("challenge", {"client": {"challenge": b64(b"x" * 32)}}),
    "another origin": ("origin", {"origin": "https://evil.example"}),
    "another port": ("origin", {"origin": ORIGIN + ":444"}),
    "in a frame": ("cross_origin", {"client": {"crossOrigin": True}}),
    "in a frame of somebody's": ("cross_origin", {"client": {"topOrigin": "https://evil.example"}}),
    "another RP ID": ("rp_id", {"rp_id": "evil.example"}),
    "nobody was there": ("user_presence", {"flags": UV}),
    "backed up and cannot be": ("backup_state", {"flags": UP | BS}),
    "another id than it was sent with": ("credential_id", {"sent_id": b"another"}),
    "an id of 1024 bytes": ("credential_id", {"credential": b"x" * 1024}),
    "an empty id": ("credential_id", {"credential": b""}),
    "an object that says a thing twice": ("malformed", {"head": b"\xa4\x63fmt\x64none"}),
    "bytes after the object": ("malformed", {"trailing": b"\x00"}),
    "bytes after the data": ("malformed", {"trailing_data": b"\x00"}),
    "a key that is no map": ("algorithm", {"public_key": cbor2.dumps("key")}),
    "a key that says a thing twice": ("malformed", {"public_key": b"\xa2\x01\x02\x01\x02"}),
    "half a key": ("malformed", {"public_key": b"\xa5\x01\x02"}),
    "no type": ("type", {"client": {"type": None}}),
    "no origin": ("origin", {"client": {"origin": None}}),
    "no object": ("malformed", {"object": b""}),
    "an object that is no map": ("malformed", {"object": cbor2.dumps(["fmt", "none"])}),
    "an object without a statement": ("malformed", {"object": cbor2.dumps({"fmt": "none", "authData": bytes(37)})}),
    "a statement that is no map": ("malformed", {"said": ("none", [])}),
    "data of no length": ("malformed", {"object": cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": b""})}),
    "data that is no data": ("malformed", {"object": cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": "x"})}),
    "no credential in the data": ("malformed", {"attested": 0}),
    "none that vouches after all": ("statement", {"said": ("none", {"sig": b"x"})}),
    "a format that is not known": ("statement", {"said": ("never-heard-of", {})}),
    "a statement that says nothing": ("statement", {"said": ("packed", {})}),
    "a statement with another signature": ("statement", {"said": ("packed", {"alg": -7, "sig": b"x" * 70})}),
    "a statement of another algorithm": (
        "statement",
        {"attest": lambda signed: ("packed", {"alg": -8, "sig": signed})},
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_case_114_what_is_wrong_is_not_set_up(room: KeyRoom, name: str) -> None:
    why, wrong = WRONG[name]
    ann = room.fresh("ann")
    answer = Authenticator().register(await room.binding.begin(ann), **wrong)
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):
        await room.binding.complete(ann, orjson.dumps(answer).decode())
    (event,) = room.ledger.of(Kind.FACTOR_REFUSED)
    assert event.detail == {"factor": "webauthn", "why": why}
    assert room.setups == [("webauthn", "started"), ("webauthn", "failed")]
    assert await room.factors.of(DEFAULT_TENANT, "s-ann") == []


async def test_an_algorithm_that_was_not_offered_is_refused(room: KeyRoom) -> None:
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):
        await room.set_up(Authenticator(alg=-36))
    assert room.ledger.of(Kind.FACTOR_REFUSED)[0].detail["why"] == "algorithm"


P256, P384 = (
    {1: 2, 3: -7, -1: curve, -2: bytes([1]) * size, -3: bytes([1]) * size} for curve, size in ((1, 32), (2, 48))
)
ON_P384 = ec.generate_private_key(ec.SECP384R1()).public_key().public_numbers()
RSA_1024 = rsa.generate_private_key(65537, 1024).public_key().public_numbers()


@pytest.mark.parametrize(
    "key",
    [
        P256,  # on no curve
        P384,
        {**P384, -2: ON_P384.x.to_bytes(48, "big"), -3: ON_P384.y.to_bytes(48, "big")},  # a good key of ES384
        {**P256, -3: True},  # a compressed point
        {**P256, 1: 3},
        {1: 2, 3: -7},
        {1: 3, 3: -7, -1: b"\xff" * 256, -2: b"\x01\x00\x01"},  # RSA that says ES256
        {1: 3, 3: -257, -1: RSA_1024.n.to_bytes(128, "big"), -2: b"\x01\x00\x01"},
        {1: 3, 3: -257, -1: b"\xff" * 256, -2: b"\x01"},
        {1: 1, 3: -8, -1: 6, -2: bytes(31)},
        {1: 1, 3: -8, -1: 7, -2: bytes(57)},
        {1: 1, 3: -7, -1: 6, -2: bytes(32)},
        {1: 2, 3: "-7", -1: 1, -2: bytes(32), -3: bytes(32)},
        4,  # the first byte of a point as keys had it before there was COSE
        b"",
        None,
    ],
)
async def test_a_key_that_could_never_answer_or_is_too_weak_is_not_set_up(room: KeyRoom, key: object) -> None:
    """Nothing is signed with it until it is asked for, and then nobody could get in with it."""
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):
        await room.set_up(public_key=cbor2.dumps(key))
    assert room.ledger.of(Kind.FACTOR_REFUSED)[0].detail["why"] == "algorithm"
    assert await room.factors.of(DEFAULT_TENANT, "s-ann") == []


async def test_an_answer_is_no_new_key(room: KeyRoom) -> None:
    """Of a key that is set up, to the question that a new one is asked."""
    key = await room.set_up()
    ann = proven(room.fresh("ann"), Proof("totp", room.clock.now()))
    options = await room.binding.begin(ann)
    answer = key.answer({"challenge": options["challenge"], "rpId": options["rp"]["id"]})
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):
        await room.binding.complete(ann, orjson.dumps(answer).decode())
    assert await labels(room) == ["blue"]


async def test_an_id_of_1023_bytes_is_taken(room: KeyRoom) -> None:
    key = await room.set_up(Authenticator(size=1023))
    ann = room.fresh("ann")
    ticket, options = await room.question(ann)
    assert (await room.give(ann, ticket, key.answer(options))).factor == "webauthn"


async def test_a_key_must_know_its_user_where_the_operator_says(furnish: Furnish) -> None:
    room = furnish(user_verification="required")
    with pytest.raises(UserError, match="ERR-MFA-INVALID"):
        await room.set_up(Authenticator(flags=UP))
    assert room.ledger.of(Kind.FACTOR_REFUSED)[0].detail["why"] == "user_verification"


async def test_keys_that_can_be_copied_are_refused_where_the_operator_says(furnish: Furnish) -> None:
    room = furnish(backup_eligible=False)
    with pytest.raises(UserError, match="ERR-MFA-KEY-REFUSED"):
        await room.set_up(Authenticator(flags=UP | UV | BE))
    await room.set_up()
    assert await labels(room) == ["blue"]


@BOTH
async def test_the_same_credential_is_set_up_once_by_whomever(room: KeyRoom) -> None:
    key = await room.set_up()
    with pytest.raises(UserError, match="ERR-MFA-KEY-KNOWN"):
        await room.set_up(key)
    with pytest.raises(UserError, match="ERR-MFA-KEY-KNOWN"):
        await room.set_up(key, room.fresh("bob"))
    assert await room.factors.of(DEFAULT_TENANT, "s-bob") == []
    options = await room.binding.begin(proven(room.fresh("ann"), Proof("totp", room.clock.now())))
    assert [one["id"] for one in options["excludeCredentials"]] == [b64(key.credential)]


@BOTH
async def test_two_people_with_one_credential_at_once(room: KeyRoom) -> None:
    key = Authenticator()
    people = [room.fresh("ann"), room.fresh("bob")]
    answers = [orjson.dumps(key.register(await room.binding.begin(one))).decode() for one in people]
    done = await asyncio.gather(
        *(room.binding.complete(*each) for each in zip(people, answers, strict=True)), return_exceptions=True
    )
    assert sorted(type(one) for one in done if isinstance(one, UserError)) == [UserError]
    assert len(await labels(room)) + len(await labels(room, "s-bob")) == 1


@BOTH
async def test_who_is_slower_between_looking_and_writing_is_told_the_same(
    room: KeyRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody had it when it was looked: the database says that somebody has."""
    key = await room.set_up()
    bob = room.fresh("bob")
    answer = orjson.dumps(key.register(await room.binding.begin(bob))).decode()
    monkeypatch.setattr(binding, "exists", lambda: exists().where(false()))
    with pytest.raises(UserError, match="ERR-MFA-KEY-KNOWN"):
        await room.binding.complete(bob, answer)
    assert [event.detail["why"] for event in room.ledger.of(Kind.FACTOR_REFUSED)] == ["known"]
    assert await room.factors.of(DEFAULT_TENANT, "s-bob") == []


async def test_a_setup_is_for_one_session_once_and_five_minutes(room: KeyRoom, clock: ManualClock) -> None:
    ann, there = room.fresh("ann"), room.fresh("ann", session="session-2")
    answer = orjson.dumps(Authenticator().register(await room.binding.begin(ann))).decode()
    with pytest.raises(UserError, match="ERR-MFA-SETUP"):
        await room.binding.complete(there, answer)
    await room.binding.complete(ann, answer)
    with pytest.raises(UserError, match="ERR-MFA-SETUP"):
        await room.binding.complete(ann, answer)
    again = proven(ann, Proof("webauthn", clock.now()))
    late = orjson.dumps(Authenticator().register(await room.binding.begin(again))).decode()
    clock.advance(LIFETIME)
    with pytest.raises(UserError, match="ERR-MFA-SETUP"):
        await room.binding.complete(again, late)


async def test_who_may_set_one_up(room: KeyRoom, clock: ManualClock) -> None:
    ann = room.fresh("ann")
    clock.advance(301)
    with pytest.raises(UserError, match="ERR-MFA-SIGN-IN-AGAIN"):
        await room.binding.begin(ann)
    await room.bind()
    with pytest.raises(UserError, match="ERR-MFA-STEP-UP"):
        await room.binding.begin(room.fresh("ann"))


@BOTH
async def test_a_first_factor_in_between_was_somebody_elses_turn(room: KeyRoom) -> None:
    ann = room.fresh("ann")
    answer = orjson.dumps(Authenticator().register(await room.binding.begin(ann))).decode()
    await room.bind()
    with pytest.raises(UserError, match="ERR-MFA-STEP-UP"):
        await room.binding.complete(ann, answer)
    assert await labels(room) == []


async def test_there_is_an_end_to_keys(room: KeyRoom) -> None:
    for _ in range(KEYS):
        await room.set_up()
    with pytest.raises(UserError, match="ERR-MFA-TOO-MANY"):
        await room.set_up()


async def test_nor_are_there_more_where_they_are_begun_in_several_sessions(room: KeyRoom, clock: ManualClock) -> None:
    for _ in range(KEYS - 1):
        await room.set_up()
    both = [proven(room.fresh("ann", session=name), Proof("totp", clock.now())) for name in ("here", "there")]
    begun = [await room.binding.begin(one) for one in both]
    await room.binding.complete(both[0], orjson.dumps(Authenticator().register(begun[0])).decode())
    with pytest.raises(UserError, match="ERR-MFA-TOO-MANY"):
        await room.binding.complete(both[1], orjson.dumps(Authenticator().register(begun[1])).decode())


async def test_a_setup_that_somebody_else_wrote_is_none(room: KeyRoom) -> None:
    """Who can write the store, and has no key of ours, knows no challenge that counts."""
    ann = room.fresh("ann")
    options = await room.binding.begin(ann)
    async with room.records.begin() as connection:
        (row,) = (await connection.execute(select(kept.c.key, kept.c.value))).all()
        forged = row.value.replace(options["challenge"].encode(), b64(bytes(32)).encode())
        assert forged != row.value
        await connection.execute(update(kept).where(kept.c.key == row.key).values(value=forged))
    answer = Authenticator().register({**options, "challenge": b64(bytes(32))})
    with pytest.raises(UserError, match="ERR-MFA-SETUP"):
        await room.binding.complete(ann, orjson.dumps(answer).decode())


@pytest.mark.parametrize("text", ["YQ==", "YR", "YQ\n", "Y Q", "Y+Q", "YQ=", "Y/8", "ＹＱ"])
def test_a_value_has_one_spelling(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(text)
    assert decode("YQ") == b"a"


@BOTH
async def test_the_last_key_of_an_administrator_stays(room: KeyRoom, clock: ManualClock) -> None:
    await room.set_up()
    boss = proven(room.fresh("ann", groups=frozenset({"admins"})), Proof("webauthn", clock.now(), "hwk", True))
    (key,) = [one for one in await room.factors.of(DEFAULT_TENANT, "s-ann") if one.kind == "webauthn"]
    with pytest.raises(UserError, match="ERR-MFA-REQUIRED"):
        await room.enrolment.remove(boss, key.id)
    await room.set_up()
    await room.enrolment.remove(boss, key.id)
    assert len(await labels(room)) == 1


# -- who made it -----------------------------------------------------------------------------------------------------


class Maker:
    """Makes keys: a root, and certificates for models."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Maker Root")])
        self.root = self._signed(self.name, self.key, [(x509.BasicConstraints(True, None), True)])

    @property
    def pem(self) -> bytes:
        return self.root.public_bytes(Encoding.PEM)

    def attest(
        self,
        *,
        unit: str = "Authenticator Attestation",
        model: bytes | None = MODEL,
        ca: bool = False,
        critical: bool = False,
        fmt: str = "packed",
        without: x509.ObjectIdentifier | None = None,
    ) -> Callable[[bytes], tuple[str, dict[str, Any]]]:
        leaf = ec.generate_private_key(ec.SECP256R1())
        parts = [(NameOID.COUNTRY_NAME, "SE"), (NameOID.ORGANIZATION_NAME, "Maker")]
        parts += [(NameOID.ORGANIZATIONAL_UNIT_NAME, unit), (NameOID.COMMON_NAME, "Key")]
        extensions: list[tuple[x509.ExtensionType, bool]] = [(x509.BasicConstraints(ca, None), True)]
        if model is not None:
            oid = x509.ObjectIdentifier("1.3.6.1.4.1.45724.1.1.4")
            extensions.append((x509.UnrecognizedExtension(oid, b"\x04\x10" + model), critical))
        subject = x509.Name([x509.NameAttribute(*part) for part in parts if part[0] != without])
        certificate = self._signed(subject, leaf, extensions).public_bytes(Encoding.DER)

        def statement(signed: bytes) -> tuple[str, dict[str, Any]]:
            return fmt, {"alg": -7, "sig": leaf.sign(signed, ec.ECDSA(hashes.SHA256())), "x5c": [certificate]}

        return statement

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extensions: list[tuple[x509.ExtensionType, bool]]
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        built = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )
        for extension, critical in extensions:
            built = built.add_extension(extension, critical)
        return built.sign(self.key, hashes.SHA256())


MAKER = Maker()
LISTED = {"aaguids": frozenset({NAME}), "roots": (MAKER.pem,)}


async def test_a_listed_model_that_its_maker_vouches_for_is_taken(furnish: Furnish) -> None:
    room = furnish(**LISTED)
    ann = room.fresh("ann")
    assert (await room.binding.begin(ann))["attestation"] == "direct"
    key = await room.set_up(Authenticator(aaguid=MODEL), attest=MAKER.attest())
    ticket, options = await room.question(ann)
    assert (await room.give(ann, ticket, key.answer(options))).key == "hwk"


def own(key: Authenticator) -> Callable[[bytes], tuple[str, dict[str, Any]]]:
    return lambda signed: ("packed", {"alg": -7, "sig": key.sign(signed)})


async def test_a_key_that_vouches_for_itself_is_one_of_no_model(furnish: Furnish, room: KeyRoom) -> None:
    key = Authenticator(aaguid=MODEL)
    with pytest.raises(UserError, match="ERR-MFA-KEY-REFUSED"):
        await furnish(**LISTED).set_up(key, attest=own(key))
    await room.set_up(key, attest=own(key))  # where nobody asks for models it is as good as any
    assert not await furnish(**LISTED).webauthn.offer(DEFAULT_TENANT, "s-ann")


@pytest.mark.parametrize(
    ("aaguid", "attest"),
    [
        (MODEL, None),
        (MODEL, Maker().attest()),
        (MODEL, MAKER.attest(unit="Something else")),
        (MODEL, MAKER.attest(model=bytes(16))),
        (MODEL, MAKER.attest(ca=True)),
        (MODEL, MAKER.attest(critical=True)),
        (MODEL, MAKER.attest(without=NameOID.COUNTRY_NAME)),
        (MODEL, MAKER.attest(without=NameOID.ORGANIZATION_NAME)),
        (MODEL, MAKER.attest(without=NameOID.ORGANIZATIONAL_UNIT_NAME)),
        (MODEL, MAKER.attest(without=NameOID.COMMON_NAME)),
        (MODEL, MAKER.attest(fmt="fido-u2f")),
        (MODEL, MAKER.attest(fmt="never-heard-of")),
        (bytes(16), MAKER.attest(model=bytes(16))),
        (bytes(16), MAKER.attest(model=None)),
    ],
    ids=[
        "none",
        "another maker",
        "unit",
        "another model",
        "an authority",
        "critical",
        "no country",
        "no organization",
        "no unit",
        "no name",
        "u2f",
        "unknown",
        "not listed",
        "no model",
    ],
)
async def test_what_no_maker_vouches_for_is_refused(
    furnish: Furnish, aaguid: bytes, attest: Callable[[bytes], tuple[str, dict[str, Any]]] | None
) -> None:
    room = furnish(**LISTED)
    with pytest.raises(UserError, match="ERR-MFA-KEY-REFUSED"):
        await room.set_up(Authenticator(aaguid=aaguid), attest=attest)
    assert await room.factors.of(DEFAULT_TENANT, "s-ann") == []


@pytest.mark.parametrize("fmt", ["tpm", "android-key", "android-safetynet", "apple", "fido-u2f", "none", ""])
def test_a_certificate_vouches_in_one_format_only(fmt: str) -> None:
    """Also where the rest of it is in order: what is verified of the others says nothing of the model."""
    _, statement = MAKER.attest()(b"")
    attestation.check("packed", statement["x5c"], NAME)
    with pytest.raises(NotProven, match="attestation"):
        attestation.check(fmt, statement["x5c"], NAME)


def certificate_of(statement: Callable[[bytes], tuple[str, dict[str, Any]]]) -> bytes:
    der: bytes = statement(b"")[1]["x5c"][0]
    return der


VERSION = b"\xa0\x03\x02\x01"
OF_NO_MODEL = {
    "critical": [certificate_of(MAKER.attest(critical=True))],
    "version 1": [certificate_of(MAKER.attest()).replace(VERSION + b"\2", VERSION + b"\0", 1)],
    "of a version that there is not": [certificate_of(MAKER.attest()).replace(VERSION + b"\2", VERSION + b"\7", 1)],
    "cut": [certificate_of(MAKER.attest())[:-1]],
    "text": ["certificate"],
    "none": [],
    "no list": certificate_of(MAKER.attest()),
}


@pytest.mark.parametrize("name", OF_NO_MODEL)
def test_a_certificate_that_may_not_speak_for_a_model_is_refused_here_too(name: str) -> None:
    """Section 8.2.1, whatever the library makes of it before."""
    with pytest.raises(NotProven, match="attestation"):
        attestation.check("packed", OF_NO_MODEL[name], NAME)


async def test_where_no_maker_is_named_no_model_is_taken(furnish: Furnish) -> None:
    room = furnish(aaguids=frozenset({NAME}), roots=())
    with pytest.raises(UserError, match="ERR-MFA-KEY-REFUSED"):
        await room.set_up(Authenticator(aaguid=MODEL), attest=MAKER.attest())
    assert await room.factors.of(DEFAULT_TENANT, "s-ann") == []


async def test_browsers_are_told_the_ways_to_a_key_that_there_are(room: KeyRoom) -> None:
    """What a browser made up, or a newer one knows, is not handed to the next one."""
    await room.set_up()
    _, options = await room.question(room.fresh("ann"))
    assert [one["transports"] for one in options["allowCredentials"]] == [["usb"]]


async def test_a_statement_over_something_else_is_refused(furnish: Furnish) -> None:
    statement = MAKER.attest()
    with pytest.raises(UserError, match="ERR-MFA-KEY-REFUSED"):
        await furnish(**LISTED).set_up(Authenticator(aaguid=MODEL), attest=lambda signed: statement(signed + b"x"))
