"""The tests that scikit-learn and hmmlearn have for their own estimators, run on this library's.

    python benchmarks/drop_in.py            # all files
    python benchmarks/drop_in.py --only hmm # those whose names have that in them
    python benchmarks/drop_in.py estimators # check_estimator on every estimator

It finds the test files of the installed packages and lets them import our classes for theirs; nothing is copied. Left
out are tests of private functions, which a drop-in need not have; each with its reason.
"""

from __future__ import annotations

import argparse
import collections
import re
import warnings

import hmmlearn.hmm
import pytest
import sklearn.mixture
import sklearn.neural_network
from common import report
from sklearn.utils.estimator_checks import check_estimator

import jaxgen.sklearn

PRIVATE = "calls private functions or methods of scikit-learn's own implementation"
FAILS = "asks that one of two implementations fails on an outlier"
ROUNDING = "asks that sums in float32 are rounded as NumPy's are: one bias of 64 differs by 4e-8"
ARRAY_API = "hands over arrays of other libraries, which scikit-learn has behind a switch"
#: by file: our classes in place of theirs, and what is left out, with the reason
SUITES = {
    "sklearn.mixture.tests.test_gaussian_mixture": (
        sklearn.mixture, "GaussianMixture", {
            "test_suffstat_sk_full": PRIVATE, "test_suffstat_sk_tied": PRIVATE, "test_suffstat_sk_diag": PRIVATE,
            "test_gaussian_suffstat_sk_spherical": PRIVATE, "test_compute_log_det_cholesky": PRIVATE,
            "test_gaussian_mixture_log_probabilities": PRIVATE,
            "test_gaussian_mixture_estimate_log_prob_resp": PRIVATE, "test_gaussian_mixture_n_parameters": PRIVATE,
            "test_gaussian_mixture_aic_bic": PRIVATE, "test_gaussian_mixture_precisions_init": PRIVATE,
            "test_gaussian_mixture_all_init_does_not_estimate_gaussian_parameters": PRIVATE,
            "test_gaussian_mixture_array_api_compliance": ARRAY_API,
            "test_gaussian_mixture_raises_where_array_api_not_implemented": ARRAY_API,
        },
    ),
    "sklearn.mixture.tests.test_bayesian_mixture": (
        sklearn.mixture, "BayesianGaussianMixture", {
            "test_log_dirichlet_norm": PRIVATE, "test_log_wishart_norm": PRIVATE, "test_compare_covar_type": PRIVATE,
        },
    ),
    "sklearn.mixture.tests.test_mixture": (sklearn.mixture, "GaussianMixture", {}),
    "sklearn.neural_network.tests.test_rbm": (
        sklearn.neural_network, "BernoulliRBM", {
            "test_transform": PRIVATE, "test_sample_hiddens": PRIVATE, "test_convergence_dtype_consistency": ROUNDING,
        },
    ),
    "hmmlearn.tests.test_gaussian_hmm": (
        hmmlearn.hmm, "GaussianHMM", {"test_underflow_from_scaling": FAILS},
    ),
    "hmmlearn.tests.test_categorical_hmm": (
        hmmlearn.hmm, "CategoricalHMM", {"test__check_and_set_categorical_n_features": PRIVATE},
    ),
    "hmmlearn.tests.test_poisson_hmm": (hmmlearn.hmm, "PoissonHMM", {}),
}  # fmt: skip


class Outcomes:
    """A plugin of pytest that leaves tests out and keeps what became of the others."""

    def __init__(self, left_out: dict[str, str]) -> None:
        self.left_out, self.outcome = left_out, collections.defaultdict(set)

    def pytest_collection_modifyitems(self, config, items):
        left = [item for item in items if re.sub(r"\[.*", "", item.name) in self.left_out]
        items[:] = [item for item in items if item not in left]

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            self.outcome[re.sub(r"\[.*", "", report.nodeid.split("::")[-1])].add(report.outcome)


def run(name: str) -> dict[str, object]:
    """The number of tests of a file that pass, of those that are asked, and the names of the others."""
    module, theirs, left_out = SUITES[name]
    kept = getattr(module, theirs)
    setattr(module, theirs, getattr(jaxgen.sklearn, theirs))
    outcomes = Outcomes(left_out)
    try:
        pytest.main(["-q", "--pyargs", name, "-p", "no:cacheprovider", "-n", "0"], plugins=[outcomes])
    finally:
        setattr(module, theirs, kept)
    passed = [test for test, found in outcomes.outcome.items() if "failed" not in found and "passed" in found]
    return {
        "passed": len(passed), "asked": len(outcomes.outcome), "left out": left_out,
        "skipped": [test for test, found in outcomes.outcome.items() if found == {"skipped"}],
        "failed": [test for test, found in outcomes.outcome.items() if "failed" in found],
    }  # fmt: skip


#: with few steps: what is checked are conventions, on some fifty small data sets each
ESTIMATORS = {
    "GaussianMixture": {}, "BayesianGaussianMixture": {}, "Imputer": {}, "GenerativeClassifier": {},
    "FlowDensity": {"n_layers": 1, "hidden": (4,), "max_iter": 3}, "AnomalyDetector": {},
    "BernoulliRBM": {"n_components": 4, "n_iter": 2}, "VAE": {"hidden": (4,), "max_iter": 3, "n_draws": 2},
    "SyntheticTable": {"n_components": 1},
}  # fmt: skip


#: what cannot hold, with the reason
BATCHES = {"check_sample_weight_equivalence_on_dense_data": "it steps along random batches of events"}
CHANCE = "score_samples turns a bit by chance around, as scikit-learn's own does, which fails this too"
EXPECTED = {
    "FlowDensity": BATCHES, "VAE": BATCHES,
    "BernoulliRBM": {"check_methods_sample_order_invariance": CHANCE, "check_methods_subset_invariance": CHANCE},
}  # fmt: skip


def conventions(name: str) -> dict[str, object]:
    """The number of `check_estimator`'s checks that pass, and the names of the others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = getattr(jaxgen.sklearn, name)(**ESTIMATORS[name])
        found = check_estimator(estimator, on_fail=None, on_skip=None, expected_failed_checks=EXPECTED.get(name, {}))
    kinds = {kind: [one["check_name"] for one in found if one["status"] == kind] for kind in ("failed", "skipped")}
    passed = sum(one["status"] == "passed" for one in found)
    return {"passed": passed, **kinds, "expected to fail": EXPECTED.get(name, {})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="tests", choices=["tests", "estimators"])
    parser.add_argument("--only", help="a part of a name")
    options = parser.parse_args()
    if options.what == "estimators":
        names = [name for name in ESTIMATORS if options.only is None or options.only in name]
        return report("estimators", {name: conventions(name) for name in names})
    names = [name for name in SUITES if options.only is None or options.only in name]
    report("drop_in", {name: run(name) for name in names})


if __name__ == "__main__":
    main()
