"""Links of the OpenAPI document: which answers tell the identifiers that other operations take."""

from __future__ import annotations

from typing import Any

SOURCES = {
    ("post", "/v1/studies/{study}/jobs", "202"): {"job": "id", "study": "study"},
    ("post", "/v1/jobs/{job}/cancel", "202"): {"job": "id", "study": "study"},
    ("post", "/v1/jobs/{job}/retry", "202"): {"job": "id", "study": "study"},
    ("get", "/v1/jobs", "200"): {"job": "items/0/id", "study": "items/0/study"},
    ("get", "/v1/studies", "200"): {"study": "items/0/study"},
    ("post", "/v1/tokens", "201"): {"token": "id"},
}
"""By method, path and status: where in the body the identifiers stand (JSON pointers)."""


def link(document: dict[str, Any]) -> None:
    """Add to these answers a link to each operation whose path takes only what they tell."""
    paths: dict[str, dict[str, Any]] = document["paths"]
    for (method, path, status), told in SOURCES.items():
        links = paths[path][method]["responses"][status].setdefault("links", {})
        for target, operations in paths.items():
            wanted = {part[1:-1] for part in target.split("/") if part.startswith("{")}
            if not wanted or not wanted <= set(told):
                continue
            parameters = {name: f"$response.body#/{told[name]}" for name in sorted(wanted)}
            for operation in operations.values():
                name = operation["operationId"]
                links[name] = {"operationId": name, "parameters": parameters}
