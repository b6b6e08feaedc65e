"""The page of many steps, from what was measured."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from benchmarks.commands import ROOT
from benchmarks.page import table

PAGE = ROOT / "docs" / "benchmarks" / "deep.md"


def write(found: dict[str, Any]) -> None:
    """Write the page, as far as its parts were measured."""
    parts = {name: found[name] for name in ("refresh", "bootstrap") if name in found}
    heads = {"refresh": "refreshed by hospitals", "bootstrap": "bootstrapped"}
    sections = {"refresh": _refresh, "bootstrap": _bootstrap, "serve": _serve}
    first = next(iter(parts.values()))
    task, clear = first["task"], first["clear"]
    columns = [head for name in parts for head in (heads[name], "logits apart")]
    rows = [
        [
            str(step + 1),
            f"{clear[step]:.4f}",
            *(x for p in parts.values() for x in (f"{p['encrypted'][step]:.4f}", f"{p['apart'][step]:.3f}")),
        ]
        for step in range(len(clear))
    ]
    blocks = [
        "# More steps than the levels allow",
        _wrapped(f"""
            Written by `python -m benchmarks.deep`. MNIST, ten digits, DeiT-tiny at 96 px (192 features):
            {first["train"]:,} training images and {first["test"]:,} test images (every so many of MNIST's, by
            class), {task["directions"]} whitened directions, each digit against the rest by a polynomial of
            degree {task["degree"]} on |z| ≤ {task["interval"]:g}, {len(clear)} steps with a learning rate of
            {task["rates"][0]:g}. Accuracy on the test images after each step, and the largest difference of a
            logit of a test image from the same steps in clear:"""),
        table(["step", "in clear", *columns], rows),
        *(block for name, section in sections.items() if name in found for block in section(found[name])),
    ]
    PAGE.write_text("\n\n".join(blocks) + "\n")


def _refresh(r: dict[str, Any]) -> list[str]:
    seconds, each = r["seconds"], r["refreshes"]
    sent = sum(r["sent"][stage] for stage in ("first", "second"))
    rehearsed = (
        f"the rehearsal that measures the error took {seconds['rehearsal']:.0f} s"
        if "rehearsal" in seconds
        else "the length of the error is that of an earlier rehearsal"
    )
    return [
        "## Joint key of three hospitals: interactive refresh",
        _wrapped(f"""
            Ring degree {r["ring_degree"]:,}, {r["modulus_bits"]:g} bits, {r["levels"]} levels; all hospitals
            refresh the weights after every {r["every"]} steps, {len(each)} times. The weights of each step
            were decrypted with all shares in one place, which only this benchmark does. The head that the
            hospitals open at the end has an accuracy of {r["opened"]:.4f}, against {r["clear"][-1]:.4f} in
            clear: smudging noise grows with the error of all steps, and adds {r["error"]:.2f} to a weight
            as it is encrypted."""),
        _wrapped(f"""
            A refresh takes a hospital {np.median([x["seconds"] for x in each]):.2f} s; it reads at most
            {max(x["received"] for x in each) / 1e6:.1f} MB and writes
            {r["sent"]["refresh"] / len(each) / 1e6:.1f} MB. Key generation took {seconds["keys"]:.0f} s a
            hospital ({sent / 1e6:.0f} MB), rows {seconds["rows"]:.0f} s a hospital, loading
            {seconds["loading"]:.0f} s, training without the hospitals {seconds["training"]:.0f} s, opening
            {seconds["opening"]:.1f} s a hospital; {rehearsed}. All in one process, with at most
            {r["memory_gib"]:.1f} GiB. {_where(r["machine"])}"""),
    ]


def _bootstrap(r: dict[str, Any]) -> list[str]:
    seconds, each = r["seconds"], r["seconds"]["bootstrapping"] / r["bootstraps"]
    keys = r["key_count"] * r["key_bytes"]
    return [
        "## One owner's key: bootstrapping on the server",
        _wrapped(f"""
            Ring degree {r["ring_degree"]:,}, {r["modulus_bits"]:.0f} bits, special primes counted:
            {r["depth"]} levels, of which a step has {r["levels"]} and a bootstrap of {r["period"]} slots
            takes the others. It comes after every step, {r["bootstraps"]} times; nobody has to be there. A
            bootstrap took {each:.0f} s, the training {seconds["training"]:.0f} s in all, with at most
            {r["memory_gib"]:.1f} GiB. {_where(r["machine"])}"""),
        _wrapped(f"""
            Rows weigh {r["upload"] / 1e6:,.0f} MB. The {r["key_count"]} key-switching keys of {r["digits"]}
            digits weigh {r["key_bytes"] / 1e6:.0f} MB each in memory, {keys / 1e9:.1f} GB together, and took
            {seconds["keys"]:.0f} s; with one special prime and a digit a limb a key would take
            {r["wire_key_bytes"] / 1e6:,.0f} MB on the way. Here keys and training were in one process."""),
    ]


def _serve(r: dict[str, Any]) -> list[str]:
    seconds, each = r["seconds"], r["seconds"]["bootstrapping"] / r["bootstraps"]
    return [
        "## The same as a service",
        _wrapped(f"""
            By the commands, `encrypt --bootstrap`, `submit`, `fetch`, `decrypt`, and a server in processes of
            its own on the same machine: {r["train"]:,} training images, {r["steps"]} steps with a learning
            rate of {r["trained"]["rate"]:g} and balanced classes. The head that came back differs from the
            same steps in clear by {100 * r["deviation"]:.2f} % of the largest weight; its accuracy on
            {r["test"]:,} test images is {r["encrypted"]:.4f}, in clear {r["clear"]:.4f}."""),
        _wrapped(f"""
            {r["keys"]} keys, {r["key_bytes"] / r["keys"] / 1e6:.0f} MB each on the way (a seed stands for
            half of it) and {r["key_memory"] / 1e6:.0f} MB in memory: {r["key_bytes"] / 1e9:.2f} GB are sent,
            with rows of {r["row_bytes"] / 1e6:,.0f} MB. Encrypting took {seconds["encryption"]:.0f} s and
            {r["hospital_bytes"] / 2**30:.1f} GiB, sending {seconds["submit"]:.0f} s. The server loaded keys
            and rows in {seconds["loading"]:.0f} s and trained for {seconds["training"]:.0f} s, of which
            {r["bootstraps"]} bootstraps of {each:.0f} s; its training process held at most
            {r["peak_bytes"] / 2**30:.1f} GiB, where {r["predicted_bytes"] / 2**30:.1f} GiB had been
            predicted. {_where(r["machine"])}"""),
    ]


def _where(m: dict[str, Any]) -> str:
    # A run on a branch names the commit that ran, and the one that its rebase came in as.
    landed = f" (rebased onto others' changes, it came in as {m['landed']})" if "landed" in m else ""
    return (
        f"Seconds are on the clock of a busy machine: {m['cpu']}, one thread, load {m['load']:.1f} at the "
        f"end, Python {m['python']}, OpenFHE {m['openfhe']}, commit {m['commit']}{landed}."
    )


def _wrapped(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 110, break_long_words=False, break_on_hyphens=False)
