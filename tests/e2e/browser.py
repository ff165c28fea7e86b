"""A headless Chromium, spoken to in the words of somebody who sits before it: headings, labels, buttons."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.common.exceptions import (
    NoSuchElementException,
    StaleElementReferenceException,
    TimeoutException,
    WebDriverException,
)
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.e2e.house import PASSWORD

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
PATIENCE = 8.0
"""Seconds until something that should be there is missed."""
WIDTHS = {"wide": 1280, "narrow": 390}

_FLAGS = """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --disable-dev-shm-usage --disable-extensions
--hide-scrollbars --lang=en"""
_ANSWERED = re.compile(r"Failed to load resource: the server responded with a status of 4\d\d")


_FIELD = """
const label = [...document.querySelectorAll("label")].find(
    (one) => one.innerText.split("\\n")[0].trim() === arguments[0]);
return label ? label.control : null;
"""
_NAMED = """
return [...document.querySelectorAll("button, a, summary")].find(
    (one) => one.checkVisibility() && one.textContent.trim().replace(/\\s+/g, " ") === arguments[0]) || null;
"""
_SEEN = "return [(document.querySelector('h1') || {innerText: ''}).innerText, document.body.innerText]"


class Browser:
    """One profile of its own. `url` is where it goes: set it before use."""

    def __init__(self, profile: Path, pictures: Path | None = None) -> None:
        options = ChromeOptions()
        options.binary_location = CHROMIUM or ""
        for flag in (*_FLAGS.split(), f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self._driver = Chrome(options, ChromeService(DRIVER or ""))
        self._driver.set_page_load_timeout(PATIENCE)
        self._pictures = pictures
        self.url = ""

    def close(self) -> None:
        self._driver.quit()

    def forget(self) -> None:
        """Become a browser that was never here."""
        self._driver.get("about:blank")
        self._command("Network.clearBrowserCookies")
        self._command("Network.clearBrowserCache")
        self.without_scripts(False)
        self.in_the_dark(False)
        self.complaints()

    def forget_cookie(self, name: str) -> None:
        self._driver.delete_cookie(name)

    # -- doing ---------------------------------------------------------------------------------------------------------

    def go(self, path: str) -> Browser:
        """Type an address."""
        self._driver.get(self.url + path)
        return self

    def follow(self, path: str) -> Browser:
        """Press a link to `path` on a page of another site."""
        self._driver.get(f"data:text/html,<a href='{self.url}{path}'>there</a>")
        return self.press("there")

    def reload(self) -> None:
        """Reload, and say yes to whatever the browser asks (such as: send the form again?)."""
        self._command("Page.reload")
        self.settle()

    def back(self) -> None:
        self._driver.back()
        self.settle()

    def fill(self, label: str, text: str) -> Browser:
        """Type into the field that `label` belongs to, in the place of what is there."""
        field = self.field(label)
        if field.get_property("value"):
            field.clear()
        field.send_keys(text)
        return self

    def press(self, name: str) -> Browser:
        """Press the button or link with this name, and see the next page."""
        self._leave(lambda: self._named(name).click())
        return self

    def sign_in(self, user: str, password: str = PASSWORD, *, leaves: bool = False) -> Browser:
        """Fill in the sign-in page that is shown, and send it; `leaves`: its window closes then."""
        self.fill("User name", user).fill("Password", password)
        return self.unfold("Sign in") if leaves else self.press("Sign in")

    def answer(self, code: str, label: str = "Six-digit code", *, leaves: bool = False) -> Browser:
        """Fill in the challenge that is shown, and send it; `leaves`: its window closes then."""
        self.fill(label, code)
        return self.unfold("Continue") if leaves else self.press("Continue")

    def confirm(self, act: Callable[[], object], button: str = "Continue") -> None:
        """Press `button` in the dialog that a page's script shows, and `act` in the window that opens and closes."""
        page = self._driver.current_window_handle
        self._until(lambda: self._named(button).is_displayed())
        self._named(button).click()
        self._until(lambda: len(self._driver.window_handles) == 2)
        self._driver.switch_to.window(next(one for one in self._driver.window_handles if one != page))
        try:
            self._until(lambda: self._driver.find_element(By.TAG_NAME, "h1").is_displayed())
            self.settle()
            act()
            self._until(lambda: len(self._driver.window_handles) == 1)
        finally:
            for one in self._driver.window_handles:
                if one != page:
                    self._driver.switch_to.window(one)
                    self._driver.close()
            self._driver.switch_to.window(page)

    def in_a_tab(self, path: str, act: Callable[[], object]) -> None:
        """Follow `path` in another tab, as from a letter, and `act` there; it is closed then."""
        here = self._driver.current_window_handle
        self._driver.switch_to.new_window("tab")
        try:
            self.go(path)
            act()
        finally:
            self.shut()
            self._driver.switch_to.window(here)

    def shut(self) -> None:
        """Close this window."""
        self._driver.close()

    def unfold(self, name: str) -> Browser:
        """Press what shows more of the same page, once it is there."""
        self._until(lambda: self._named(name).is_displayed())
        self._named(name).click()
        return self

    def type(self, *keys: str) -> None:
        """Type where the focus is."""
        ActionChains(self._driver).send_keys(*keys).perform()

    def enter(self) -> None:
        """Press Enter where the focus is, and see the next page."""
        self._leave(lambda: self.type(Keys.ENTER))

    @contextmanager
    def with_key(self) -> Iterator[None]:
        """Have a security key plugged in that knows its user and is touched whenever it blinks."""
        options = {"protocol": "ctap2", "transport": "usb", "hasUserVerification": True, "isUserVerified": True}
        self._command("WebAuthn.enable")
        self._key = self._command("WebAuthn.addVirtualAuthenticator", options=options)["authenticatorId"]
        try:
            yield
        finally:
            self._command("WebAuthn.disable")

    def know_the_user(self, knows: bool = True) -> None:
        """Have the security key find the right finger on it, or the wrong one."""
        self._command("WebAuthn.setUserVerified", authenticatorId=self._key, isUserVerified=knows)

    def forget_key(self) -> None:
        """Have everything wiped from the security key."""
        self._command("WebAuthn.clearCredentials", authenticatorId=self._key)

    def wait_for(self, words: str) -> None:
        """Wait until the page says so."""
        self._until(lambda: words in self.text)

    def without_scripts(self, off: bool = True) -> None:
        """Forbid pages to run scripts."""
        self._command("Emulation.setScriptExecutionDisabled", value=off)

    @property
    def runs_scripts(self) -> bool:
        """Whether a page's own script would run."""
        self._driver.get("data:text/html,<h1>no</h1><script>document.querySelector('h1').textContent = 'yes'</script>")
        return self.heading == "yes"

    def in_the_dark(self, on: bool = True) -> None:
        """Prefer dark pages."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if on else ""}]
        self._command("Emulation.setEmulatedMedia", features=features)

    # -- seeing --------------------------------------------------------------------------------------------------------

    def see(self, heading: str, *words: str) -> str:
        """Wait for the page with this heading and, in it, `words`; the page's text."""
        seen = "", ""

        def there() -> bool:
            nonlocal seen
            seen = self._driver.execute_script(_SEEN)
            return seen[0] == heading and all(word in seen[1] for word in words)

        try:
            self._until(there)
        except TimeoutException:
            raise AssertionError(
                f"expected {heading!r} with {words}, but there is, at {self.address}:\n{seen[0]!r}\n{seen[1]}"
            ) from None
        return seen[1]

    @property
    def heading(self) -> str:
        return self._driver.find_element(By.TAG_NAME, "h1").text

    @property
    def text(self) -> str:
        """What can be read."""
        return self._driver.find_element(By.TAG_NAME, "body").text

    @property
    def source(self) -> str:
        return self._driver.page_source

    @property
    def title(self) -> str:
        return self._driver.title

    @property
    def address(self) -> str:
        return self._driver.current_url

    @property
    def path(self) -> str:
        """Where it is: path and query, after the origin that it must not have left."""
        assert self._driver.current_url.startswith(self.url + "/"), self._driver.current_url
        return self._driver.current_url.removeprefix(self.url)

    def texts(self, css: str) -> list[str]:
        return [one.text for one in self._driver.find_elements(By.CSS_SELECTOR, css)]

    def attribute(self, css: str, name: str) -> str:
        return self._driver.find_element(By.CSS_SELECTOR, css).get_attribute(name) or ""

    def shows(self, css: str) -> bool:
        """Whether it can be seen."""
        return self._driver.find_element(By.CSS_SELECTOR, css).is_displayed()

    def hidden_text(self, css: str) -> str:
        """Text that is in the page, unfolded or not."""
        return self.attribute(css, "textContent")

    def has(self, name: str) -> bool:
        """Whether there is a button or link with this name."""
        try:
            self._named(name)
        except NoSuchElementException:
            return False
        return True

    def field(self, label: str) -> WebElement:
        """The field that `label` belongs to."""
        field = self._driver.execute_script(_FIELD, label)
        if not isinstance(field, WebElement):
            raise NoSuchElementException(f"no field {label!r}")
        return field

    @property
    def focus(self) -> WebElement:
        return self._driver.switch_to.active_element

    @property
    def focused(self) -> str:
        """The name of what has the focus."""
        return " ".join(self.focus.accessible_name.split())

    def tabbed(self, times: int) -> list[str]:
        """The names of what the Tab key reaches from the start of the page, all of it visibly focused."""
        self._driver.execute_script("document.activeElement.blur(); window.getSelection().removeAllRanges()")
        names = []
        for _ in range(times):
            self.type(Keys.TAB)
            if self.focus.tag_name in ("body", "html"):
                break
            names.append(self.focused)
            assert self.focus_is_visible, f"the focus on {names[-1]!r} cannot be seen"
        return names

    @property
    def background(self) -> float:
        """How bright the page is, 0.0 black … 1.0 white."""
        colour = self._driver.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
        red, green, blue = (int(part) for part in re.findall(r"\d+", colour)[:3])
        return (0.299 * red + 0.587 * green + 0.114 * blue) / 255

    @property
    def focus_is_visible(self) -> bool:
        """Whether the focused element is drawn unlike the others: an outline of at least two pixels."""
        outline = self.focus.value_of_css_property("outline-style")
        width = float(self.focus.value_of_css_property("outline-width").removesuffix("px"))
        return outline not in ("none", "hidden") and width >= 2 and self.focus.is_displayed()

    def look(self, name: str) -> None:
        """Nothing of the page may stick out on a small screen; pictures of it at every width, where they are wanted."""
        for kind, width in WIDTHS.items():
            if self._pictures is None and kind != "narrow":
                continue
            metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
            self._command("Emulation.setDeviceMetricsOverride", **metrics)
            size = self._command("Page.getLayoutMetrics")["cssContentSize"]
            assert size["width"] <= width, f"{name} is {size['width']} wide on a screen of {width}"
            if self._pictures is not None:
                self.picture(self._pictures / f"{name}-{kind}.png")
        self._command("Emulation.clearDeviceMetricsOverride")

    @contextmanager
    def width(self, width: int) -> Iterator[int]:
        """On a screen of that width; how wide the page then is."""
        self._command("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        yield int(self._command("Page.getLayoutMetrics")["cssContentSize"]["width"])
        self._command("Emulation.clearDeviceMetricsOverride")

    def evaluate(self, script: str) -> Any:
        """What `script` answers, a promise too. It is put in from outside, past the policy of the page."""
        said = self._command("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def picture(self, file: Path) -> None:
        picture = self._command("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(picture))

    def complaints(self) -> list[str]:
        """What the browser's console has said since the last time, without the 4xx that a test has seen itself, and
        without what it tells a test that was quicker in a field than the page."""
        return [
            f"{entry['level']} {entry['message']}"
            for entry in self._driver.get_log("browser")
            if "Autofocus processing was blocked" not in entry["message"]
            and (not _ANSWERED.search(entry["message"]) or "/static/" in entry["message"])
        ]

    # -- waiting -------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Wait until a document is whole."""
        self._until(lambda: self._driver.execute_script("return document.readyState") == "complete")

    def _leave(self, act: Callable[[], object]) -> None:
        """Do something that leads to another document, and wait for that."""
        before = self._driver.find_element(By.TAG_NAME, "html")
        act()

        def gone() -> bool:
            try:
                before.is_enabled()
            except (StaleElementReferenceException, WebDriverException):
                return True
            return False

        self._until(gone)
        self.settle()

    def _until(self, true: Callable[[], object]) -> None:
        ignored = (NoSuchElementException, StaleElementReferenceException, WebDriverException)
        WebDriverWait(self._driver, PATIENCE, 0.05, ignored).until(lambda _: true(), "nothing came")

    def _named(self, name: str) -> WebElement:
        found = self._driver.execute_script(_NAMED, name)
        if not isinstance(found, WebElement):
            raise NoSuchElementException(f"no button or link {name!r}")
        return found

    def _command(self, name: str, **parameters: object) -> dict[str, Any]:
        return self._driver.execute_cdp_cmd(name, parameters)  # type: ignore[no-any-return]
