"""Hidden Markov chains on plain arrays: exact at probability zero, for batches of sequences of any length.

Every function takes the chain as `log_initial` [K], `log_transition` [K, K] (row: from, column: to; or [T - 1, K, K]
when it changes with time, or [*batch, T - 1, K, K]) and, where there is data, `log_likelihood` [*batch, T, K], the
log-probability of what was seen at each time in each state, all in nats. -inf is a zero and stays one. `length`
[*batch] says how many steps of each sequence are there; `observed` [*batch, T] which of them were seen: the likelihood
of the others counts as one, whatever it holds, NaN included. Padding changes no bit of a result. `jax.vmap` works too,
over chains as over data.

How the recursions run is a value: `Sequential()`, `Blocked(size)`, `Associative()`, or None to choose by shape and
device (`backends`). They run in probability space where that can be shown to be right for the data at hand
(`scaled`), else, inside the same program, in log space (`logs`). Time is never unrolled, and nothing of
size T K^2 is stored unless the transition has that size itself or `Associative` was asked for.

`paths` has the most probable and the sampled paths, `transitions` what a chain alone says.
"""

from jaxgen.ops.chains import transitions
from jaxgen.ops.chains.backends import (
    Associative,
    Blocked,
    Sequential,
)
from jaxgen.ops.chains.inference import (
    FilterState,
    filter_step,
    fixed_lag,
    forecast,
    forward_filter,
    log_normalizer,
    pair_posteriors,
    smoother,
    start_filter,
)
from jaxgen.ops.chains.inputs import (
    Filtered,
    Posterior,
)
from jaxgen.ops.chains.paths import (
    Decoded,
    decode_posterior,
    sample_path,
    sample_posterior,
    viterbi,
    viterbi_best,
)

__all__ = [
    "Associative",
    "Blocked",
    "Decoded",
    "FilterState",
    "Filtered",
    "Posterior",
    "Sequential",
    "decode_posterior",
    "filter_step",
    "fixed_lag",
    "forecast",
    "forward_filter",
    "log_normalizer",
    "pair_posteriors",
    "sample_path",
    "sample_posterior",
    "smoother",
    "start_filter",
    "transitions",
    "viterbi",
    "viterbi_best",
]


def __dir__() -> list[str]:
    return __all__
