"""Check the built site: no address but its own is asked for, and every link in it leads somewhere.

Usage: python docs/check_site.py SITE. Exits 1 and lists what is wrong, one a line.
"""

import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ASKS = {("link", "href"), ("script", "src"), ("img", "src"), ("source", "src"), ("iframe", "src")}
"""What a browser fetches by itself when a page is opened."""


class _Page(HTMLParser):
    """Anchors, links and what is asked for, of one page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.asked: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is None:
                continue
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)
            elif (tag, name) in ASKS:
                self.asked.append(value)
            elif tag == "a" and name == "href":
                self.links.append(value)


@cache
def _read(page: Path) -> _Page:
    parsed = _Page()
    parsed.feed(page.read_text(encoding="utf-8"))
    return parsed


def faults_of(site: Path) -> list[str]:
    """One line for each link that is broken, and for each address of others that is asked for."""
    faults = []
    for page in sorted(site.rglob("*.html")):
        parsed = _read(page)
        for address in parsed.asked + parsed.links:
            parts = urlsplit(address)
            if parts.scheme == "data" or (parts.scheme and address in parsed.links):
                continue  # a picture in the page; a link that only a reader follows
            if parts.scheme or parts.netloc:
                faults.append(f"{page.relative_to(site)}: asks for {address}")
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if not target.is_file():
                faults.append(f"{page.relative_to(site)}: {address} leads nowhere")
            elif (
                parts.fragment
                and target.suffix == ".html"
                and unquote(parts.fragment) not in _read(target).anchors
            ):
                faults.append(f"{page.relative_to(site)}: {address}: no such place in the page")
    for style in sorted(site.rglob("*.css")):
        text = style.read_text(encoding="utf-8")
        if "url(http" in text or "@import" in text:
            faults.append(f"{style.relative_to(site)}: asks for an address of others")
    return faults


def main() -> None:
    site = Path(sys.argv[1]).resolve()
    if not (site / "docs" / "index.html").is_file():
        raise SystemExit(f"{site}: no site there; build it with `make docs`")
    faults = faults_of(site)
    print("\n".join(faults))
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
