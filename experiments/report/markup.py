"""HTML in which what is not markup is escaped: a class may be called <script>."""

import html
from collections.abc import Iterable, Sequence
from typing import Any


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def text(value: Any) -> Html:
    """The value as text; markup stays what it is."""
    if isinstance(value, Html):
        return value
    # HTML has no way to write most control characters.
    return Html(html.escape("".join(c if c.isprintable() or c.isspace() else "·" for c in str(value))))


def tag(name: str, *content: Any, **attributes: str) -> Html:
    """One element; `class_="x"` gives class="x", and nothing else is left out or allowed in unescaped.

    >>> tag("p", "a < b ", tag("b", "!"), class_="note")
    '<p class="note">a &lt; b <b>!</b></p>'
    """
    given = "".join(f' {key.rstrip("_")}="{text(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{given}>{join(content)}</{name}>")


def join(content: Iterable[Any], between: str = "") -> Html:
    """Several pieces as one; None leaves nothing behind."""
    return Html(between.join(text(piece) for piece in content if piece is not None))


def table(
    head: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    *,
    numbers: Sequence[int] = (),
    caption: Any = None,
    marked: int | None = None,
) -> Html:
    """A table whose first column heads its rows; the columns in `numbers` are set flush right."""

    def cell(name: str, column: int, content: Any, **attributes: str) -> Html:
        return tag(name, content, **attributes, **({"class_": "number"} if column in numbers else {}))

    body = []
    for i, row in enumerate(rows):
        cells = [cell("td" if j else "th", j, c, **({} if j else {"scope": "row"})) for j, c in enumerate(row)]
        body.append(tag("tr", *cells, **({"class_": "decides"} if i == marked else {})))
    header = tag("thead", tag("tr", *(cell("th", j, c, scope="col") for j, c in enumerate(head)))) if head else None
    return tag("table", None if caption is None else tag("caption", caption), header, tag("tbody", *body))
