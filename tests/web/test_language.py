"""Pages in the language of whoever looks at them."""

from __future__ import annotations

import re

import pytest

from gateway.core.facts import Facts
from gateway.web.pages import ErrorPages
from tests.web.conftest import Browser, House, P

TURKISH = {"Accept-Language": "tr-TR,tr;q=0.9,en;q=0.8"}


async def test_a_page_follows_the_browser(browser: Browser) -> None:
    page = await browser.get("login", headers=TURKISH)
    assert '<html lang="tr">' in page.text
    assert "Kullanıcı adı" in page.text
    assert page.headers["Content-Language"] == "tr"
    assert page.headers["Vary"].startswith("Accept-Language, Cookie")
    english = await browser.get("login")
    assert '<html lang="en">' in english.text
    assert english.headers["Content-Language"] == "en"


async def test_a_choice_wins_and_stays(browser: Browser) -> None:
    page = await browser.get("login?next=%2Forders")
    form = page.form("language")
    assert form.fields["next"] == f"{P}login?next=%2Forders"
    answer = await browser.post("language", {**form.fields, "language": "tr"})
    assert (answer.status, answer.location) == (303, f"{P}login?next=%2Forders")
    (cookie,) = (one for one in answer.headers.getall("Set-Cookie") if "language" in one)
    assert cookie == "sallyport-language=tr; Path=/; HttpOnly; SameSite=Lax; Max-Age=31536000"
    assert "Parola" in (await browser.get("login", headers={"Accept-Language": "en"})).text
    await browser.post("language", {"language": "en"})
    assert "Password" in (await browser.get("login", headers=TURKISH)).text


async def test_over_https_the_cookie_is_nobody_elses_to_set(visit: type[Browser]) -> None:
    answer = await visit(scheme="https").post("language", {"language": "tr"})
    assert answer.headers["Set-Cookie"].startswith("__Host-sallyport-language=tr; Path=/; ")
    assert "; Secure" in answer.headers["Set-Cookie"]


@pytest.mark.parametrize("fields", [{}, {"language": "de"}, {"language": "tr\r\nX: 1"}, {"language": "../tr"}])
async def test_no_other_language_is_chosen(fields: dict[str, str], browser: Browser) -> None:
    answer = await browser.post("language", fields)
    assert answer.status == 400
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("after", ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:1", ""])
async def test_the_switch_leads_nowhere_else(after: str, browser: Browser) -> None:
    assert (await browser.post("language", {"language": "tr", "next": after})).location == f"{P}account"


async def test_another_site_chooses_nothing(browser: Browser) -> None:
    answer = await browser.post("language", {"language": "tr"}, headers={"Origin": "https://evil.example"})
    assert answer.status == 403
    assert "Set-Cookie" not in answer.headers


async def test_who_is_signed_in_is_written_to_in_what_they_choose(house: House, browser: Browser) -> None:
    async def known() -> str:
        user = await house.desk.users.find("bob")
        assert user is not None
        return user.language

    await browser.sign_in()
    assert await known() == "en"
    await browser.post("language", {"language": "tr"})
    assert await known() == "tr"
    page = await browser.get("account", headers={"Accept-Language": "en"})
    assert "Açık oturumlarınız" in page.text


async def test_a_sign_in_from_elsewhere_changes_no_language(
    house: House, browser: Browser, visit: type[Browser]
) -> None:
    """Whoever has stolen a password must not choose in which language its owner is told."""
    await browser.post("language", {"language": "tr"})
    await browser.sign_in()
    thief = visit(address="203.0.113.66")
    await thief.post("language", {"language": "en"})
    await thief.sign_in()
    user = await house.desk.users.find("bob")
    assert user is not None
    assert user.language == "tr"


async def test_what_is_told_is_translated_and_its_code_is_not(browser: Browser) -> None:
    answer = await browser.api("GET", "mfa/status", headers=TURKISH)
    assert answer.json["code"] == "ERR-SIGN-IN"
    assert (answer.json["detail"], answer.json["title"]) == ("Lütfen oturum açın.", "Unauthorized")
    assert answer.headers["Content-Language"] == "tr"
    form = await browser.get("login", headers=TURKISH)
    wrong = await browser.post(
        "login", {**form.form("login").fields, "username": "bob", "password": "no"}, headers=TURKISH
    )
    assert "Kullanıcı adı veya parola yanlış." in wrong.text
    assert "<title>Hata: Oturum aç" in wrong.text
    assert wrong.form("language").fields["next"].startswith(f"{P}login?")  # once more, with nothing of the form


async def test_numbers_and_times_are_turkish(browser: Browser) -> None:
    await browser.sign_in()
    text = (await browser.get("account", headers=TURKISH)).text
    assert "az önce" in text
    assert re.search(r"\d+ saat kullanılmazsa, her durumda ise \d+ saat sonra kapanır|\d+ (dakika|saat|gün)", text)
    assert not re.search(r">[^<]*\b(ago|minutes?|hours?|days?)\b", text)


async def test_errors_of_the_wire_speak_it_too() -> None:
    def told(default: str = "en", **more: object) -> tuple[str, str]:
        facts = Facts(method="GET", host="h", path="/x", target=b"/x?a=%3C1", **more)  # type: ignore[arg-type]
        maker = ErrorPages("/p/", "sallyport-language", default)
        page, language = maker(facts, 403, "ERR-NO-RULE", "Forbidden", "Nothing here.", "01")
        return page.decode(), language

    assert told()[1] == "en"
    page, language = told(headers=((b"Accept-Language", b"tr"),))
    assert language == "tr"
    assert "Buraya giremezsiniz" in page
    assert '<input type="hidden" name="next" value="/x?a=%3C1">' in page
    assert told("tr", headers=((b"Accept-Language", b"de"),))[1] == "tr"
    assert told(headers=((b"Accept-Language", b"en"),), cookie=b"sallyport-language=tr")[1] == "tr"


async def test_the_documents_of_the_api_are_english(browser: Browser) -> None:
    page = await browser.get("api/docs", headers=TURKISH)
    assert '<html lang="en">' in page.text
    assert page.headers["Content-Language"] == "en"
    assert "İçeriğe" not in page.text
