"""The forms of a page, as a browser would find them."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Form:
    """A form of a page: where it goes and what it would send."""

    action: str
    fields: dict[str, str] = field(default_factory=dict)


class Forms(HTMLParser):
    """A button that leads elsewhere than its form (`formaction`) makes a form of its own, with all that is above it."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        if tag == "form":
            assert said["method"] == "post"
            self.forms.append(Form(said["action"]))
        elif tag == "button" and "formaction" in said:
            self.forms.append(Form(said["formaction"], {**self.forms[-1].fields, said["name"]: said["value"]}))
        elif said.get("type") == "checkbox" and "checked" not in said:
            pass  # browsers do not send it
        elif tag == "input" and self.forms:
            self.forms[-1].fields[said["name"]] = said.get("value", "")
