"""Runs the same work on offshoot and on its peers, side by side, and writes a table and a plot into docs/:

    scripts/with-mpi.sh openmpi-4.1 python3 benches/peers/run.py [--rounds N] [--seconds S] [--only NAME,...]

`make peers` does it all. The peers come from PyPI into .peers/, a folder that git ignores and that may be deleted. Each
peer runs in a process of its own, within a hard time limit, round after round; the table has the medians of the rounds.
A peer that cannot be installed or run is a row that says so.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import queue
import signal
import statistics
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
FOLDER = PROJECT / ".peers"
TOKEN = "OFFSHOOT_PEER"  # In the environment of all processes of one peer.
INSTALL_LIMIT = 600
SETTLE, WINDOW = 1.0, 5.0  # Seconds of idleness before it is looked at, and in which it is.
CONTAINMENTS = ("survivable", "fast")

# What a row is called, what runs it, and what pip installs for it.
PEERS = {
    "mpi4py": ("mpi4py.futures", "mpi4py"),
    "processes": ("ProcessPoolExecutor", None),
    "dask": ("Dask distributed", "distributed"),
    "ray": ("Ray", "ray"),
    "parsl": ("Parsl", "parsl"),
}
OURS = {f"offshoot-{containment}": f"offshoot ({containment})" for containment in CONTAINMENTS}

COLUMNS = [
    ("cold_start_ms", "cold start, ms"),
    ("round_trip_us", "round trip, us"),
    ("unbatched_per_s", "unbatched, tasks/s"),
    ("batched_per_s", "batched, tasks/s"),
    ("payload_mb_per_s", "echo of 1 MiB, MB/s"),
    ("idle_percent", "idle, % of a core"),
]

# What offshoot tells an MPI by itself, and a user of mpi4py has to: more processes than cores, and root.
MPI_SETTINGS = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "PRTE_ALLOW_RUN_AS_ROOT": "1",
    "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}


def main():
    options = arguments()
    python = environment_of_peers()
    failed = {name: install(python, package) for name, (_, package) in PEERS.items() if package}
    install(python, "matplotlib")
    names = [name for name in [*OURS, *PEERS] if not options.only or name in options.only]
    rounds = {name: [] for name in names}
    for number in range(options.rounds):
        for name in names:
            say(f"round {number + 1} of {options.rounds}: {name}")
            figures = {"error": failed[name]} if failed.get(name) else run(name, python, options)
            rounds[name].append(figures)
    report = {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": machine(),
        "mpi": mpi_version(python),
        "workers": options.workers,
        "rounds": options.rounds,
        "peers": {name: summary(name, rounds[name]) for name in names},
    }
    docs = pathlib.Path(options.into)
    (docs / "peers.json").write_text(json.dumps(report, indent=1) + "\n")
    (docs / "peers.md").write_text(table(report))
    subprocess.run([python, HERE / "plot.py", docs / "peers.json", docs / "peers.svg"], check=True)
    print(table(report))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for one peer in one round")
    parser.add_argument("--into", default=PROJECT / "docs", help="folder for table and plot")
    parser.add_argument("--only", type=lambda names: names.split(","), help="names of peers")
    return parser.parse_args()


def environment_of_peers():
    """A Python with a folder of its own for packages."""
    python = FOLDER / "venv" / "bin" / "python"
    if not python.exists():
        say("making .peers/venv")
        subprocess.run([sys.executable, "-m", "venv", FOLDER / "venv"], check=True)
    return python


def install(python, package):
    """Installs a package unless it is there; returns why that could not be done, if so."""
    known = subprocess.run([python, "-c", f"import {package}"], capture_output=True)
    if known.returncode == 0:
        return None
    say(f"installing {package}")
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_LIMIT)
    except subprocess.TimeoutExpired:
        return f"not installed within {INSTALL_LIMIT} s"
    return None if done.returncode == 0 else "not installed: " + last_line(done.stderr)


def run(name, python, options):
    """What one peer comes to in one round."""
    token = f"{os.getpid()}-{time.monotonic_ns()}"
    environment = {**os.environ, TOKEN: token, "PEER_FOLDER": str(FOLDER / "runs"), "PYTHONPATH": str(HERE)}
    if name in OURS:
        command = [offshoot(), "offshoot"]
        environment["OFFSHOOT_CONTAINMENT"] = name.removeprefix("offshoot-")
    else:
        command = [python, HERE / "peer.py", name]
        environment = {**MPI_SETTINGS, **environment}
        # Some start what pip has installed beside them; what is in PATH already, an MPI's launcher, comes first.
        environment["PATH"] += os.pathsep + str(python.parent)
    (FOLDER / "runs").mkdir(parents=True, exist_ok=True)
    complaints = (FOLDER / f"{name}.log").open("w+")
    process = subprocess.Popen(
        [*command, str(options.workers), str(options.seconds)],
        env=environment,
        cwd=FOLDER / "runs",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=complaints,
        text=True,
        start_new_session=True,  # Some launchers kill the whole group when something goes wrong.
    )
    try:
        figures = listen(process, token, options.limit)
    finally:
        end(process, token)
    if not figures.pop("done", False):
        complaints.seek(0)
        said = last_line(complaints.read()) or "it ended before it was done"
        figures["error"] = figures.get("error", said)
    return figures


def listen(process, token, limit):
    """Takes what the peer says, until it is done, its output ends, or its time is over."""
    lines = queue.Queue()
    threading.Thread(target=forward, args=(process.stdout, lines), daemon=True).start()
    figures, until = {}, time.monotonic() + limit
    while not figures.get("done"):
        try:
            line = lines.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            return {**figures, "error": f"not done within {limit:.0f} s"}
        if line is None:
            break
        if not line.startswith("PEER "):
            continue
        told = json.loads(line.removeprefix("PEER "))
        if told.pop("idle", False):
            figures["idle_percent"], figures["processes"] = idle_percent(token)
        figures.update(told)
    return figures


def forward(stream, lines):
    for line in stream:
        lines.put(line)
    lines.put(None)


def idle_percent(token):
    """What all processes of a peer together use of a core while there is nothing to do, and how many they are."""
    time.sleep(SETTLE)
    before = {process: cpu_nanos(process) for process in processes(token)}
    begun = time.monotonic_ns()
    time.sleep(WINDOW)
    after = {process: cpu_nanos(process) for process in before}
    elapsed = time.monotonic_ns() - begun
    used = sum(max(0, after[process] - before[process]) for process in before)
    return 100.0 * used / elapsed, len(before)


def processes(token):
    """The numbers of all processes that have this in their environment, and of all that those have started: some of
    these have been given another environment."""
    wanted = f"{TOKEN}={token}".encode()
    found, children = set(), {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
        except OSError:
            pass  # It is gone, or somebody else's.
    to_look_at = list(found)
    while to_look_at:
        more = set(children.get(to_look_at.pop(), [])) - found
        found |= more
        to_look_at += more
    return sorted(found)


def cpu_nanos(process):
    """What the threads of a process have used so far; nothing if it is gone."""
    nanos = 0
    for thread in pathlib.Path(f"/proc/{process}/task").glob("*/schedstat"):
        try:
            nanos += int(thread.read_text().split()[0])
        except OSError:
            pass
    return nanos


def end(process, token):
    """Lets it end, and kills what stays."""
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        pass
    until = time.monotonic() + 3
    while (left := processes(token)) and time.monotonic() < until:
        time.sleep(0.1)
    for one in left:
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait()


def offshoot():
    target = os.environ.get("CARGO_TARGET_DIR", PROJECT / "target")
    return pathlib.Path(target) / "release" / "examples" / "peer_offshoot"


def summary(name, rounds):
    """The medians of the rounds that came to an end, or what went wrong in the last one."""
    row = {"name": OURS.get(name) or PEERS[name][0]}
    keys = [key for key, _ in COLUMNS] + ["submitted_per_s", "processes"]
    for key in keys:
        values = [figures[key] for figures in rounds if key in figures]
        if values:
            row[key] = statistics.median(values)
            row[f"{key}_rounds"] = values
    versions = [figures["version"] for figures in rounds if "version" in figures]
    errors = [figures["error"] for figures in rounds if "error" in figures]
    row["version"] = versions[-1] if versions else None
    row["error"] = errors[-1] if errors else None
    return row


def table(report):
    """As Markdown."""
    machine = report["machine"]
    lines = [
        "# offshoot and its peers, side by side",
        "",
        "Written by `make peers` (`benches/peers/run.py`); docs/PERFORMANCE.md says how to read it.",
        "",
        f"{report['date']}, {machine['cores']} cores ({machine['processor']}), {machine['system']}; "
        f"{report['mpi']}; {report['workers']} workers, medians of {report['rounds']} rounds.",
        "",
        "| | version | " + " | ".join(title for _, title in COLUMNS) + " |",
        "| --- | --- |" + " ---: |" * len(COLUMNS),
    ]
    for row in report["peers"].values():
        cells = [number(row.get(key)) for key, _ in COLUMNS]
        lines.append(f"| {row['name']} | {row['version'] or '-'} | " + " | ".join(cells) + " |")
    lines += ["", *(f"{row['name']}: {row['error']}" for row in report["peers"].values() if row["error"])]
    submitted = [f"{row['name']} {number(row['submitted_per_s'])}" for row in report["peers"].values() if "submitted_per_s" in row]
    lines += [
        "",
        "Unbatched: each task a message of its own, and submitted on its own. Batched: 100 tasks a message where the peer",
        "has chunks (Dask has none); with offshoot a `map`, which makes frames by itself, each task with an end of its own.",
        f"Submitted one by one to offshoot, which makes frames all the same, tasks/s: {', '.join(submitted) or '-'}.",
        "",
    ]
    return "\n".join(lines)


def number(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def machine():
    release = platform.freedesktop_os_release()
    processor = next(
        (line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown"
    )
    return {"cores": os.cpu_count(), "processor": processor, "system": release.get("PRETTY_NAME", "Linux")}


def mpi_version(python):
    ask = "from mpi4py import MPI; print(MPI.Get_library_version().splitlines()[0])"
    environment = {**MPI_SETTINGS, **os.environ}
    try:
        done = subprocess.run([python, "-c", ask], capture_output=True, text=True, timeout=60, env=environment, start_new_session=True)
    except subprocess.TimeoutExpired:
        return "MPI unknown"
    return done.stdout.strip().rstrip("\0").split(", package")[0] or "MPI unknown"


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""


def say(text):
    print(f"peers: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
