"""Tasks on a Ray cluster: the one at `launch.address`, or one that is started here and ends with the command."""

import os
from collections.abc import Iterator, Sequence

from tfkfin.base.console import quiet_start
from tfkfin.base.errors import refused_as
from tfkfin.base.extras import required
from tfkfin.launch import LaunchContext, Task, TaskEvent, perform


def on_ray(tasks: Sequence[Task], context: LaunchContext) -> Iterator[TaskEvent | None]:
    """Ray itself starts a task again when its worker or node is lost."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = required("ray", "ray", "--launcher ray needs the extra [ray]")
    options = context.options
    context.clear(tasks)
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "runtime_env": {"env_vars": context.environment()}}
    if options.address:
        with refused_as(f"no Ray cluster answers at launch.address {options.address}", ConnectionError, ValueError,
                        RuntimeError):
            ray.init(options.address, **quiet)
    else:
        room = {"num_cpus": options.workers * options.threads} if options.workers else {}
        with quiet_start():
            ray.init("local", include_dashboard=False, **room, **quiet)
    try:
        remote = ray.remote(num_cpus=options.threads, num_gpus=options.gpus, max_retries=options.retries,
                            memory=int(options.memory_gb * 1e9))(perform)
        left = {remote.remote(task, context.log_of(task)): task for task in tasks}
        while left:
            ended, _ = ray.wait(list(left), num_returns=min(len(left), 100), timeout=0.5)
            for reference in ended:
                try:
                    error = ray.get(reference)
                except ray.exceptions.RayError as lost:
                    error = " ".join(str(lost).split("\n")[0].split())
                yield context.ended(left.pop(reference), error)
            yield None
    finally:
        ray.shutdown()


LAUNCHER = on_ray
