"""What holds for every model, run on every case of `cases.py`."""

import functools
import inspect
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from case import Case, as_dtype
from cases import CASES
from fits import heard
from layers import BIJECTIONS

import jaxgen as jg
from jaxgen.core import algebra, latent
from jaxgen.core.files import load, save
from jaxgen.core.methods import context_shape, latent_shape
from jaxgen.core.protocols import Energy, Implicit
from jaxgen.core.pytree import REGISTRY, is_model, partition, public_name
from jaxgen.fit.plan import choose_algorithm
from jaxgen.metrics import laws
from jaxgen.metrics.laws import answer, answers, same_leaves
from jaxgen.ops.mixing import has_quantiles


@functools.cache
def abstract(case: Case):
    """The model of a case in shapes only."""
    return jax.eval_shape(case.make, jax.random.key(0))


def having(*protocols, where=lambda case: True):
    """Parametrises a law over the cases whose model has the protocols."""

    def fits(case: Case) -> bool:
        model = abstract(case)
        return where(case) and all(isinstance(model, p) if isinstance(p, type) else p(model) for p in protocols)

    chosen = [pytest.param(c, id=c.name) for c in CASES if fits(c)]
    return pytest.mark.parametrize("case", chosen)


def key_of(case: Case) -> jax.Array:
    return jax.random.key(zlib.crc32(case.name.encode()))


#: events that are drawn of each case, all at once: one program to draw them; of densities as many as moments ask for
MANY = 4000
FEW = 46


@functools.cache
def drawn(case: Case):
    """A model, and many events and contexts of a case."""
    first, second = jax.random.split(key_of(case))
    model = case.make(first)
    return model, *case.events(second, model, MANY if latent.has_density(abstract(case)) else FEW)


def rows(start: int, stop: int, *arrays):
    """Rows of arrays, cut on the host: a slice is a program for each of its shapes."""
    return tuple(None if a is None else jnp.asarray(np.asarray(a)[start:stop]) for a in arrays)


@functools.cache
def example(case: Case):
    """A model, six events and their contexts of a case."""
    model, x, context = drawn(case)
    return model, *rows(0, 6, x, context)


@functools.cache
def another(case: Case):
    """Another model of a case."""
    return case.make(jax.random.key(7))


def training(case):
    """Another start, forty events of the case's model, and what trains it."""
    model, x, context = drawn(case)
    return another(case), rows(6, 46, x, context), case.algorithm or choose_algorithm(model)


has_space = lambda case: case.space is not None  # noqa: E731  small enough to sum over


class Compilations:
    """Counts compilations while it is entered."""

    def __enter__(self):
        self.count, self.before = 0, heard()
        return self

    def __exit__(self, *_):
        self.count = heard() - self.before


def classes_of(value):
    """The classes of all models that a value holds."""
    if is_model(value):
        return {type(value)}.union(*map(classes_of, vars(value).values()))
    if isinstance(value, dict):
        value = tuple(value.values())
    return set().union(*map(classes_of, value)) if isinstance(value, (tuple, list)) else set()


@functools.cache
def classes(case: Case):
    return classes_of(abstract(case))


def test_every_model_class_has_a_case():
    for name in jg.__all__:  # all families that the package exports are imported
        getattr(jg, name)
    own = {name: c.__module__.split(".") for name, c in REGISTRY.items() if name.startswith("jaxgen")}
    known = {name for name, place in own.items() if place[1] not in ("metrics", "sklearn", "tasks")}  # no families
    seen = set().union(*map(classes, CASES))
    seen = seen.union(*(classes_of(jax.eval_shape(make, jax.random.key(0))) for make in BIJECTIONS.values()))
    assert known - set(map(public_name, seen)) == set()


@having()
def test_two_keys_give_one_structure(case):
    a, b = jax.random.split(key_of(case))
    assert jax.tree.structure(case.make(a)) == jax.tree.structure(case.make(b))


@having(answers)
def test_second_call_compiles_nothing(case):
    model, x, context = example(case)
    other, n = another(case), len(drawn(case)[1])
    answer(model, x, context)
    case.events(jax.random.key(0), model, n)
    key = jax.random.key(5)
    with Compilations() as compilations:
        answer(other, x, context)
        case.events(key, other, n)
    assert compilations.count == 0


def a_case_of_each_class():
    """`(case, model of that case)`: of each class the first case whose model or, of mixtures, component it is."""
    chosen = {}
    for case in CASES:
        chosen.setdefault(type(abstract(case)), pytest.param(case, lambda model: model, id=case.name))
        if hasattr(abstract(case), "components"):
            part = algebra.element(abstract(case).components)
            one = lambda model: algebra.take(model.components, 0)  # noqa: E731
            chosen.setdefault(type(part), pytest.param(case, one, id=f"{case.name}-component"))
    return pytest.mark.parametrize(("case", "part"), chosen.values())


def arguments(case, model, x, context, seed):
    """What a public method gets, by the name of its parameter."""
    logits = getattr(model, "logits", None)
    k = 2 if logits is None else len(logits)
    keys = jax.random.split(jax.random.key(seed), 3)
    by_name = {
        "key": keys[0], "x": x, "y": x, "context": context, "weight": jax.random.uniform(keys[1], (6,)), "shape": (6,),
        "length": case.length, "indices": (0,), "values": jnp.full(1, 0.5 + seed), "order": np.arange(k)[::-1],
        "old": model, "held": jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, bool), model), "draws": 3, "samples": 3,
    }  # fmt: skip
    if None not in latent_shape(model):
        by_name["z"] = jax.random.normal(keys[2], (6, *latent_shape(model)))
    if latent.supports_em(model):
        by_name["statistics"] = model.e_step(x, **({} if context is None else {"context": context}))[0]
    return by_name


def member(model, name, by_name):
    """A public property of a model, or what a public method gives; nothing where it cannot be called by names alone."""
    method = getattr(model, name)
    if not inspect.isroutine(method) and not hasattr(method, "__wrapped__"):
        return method
    parameters = inspect.signature(method).parameters
    if any(p.default is p.empty and n not in by_name for n, p in parameters.items()):
        return None
    by_keyword = {n: by_name[n] for n in ("context", "length") if n in parameters and by_name[n] is not None}
    return method(*(by_name[n] for n, p in parameters.items() if p.default is p.empty and n not in by_keyword
                    and by_name[n] is not None), **by_keyword)  # fmt: skip


@a_case_of_each_class()
def test_a_second_look_compiles_nothing(case, part):
    """Every public property, and every public method that names alone can call, constructors from data included."""
    model, x, context = example(case)
    other = another(case)
    events = rows(0, 6, *case.events(jax.random.key(3), other, len(drawn(case)[1])))  # its own, by the same program
    model, other = part(model), part(other)
    first, second = arguments(case, model, x, context, 0), arguments(case, other, *events, 1)
    anew = {}
    for name in dir(type(model)):
        if name.startswith("_") or name.endswith("_components") or name in INSIDE:
            continue
        try:
            member(model, name, first)
        except (jg.JaxgenError, AttributeError):
            continue  # an optional capability that this model's parts have not
        with Compilations() as compilations:
            member(other, name, second)
        if compilations.count:
            anew[name] = compilations.count
    assert not anew


#: what is called inside of checked methods and of EM only; and the exchange, where another library computes
INSIDE = {
    "inference", "sample_with_latent", "center", "scale", "divergence", "has_divergence", "entries", "columns",
    "ready", "distribution", "bijector",
}  # fmt: skip


def every_class_once(*protocols):
    """The cases that show a class not seen before, as the model or inside of it: for laws about the code of a class."""

    def classes(value):
        children = vars(value).values() if is_model(value) else value.values() if isinstance(value, dict) else value
        known = is_model(value) or isinstance(value, (tuple, list, dict))
        return {type(value)} | set().union(*map(classes, children)) if known else set()

    seen, chosen = set(), []
    for case in CASES:
        model = abstract(case)
        if all(isinstance(model, p) if isinstance(p, type) else p(model) for p in protocols):
            chosen += [] if classes(model) <= seen else [pytest.param(case, id=case.name)]
            seen |= classes(model)
    return pytest.mark.parametrize("case", chosen)


@every_class_once(answers)
def test_jit_equals_eager(case):
    """Operation by operation: a program for each, which is why every class comes once and not in every composition."""
    model, x, context = example(case)
    compiled = jax.jit(answer)(model, x, context)
    with jax.disable_jit():
        eager = answer(model, x, context)
    # float32: a handful of roundings of numbers of this size
    np.testing.assert_allclose(compiled, eager, rtol=2e-5, atol=2e-5)


@every_class_once(answers)
def test_vmap_over_models_equals_loop(case):
    model, x, context = example(case)
    laws.vmap_is_a_loop(model, x, context, (another(case), case.make(jax.random.key(8))))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@having()
def test_dtype_is_kept(case, dtype):
    """Traced only: what is drawn and answered has the dtype of the model's leaves where float64 is enabled."""
    model = example(case)[0]
    if not any(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(model)):
        return  # no leaf says which precision is meant

    def draw_and_answer(model):
        model = as_dtype(model, dtype)
        context = case.contexts(jax.random.key(3), 3)
        context = None if context is None else context.astype(dtype)
        x = model.sample(jax.random.key(3), (3,), context=context, **({"length": case.length} if case.length else {}))
        return x, answer(model, x, context) if answers(model) else None

    with jax.enable_x64(True):
        x, y = jax.eval_shape(draw_and_answer, model)
    if jnp.issubdtype(x.dtype, jnp.floating):
        assert x.dtype == dtype
    if answers(model):
        assert y.dtype == dtype


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@having(answers)
def test_sixteen_bits_are_stored_numbers_and_no_arithmetic(case, dtype):
    """Events in 16 bits are those numbers in float32, to the last bit; a model in 16 bits answers in float32."""
    model, x, context = example(case)
    half = jnp.asarray(x).astype(dtype)
    # labels and bits are whole numbers in both
    same = half.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.integer) else half.astype(jnp.float32)
    np.testing.assert_array_equal(answer(model, half, context), answer(model, half.astype(jnp.float32), context))
    np.testing.assert_allclose(answer(model, half, context), answer(model, same, context), rtol=2e-5, atol=2e-5)
    assert jax.eval_shape(answer, as_dtype(model, dtype), half, context).dtype == jnp.float32


@having()
def test_fits_of_sixteen_bits_are_those_of_single_precision(case):
    model, (x, context), algorithm = training(case)
    if not (jax.tree.leaves(partition(model)[0]) and jnp.issubdtype(x.dtype, jnp.floating)):
        return
    half = np.asarray(jnp.asarray(x).astype(jnp.float16))
    fit = functools.partial(jg.fit, jax.random.key(31), algorithm=algorithm, steps=2)
    options = {"batch_size": None if algorithm.traits.full_batch else 16}
    single = fit(model=model, data=(half.astype(np.float32), context), **options)
    same_leaves(fit(model=model, data=(half, context), **options).state, single.state)


@having(latent.supports_em)
def test_weights_beyond_half_precision(case):
    """Weights of 20,000 on each of six events, in float16: their sum is more than it can hold."""
    model, x, context = example(case)
    half, single = (model.e_step(x, jnp.full(6, 20_000, kind), context=context) for kind in (jnp.float16, jnp.float32))
    same_leaves(half, single)


@having()
def test_save_and_load(case, tmp_path):
    model, x, context = example(case)
    laws.files_keep_models(model, x, context)
    save(model, tmp_path / "model")
    same_leaves(model, load(tmp_path / "model", like=model))


def plain_for_the_first_time(case):
    """True for the first case of some class that can be made from plain values: each class is asked once."""
    earlier = set().union(*map(classes, CASES[: CASES.index(case)]))
    return any(hasattr(kind, "from_values") and hasattr(kind, "sample") for kind in classes(case) - earlier)


@having(latent.has_density, where=plain_for_the_first_time)
def test_plain_values_make_the_model(case):
    laws.values_make_models(*example(case))


@having(answers)
def test_wrong_event_is_refused(case):
    laws.wrong_shapes_are_refused(*example(case))


@having(answers)
def test_not_finite_is_never_silent(case):
    model, x, context = example(case)
    laws.nan_is_never_silent(model, x, context)
    bad = np.array(x, np.float32)
    bad.reshape(-1)[0] = np.nan
    with pytest.raises(jg.DataError, match="NaN"):
        jg.fit(jax.random.key(0), model, bad)


@having(latent.has_density, where=has_space)
def test_density_is_normalised(case):
    points, volume = case.space
    for context in [None] if case.context is None else case.contexts(jax.random.key(2), 2):
        total = np.exp(np.asarray(example(case)[0].log_prob(points, context=context), np.float64)).sum() * volume
        assert abs(np.log(total)) < case.tolerance + 2e-5  # quadrature, and float32


@having(latent.has_density, where=has_space)
def test_samples_match_the_density(case):
    """First and second moments of samples against sums over the space."""
    model, n = example(case)[0], MANY
    points, volume = case.space
    context = None if case.context is None else case.contexts(jax.random.key(2), 1)[0]
    options = {} if case.length is None else {"length": case.length}
    x = drawn(case)[1] if context is None else model.sample(jax.random.key(11), (n,), context=context, **options)
    x = np.asarray(x, np.float64).reshape(n, -1)
    mass = np.exp(np.asarray(model.log_prob(points, context=context), np.float64)) * volume
    flat = points.reshape(len(points), -1)
    features = lambda v: np.concatenate([v, v**2, v[:, :1] * v[:, -1:]], axis=1)  # noqa: E731
    expected = mass @ features(flat)
    spread = np.sqrt(np.maximum(mass @ features(flat) ** 2 - expected**2, 1e-12))
    z = (features(x).mean(axis=0) - expected) / (spread / np.sqrt(n))
    bound = scipy.stats.norm.isf(1e-5 / len(z))
    np.testing.assert_array_less(np.abs(z), bound)


@having(latent.has_density)
def test_mean_score_is_zero(case):
    """Fisher's identity: the gradient of log p has mean zero under p."""
    laws.scores_have_mean_zero(*drawn(case))


@having(latent.has_density, lambda m: not m.event_shape or None not in m.event_shape)
def test_distrax_distribution_agrees(case):
    model, x, context = example(case)
    if context is None and hasattr(model, "distribution"):
        np.testing.assert_allclose(model.distribution().log_prob(x), model.log_prob(x), rtol=1e-4, atol=1e-5)


@having(latent.supports_em)
def test_e_step_is_linear_and_additive(case):
    laws.e_steps_add_up(*example(case))
    laws.m_steps_keep_the_kind(*example(case))


@having(latent.supports_em)
def test_em_never_decreases_the_likelihood(case):
    start, data, _ = training(case)
    fitted = jg.fit(jax.random.key(0), start, data, jg.EM(), steps=25, tolerance=0.0)
    assert fitted.status == jg.Status.FINISHED
    history = np.asarray(fitted.history["objective"], np.float64)
    # float32 rounding of a mean over 40 events, and the floor on variances, which is a prior in all but name
    assert np.diff(history).min() >= -2e-5 * max(1.0, np.abs(history).max()), np.diff(history)
    assert history[-1] > history[0] - 1e-5


@every_class_once(latent.supports_em)
def test_no_mass_is_no_change(case):
    """In a mixture, a part without mass keeps its parameters and is counted; a weight of zero stays zero."""
    model, x, context = example(case)
    if not isinstance(model, jg.VariationalMixture):  # a posterior without data is its prior, and no part's log_prob
        laws.no_mass_is_no_change(model, x, context, another(case))


@every_class_once(has_quantiles)
def test_quantiles_invert_the_cdf(case):
    laws.quantiles_invert_the_cdf(*example(case))


@a_case_of_each_class()
def test_fast_paths_equal_the_default(case, part):
    """Of a class that has one: without, both are the same function."""
    _, x, context = example(case)
    one, *others = (part(case.make(key)) for key in jax.random.split(key_of(case), 3))
    laws.fast_is_the_default(one, x, context, tuple(others))


@having(Energy, where=has_space)
def test_kernel_leaves_the_distribution_invariant(case):
    model, n = example(case)[0], 20_000
    points, _ = case.space
    p = scipy.special.softmax(-np.asarray(model.energy(points), np.float64))
    first, second = jax.random.split(jax.random.key(19))
    start = jnp.asarray(points)[jax.random.choice(first, len(points), (n,), p=jnp.asarray(p))]
    after = np.asarray(model.kernel(second, start)).reshape(n, -1)
    index = (after[:, None] == points.reshape(len(points), -1)[None]).all(axis=-1).argmax(axis=1)
    counts = np.bincount(index, minlength=len(points))
    rare = p * n < 5  # the chi-square approximation wants five expected
    pooled = np.append(counts[~rare], counts[rare].sum()), np.append(p[~rare], p[rare].sum()) * n
    keep = pooled[1] > 0
    assert scipy.stats.chisquare(pooled[0][keep], pooled[1][keep]).pvalue > 1e-5


@having()
def test_resume_is_bit_exact(case, tmp_path):
    """60 steps = 31 steps, save, load, and 29 more: amid an epoch of three batches."""
    model, data, algorithm = training(case)
    if not jax.tree.leaves(partition(model)[0]):
        return
    # a size of batches where the algorithm takes them, so that the order of events is part of what resumes
    options = {"batch_size": None if algorithm.traits.full_batch else 16, "tolerance": None}
    options |= {"tolerance": 0.0} if algorithm.traits.full_batch else {}
    fit = functools.partial(jg.fit, jax.random.key(31), model, data, algorithm, **options)
    straight = fit(steps=60)
    assert straight.status == jg.Status.FINISHED
    fit(steps=31, checkpoint=tmp_path / "run")
    resumed = fit(steps=60, checkpoint=tmp_path / "run")
    same_leaves(straight.state, resumed.state)
    for name, values in straight.history.items():
        np.testing.assert_array_equal(values, resumed.history[name])
    with Compilations() as compilations:
        fit(steps=45)
    assert compilations.count == 0, "a fit of equal shapes compiled again"


@having()
def test_samples_have_the_event_shape(case):
    model, x, _ = example(case)
    assert isinstance(model, Implicit)
    assert x.shape == (6, *(case.length if s is None else s for s in model.event_shape))


@pytest.mark.parametrize("name", BIJECTIONS)
def test_bijections_invert_and_their_log_det_is_the_jacobians(name):
    layer = jax.jit(BIJECTIONS[name])(jax.random.key(1))
    x, of = jax.random.normal(jax.random.key(2), (20, *latent_shape(layer))), context_shape(layer)
    context = None if of is None else jax.random.normal(jax.random.key(3), of)
    y, log_det = jax.jit(jax.vmap(lambda x: layer.forward_and_log_det(x, context)))(x)
    assert y.shape == (20, *layer.event_shape)
    back, inverse_log_det = jax.jit(jax.vmap(lambda y: layer.inverse_and_log_det(y, context)))(y)
    # float32: inputs of size 1 to 3 through a few products; half an ulp of y comes back up to a hundred times as large
    # in the log-determinant of each of three coordinates where the inverse is steep, as that of tanh
    np.testing.assert_allclose(back, x, atol=1e-5)
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=2e-5)
    with jax.enable_x64():
        # in float64: autodiff's 1 - tanh^2 has lost digits in float32
        exact, wide = as_dtype(layer, jnp.float64), x.astype(jnp.float64)
        jacobian = jax.jit(jax.vmap(jax.jacobian(lambda x: exact.forward_and_log_det(x, context)[0].ravel())))(wide)
    # where the data have more coordinates, their density is that of the first ones
    square = np.asarray(jacobian, np.float64).reshape(20, y[0].size, x[0].size)[:, : x[0].size]
    np.testing.assert_allclose(log_det, np.linalg.slogdet(square)[1], atol=1e-5)
    bijector = layer.bijector() if context is None else layer.bijector(context)
    # of one event and not of twenty: another program, another order of its sums
    np.testing.assert_allclose(jax.jit(bijector.forward)(x[0]), y[0], atol=1e-5)


@pytest.mark.parametrize("name", BIJECTIONS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_bijections_keep_the_dtype(name, dtype):
    """Traced only: float32 stays float32 where float64 is enabled, whatever the context comes in."""

    def around(key):
        layer = as_dtype(BIJECTIONS[name](key), dtype)
        of, shape = context_shape(layer), tuple(3 if n is None else n for n in latent_shape(layer))
        context = None if of is None else jnp.ones(of, jnp.float64)
        y, log_det = layer.forward_and_log_det(jnp.ones(shape, dtype), context)
        return y, log_det, *layer.inverse_and_log_det(y, context)

    with jax.enable_x64(True):
        assert {a.dtype for a in jax.eval_shape(around, jax.random.key(1))} == {jnp.dtype(dtype)}
