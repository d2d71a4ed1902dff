"""A Slurm of one node on this machine, with all of its state in one folder: controller, node and authentication.

It needs root, since the node daemon starts jobs in the name of whoever submits them, but no systemd, cgroups, database
or user of its own. The daemons run in the foreground as children of this process and end with it.

As a script: ``python one_machine.py COMMAND...`` runs a command as a client of such a Slurm and then stops it; with
``bash`` there is a shell in which sbatch, squeue and ``wsss submit`` work.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "setpriv")
PLACES = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
CPUS = 4
"""That the node offers, whatever the machine has: jobs wait for each other only where a test wants it."""
GPUS = ("/dev/null", "/dev/zero")
"""What the node says are GPUs, so that scripts which ask for some are accepted."""
GRACE = 5
"""Seconds that a preempted job has after SIGTERM, and any job between SIGTERM and SIGKILL."""

# cred_expire: a requeued job waits for so many seconds and one, by default 121, then for the next round of the
# scheduler, by default up to 60 s. MinJobAge: scontrol knows a job so many seconds after its end.
CONFIG = """\
ClusterName=one
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
SlurmdParameters=config_overrides
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait={grace}
MinJobAge=3600
OverTimeLimit=0
ReturnToService=2
InactiveLimit=0
NodeName={node} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=low  Nodes={node} Default=YES PriorityTier=1  PreemptMode=REQUEUE GraceTime={grace} MaxTime=2-0 State=UP
PartitionName=high Nodes={node} Default=NO  PriorityTier=10 PreemptMode=OFF MaxTime=2-0 State=UP
"""
"""Jobs of the partition ``low``, the default, are preempted and requeued where ``high`` wants their CPUs."""


def what_is_missing() -> str | None:
    """Why no Slurm can be started here; None where it can."""
    if sys.platform != "linux" or os.getuid() != 0:
        return "Slurm's daemons need Linux and root"
    missing = [name for name in PROGRAMS if shutil.which(name, path=PLACES) is None]
    return f"{', '.join(missing)} missing: apt-get install slurmctld slurmd slurm-client munge" if missing else None


class OneMachine:
    """A running Slurm.

    Attributes:
        cpus: that it offers.
        folder: of its state, with a short name: paths of sockets have at most 107 characters.
        environment: makes a program its client.
    """

    cpus = CPUS

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": PLACES}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the daemons and wait until a job could begin."""
        self.folder.chmod(0o755)  # munge refuses a folder that others could write to, and clients must read here
        for name in ("munge", "state", "spool"):
            (self.folder / name).mkdir(mode=0o755)
        ports = dict(zip(("controller_port", "node_port"), free_ports(2), strict=True))
        node = socket.gethostname().partition(".")[0]
        (self.folder / "slurm.conf").write_text(
            CONFIG.format(folder=self.folder, node=node, cpus=CPUS, gpus=len(GPUS), grace=GRACE, **ports)
        )
        (self.folder / "gres.conf").write_text("".join(f"Name=gpu File={device}\n" for device in GPUS))
        munge = self.folder / "munge"
        (munge / "key").write_bytes(os.urandom(1024))
        (munge / "key").chmod(0o600)
        files = [f"--{name}-file={munge / name}" for name in ("key", "pid", "log", "seed")]
        self._daemon("munged", "--foreground", f"--socket={munge / 'socket'}", *files)
        self.wait_until((munge / "socket").exists, self._why)
        self._daemon("slurmctld", "-D", "-f", self.environment["SLURM_CONF"])
        self._daemon("slurmd", "-D", "-f", self.environment["SLURM_CONF"])
        self.wait_until(lambda: self.output("sinfo", "-h", "-p", "low", "-o", "%t") == "idle", self._why)

    def stop(self) -> None:
        """Cancel all jobs, end the daemons and remove the folder."""
        with suppress(TimeoutError):
            for job in self.output("squeue", "-h", "-o", "%A").split():
                self.run("scancel", job)
            self.wait_until(lambda: not self.output("squeue", "-h"), self._why, 3 * GRACE)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *words: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program as a client, in a folder."""
        command, environment = [str(word) for word in words], os.environ | self.environment
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)

    def output(self, *words: object) -> str:
        """What a client prints; "" where it fails."""
        return self.run(*words).stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """What is known of a job or of a task of an array ("7_1"): JobState, ExitCode, Restarts, Reason, ..."""
        return dict(re.findall(r"(\w+)=(\S*)", self.output("scontrol", "show", "job", number)))

    def wait_for(self, number: str, *states: str, seconds: float = 300) -> dict[str, str]:
        """Wait until a job is in one of these states."""
        self.wait_until(lambda: self.job(number).get("JobState") in states, lambda: str(self.job(number)), seconds)
        return self.job(number)

    def processes(self, number: str) -> list[int]:
        """The processes of a job's steps, without the batch script."""
        lines = self.output("scontrol", "listpids", self.job(number)["JobId"]).splitlines()[1:]
        return [int(line.split()[0]) for line in lines if line.split()[2] not in ("batch", "extern")]

    @staticmethod
    def wait_until(happens: Callable[[], bool], why: Callable[[], str], seconds: float = 120) -> None:
        """Wait for something.

        Raises:
            TimeoutError: it did not happen; ``why`` says more.
        """
        deadline = time.monotonic() + seconds
        while not happens():
            if time.monotonic() > deadline:
                raise TimeoutError(why())
            time.sleep(0.1)

    def _daemon(self, name: str, *words: str) -> None:
        program = shutil.which(name, path=PLACES)
        assert program is not None
        with (self.folder / f"{name}.out").open("wb") as out:
            self._daemons.append(
                subprocess.Popen(
                    ["setpriv", "--pdeathsig", "TERM", program, *words],
                    env=os.environ | self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for the tests
                )
            )

    def _why(self) -> str:
        logs = [*self.folder.glob("*.out"), *self.folder.glob("*.log")]
        return "\n".join(f"{path.name}: {path.read_text(errors='replace')[-500:]}" for path in logs)


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens at."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def main(words: list[str], environment: Mapping[str, str] = os.environ) -> int:
    """Run a command as a client."""
    missing = what_is_missing()
    if missing is not None or not words:
        print(missing or __doc__, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    slurm = OneMachine()
    try:
        slurm.start()
        return subprocess.run(words, env={**environment, **slurm.environment}).returncode
    finally:
        slurm.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
