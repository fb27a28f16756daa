"""A job array of Slurm, by submitit. The folder of the run is on a disk that the nodes see.

The arrays go on when the command is killed: started again, it takes them up and submits what is in none of them.
What a task came to lies beside its log: Slurm is only asked which jobs are still there, so accounting may be off.
"""

import hashlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tfkfin.base.console import InputError, log
from tfkfin.base.files import read_json, write_json
from tfkfin.launch import Desk, Event, Task, missing_extra
from tfkfin.launch._task import perform

POLL, ASK, GRACE = 1, 5, 10  # s: between looks for outcomes, between questions to Slurm; a shared disk's delay
LARGEST = 1000  # jobs of an array: MaxArraySize is 1001 unless a cluster says otherwise


class Pack:
    """The tasks of one job, one after another. Stopped at its time limit or preempted, it is queued again."""

    def __init__(self, tasks: Sequence[Task], desk: Desk):
        self.tasks, self.desk = list(tasks), desk

    def __call__(self) -> None:
        for task in self.tasks:
            if not _outcome(self.desk, task).is_file():
                write_json(_outcome(self.desk, task), {"error": perform(task, self.desk.log_of(task))})

    def checkpoint(self, *_, **__):
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Arrays:
    """The arrays of a run: files below its launch/slurm/ say which tasks are in which job."""

    def __init__(self, desk: Desk):
        self.desk, self.folder = desk, desk.folder / "launch" / "slurm"
        self.name = f"tfkfin-{hashlib.sha256(str(desk.folder).encode()).hexdigest()[:8]}"

    def there(self) -> set[str] | None:
        """Jobs that wait or run, as in "12_3"; None if Slurm does not answer."""
        done = subprocess.run(["squeue", "--me", "--noheader", "--array", "--name", self.name, "--format", "%i %t"],
                              capture_output=True, text=True)
        if done.returncode:
            log.warning("warning: squeue: %s", done.stderr.strip())
            return None
        return {line.split()[0] for line in done.stdout.splitlines() if line.split()[1] not in ("CG", "CD")}

    def taken_up(self) -> dict[str, str]:
        """Task -> job, of jobs that an earlier start submitted; what it could not write down is cancelled."""
        jobs, known = self.there() or set(), {}
        for path in self.folder.glob("tasks-*.json"):
            known |= read_json(path)
        if lost := sorted(jobs - set(known.values())):
            subprocess.run(["scancel", *lost], check=False)
        return {name: job for name, job in known.items() if job in jobs}

    def submit(self, tasks: Sequence[Task]) -> dict[str, str]:
        """Task -> job."""
        each = self.desk.options.fits_per_job or -(-len(tasks) // LARGEST)
        packs = [Pack(tasks[i : i + each], self.desk) for i in range(0, len(tasks), each)]
        found = {}
        for i in range(0, len(packs), LARGEST):
            some = packs[i : i + LARGEST]
            jobs = self._submit(some)
            told = {task.name: job.job_id for pack, job in zip(some, jobs, strict=True) for task in pack.tasks}
            write_json(self.folder / f"tasks-{jobs[0].job_id.partition('_')[0]}.json", told)
            found |= told
        return found

    def _submit(self, packs: list[Pack]) -> list:
        executor = self._executor()
        with executor.batch():
            return [executor.submit(pack) for pack in packs]

    def _executor(self):
        import submitit

        options = self.desk.options
        executor = submitit.SlurmExecutor(self.folder, max_num_timeout=options.retries)
        given = {"partition": options.partition or None, "gpus_per_node": int(options.gpus) or None}
        executor.update_parameters(
            job_name=self.name, time=options.minutes, cpus_per_task=options.threads, stderr_to_stdout=True,
            mem=f"{int(1000 * options.memory_gb)}M", array_parallelism=options.workers or LARGEST,
            setup=[f"export {name}={value}" for name, value in self.desk.environment().items()],
            **{name: value for name, value in given.items() if value})
        return executor


def _outcome(desk: Desk, task: Task) -> Path:
    return desk.log_of(task).with_suffix(".json")


def slurm(tasks: Sequence[Task], desk: Desk) -> Iterator[Event | None]:
    arrays = _arrays(desk)
    where, tries = arrays.taken_up(), {}
    new = [task for task in tasks if task.name not in where]
    for task in new:
        desk.log_of(task).unlink(missing_ok=True)
        _outcome(desk, task).unlink(missing_ok=True)
    if len(new) < len(tasks):
        log.info("%d tasks are in jobs that were submitted earlier", len(tasks) - len(new))
    where |= _submitted(arrays, new)
    left, gone, asked = {task.name: task for task in tasks}, {}, time.monotonic()
    while left:
        time.sleep(POLL)
        for name in [name for name, task in left.items() if _outcome(desk, task).is_file()]:
            task = left.pop(name)
            error = read_json(_outcome(desk, task))["error"]
            yield Event(task.key, "failed" if error else "done", error)
        now = time.monotonic()
        if now - asked > ASK and (jobs := arrays.there()) is not None:
            asked = now
            gone = {name: gone.get(name, now) for name in left if where[name] not in jobs}
        lost = [left[name] for name, since in gone.items() if name in left and now - since > GRACE]
        again = []
        for task in lost:
            del gone[task.name]
            tries[task.key] = tries.get(task.key, 0) + 1
            if tries[task.key] <= desk.options.retries:
                again.append(task)
                yield Event(task.key, "lost", f"job {where[task.name]} has ended without it")
            else:
                del left[task.name]
                yield Event(task.key, "failed", f"its jobs ended without it, {tries[task.key]} times")
        where |= _submitted(arrays, again)
        yield None


def _arrays(desk: Desk) -> Arrays:
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise missing_extra("slurm", error) from None
    arrays = Arrays(desk)
    try:
        arrays.there()
    except FileNotFoundError:
        raise InputError("--launcher slurm: there is no squeue here: start the command on a login node") from None
    return arrays


def _submitted(arrays: Arrays, tasks: Sequence[Task]) -> dict[str, str]:
    if not tasks:
        return {}
    from submitit.core.utils import FailedJobError

    try:
        return arrays.submit(tasks)
    except FailedJobError as error:
        raise InputError(f"sbatch refused the jobs, look at [launch]: {str(error).strip().splitlines()[-1]}") from None


LAUNCHER = slurm
