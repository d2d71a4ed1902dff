"""A training whose processes are killed again and again, against the same training left alone.

    python benchmarks/kill_loop.py OUT --mtbf 20 --processes 2

A small network learns generated scenes (``train-cls``, or with ``--task train-seg`` end to end) in several processes
that meet through gloo. Seconds until the next kill are drawn from an exponential distribution with the mean ``--mtbf``,
and count from the start of the processes, imports included. Every process gets SIGTERM or SIGUSR1, or one of them
SIGKILL, by chance. Then the same command is given again, with ``--resume-or-start``, until it is done. The weights at
the end are compared with those of the undisturbed run. A run in OUT that is there is measured again.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from measuring import CPU, machine, table

from wsss.data.scenes import SceneSettings, write_scenes
from wsss.models.checkpoint import load_network

CONFIG = """\
model:
  backbone: deit_tiny_distilled_patch16_224
  weights: none
  vit: {patch_size: 8, img_size: 64, embed_dim: 48, depth: 4, num_heads: 3}
  decoder_channels: 16
run: {device: cpu, workers: 0, checkpoint_minutes: 0.05}
augment: {size: 64}
classify: {finetune: all, batch_size: 16, lr: 1.0e-3}
segment: {rounds: 1, batch_size: 16, lr: 1.0e-3}
maps: {start_layer: 0, scales: [64], flip: false}
"""
HOW = (signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL)
EXPECTED = {0, 75, 4, -signal.SIGKILL}
"""Statuses of a process: done, stopped and saved, lost another process, killed."""
PATIENCE = 120.0
"""Seconds after which processes that were asked to end count as hung."""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def start(command: list[str], world: int, log: Path) -> list[subprocess.Popen[Any]]:
    """The processes of a training, as torchrun starts them."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(world)}
    with log.open("ab") as stream:
        return [
            subprocess.Popen(
                command,
                env=os.environ | {"OMP_NUM_THREADS": "1"} | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
            for rank in range(world)
        ]


def finished(processes: list[subprocess.Popen[Any]], seconds: float) -> bool:
    """Wait until all have ended, at most so long."""
    deadline = time.monotonic() + seconds
    while any(process.poll() is None for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def kill(processes: list[subprocess.Popen[Any]], how: signal.Signals, who: int) -> None:
    """Send a signal to all, or SIGKILL to one."""
    for process in [processes[who]] if how == signal.SIGKILL else processes:
        if process.poll() is None:
            process.send_signal(how)


def largest_difference(one: Path, other: Path) -> float:
    """Between the weights of two runs."""
    ours, theirs = (load_network(run)[0].state_dict() for run in (one, other))
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def main(
    out: Path,
    mtbf: Annotated[float, typer.Option(help="Mean seconds between a start and its kill.")] = 20.0,
    processes: Annotated[int, typer.Option(min=1)] = 2,
    task: Annotated[str, typer.Option(help="train-cls or train-seg.")] = "train-cls",
    epochs: int = 60,
    seed: int = 0,
    most: Annotated[int, typer.Option(help="Give up after so many starts.")] = 200,
) -> None:
    """Print how often it was killed, what it cost, and the largest difference of a weight."""
    out.mkdir(parents=True, exist_ok=True)
    scenes, config = out / "scenes", out / "tiny.yaml"
    if not scenes.is_dir():
        write_scenes(scenes, train=192, val=32, seed=seed, settings=SceneSettings(sizes=((64, 64),)))
    config.write_text(CONFIG)
    section = "classify" if task == "train-cls" else "segment"
    more = ["--set", f"{section}.epochs={epochs}", "--set", f"run.seed={seed}", "--resume-or-start"]
    seconds = {}
    kills: Counter[str] = Counter()
    odd: Counter[int] = Counter()
    random = np.random.default_rng(seed)
    for name in ("alone", "killed"):
        run, log = out / name, out / f"{name}.log"
        shutil.rmtree(run, ignore_errors=True)
        log.unlink(missing_ok=True)
        command = [sys.executable, "-m", "wsss", task, "--data", str(scenes), "-c", str(config), "-o", str(run), *more]
        began = time.monotonic()
        for _ in range(most):
            ranks = start(command, processes, log)
            if not finished(ranks, float(random.exponential(mtbf)) if name == "killed" else 1e9):
                how = HOW[int(random.integers(len(HOW)))]
                kill(ranks, how, int(random.integers(processes)))
                kills[how.name] += 1
                if not finished(ranks, PATIENCE):
                    kill(ranks, signal.SIGKILL, 0)
                    raise SystemExit(f"a process did not end {PATIENCE:g} s after {how.name}; see {log}")
            statuses = [process.returncode for process in ranks]
            odd.update(status for status in statuses if status not in EXPECTED)
            if not any(statuses):
                break
        else:
            raise SystemExit(f"not done after {most} starts; see {log}")
        seconds[name] = time.monotonic() - began
    print(f"{machine(CPU)}; {task}, {processes} processes, {epochs} epochs of 192 images, {mtbf:g} s to a kill\n")
    killed = ", ".join(f"{name} {count}" for name, count in sorted(kills.items()))
    others = ", ".join(f"{status} ({count})" for status, count in sorted(odd.items())) or "none"
    rows = [
        [f"{sum(kills.values())}: {killed}", others]
        + [f"{seconds[name]:.0f}" for name in ("alone", "killed")]
        + [f"{largest_difference(out / 'alone', out / 'killed'):g}"]
    ]
    print(table(["kills", "unexpected statuses", "s alone", "s killed", "largest difference of a weight"], rows))


if __name__ == "__main__":
    typer.run(main)
