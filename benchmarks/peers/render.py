"""The results as a table in Markdown."""

from __future__ import annotations

from typing import Any

TITLES = {
    "breast": "breast cancer table",
    "xrays": "X-rays, principal directions",
    "xrays-192": "X-rays, all features of DeiT-tiny",
    "infant-mortality": "quoted, not run: US infant mortality",
}


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours, three digits."""
    if seconds is None:
        return "–"
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _share(row: dict[str, Any]) -> str:
    if row["quoted"]:
        return "quoted"
    told = f"{row['units_measured']} of {row['units']} {row['unit']}"
    return f"{told}, **extrapolated**" if row["extrapolated"] else told


def _line(row: dict[str, Any], own: dict[str, Any] | None) -> str:
    ratio = "–"
    if own and row is not own and row["seconds_train"] and not row["quoted"]:
        ratio = f"{row['seconds_train'] / own['seconds_train']:.3g}×"
    star = "" if row["figures_from"] == "encrypted run" else "†"
    score = [f"{row[k]:.3f}{star}" if row[k] is not None else "–" for k in ("accuracy", "auc")]
    plain = [f"{row[k]:.3f}" if row[k] is not None else "–" for k in ("plaintext_accuracy", "plaintext_auc")]
    data, keys = (f"{b / 1e6:.3g}" if b else "–" for b in (row["bytes_data"], row["bytes_keys"]))
    cells = [
        f"{row['title']} {row['version']}",
        duration(row["seconds_train"]),
        ratio,
        _share(row),
        duration(row["seconds_setup"]),
        " / ".join(score),
        " / ".join(plain),
        str(row["security_bits"] or "–"),
        f"{row['ring_degree']:,}" if row["ring_degree"] else "–",
        f"{data} + {keys}",
        "yes" if row["interactive"] else "no",
    ]
    return "| " + " | ".join(cells) + " |"


def render(results: dict[str, Any]) -> str:
    """A section of ``docs/benchmarks.md``: one table a data set, what could not be run, notes."""
    machine = results["machine"]
    lines = [
        f"{machine['cpu']}, {results['cores']} cores, Python {machine['python']}, "
        f"commit {machine['commit']}, {results['date']}; load {machine['load_at_start']:.1f} "
        f"when it started. Written by `{results['command']}`.",
        "",
        "All rows of a table are one run on the same files. *Trains* is the wall time of the encrypted work",
        "of a full run; where only a part was run, the rest is **extrapolated** at the measured time a unit.",
        "*Setup* is compilation, keys and encryption, without installation. † figures of the same steps in",
        "clear. Interactive: the client decrypts and encrypts again during training.",
    ]
    for name in dict.fromkeys(row["data"] for row in results["rows"]):
        rows = [row for row in results["rows"] if row["data"] == name]
        own = next((row for row in rows if row["peer"] == "blindtune"), None)
        size = f"{rows[0]['rows']} rows × {rows[0]['features']}"
        lines += [
            "",
            f"**{TITLES.get(name, name)}**, {size} columns",
            "",
            "| peer | trains | against blindtune | run | setup | accuracy / AUC | plaintext accuracy / AUC "
            "| security bits | ring degree | MB data + keys | interactive |",
            "|" + "---|" * 11,
            *(_line(row, own) for row in rows),
        ]
    lines.append("")
    for found in results["rows"]:
        lines.append(f"* {found['title']}, {TITLES.get(found['data'], found['data'])}: {found['note']}.")
    for gap in results["missing"]:
        lines.append(f"* Not run: {gap['title']}, {TITLES.get(gap['data'], gap['data'])}: {gap['reason']}.")
    lines += [f"* Licence of {title}: {terms}." for title, terms in results["licences"].items()]
    return "\n".join(lines) + "\n"
