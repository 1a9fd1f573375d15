"""How examples reach the step: ids into data that live on the device, or batches that grain reads ahead on the host."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from robustjax.core import parallel
from robustjax.core.types import Batch
from robustjax.data import stream
from robustjax.train import step
from robustjax.train.build import Experiment
from robustjax.train.state import TrainState


def place(experiment: Experiment, mesh: Mesh) -> tuple[jax.Array, jax.Array] | None:
    """Puts the training split (uint8 images, labels) on every device, where it fits; else returns None and it is streamed."""
    source = experiment.dataset.train
    if not source.resident or experiment.config["data"]["stream"] == "always":
        return None
    return parallel.replicate((jnp.asarray(source.images), jnp.asarray(source.labels)), mesh)


class Resident:
    """Steps over data on the device: only the ids of each batch cross from the host."""

    def __init__(self, experiment: Experiment, mesh: Mesh, data: tuple[jax.Array, jax.Array]):
        self.order, self.mesh = experiment.order, mesh
        self.replicated = (
            parallel.replicate(jax.random.key(experiment.config["seed"]), mesh),
            *data,
            parallel.replicate(experiment.arrays, mesh),
        )
        self.function = parallel.data_parallel(step.resident(experiment.step), mesh, mode=experiment.config["parallel"])
        wanted = experiment.config["steps_per_dispatch"] or (1 if jax.default_backend() == "cpu" else 50)
        interval = experiment.config["validate_epochs"] * experiment.order.steps_per_epoch
        # A divisor, so that one program serves all dispatches (the end of the run may need a second).
        self.chunk = max(s for s in range(1, min(wanted, interval) + 1) if interval % s == 0)

    def dispatches(self, start: int, stop: int):
        """Yields (step after it, arguments) of each dispatch between two steps."""
        for at in range(start, stop, self.chunk):
            after = min(at + self.chunk, stop)
            ids = np.stack([self.order(i) for i in range(at, after)], axis=1)
            yield after, parallel.shard_rows(parallel.own_rows(ids), self.mesh)

    def __call__(self, current: TrainState, argument) -> tuple[TrainState, jax.Array]:
        """Takes the steps of one dispatch; returns the state and a marker, see train.step."""
        return self.function(current, self.replicated, argument)

    def compiled(self, current: TrainState, batch_size: int):
        """Returns the compiled first step for another batch size; for the memory it would need."""
        ids = jax.ShapeDtypeStruct((batch_size, self.chunk), jnp.int32)
        return jax.jit(self.function).lower(current, self.replicated, ids).compile()


class Streamed:
    """Steps over data that grain reads ahead on the host."""

    def __init__(self, experiment: Experiment, mesh: Mesh, data: None):
        self.experiment, self.mesh = experiment, mesh
        self.replicated = parallel.replicate((jax.random.key(experiment.config["seed"]), experiment.arrays), mesh)
        self.function = parallel.data_parallel(step.streamed(experiment.step), mesh, mode=experiment.config["parallel"])

    def dispatches(self, start: int, stop: int):
        """Yields (step after it, arguments) of each dispatch between two steps."""
        source, order = self.experiment.dataset.train, self.experiment.order
        processes = {"process": jax.process_index(), "processes": jax.process_count()}
        batches = stream.train_stream(source, order, start_step=start, num_steps=stop - start, **processes)
        for after, batch in enumerate(batches, start + 1):
            yield after, parallel.shard_rows(batch, self.mesh)

    def __call__(self, current: TrainState, argument) -> tuple[TrainState, jax.Array]:
        """Takes the steps of one dispatch; returns the state and a marker, see train.step."""
        return self.function(current, self.replicated, argument)

    def compiled(self, current: TrainState, batch_size: int):
        """Returns the compiled first step for another batch size; for the memory it would need."""
        shape = self.experiment.dataset.image_shape
        kinds = [((batch_size, *shape), jnp.uint8), ((batch_size,), jnp.int32), ((batch_size,), jnp.int32), ((batch_size,), bool)]
        batch = Batch(*(jax.ShapeDtypeStruct(*kind) for kind in kinds))
        return jax.jit(self.function).lower(current, self.replicated, batch).compile()
