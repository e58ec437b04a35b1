"""Named pairs of a model and the algorithm that trains it: `model, algorithm = recipe(key, x)`, then `fit`."""

from jaxgen.recipes.autoencoders import ladder_vae, semi_supervised, vae
from jaxgen.recipes.coupling import iaf, maf, neural_spline_flow, realnvp
from jaxgen.recipes.energy import rbm
from jaxgen.recipes.games import dcgan, gan
from jaxgen.recipes.image_flows import glow
from jaxgen.recipes.latent import gaussian_mixture, hidden_markov
from jaxgen.recipes.stages import rae, vqvae
from jaxgen.recipes.styles import grown, style_gan, truncated
from jaxgen.recipes.unconstrained import bnaf, residual_flow

__all__ = [
    "bnaf", "dcgan", "gan", "gaussian_mixture", "glow", "grown", "hidden_markov", "iaf", "ladder_vae", "maf",
    "neural_spline_flow", "rae", "rbm", "realnvp", "residual_flow", "semi_supervised", "style_gan", "truncated", "vae",
    "vqvae",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
