"""Batches made by other processes, here or on other machines, through tf.data service: the same, in the same order.

The service hands out the numbers of an epoch's batches to its workers (ShardingPolicy.DYNAMIC), each number to one of
them, and what a killed worker was given never comes. So every batch tells its number: they are put in order here, and
one that does not come is made here. Every window is seen once an epoch, whatever was killed, and what is learnt is
what it would be without the service, bit for bit.

Workers run Python: recordings are read and features computed as ever. What travels is a graph that calls one function
by the name that it has in each of them.
"""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from tfkfin.base import machine
from tfkfin.base.console import InputError, log, quiet_start
from tfkfin.pipeline.numbered import Numbered, opened

FUNCTION = "pyfunc_0"  # TensorFlow's name for the first Python function of a process: of each worker, `_made`
PATIENCE = 30  # s that a batch may be late, until it is made here
ROOM = 2**28  # bytes of batches that wait for an earlier one, at most: then that one is made here
_TICK, _END, _BEGIN = -1, -2, -3  # in place of a batch's number


def batches(address: str, numbered: Numbered, data: str, epoch: int, prefetch: int = 2):
    """A tf.data.Dataset of the batches of an epoch, to be gone through once, from the service at "host:port".

    Raises:
        InputError: nobody listens there.
    """
    import tensorflow as tf

    service = tf.data.experimental.service
    _reached(address)
    names, request = numbered.recipe.features.names, numbered.request(data)
    shapes = (None, numbered.length, numbered.channels), (None, numbered.channels, len(names))

    def made(number):
        x, y = tf.raw_ops.PyFunc(input=[tf.constant(request), tf.constant(epoch, tf.int64), number], token=FUNCTION,
                                 Tout=[tf.float32, tf.float32])
        return number, tf.ensure_shape(x, shapes[0]), tf.ensure_shape(y, shapes[1])

    def mark(number):
        return tf.cast(number, tf.int64), *(tf.zeros([0, *shape[1:]], tf.float32) for shape in shapes)

    def tick(_):
        return mark(tf.ensure_shape(tf.numpy_function(lambda: time.sleep(0.2) or np.int64(_TICK), [], tf.int64), ()))

    served = tf.data.Dataset.range(numbered.steps).map(made).apply(service.distribute(
        processing_mode=service.ShardingPolicy.DYNAMIC, service=f"grpc://{address}", compression=None))
    served = served.concatenate(tf.data.Dataset.from_tensors(_END).map(mark))
    ticks, every = tf.data.Dataset.range(2**62).map(tick), tf.constant(-1, tf.int64)
    both = tf.data.Dataset.range(2).interleave(  # whatever is there first
        lambda i: served.take(every * (1 - i)).concatenate(ticks.take(every * i)), cycle_length=2,
        num_parallel_calls=2, deterministic=False)
    order = _Order(numbered, epoch, address)

    def ready(number, x, y):
        return tf.data.Dataset.range(tf.ensure_shape(tf.numpy_function(order.given, [number, x, y], tf.int64), ()))

    def due(_):
        x, y = tf.numpy_function(order.due, [], (tf.float32, tf.float32))
        return tf.ensure_shape(x, shapes[0]), tf.ensure_shape(y, shapes[1])

    found = tf.data.Dataset.from_tensors(_BEGIN).map(mark).concatenate(both).flat_map(ready).map(due)
    found = found.prefetch(prefetch)  # its end cancels what waits for a worker that hangs; that of `take` would not
    return found.take(numbered.steps).apply(tf.data.experimental.assert_cardinality(numbered.steps))


class _Order:
    """Puts the batches of one epoch in order, and makes those that do not come."""

    def __init__(self, numbered: Numbered, epoch: int, address: str):
        self.numbered, self.epoch, self.address = numbered, epoch, address
        self._restart()

    def _restart(self) -> None:
        self.waiting, self.next, self.promised, self.lost = {}, 0, 0, 0
        self.heard = self.moved = time.monotonic()
        self.burst = 1  # how many are made here at once while nothing comes

    def given(self, number: int, *batch: np.ndarray) -> np.int64:
        """Takes what came; returns how many batches `due` can give then, one after another."""
        number, now = int(number), time.monotonic()
        if number == _BEGIN:
            self._restart()
        elif number >= 0:
            self.heard, self.burst = now, 1
            if number >= self.promised:
                self.waiting[number] = batch
        before = self.promised
        if number == _END:
            self.promised = self.numbered.steps
        elif now - self.heard > PATIENCE:  # nobody is there any more
            self.promised, self.burst = min(self.promised + self.burst, self.numbered.steps), 2 * self.burst
        elif self.waiting and (now - self.moved > PATIENCE or self._held() > ROOM):
            self.promised += 1
        while self.promised in self.waiting:
            self.promised += 1
        if self.promised > before:
            self.moved = now
        return np.int64(self.promised - before)

    def _held(self) -> int:
        first = next(iter(self.waiting.values()))
        return len(self.waiting) * sum(part.nbytes for part in first)

    def due(self) -> tuple[np.ndarray, np.ndarray]:
        """The next batch."""
        number, self.next = self.next, self.next + 1
        batch = self.waiting.pop(number, None)
        if batch is None:
            if not self.lost:
                log.warning("warning: a batch has not come from %s: it is made here, as others may be", self.address)
            self.lost += 1
            batch = self.numbered.batch(self.epoch, number)
        return batch


def _reached(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 5).close()
    except (OSError, ValueError) as error:
        raise InputError(f"launch.input_service: nobody listens at {address} ({error}): start python -m tfkfin.data "
                         "serve-input there, or leave the option out") from None


@contextmanager
def failures_told(address: str) -> Iterator[None]:
    """Says in one line what went wrong at the service; other errors pass."""
    try:
        yield
    except Exception as error:
        ours = re.search("from worker|[Dd]ispatcher|[Ii]teration client", str(error))
        if not address or not ours or type(error).__module__.partition(".")[0] != "tensorflow":
            raise
        said = re.search(r"\b[A-Z]\w*Error: (.*)", str(error))  # of Python, there
        shown = said[1] if said else re.sub(r"\{\{.*?\}\}", "", str(error)).strip().split(". ")[0][:300]
        raise InputError(f"the input service at {address} failed ({shown}): the same command goes on after the last "
                         "epoch") from None


def serve(port: int, workers: int, join: str, host: str) -> None:
    """Runs workers, processes of their own, and without `join` their dispatcher at `port`, until it is interrupted.

    A worker that ends is started again at its port: the dispatcher then knows it for the same one.

    Raises:
        InputError: the port is taken, nobody listens at `join`, or workers end again and again.
    """
    if join:
        _reached(join)
    else:
        with quiet_start():
            import tensorflow as tf
        service = tf.data.experimental.service
        try:
            dispatcher = service.DispatchServer(service.DispatcherConfig(port=port))
        except tf.errors.OpError as error:
            raise InputError(f"no dispatcher can listen at port {port}: {error.message.splitlines()[0]}") from None
        join = f"{host}:{dispatcher.target.rpartition(':')[2]}"
        log.info("dispatcher at %s: --set launch.input_service=%s", join, join)
    crew = [_Worker(join, host) for _ in range(workers or machine.cores())]
    log.info("%d workers at %s, Ctrl-C ends them", len(crew), ", ".join(str(worker.port) for worker in crew))
    try:
        while True:
            for worker in crew:
                worker.look_after()
            time.sleep(0.5)
    finally:
        for worker in crew:
            worker.process.kill()
        for worker in crew:
            worker.process.wait()


class _Worker:
    """One worker process at a time, always at the same port."""

    def __init__(self, join: str, host: str):
        self.join, self.host, self.early = join, host, 0
        with socket.socket() as free:
            free.bind(("", 0))
            self.port = free.getsockname()[1]
        self._start()

    def _start(self) -> None:
        self.began = time.monotonic()
        own = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        self.process = subprocess.Popen([sys.executable, "-m", "tfkfin.pipeline.service", self.join,
                                         f"{self.host}:{self.port}"], stdin=subprocess.PIPE, env=os.environ | own)

    def look_after(self) -> None:
        if self.process.poll() is None:
            return
        self.early = self.early + 1 if time.monotonic() - self.began < 60 else 0
        if self.early > 5:
            raise InputError(f"a worker ends again and again ({self.process.returncode}): see what it says above")
        log.warning("warning: the worker at %d was killed (%s): it is started again", self.port,
                    self.process.returncode)
        self._start()


def _made(request: bytes, epoch: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    return opened(request.decode()).batch(int(epoch), int(number))


def work(join: str, address: str) -> None:
    """Is a worker of the dispatcher at `join`, until the process ends that started it."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it is interrupted too
    threading.Thread(target=_end_with_who_started_this, daemon=True).start()
    with quiet_start():
        import tensorflow as tf
    with tf.Graph().as_default() as graph:
        tf.numpy_function(_made, [b"", np.int64(0), np.int64(0)], (tf.float32, tf.float32))
    known = [op.get_attr("token").decode() for op in graph.get_operations() if op.type == "PyFunc"]
    if known != [FUNCTION]:
        raise RuntimeError(f"TensorFlow calls the worker's function {known}, not {FUNCTION}")
    service = tf.data.experimental.service
    server = service.WorkerServer(service.WorkerConfig(join, address, int(address.rpartition(":")[2])))
    server.join()


def _end_with_who_started_this() -> None:
    sys.stdin.read()
    os._exit(0)  # at once, whomever the server waits for


if __name__ == "__main__":
    from tfkfin.base.console import log_to_stderr

    log_to_stderr()
    work(*sys.argv[1:])
