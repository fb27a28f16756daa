"""A real Slurm on this machine, of Debian's packages: munged, slurmctld and slurmd, all in one folder.

    python tests/launch/slurm_here.py FOLDER COMMAND ...

runs a command where sbatch and squeue answer; root is needed, and apt-get install slurmctld slurmd slurm-client munge.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
CONFIGURATION = """ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,sched_interval=2,bf_interval=2
JobRequeue=1
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory}
PartitionName=here Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Which of its programs are not here."""
    path = os.environ["PATH"] + os.pathsep + "/usr/sbin"
    return [name for name in NEEDED if not shutil.which(name, path=path)] + ["root"] * (os.geteuid() != 0)


def _ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return found


@contextmanager
def slurm(folder: Path, cpus: int = 2) -> Iterator[dict[str, str]]:
    """Yields the environment in which Slurm's commands find it; ends it, and every job in it, at the end."""
    for name in ("state", "spool", "key"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    key = folder / "key" / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 21  # MB, half of all
    (folder / "slurm.conf").write_text(CONFIGURATION.format(host=host, ports=_ports(2), folder=folder, cpus=cpus,
                                                            memory=memory))
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    files = [f"--{name}={folder / 'key' / name}" for name in ("pid-file", "log-file", "seed-file")]
    files += [f"--key-file={key}", f"--socket={folder / 'munge.socket'}"]
    commands = (["munged", "--foreground", "--force", *files],
                ["slurmctld", "-D", "-c", "-i"], ["slurmd", "-D", "-c"])
    with (folder / "daemons.log").open("wb") as log:
        daemons = []
        try:
            for command in commands:
                daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
                time.sleep(1)
            deadline = time.monotonic() + 60
            while "idle" not in subprocess.run(["sinfo", "-h", "-o", "%t"], env=environment, capture_output=True,
                                               text=True).stdout:
                if time.monotonic() > deadline:
                    raise RuntimeError((folder / "daemons.log").read_text(errors="replace")[-2000:])
                time.sleep(0.5)
            yield environment
        finally:
            with suppress(subprocess.TimeoutExpired):  # jobs would outlive the daemons
                subprocess.run(["scancel", "--me"], env=environment, check=False, capture_output=True, timeout=30)
            time.sleep(2)
            for daemon in reversed(daemons):
                daemon.terminate()
                daemon.wait()


if __name__ == "__main__":
    where = Path(sys.argv[1]).absolute()
    if missing():
        sys.exit(f"not here: {', '.join(missing())}")
    with slurm(where) as found:
        sys.exit(subprocess.run(sys.argv[2:], env=found).returncode)
