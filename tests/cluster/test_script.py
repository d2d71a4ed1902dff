"""The batch scripts of jobs: their text, and what they do when a job is asked to leave, with programs that pretend."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from wsss.cluster.jobs import Request, jobs_of, read_commands
from wsss.cluster.resources import Resources, seconds_of
from wsss.cluster.script import Job, script_of
from wsss.errors import UsageError

PYTHON = "/venv/bin/python"
TRAINING = """\
#!/bin/bash
#SBATCH --job-name=seg
#SBATCH --output=runs/seg.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=USR1@120
#SBATCH --time=24:00:00
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=6
#SBATCH --partition=gpu

[ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] || rm -f runs/seg.requeues
srun --kill-on-bad-exit=1 --cpus-per-task=6 /venv/bin/python -m wsss train-seg -o runs/seg --resume-or-start
status=$?
case $status in 75 | 138 | 143) ;; *) exit $status ;; esac

# It was asked to leave before it was done: back into the queue, as long as it gets on.
now=$(/venv/bin/python -m wsss status runs/seg 2>/dev/null)
same=$(tail -n 3 runs/seg.requeues 2>/dev/null | grep -cxF -- "$now")
if [ "$same" -ge 3 ]; then
    echo "3 requeues without progress (${now:-nothing begun}): no more of them" >&2
    exit $status
fi
echo "$now" >>runs/seg.requeues
scontrol requeue "$SLURM_JOB_ID" && sleep 120  # Slurm ends this script meanwhile
exit $status
"""


def request(*words: str, **options: str) -> Request:
    return Request(words, options)


def test_the_script_of_a_training() -> None:
    wanted = Resources(time="24:00:00", nodes=2, gpus=8, cpus=6, options=("--partition=gpu",))
    (job,) = jobs_of(request("train-seg", "-o", "runs/seg", output="runs/seg"), wanted)
    assert script_of(job, PYTHON) == TRAINING
    assert job.path == Path("runs/seg.sbatch")
    (job,) = jobs_of(request("train-seg", "--resume", "runs/seg", resume="runs/seg"), wanted)
    assert " -m wsss train-seg --resume runs/seg\n" in script_of(job, PYTHON)


def test_the_scripts_of_an_array() -> None:
    wanted = Resources(nodes=2, gpus=8)
    array, merge = jobs_of(request("predict", "runs/seg", "new", "-o", "my masks", output="my masks"), wanted, 4)
    text = script_of(array, PYTHON)
    assert '#SBATCH "--output=my masks.%a.log"\n' in text
    assert "#SBATCH --array=0-3\n" in text
    assert "--nodes=1\n#SBATCH --ntasks-per-node=1\n#SBATCH --gpus-per-node=1\n" in text
    assert (
        """srun /venv/bin/python -m wsss predict runs/seg new -o 'my masks' --shard "$SLURM_ARRAY_TASK_ID/4"\n"""
        in text
    )
    assert """-m wsss status 'my masks' --shard "$SLURM_ARRAY_TASK_ID/4" 2>""" in text
    assert """echo "$now" >>'my masks'."$SLURM_ARRAY_TASK_ID".requeues\n""" in text
    assert 'scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" &&' in text
    assert script_of(merge, PYTHON).endswith("\nexec /venv/bin/python -m wsss merge 'my masks'\n")
    assert "gpus" not in script_of(merge, PYTHON)


def test_jobs_that_cannot_be_resumed_and_mistakes() -> None:
    wanted = Resources(gpus=2)
    (job,) = jobs_of(request("evaluate", "masks", "--data", "photos"), wanted, position=3)
    assert (job.name, job.work, job.resources.gpus) == ("wsss-evaluate-3", None, 0)
    with pytest.raises(UsageError, match="train-cls was given no output folder"):
        jobs_of(request("train-cls", "--data", "photos"), wanted)
    with pytest.raises(UsageError, match="--array"):
        jobs_of(request("predict", output="masks", shard="0/2"), wanted, 2)
    with pytest.raises(UsageError, match="one process a GPU"):
        Resources(gpus=2, tasks=2)
    with pytest.raises(UsageError, match="is 180 s: the job is told to leave 120 s before its end"):
        Resources(time="3")
    with pytest.raises(UsageError, match="expected an option of sbatch"):
        Resources(options=("partition=gpu",))
    with pytest.raises(UsageError, match="reads no such name"):
        script_of(Job(words=("report",), name='a"b', resources=wanted), PYTHON)


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("90", 5400), ("1:30", 90), ("2:00:00", 7200), ("1-2", 93600), ("1-2:30", 95400), ("1-0:0:5", 86405)],
)
def test_times(time: str, seconds: int) -> None:
    assert seconds_of(time) == seconds


@pytest.mark.parametrize("time", ["", "1h", "1:2:3:4", "-5", "1-", "1.5"])
def test_what_is_no_time(time: str) -> None:
    with pytest.raises(UsageError, match="expected minutes"):
        seconds_of(time)


def test_the_commands_of_a_file() -> None:
    text = "# a comment\nwsss train-cls --data 'my photos' \\\n  -o cls  # one\n\nreport cls\n"
    assert read_commands(None, text) == [("train-cls", "--data", "my photos", "-o", "cls"), ("report", "cls")]
    for wrong, words in (("# nothing\n", "holds no command"), ("report 'cls\n", "No closing quotation")):
        with pytest.raises(UsageError, match=words):
            read_commands(None, wrong)


PRETENDERS = {
    "srun": 'echo "$@" >>srun.calls; read -r status <statuses; sed -i 1d statuses; exit "$status"',
    "python": "head -n 1 progress; sed -i 1d progress; exit 75",
    "scontrol": 'echo "$@" >>scontrol.calls',
    "sleep": "",
}
"""Programs by name, each a line of shell. They write how they were called, and take their results from files."""


@pytest.fixture
def runs_of_the_script(tmp_path: Path) -> Path:
    for name, line in PRETENDERS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / name).chmod(0o755)
    job = Job(words=("train-cls", "-o", "cls"), name="cls", resources=Resources(), work="cls", together=True)
    (tmp_path / "script").write_text(script_of(job, str(tmp_path / "python")))
    return tmp_path


def run_script(folder: Path, statuses: str, progress: str) -> list[int]:
    """Exit statuses of the script of a job that Slurm starts again as often as it is requeued."""
    (folder / "statuses").write_text("\n".join(statuses.split()) + "\n")
    (folder / "progress").write_text("\n".join(progress.split()) + "\n")
    calls = folder / "scontrol.calls"
    calls.write_text("")
    found: list[int] = []
    while len(calls.read_text().splitlines()) == len(found):
        extra = {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
        extra |= {"SLURM_RESTART_COUNT": str(len(found))} if found else {}
        found.append(subprocess.run(["bash", "script"], cwd=folder, env=os.environ | extra, timeout=60).returncode)
    return found


def test_a_job_is_requeued_as_long_as_it_gets_on(runs_of_the_script: Path) -> None:
    folder = runs_of_the_script
    assert run_script(folder, "75 138 143 75 0", "1/9 1/9 1/9 2/9") == [75, 138, 143, 75, 0]
    assert set((folder / "scontrol.calls").read_text().splitlines()) == {"requeue 7"}
    assert run_script(folder, "75 75 75 75 75", "2/9 " * 5) == [75] * 4  # that of before is forgotten
    assert run_script(folder, "75 75 75 75 75 75 75", "2/9 2/9 2/9 3/9 3/9 3/9 3/9") == [75] * 7
    for status in (0, 1, 2, 4, 137):
        assert run_script(folder, str(status), "") == [status]
