"""The page's files, their headers, and that nothing in them comes from elsewhere or runs inline."""

from __future__ import annotations

import asyncio
import re
from importlib.resources import files

import httpx
import pytest
from fastapi import FastAPI

from blindtune.server import page


@pytest.fixture
def get():
    app = FastAPI()
    app.include_router(page.page())

    async def answer(path, **headers):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.get(path, headers=headers)

    return lambda path, **headers: asyncio.run(answer(path, **headers))


def addresses():
    return ["/" if name == "index.html" else f"/page/{name}" for name in page.TYPES]


@pytest.mark.parametrize("path", addresses())
def test_every_file_is_served_under_the_policy(get, path):
    answer = get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == page.TYPES[path.rpartition("/")[2] or "index.html"]
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = get(path, **{"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_every_file_of_the_package_is_served_and_every_link_leads_to_one(get):
    there = {f.name for f in files("blindtune.server.page").iterdir() if f.is_file()}
    assert there - set(page.TYPES) == {"__init__.py"}
    for path in addresses():
        text = get(path).text
        for found in re.findall(r'(?:src|href)="([^"#]+)"|from "\./([^"]+)"', text):
            link = found[0] or f"/page/{found[1]}"
            assert get(link).status_code == 200, link


@pytest.mark.parametrize(
    "path", ["/page/__init__.py", "/page/nothing.js", "/page/..%2f..%2ftables.py", "/page/"]
)
def test_nothing_else_is_served(get, path):
    assert get(path).status_code == 404


def test_no_markup_is_made_from_text_and_nothing_is_inline():
    for name in page.TYPES:
        text = (files("blindtune.server.page") / name).read_text()
        # An SVG's namespace is a name, not an address.
        outside = [a for a in re.findall(r"https?://[^\s\"')]+", text) if a != "http://www.w3.org/2000/svg"]
        assert outside == []
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
        assert not re.search(r"<script>|<style|\son\w+=|\sstyle=", text)
