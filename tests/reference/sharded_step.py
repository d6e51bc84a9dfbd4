"""As a program: the compiled training step of a tiny encoder on a mesh with `fsdp` of all devices."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.partitioning import param_with_axes

from music_diffusion.networks.layers import Dense, Embed, GatedMLP, RMSNorm
from music_diffusion.training import partitioning
from music_diffusion.training.optimizers import adamw
from music_diffusion.training.state import init_state, make_train_step

EXAMPLES, TOKENS, IDS = 64, 4, 32  # of a batch, over all devices


class _Net(nn.Module):
    """What the T5 encoders have that meets the batch late: a table of ids and one of positions."""

    @nn.compact
    def __call__(self, ids):
        places = param_with_axes("places", nn.initializers.normal(), (TOKENS, 16),
                                 axes=("length", "embed"))
        x = Embed(IDS, 16)(ids, one_hot=True) + places[None]
        x = x + GatedMLP(24)(RMSNorm()(x))
        return Dense(8, axes=("embed", "mel"))(RMSNorm()(x))


@dataclasses.dataclass(frozen=True)
class Model:
    frozen: tuple[str, ...] = ()

    def init(self, rng, shapes):
        return _Net().init(rng, jnp.zeros(shapes["ids"], jnp.int32))

    def loss_fn(self, params, batch, rng):
        return jnp.mean(_Net().apply({"params": params}, batch["ids"]) ** 2), {}


def main():
    config, model, optimizer = partitioning.MeshConfig(data=1, fsdp=-1), Model(), adamw()
    batch, mesh = {"ids": np.zeros((EXAMPLES, TOKENS), np.int32)}, config.make_mesh()
    with partitioning.on_mesh(mesh, config.rules):
        state, axes = init_state(model, optimizer, {"ids": (1, TOKENS)}, seed=0, ema=True)
        shardings = partitioning.state_shardings(state, axes, mesh, config.rules)
        step = jax.jit(make_train_step(model, optimizer, seed=0), out_shardings=(shardings, None))
        state = jax.device_put(state, shardings)
        print(step.lower(state, partitioning.put_local_batch(batch, mesh)).compile().as_text())


if __name__ == "__main__":
    main()
