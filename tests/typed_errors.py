"""What a type checker has to refuse: `test_typing.py` wants an error in each line that says so, and in no other."""

import jax

import jaxgen as jg


def wrong(key: jax.Array, x: jax.Array, gaussian: jg.Gaussian, hmm: jg.HMM, vae: jg.VAE, machine: jg.RBM) -> None:
    print(jg.Gausian)  # refused
    gaussian.log_prob(x, condition=x)  # refused
    gaussian.sample(key, (2,), length=3)  # refused
    gaussian.sample(key, sape=(2,))  # refused
    gaussian.sample(key, (2,), context=None)
    hmm.sample(key, length=3)
    hmm.viterbi(x, best=2, contexts=x)  # refused
    hmm.smooth_lag(x)  # refused
    vae.elbo(x)  # refused
    vae.iwae(key, x, samples=5, context=None)
    machine.energy(x, label=x)  # refused
    machine.kernel(key, x, observed=None)
    print(hmm.viterbi(x).paths)  # refused
    jg.fit(key, gaussian, x, step=3)  # refused
