"""Read damaged files by the thousand: each must be read or refused by an error of Voxlift's.

Command: `uv run python scripts/fuzz.py --cases 200000 --seed 0 --json
benchmarks/results/robustness.json`. `--only NAME` tries one reader, whose row replaces that of an
earlier report; with it, `--case NUMBER --keep FOLDER` makes one input again and reads it.

A case is a small sound input (`fuzz_seeds.py`, `fuzz_volume_seeds.py`), damaged by a generator that
depends on the seed, the reader and the case's number alone (`fuzz_mutations.py`), and read in a
child process by what a user would call (`fuzz_readers.py`). A child takes many cases, one after the
other, under a limit of memory; a timer of its processor time kills it, also where native code
hangs. Where a child dies or hangs, it was over the first case that it did not report, and another
child goes on with the next. Every case that ends in anything but success or our own error is read
once more, alone in a new child; if nothing goes wrong there, what went wrong first still counts.
"""

import argparse
import json
import logging
import os
import pickle
import platform
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from random import Random

import torch

from fuzz_mutations import mutate
from fuzz_readers import READERS
from fuzz_volume_seeds import Files
from voxlift.core.errors import VoxliftError
from voxlift.core.files import write_text
from voxlift.training.run_folder import processor_name

BATCH = 500
"""Cases of a child at most."""

MAX_SECONDS = 10
"""Of processor time, for one case."""

MAX_WAIT_SECONDS = 120
"""Of a clock, for one case: what waits for something takes no processor time."""

MAX_GIB = 2
"""Memory that a child may take beyond that of this process."""

MAX_FILE_BYTES = 2**28
ACCEPTED, REFUSED = "accepted", "refused"
PACKAGES = ("numpy", "SimpleITK", "nibabel", "pydicom", "pillow", "safetensors", "torch", "PyYAML")
ROOT = Path(__file__).parents[1]

logger = logging.getLogger("fuzz")


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        case: Its number.
        kind: `accepted`, `refused`, or what else: the error and where it was raised, or how the
            child ended.
        seconds: Processor time.
    """

    case: int
    kind: str
    seconds: float = 0.0


def make_case(reader: str, seeds: Sequence[Files], *, seed: int, case: int) -> tuple[Files, str]:
    """Damage one of the sound inputs of a reader.

    Returns:
        The input, and the name of the file that was damaged.
    """
    random = Random(f"{seed} {reader} {case}")
    files = dict(random.choice(seeds))
    ends = READERS[reader].damaged
    names = [name for name in files if name.endswith(ends)] if ends else list(files)
    name = random.choice(names)
    others = [content for each in seeds for content in each.values()]
    files[name] = mutate(files[name], random, others)
    return files, name


def write_case(folder: Path, files: Files) -> None:
    """Write an input to a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def read_case(reader: str, folder: Path, name: str) -> str:
    """Read an input, and say what came of it."""
    try:
        READERS[reader].open(folder, name)
    except VoxliftError as error:
        return REFUSED if str(error).strip() else "an error without a text"
    except Exception as error:  # What this script is there to find.
        return _place(error)
    return ACCEPTED


def _place(error: Exception) -> str:
    """Name an error and the function of ours that let it through."""
    ours = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "voxlift" in Path(frame.filename).parts and "site-packages" not in frame.filename
    ]
    where = f" in {Path(ours[-1].filename).stem}.{ours[-1].name}" if ours else ""
    return f"{type(error).__name__}{where}"


def fuzz(
    reader: str, seeds: Sequence[Files], *, seed: int, cases: Sequence[int]
) -> tuple[Counter[str], list[Outcome]]:
    """Try cases of a reader, and count what came of them.

    Returns:
        The counts, and the cases that were neither accepted nor refused.
    """
    counts: Counter[str] = Counter()
    found = []
    waiting = list(cases)
    while waiting:
        outcomes = _in_child(reader, seeds, seed=seed, cases=waiting[:BATCH])
        waiting = waiting[len(outcomes) :]
        for outcome in outcomes:
            kind = outcome.kind
            if kind not in (ACCEPTED, REFUSED):
                (alone,) = _in_child(reader, seeds, seed=seed, cases=[outcome.case])
                if alone.kind != kind:
                    kind = f"{kind}; alone {alone.kind}"
                found.append(Outcome(outcome.case, kind, outcome.seconds))
                logger.warning("%s, case %d: %s", reader, outcome.case, kind)
            counts[kind] += 1
    return counts, found


def _in_child(
    reader: str, seeds: Sequence[Files], *, seed: int, cases: Sequence[int]
) -> list[Outcome]:
    """Try cases in one child until one of them kills it."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        _run_child(reader, seeds, seed=seed, cases=cases, folder=folder, sending=sending)
    os.close(sending)
    outcomes: list[Outcome] = []
    hung = False
    text = b""
    while True:
        ready, _, _ = select.select([receiving], [], [], MAX_WAIT_SECONDS)
        if not ready:
            hung = True
            os.kill(child, signal.SIGKILL)
            break
        part = os.read(receiving, 2**16)
        if not part:
            break
        text += part
        *lines, text = text.split(b"\n")
        outcomes += [Outcome(**json.loads(line)) for line in lines]
    os.close(receiving)
    _, status = os.waitpid(child, 0)
    shutil.rmtree(folder, ignore_errors=True)
    if len(outcomes) < len(cases):
        outcomes.append(Outcome(cases[len(outcomes)], _end(status, hung=hung)))
    return outcomes


def _end(status: int, *, hung: bool) -> str:
    if hung:
        return f"hung for {MAX_WAIT_SECONDS} s"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGPROF:
            return f"took over {MAX_SECONDS} s"
        return f"died of {signal.Signals(number).name}"
    return f"ended with exit status {os.waitstatus_to_exitcode(status)}"


def _run_child(
    reader: str,
    seeds: Sequence[Files],
    *,
    seed: int,
    cases: Sequence[int],
    folder: Path,
    sending: int,
) -> None:
    """Try cases, write a line for each, and end the process."""
    _limit()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    warnings.simplefilter("ignore")
    logging.disable()
    for case in cases:
        files, name = make_case(reader, seeds, seed=seed, case=case)
        here = folder / str(case)
        write_case(here, files)
        start = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
        kind = read_case(reader, here, name)
        signal.setitimer(signal.ITIMER_PROF, 0)
        seconds = time.process_time() - start
        line = json.dumps({"case": case, "kind": kind, "seconds": round(seconds, 3)})
        os.write(sending, line.encode() + b"\n")
        shutil.rmtree(here, ignore_errors=True)
    os._exit(0)


def _limit() -> None:
    """Bound memory and files; let the timer kill, in whatever code the process is."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    here = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = here * resource.getpagesize() + MAX_GIB * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def make_seeds(readers: Sequence[str]) -> dict[str, list[Files]]:
    """Make the sound inputs in a child.

    Libraries that write may start threads, and a fork leaves these behind.
    """
    with tempfile.NamedTemporaryFile() as file:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                made = {name: READERS[name].seeds() for name in readers}
                Path(file.name).write_bytes(pickle.dumps(made))
                status = 0
            except Exception:
                traceback.print_exc()
            os._exit(status)
        _, status = os.waitpid(child, 0)
        if status:
            raise RuntimeError("The sound inputs could not be made.")
        found: dict[str, list[Files]] = pickle.loads(Path(file.name).read_bytes())
        return found


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()


def describe_run(arguments: argparse.Namespace) -> dict[str, object]:
    """Say what was run, on which code and where."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    if _git("status", "--porcelain", "--", "src", "scripts"):
        commit += " with changes"
    return {
        "command": " ".join(["scripts/fuzz.py", *sys.argv[1:]]),
        "seed": arguments.seed,
        "commit": commit,
        "date": datetime.now(UTC).date().isoformat(),
        "limits": {
            "processor_seconds": MAX_SECONDS,
            "seconds": MAX_WAIT_SECONDS,
            "gib_above_start": MAX_GIB,
        },
        "machine": {
            "processor": processor_name(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "packages": {name: metadata.version(name) for name in PACKAGES},
        },
    }


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=200_000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=READERS, help="a reader")
    parser.add_argument("--json", type=Path, help="where the counts are written to")
    parser.add_argument("--case", type=int, help="read this case of the reader alone")
    parser.add_argument("--keep", type=Path, help="where the input of that case is kept")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("voxlift").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    readers = arguments.only or list(READERS)
    made = make_seeds(readers)
    if arguments.case is not None:
        return _read_one(readers[0], made[readers[0]], arguments)
    # The code may be changed while this runs.
    description = describe_run(arguments)
    each = -(-arguments.cases // len(readers))
    rows = []
    for reader in readers:
        start = time.monotonic()
        counts, found = fuzz(reader, made[reader], seed=arguments.seed, cases=range(each))
        other = {kind: n for kind, n in counts.items() if kind not in (ACCEPTED, REFUSED)}
        logger.info(
            "%s: %d cases, %d accepted, %d refused, %d else; %.0f cases/s",
            reader,
            each,
            counts[ACCEPTED],
            counts[REFUSED],
            sum(other.values()),
            each / (time.monotonic() - start),
        )
        rows.append(
            {
                "reader": reader,
                "cases": each,
                ACCEPTED: counts[ACCEPTED],
                REFUSED: counts[REFUSED],
                "other": other,
                "found_in": [one.case for one in found],
                "commit": description["commit"],
            }
        )
        if arguments.json:
            both = [*_kept(arguments.json, readers), *rows]
            both.sort(key=lambda row: list(READERS).index(str(row["reader"])))
            content = {**description, "readers": both}
            write_text(arguments.json, json.dumps(content, indent=1) + "\n")
    return 1 if any(row["other"] for row in rows) else 0


def _kept(path: Path, readers: Sequence[str]) -> list[dict[str, object]]:
    """Return the rows of readers that are not tried again, from an earlier report."""
    if not path.is_file():
        return []
    rows: list[dict[str, object]] = json.loads(path.read_text(encoding="utf-8"))["readers"]
    return [row for row in rows if row["reader"] not in readers]


def _read_one(reader: str, seeds: Sequence[Files], arguments: argparse.Namespace) -> int:
    """Make the input of one case and read it here, errors and all."""
    files, name = make_case(reader, seeds, seed=arguments.seed, case=arguments.case)
    folder = arguments.keep or Path(tempfile.mkdtemp())
    write_case(folder, files)
    logger.info("%s: %s was damaged", folder, name)
    _limit()
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
    READERS[reader].open(folder, name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
