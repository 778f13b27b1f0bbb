"""Measures one peer, in a process of its own, and prints each figure as it comes:

    python peer.py NAME WORKERS SECONDS

Each line that matters begins with PEER and goes on with a JSON object. The work is that of offshoot.rs beside this
file: cold start, sequential round trips, tasks submitted one by one, tasks in chunks where the peer has chunks, echoes
of 1 MiB; then nothing for a while, in which run.py looks at the processes.
"""

import importlib.metadata
import json
import os
import statistics
import sys
import time

import work

CHUNK = 100
MIB = 1 << 20
TRIPS_MAX = 2_000
IDLE_SECONDS = 8  # run.py waits for one second, and looks for five.


class Processes:
    """concurrent.futures.ProcessPoolExecutor, of Python's standard library."""

    def __init__(self, workers):
        from concurrent.futures import ProcessPoolExecutor

        self.version = "Python " + sys.version.split()[0]
        self.pool = ProcessPoolExecutor(max_workers=workers)

    def submit(self, function, *arguments):
        return self.pool.submit(function, *arguments)

    def result(self, future):
        return future.result()

    def batched(self, count):
        return self.pool.map(work.nothing, range(count), chunksize=CHUNK)

    def stop(self):
        self.pool.shutdown()


class Mpi4py(Processes):
    """mpi4py.futures.MPIPoolExecutor, in a process that nobody started with mpiexec: it spawns its workers."""

    def __init__(self, workers):
        from mpi4py.futures import MPIPoolExecutor

        self.version = importlib.metadata.version("mpi4py")
        self.pool = MPIPoolExecutor(max_workers=workers)


class Dask:
    """Dask distributed, a local cluster of processes. It has no chunks: each element of a map is a task."""

    def __init__(self, workers):
        from distributed import Client, LocalCluster

        self.version = importlib.metadata.version("distributed")
        self.cluster = LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        )
        self.client = Client(self.cluster)

    def submit(self, function, *arguments):
        return self.client.submit(function, *arguments, pure=False)

    def result(self, future):
        return future.result()

    batched = None

    def stop(self):
        self.client.close()
        self.cluster.close()


class Ray:
    """Ray on this machine; in chunks through its multiprocessing.Pool."""

    def __init__(self, workers):
        import ray

        self.version = importlib.metadata.version("ray")
        self.ray, self.workers, self.pool, self.functions = ray, workers, None, {}
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="error")

    def submit(self, function, *arguments):
        if function not in self.functions:
            self.functions[function] = self.ray.remote(function)
        return self.functions[function].remote(*arguments)

    def result(self, reference):
        return self.ray.get(reference)

    def batched(self, count):
        if self.pool is None:
            from ray.util.multiprocessing import Pool

            self.pool = Pool(self.workers)
        return self.pool.map(work.nothing, range(count), chunksize=CHUNK)

    def stop(self):
        self.ray.shutdown()


class Parsl:
    """Parsl with its HighThroughputExecutor on this machine; in chunks through its ParslPoolExecutor."""

    def __init__(self, workers):
        from parsl import Config
        from parsl.concurrent import ParslPoolExecutor
        from parsl.executors import HighThroughputExecutor
        from parsl.providers import LocalProvider

        self.version = importlib.metadata.version("parsl")
        executor = HighThroughputExecutor(
            address="127.0.0.1",
            max_workers_per_node=workers,
            provider=LocalProvider(init_blocks=1, max_blocks=1),
            worker_logdir_root=os.environ["PEER_FOLDER"],
        )
        config = Config(executors=[executor], run_dir=os.environ["PEER_FOLDER"], usage_tracking=0)
        self.pool = ParslPoolExecutor(config=config)
        self.pool.__enter__()

    def submit(self, function, *arguments):
        return self.pool.submit(function, *arguments)

    def result(self, future):
        return future.result()

    def batched(self, count):
        return self.pool.map(work.nothing, range(count), chunksize=CHUNK)

    def stop(self):
        self.pool.__exit__(None, None, None)


PEERS = {"processes": Processes, "mpi4py": Mpi4py, "dask": Dask, "ray": Ray, "parsl": Parsl}


def tell(**figures):
    print("PEER", json.dumps(figures), flush=True)


def repeated(seconds, action):
    """The times of an action that is repeated for a while, the first few left out."""
    for _ in range(3):
        action()
    times, until = [], time.perf_counter() + seconds
    while not times or (time.perf_counter() < until and len(times) < TRIPS_MAX):
        begun = time.perf_counter()
        action()
        times.append(time.perf_counter() - begun)
    return times


def rate(seconds, guess, most, action):
    """Tasks a second: first a few, to learn how many fill the time, then so many."""
    begun = time.perf_counter()
    action(guess)
    count = int(guess * seconds / (time.perf_counter() - begun))
    count = max(guess, min(most, count))
    begun = time.perf_counter()
    action(count)
    return count / (time.perf_counter() - begun)


def measure(make, workers, seconds):
    begun = time.perf_counter()
    peer = make(workers)
    peer.result(peer.submit(work.nothing))
    tell(cold_start_ms=(time.perf_counter() - begun) * 1e3, version=peer.version)

    def one_by_one(count):
        futures = [peer.submit(work.nothing) for _ in range(count)]
        for future in futures:
            peer.result(future)

    def batched(count):
        for _ in peer.batched(count):
            pass

    one_by_one(100)
    trips = repeated(seconds, lambda: peer.result(peer.submit(work.nothing)))
    tell(round_trip_us=statistics.median(trips) * 1e6)
    tell(unbatched_per_s=rate(seconds, 200, 50_000, one_by_one))
    if peer.batched is not None:
        batched(1_000)
        tell(batched_per_s=rate(seconds, 2_000, 1_000_000, batched))
    payload = b"\x07" * MIB
    echoes = repeated(seconds, lambda: peer.result(peer.submit(work.echo, payload)))
    tell(payload_mb_per_s=2 * MIB / 1e6 / statistics.median(echoes))
    tell(idle=True)
    time.sleep(IDLE_SECONDS)
    peer.stop()
    tell(done=True)


if __name__ == "__main__":
    measure(PEERS[sys.argv[1]], int(sys.argv[2]), float(sys.argv[3]))
