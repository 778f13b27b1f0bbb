"""Draws what run.py has measured: python plot.py peers.json peers.svg"""

import json
import sys

import matplotlib

matplotlib.use("svg")
# The same figures give the same file.
matplotlib.rcParams.update({"svg.hashsalt": "offshoot", "font.size": 9})

import matplotlib.pyplot as pyplot  # noqa: E402  (after the choice of the backend)

PANELS = [
    ("round_trip_us", "round trip of one task (us, less is better)"),
    ("unbatched_per_s", "unbatched tasks a second (more is better)"),
    ("batched_per_s", "batched tasks a second (more is better)"),
    ("payload_mb_per_s", "echo of 1 MiB (MB/s, more is better)"),
    ("cold_start_ms", "cold start to first result (ms, less is better)"),
    ("idle_percent", "idle CPU of all processes (% of a core, less is better)"),
]


def main(source, target):
    report = json.load(open(source))
    rows = list(report["peers"].values())[::-1]
    figure, axes = pyplot.subplots(3, 2, figsize=(11, 8), constrained_layout=True)
    for axis, (key, title) in zip(axes.flat, PANELS):
        values = [row.get(key) for row in rows]
        colours = ["tab:orange" if row["name"].startswith("offshoot") else "tab:gray" for row in rows]
        axis.barh([row["name"] for row in rows], [value or 0 for value in values], color=colours)
        axis.set_xscale("log")
        axis.set_title(title, fontsize=9, loc="left")
        known = [value for value in values if value]
        axis.set_xlim(min(known, default=1) / 3, max(known, default=1) * 8)
        for place, value in enumerate(values):
            text = "-" if value is None else f" {value:,.0f}" if value >= 100 else f" {value:.2g}"
            axis.text(value or axis.get_xlim()[0], place, text, va="center", fontsize=8)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    machine = report["machine"]
    figure.suptitle(
        f"{report['workers']} workers on {machine['cores']} cores, {report['mpi']}, {report['date']}; logarithmic",
        fontsize=9,
    )
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
