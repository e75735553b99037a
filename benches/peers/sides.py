"""Shared by the scripts of this folder: turns, figures, tables, servers and clients. Needs only Python's library."""

import argparse
import concurrent.futures
import contextlib
import http.client
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()

# Let pools of threads that spin after their last work (libomp: 200 ms) come to rest.
SETTLE_SECONDS = 0.5

# Share of the processors used by other programs above which a run is doubted.
BUSY = 0.1


class Skip(Exception):
    """Raised when a peer cannot be measured here, with the reason."""


def parser(description: str, rounds: int) -> argparse.ArgumentParser:
    """The options that all scripts know."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(made, rounds)
    return made


def add_options(made: argparse.ArgumentParser, rounds: int) -> None:
    """Add the options that all scripts know."""
    made.add_argument("--infer", type=Path, default=TARGET / "release" / "infer", help="default: %(default)s")
    made.add_argument("--rounds", type=int, default=rounds, help="turns of each side (default: %(default)s)")
    made.add_argument("-o", "--output", choices=["table", "json"], default="table")


def finish(main: Callable[[], dict | list[dict]]) -> int:
    """Run a script, print what it measured, and give its exit code: 0 also where its peer is missing."""
    try:
        measured = main()
    except Skip as reason:
        print(f"skipped: {Path(sys.argv[0]).name}: {reason}")
        return 0
    except subprocess.CalledProcessError as error:
        said = (error.stderr or b"") if isinstance(error.stderr, bytes) else (error.stderr or "").encode()
        print(f"{error}\n{said.decode(errors='replace')}", file=sys.stderr)
        return 1
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(error, file=sys.stderr)
        return 1
    return 0 if measured is not None else 1


def needed(path: Path, how: str) -> Path:
    """A file that must be there, else the script is skipped."""
    if not path.exists():
        raise Skip(f"`{path}` is missing; {how}")
    return path


@dataclass
class Comparison:
    """Figures of several sides over the same rounds. Higher is better, but for metrics that are named in `costs`."""

    title: str
    ours: str
    costs: tuple[str, ...] = ()
    seen: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, side: str, figures: dict[str, float]) -> None:
        """One turn of a side."""
        for metric, value in figures.items():
            self.seen.setdefault(side, {}).setdefault(metric, []).append(value)

    def metrics(self) -> list[str]:
        """Of all sides, in the order in which they were first seen."""
        return list(dict.fromkeys(metric for rows in self.seen.values() for metric in rows))

    def best(self, metric: str) -> str | None:
        """The peer that is best at a metric by its median."""
        peers = [side for side, rows in self.seen.items() if side != self.ours and metric in rows]
        choose = min if metric in self.costs else max
        return choose(peers, key=lambda side: statistics.median(self.seen[side][metric]), default=None)

    def ratio(self, metric: str) -> list[float] | None:
        """Ours over the best peer's, round by round."""
        peer, mine = self.best(metric), self.seen.get(self.ours, {}).get(metric)
        if peer is None or not mine:
            return None
        return [ours / theirs for ours, theirs in zip(mine, self.seen[peer][metric]) if theirs]

    def as_json(self) -> dict:
        """All figures."""
        ratios = {metric: self.ratio(metric) for metric in self.metrics()}
        return {
            "title": self.title,
            "ours": self.ours,
            "turns": self.seen,
            "medians": {side: {m: statistics.median(v) for m, v in rows.items()} for side, rows in self.seen.items()},
            "ratios": {
                metric: {
                    "median": statistics.median(of), "min": min(of), "max": max(of), "against": self.best(metric)
                }
                for metric, of in ratios.items()
                if of
            },
        }  # fmt: skip

    def as_table(self) -> str:
        """Markdown: medians, and below them the least and the most."""
        metrics = self.metrics()
        lines = [f"| {self.title} | {' | '.join(metrics)} |", "|---" * (len(metrics) + 1) + "|"]
        for side, rows in self.seen.items():
            lines.append(f"| {side} | {' | '.join(spread(rows.get(metric)) for metric in metrics)} |")
        ratios = [self.ratio(metric) for metric in metrics]
        cells = [
            f"**{statistics.median(of):.2f}** ({min(of):.2f}–{max(of):.2f})" if of else "–" for of in ratios
        ]
        lines.append(f"| {self.ours} / the best peer | {' | '.join(cells)} |")
        return "\n".join(lines)


def spread(values: list[float] | None) -> str:
    """A median with the least and the most."""
    if not values:
        return "–"
    middle = statistics.median(values)
    digits = 0 if middle >= 1000 else 1 if middle >= 10 else 2
    return f"{middle:,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def interleave(
    comparison: Comparison, sides: dict[str, Callable[[int], dict[str, float]]], rounds: int
) -> Comparison:
    """Give each side a turn in each round; who is first changes, so that a drift of the machine favours no side."""
    names = list(sides)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            progress(f"{comparison.title}: round {turn + 1} of {rounds}, {name}")
            comparison.add(name, sides[name](turn))
            time.sleep(SETTLE_SECONDS)
    progress("")
    return comparison


class Machine:
    """Share of the processors that other programs used while a script ran."""

    def __init__(self) -> None:
        self.then = self.ticks()

    @staticmethod
    def ticks() -> tuple[float, float]:
        """Seconds that all processors were busy, and of these those of this script and the programs that it has ended."""
        numbers = [int(number) for number in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        idle, own = numbers[3] + numbers[4], os.times()
        busy = (sum(numbers) - idle) / os.sysconf("SC_CLK_TCK")
        return busy, own.user + own.system + own.children_user + own.children_system

    def warning(self, seconds: float) -> str | None:
        """A warning if other programs were busy."""
        (busy, own), (then, own_then) = self.ticks(), self.then
        others = max(0.0, (busy - then) - (own - own_then)) / (seconds * (os.cpu_count() or 1))
        if others < BUSY:
            return None
        return (
            f"others used {others:.0%} of the processors: no figure here holds, nor any ratio to a peer whose threads wait for each"
            " other by spinning, as llama.cpp's do; run it again on a quiet machine"
        )


def progress(line: str) -> None:
    """A line that moves, where a person is watching."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def show(comparisons: list[Comparison], output: str, versions: dict[str, str]) -> list[dict]:
    """Print the tables, or everything as JSON."""
    warning = MACHINE.warning(time.monotonic() - BEGAN)
    host = {"warning": warning, "processor": processor(), "cores": cores(), **versions}
    if output == "json":
        print(json.dumps({"host": host, "comparisons": [one.as_json() for one in comparisons]}, indent=1))
    else:
        if warning:
            print(f"WARNING: {warning}\n")
        said = ", ".join(f"{name} {version}" for name, version in versions.items())
        print(f"{host['processor']}, {host['cores']} cores; {said}; medians (least–most)")
        for one in comparisons:
            print(f"\n{one.as_table()}", flush=True)
    return [one.as_json() for one in comparisons]


MACHINE, BEGAN = Machine(), time.monotonic()


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def processor() -> str:
    """Its name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def version_of(infer: Path) -> str:
    """The output of `infer --version`."""
    needed(infer, "build it with `make build`, or name it with --infer")
    return output_of([infer, "--version"]).split()[-1]


def output_of(command: list[object], **options: object) -> str:
    """The output of a command, which must succeed."""
    text = list(map(str, command))
    return subprocess.run(text, check=True, capture_output=True, text=True, **options).stdout


def bench(infer: Path, *arguments: object) -> dict:
    """The report of one `infer bench`."""
    return json.loads(output_of([infer, "bench", *arguments, "-o", "json"]))


def free_port() -> int:
    """A free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def server(command: list[object], port: int, ready: str, seconds: float = 300) -> Iterator[subprocess.Popen]:
    """A server that is up when this is entered, and gone when it is left."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=subprocess.STDOUT)
        try:
            until = time.monotonic() + seconds
            while True:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                    connection.request("GET", ready)
                    if connection.getresponse().status == 200:
                        break
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    tail = log.read().decode(errors="replace")[-2000:]
                    raise ValueError(f"`{command[0]}` did not come up:\n{tail}")
                time.sleep(0.1)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
            process.wait()


class Obedient:
    """A program that answers each line on its standard input with a line of JSON."""

    def __init__(self, command: list[object], **options: object) -> None:
        self.name = str(command[0])
        text = list(map(str, command))
        self.process = subprocess.Popen(text, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)

    def ask(self, line: str) -> object:
        """Its answer."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise ValueError(f"`{self.name}` ended when it was asked `{line}`; what it said is above")
        return json.loads(answer)

    def __enter__(self) -> "Obedient":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.process.kill()
        self.process.wait()


def environment(name: str, requirements: Path) -> Path:
    """The Python of an environment of its own, with the packages of a file of requirements."""
    folder = TARGET / "peers" / name
    python, done = folder / "bin" / "python", folder / "requirements.txt"
    wanted = requirements.read_text()
    if not done.exists() or done.read_text() != wanted:
        try:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", requirements], check=True, capture_output=True)
        except subprocess.CalledProcessError as error:
            said = (error.stderr or error.stdout).decode(errors="replace").strip().splitlines() or [str(error)]
            raise Skip(f"`{requirements}` cannot be installed: {said[-1]}") from error
        done.write_text(wanted)
    return python


def peak_megabytes(process: subprocess.Popen) -> float:
    """Peak memory of a running process."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError("/proc does not tell VmHWM")


class Client:
    """One connection that stays open."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)

    def get(self, path: str) -> dict:
        """The JSON of an answer, which must be 200."""
        return self.send("GET", path, None, {})

    def post(self, path: str, body: bytes, kind: str = "application/json") -> dict:
        """The JSON of an answer, which must be 200."""
        return self.send("POST", path, body, {"content-type": kind})

    def send(self, method: str, path: str, body: bytes | None, head: dict[str, str]) -> dict:
        """The JSON of an answer, which must be 200."""
        for attempt in (1, 2):
            try:
                self.connection.request(method, path, body, head)
                response = self.connection.getresponse()
                break
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                # A server may close a connection after some number of requests.
                self.connection.close()
                if attempt == 2:
                    raise
        text = response.read()
        if response.status != 200:
            raise ValueError(f"{method} {path}: {response.status} {text[:500].decode(errors='replace')}")
        return json.loads(text)


def ask_all(port: int, path: str, bodies: list[bytes], concurrency: int) -> tuple[float, list[float]]:
    """Requests a second, and each one's latency in ms: so many clients, each asking again when it has its answer."""
    waiting = iter(bodies)

    def client() -> list[float]:
        mine, latencies = Client(port), []
        for body in waiting:  # one iterator for all: list iterators are safe under the interpreter's lock
            asked = time.perf_counter()
            mine.post(path, body)
            latencies.append((time.perf_counter() - asked) * 1e3)
        return latencies

    began = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(concurrency) as pool:
        latencies = [one for done in [pool.submit(client) for _ in range(concurrency)] for one in done.result()]
    return len(bodies) / (time.perf_counter() - began), latencies


def percentile(values: list[float], part: float) -> float:
    """The value that `part` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
