"""Both engines side by side on one single owner's study: seconds, bytes, memory, error against clear.

    python -m benchmarks.engines EMBEDDINGS.npz --work DIRECTORY --openfhe-python PYTHON [--turns 3]

In an environment with TenSEAL; OpenFHE is another Python's (3.10, see ``docs/joint-keys.md``). Every owner
and every training is a process of its own, on one thread. One set of parameters serves both libraries: its
key-switching prime has 60 bits. Blindtune's kernels take primes of up to 50 bits; they are measured beside
SEAL with the parameters that the planner chooses. Written to ``docs/benchmarks/engines.md`` and
``benchmarks/results/engines.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.commands import ROOT, keep, machine
from benchmarks.page import table
from benchmarks.single.study import HEAD, Given
from blindtune.imaging.arrays import load_embeddings
from blindtune.models.whitening import Whitening
from blindtune.params import Parameters, ParametersLiteral
from blindtune.plan import plan

PAGE = ROOT / "docs" / "benchmarks" / "engines.md"
DIRECTIONS, EPSILON = 63, 0.1
SAME, PLANNED = (
    "The same parameters for both libraries",
    "The planner's parameters and blindtune's own kernels",
)
CASES = {
    SAME: (ParametersLiteral(16384, 11, 29, 41, 60), ("seal", "openfhe"), ("seal", "openfhe")),
    PLANNED: (None, ("seal",), ("seal", "portable", "ifma")),
}
"""Parameters, libraries of the owners, and what trains; the planner chooses where no parameters are named."""


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--openfhe-python", required=True)
    parser.add_argument("--turns", type=int, default=3, help="trainings, of which the quickest counts")
    given = parser.parse_args()
    pythons = {"openfhe": given.openfhe_python}
    results: dict[str, Any] = {"machine": machine(()), "cases": []}
    data = load_embeddings(given.data)
    rows = data.indices("train")
    whitening = Whitening.fit(data.features[rows], DIRECTIONS, EPSILON, "")
    features, labels = whitening.apply(data.features[rows]), data.labels[rows]
    for number, (title, (literal, owners, trainers)) in enumerate(CASES.items()):
        parameters = literal.checked() if literal else None
        planned = plan(len(rows), features.shape[1], len(data.classes), HEAD, parameters=parameters)
        found: dict[str, Any] = {
            "title": title,
            "parameters": described(planned.parameters),
            "plan": planned.to_json(),
            "owners": {},
        }
        for owner in owners:
            place = given.work / f"{number}-{owner}"
            place.mkdir(parents=True)
            Given.of(planned, features, labels, len(data.classes)).write(place)
            trained = [f"{name}={pythons.get(name, sys.executable)}" for name in trainers]
            command = ["-m", "benchmarks.single.owner", str(place.resolve()), owner, str(given.turns)]
            subprocess.run(
                [pythons.get(owner, sys.executable), *command, *trained],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                check=True,
            )
            found["owners"][owner] = json.loads((place / "told.json").read_text())
        results["cases"].append(found)
        keep("engines", results)
    PAGE.write_text(render(results))


def described(parameters: Parameters) -> dict[str, Any]:
    """What the page says of parameters."""
    return {
        "ring_degree": parameters.ring_degree,
        "modulus_bits": round(parameters.modulus_bits, 1),
        "bits": [q.bit_length() for q in parameters.primes],
        "scale_bits": parameters.scale_bits,
        "security": parameters.security_name,
    }


def render(results: dict[str, Any]) -> str:
    """The page."""
    m, first = results["machine"], results["cases"][0]["plan"]
    libraries = {o["library"]: o["python"] for c in results["cases"] for o in c["owners"].values()}
    named = " and ".join(f"{library} on Python {python}" for library, python in libraries.items())
    text = f"""# Both engines on one study

Written by `python -m benchmarks.engines` on {m["cpu"]}, {m["cores"]} cores, with a load of
{m["load_at_start"]:.1f} at the start, commit {m["commit"]}; {named}.
One owner, {first["rows"]:,} rows, {first["columns"]} columns and {first["outputs"]} classes, three steps of
degree 7. Every owner and every training is a process of its own, on one thread; seconds are of the processor,
of training the quickest turn. Errors are of the opened weights against exactly the same steps and rescales
without noise, in parts of the largest weight. Memory is a process's peak, the interpreter and its libraries
included. Rows are encrypted with the secret key. Of a key the seed of the uniform polynomial is sent instead
of the polynomial, and with SEAL of a fresh ciphertext too.
"""
    for case in results["cases"]:
        text += section(case)
    return text


def section(case: dict[str, Any]) -> str:
    """One set of parameters."""
    p = case["parameters"]
    owners = [
        [
            told["library"],
            f"{told['keys']['processor']:.1f}",
            f"{told['keys_bytes'] / 1e6:.0f}",
            f"{told['rows']['processor']:.1f}",
            f"{told['rows_bytes'] / 1e6:.0f}",
            f"{told['peak_bytes'] / 1e9:.2f}",
        ]
        for told in case["owners"].values()
    ]
    trained = [
        [
            name,
            told["library"],
            f"{t['load']['processor']:.2f}",
            f"{t['train']['processor']:.2f}",
            f"{t['peak_bytes'] / 1e9:.2f}",
            f"{t['head_bytes'] / 1e6:.2f}",
            f"{1e3 * t['open']['processor']:.0f}",
            f"{t['largest_error']:.1e}",
            f"{t['error']:.1e}",
        ]
        for told in case["owners"].values()
        for name, t in told["trained"].items()
    ]
    first = next(iter(case["owners"].values()))["trained"]
    names = sorted({name for t in first.values() for name in t["operations"]})
    operations = [
        [
            name.replace("_", " "),
            *(
                f"{t['operations'][name][0]} in {t['operations'][name][1]:.2f} s"
                if name in t["operations"]
                else "–"
                for t in first.values()
            ),
        ]
        for name in names
    ]
    return f"""
## {case["title"]}

Ring degree {p["ring_degree"]:,}, {p["modulus_bits"]} bits in primes of {
        ", ".join(map(str, p["bits"]))
    }, a scale of
{p["scale_bits"]} bits, {p["security"]} security.

{table(["owner", "keys, s", "keys, MB", "rows, s", "rows, MB", "memory, GB"], owners)}

{
        table(
            [
                "trained by",
                "rows of",
                "loading, s",
                "training, s",
                "memory, GB",
                "head, MB",
                "opening, ms",
                "largest error",
                "mean error",
            ],
            trained,
        )
    }

Operations of training, by engine, in seconds on the clock, while the machine did other work too:

{table(["operation", *first], operations)}
"""


if __name__ == "__main__":
    main()
