"""A Slurm job array, submitted by submitit. The folder of the run must be on a disk that the nodes share.

The jobs go on when the command is killed. The same command, started again, finds them and submits the tasks that are in
none. The outcome of a task lies beside its log; Slurm is only asked which jobs still exist, so that this works without
accounting.
"""

import hashlib
import subprocess
import time
from collections.abc import Iterator, Sequence

from tfkfin.base.console import log
from tfkfin.base.errors import InputError
from tfkfin.base.extras import required
from tfkfin.base.files import read_json, write_json
from tfkfin.base.quoted import shell
from tfkfin.launch import LaunchContext, Task, TaskEvent, perform

POLL_S = 1  # between looks for outcomes
QUERY_S = 5  # between questions to Slurm
GRACE_S = 10  # that an outcome may take to appear on a shared disk after its job has ended
LARGEST = 1000  # jobs in an array: Slurm's MaxArraySize is 1001 unless a cluster sets another


class Pack:
    """The tasks of one job, one after another. At its time limit, or when preempted, the job is queued again."""

    def __init__(self, tasks: Sequence[Task], context: LaunchContext):
        self.tasks, self.context = list(tasks), context

    def __call__(self) -> None:
        for task in self.tasks:
            outcome = self.context.outcome_of(task)
            if not outcome.is_file():
                write_json(outcome, {"error": perform(task, self.context.log_of(task))})

    def checkpoint(self, *_, **__):
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Arrays:
    """The job arrays of a run. Files in launch/slurm/ of its folder say which job has which tasks."""

    def __init__(self, context: LaunchContext):
        self.context, self.folder = context, context.folder / "launch" / "slurm"
        self.name = f"tfkfin-{hashlib.sha256(str(context.folder).encode()).hexdigest()[:8]}"

    def jobs(self) -> set[str] | None:
        """Jobs that wait or run, as in "12_3"; None if Slurm does not answer."""
        done = subprocess.run(["squeue", "--me", "--noheader", "--array", "--name", self.name, "--format", "%i %t"],
                              capture_output=True, text=True)
        if done.returncode:
            log.warning("warning: squeue: %s", done.stderr.strip())
            return None
        return {line.split()[0] for line in done.stdout.splitlines() if line.split()[1] not in ("CG", "CD")}

    def running(self) -> dict[str, str]:
        """Task name -> job, of jobs that an earlier command submitted; jobs whose tasks are not on record end here."""
        jobs, known = self.jobs() or set(), {}
        for path in self.folder.glob("tasks-*.json"):
            known |= read_json(path)
        if unknown := sorted(jobs - set(known.values())):
            subprocess.run(["scancel", *unknown], check=False)
        return {name: job for name, job in known.items() if job in jobs}

    def submit(self, tasks: Sequence[Task]) -> dict[str, str]:
        """Submits tasks; returns task name -> job."""
        if not tasks:
            return {}
        from submitit.core.utils import FailedJobError

        each, found = self.context.options.fits_per_job or -(-len(tasks) // LARGEST), {}
        packs = [Pack(tasks[i : i + each], self.context) for i in range(0, len(tasks), each)]
        for i in range(0, len(packs), LARGEST):
            executor, some = self._executor(), packs[i : i + LARGEST]
            try:
                with executor.batch():
                    jobs = [executor.submit(pack) for pack in some]
            except FailedJobError as error:
                raise InputError(f"sbatch refused the jobs, check [launch] of the recipe: "
                                 f"{str(error).strip().splitlines()[-1]}") from None
            submitted = {task.name: job.job_id for pack, job in zip(some, jobs, strict=True) for task in pack.tasks}
            write_json(self.folder / f"tasks-{jobs[0].job_id.partition('_')[0]}.json", submitted)
            found |= submitted
        return found

    def _executor(self):
        import submitit

        options = self.context.options
        for word in (options.partition, self.folder):  # submitit quotes them; a line of the script they must not end
            shell(word)
        executor = submitit.SlurmExecutor(self.folder, max_num_timeout=options.retries)
        optional = {"partition": options.partition, "gpus_per_node": int(options.gpus)}
        executor.update_parameters(
            job_name=self.name, time=options.minutes, cpus_per_task=options.threads, stderr_to_stdout=True,
            mem=f"{int(1000 * options.memory_gb)}M", array_parallelism=options.workers or LARGEST,
            setup=[f"export {name}={value}" for name, value in self.context.environment().items()],
            **{name: value for name, value in optional.items() if value})
        return executor


def slurm(tasks: Sequence[Task], context: LaunchContext) -> Iterator[TaskEvent | None]:
    required("submitit", "slurm", "--launcher slurm needs the extra [slurm]")
    arrays = Arrays(context)
    try:
        job_of = arrays.running()
    except FileNotFoundError:
        raise InputError("--launcher slurm: there is no squeue here: start the command on a login node") from None
    new = [task for task in tasks if task.name not in job_of]
    context.clear(new)
    if len(new) < len(tasks):
        log.info("%d tasks are in jobs that were submitted earlier", len(tasks) - len(new))
    job_of |= arrays.submit(new)
    left, gone, asked = {task.name: task for task in tasks}, {}, time.monotonic()
    while left:
        time.sleep(POLL_S)
        for name in [name for name, task in left.items() if context.outcome_of(task).is_file()]:
            task = left.pop(name)
            yield context.ended(task, read_json(context.outcome_of(task))["error"])
        now = time.monotonic()
        if now - asked > QUERY_S and (jobs := arrays.jobs()) is not None:
            asked = now
            gone = {name: gone.get(name, now) for name in left if job_of[name] not in jobs}
        again = []
        for name in [name for name, since in gone.items() if name in left and now - since > GRACE_S]:
            del gone[name]
            event = context.lost(left[name], f"job {job_of[name]} has ended without an outcome")
            if event.state == "lost":
                again.append(left[name])
            else:
                del left[name]
            yield event
        job_of |= arrays.submit(again)
        yield None


LAUNCHER = slurm
