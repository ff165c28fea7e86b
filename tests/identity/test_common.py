from __future__ import annotations

import secrets

import pytest

from gateway.identity.common import is_common

# Of the lists of leaked passwords, those that are long enough to be chosen at all.
LEAKED = """
password 12345678 123456789 1234567890 qwertyui qwertyuiop iloveyou sunshine princess football baseball
superman trustno1 starwars computer michelle corvette jennifer samantha mercedes midnight password1
password123 p@ssw0rd passw0rd Passw0rd! 1q2w3e4r 1qaz2wsx qazwsxedc zaq12wsx asdfghjk asdfasdf asdf1234
qwer1234 abcd1234 abc12345 a1b2c3d4 aaaaaaaa 11111111 00000000 12341234 87654321 11223344 12121212 123123123
1q2w3e4r5t zxcvbnm1 letmein1 welcome1 welcome123 Welcome2024! Summer2025 Winter2023! monkey123 dragon123
charlie1 shadow12 master123 jordan23 liverpool chelsea1 arsenal1 admin123 administrator changeme changeme1
test1234 testtest qwerty123 qwerty12 q1w2e3r4 google123 facebook1 19841231 25121990 christopher alexander
elizabeth nicholas benjamin jonathan stephanie victoria september november whatever metallica slipknot
hellokitty iloveyou2 loveyou1 lovelove footballfootball 147258369 987654321 66666666 88888888 internet
""".split()


@pytest.mark.parametrize("password", LEAKED)
def test_what_everybody_tries(password: str) -> None:
    assert is_common(password.casefold())


@pytest.mark.parametrize(
    "password",
    ["correct horse battery", "tr0ub4dor&3x!vq", "my cat eats 7 mice", "grün ist die hoffnung", "9f3k2lq8",
     "sunshine in my pocket",
     "password of my neighbour's dog", "ann-has-two-hats"],
)  # fmt: skip
def test_what_somebody_thought_of(password: str) -> None:
    assert not is_common(password)


def test_random_passwords_are_never_common() -> None:
    assert not any(is_common(secrets.token_urlsafe(12).casefold()) for _ in range(2000))
