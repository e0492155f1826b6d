"""The counts of `fuzz.py` as a table."""

from typing import Any


def describe_robustness(content: dict[str, Any]) -> str:
    """Lay the counts of all readers out as Markdown, with what they were measured by."""
    rows = content["readers"]
    machine, limits = content["machine"], content["limits"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    lines = [
        "| reader | cases | accepted | refused by an error of Voxlift's | anything else |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        other = ", ".join(f"{kind}: {count}" for kind, count in row["other"].items()) or "0"
        lines.append(
            f"| {row['reader']} | {row['cases']} | {row['accepted']} | {row['refused']} | {other} |"
        )
    totals = [sum(row[key] for row in rows) for key in ("cases", "accepted", "refused")]
    commits: dict[str, list[str]] = {}
    for row in rows:
        commits.setdefault(row["commit"], []).append(row["reader"])
    # The largest part comes first, and the others by name.
    parts = sorted(commits.items(), key=lambda part: -len(part[1]))
    code = "; ".join(
        [parts[0][0], *(f"{commit} for {', '.join(names)}" for commit, names in parts[1:])]
    )
    others = sum(sum(row["other"].values()) for row in rows)
    lines.append(f"| all | {' | '.join(map(str, totals))} | {others} |")
    return "\n\n".join(
        (
            "\n".join(lines),
            # A case depends on the seed, the reader and its number alone, in whatever parts it ran.
            f"`scripts/fuzz.py --cases {totals[0]} --seed {content['seed']}`, on commit {code}, "
            f"{content['date']}. Limits of a case: "
            f"{limits['processor_seconds']} s of processor time, {limits['seconds']} s by the "
            f"clock, {limits['gib_above_start']} GiB of memory above what the process begins "
            f"with. {machine['processor']}, {machine['cores']} cores, Python {machine['python']}, "
            f"{packages}.",
        )
    )
