"""Real sequences: parts of speech, chorales and characters, by hidden Markov models beside simpler models.

    python benchmarks/sequences.py --data-dir DIR              # DIR/pos_tagged, DIR/polyphonic_music, DIR/text
    python benchmarks/sequences.py --data-dir DIR --develop    # tagging scored on other files of the training part

Tagging: MASC (Ide et al. 2010), 392 files; the first of every ten is held out whole. Words stay as they are written;
one seen less than twice is its class: capitals, digits, hyphen and the longest usual ending. States are tags; then the
30 frequent words that are most ambiguous have states of their own (Pla and Molina 2004). Every choice was made on the
files that `--develop` scores. Many-to-one gives each state the tag that is most frequent in it.

Chorales: JSB (Boulanger-Lewandowski et al. 2012), 88 notes a step, their split; nats per step are means over all steps
of the test part. Characters: tinyshakespeare (Karpathy 2015), the last tenth is held out.
"""

from __future__ import annotations

import argparse
import collections
import functools
import re
import time
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from common import report

import jaxgen as jg

#: the steps that training sentences are cut to (one in a hundred is longer)
STEPS = 64
#: words seen fewer times than this are their class; endings as usual as that are classes
RARE, USUAL, ENDING = 2, 10, 4
#: strength of the priors: of a word by the tags of its class, of a state's successors by how frequent they are
WORD, MOVE = 0.1, 5.0
#: words with states of their own, and how often the word and the tag occur at least
SPLIT, WORD_OCCURS, TAG_OCCURS = 30, 50, 10
KEY = jax.random.key(0)


def timed(call: Any) -> tuple[Any, float, float]:
    """What a call gives, the seconds of its second time, and what the first took more: compilation."""
    seconds = []
    for _ in range(2):
        begun = time.perf_counter()
        result = jax.block_until_ready(call())
        seconds.append(time.perf_counter() - begun)
    return result, seconds[1], max(seconds[0] - seconds[1], 0.0)


# parts of speech


def masc(folder: Path, develop: bool) -> tuple[list, list]:
    """Sentences `[(word, tag or None), ...]` of the training and of the held-out files."""
    parts: tuple[list, list] = ([], [])
    with zipfile.ZipFile(folder / "pos_tagged" / "masc_tagged.zip") as archive:
        names = sorted(n for n in archive.namelist() if n.endswith(".txt") and "categories" not in n)
        for i, name in enumerate(names):
            if develop and i % 10 == 0:
                continue
            for line in archive.read(name).decode().split("\n"):
                pairs = [tuple(item.rsplit("_", 1)) if "_" in item else (item, None) for item in line.split()]
                if pairs:
                    parts[i % 10 == (5 if develop else 0)].append(pairs)
    return parts


def shape(word: str) -> str:
    """What a word looks like: a number, no letters, or capitals, digits and hyphen."""
    if re.fullmatch(r"[\d.,:/%$+-]*\d[\d.,:/%$+-]*", word):
        return "number"
    digit = "0" if any(c.isdigit() for c in word) else ""
    if not any(c.isalpha() for c in word):
        return "sign" + digit
    capital = "AA" if word.isupper() and len(word) > 1 else "Aa" if word[0].isupper() else "aA"
    return (capital if word != word.lower() else "a") + digit + ("-" if "-" in word else "")


class Words:
    """Numbers for words, and for the classes of those that are rare."""

    def __init__(self, sentences: list) -> None:
        seen = collections.Counter(word for sentence in sentences for word, _ in sentence)
        self.known, rare = set(seen), [word for word, n in seen.items() if n < RARE]
        self.endings = collections.Counter(pair for word in rare for pair in self._endings(word))
        names = [word for word, n in seen.items() if n >= RARE]
        self.own = {word: i for i, word in enumerate(names)}
        #: without an ending, every shape is a class
        shapes = {(shape(word), "") for word in rare} | {("other", "")}
        usual = {pair for pair, n in self.endings.items() if n >= USUAL}
        self.classes = {pair: len(names) + i for i, pair in enumerate(sorted(shapes | usual))}
        self.size, self.class_of = len(names) + len(self.classes), np.array([self.class_number(w) for w in names])

    @staticmethod
    def _endings(word: str) -> list[tuple[str, str]]:
        kind = shape(word)
        longest = 0 if kind == "number" else min(ENDING, len(word) - 1)
        return [(kind, word[-n:].lower()) for n in range(longest, 0, -1)] + [(kind, "")]

    def class_number(self, word: str) -> int:
        return next((self.classes[p] for p in self._endings(word) if p in self.classes), self.classes["other", ""])

    def number(self, word: str) -> int:
        own = self.own.get(word)
        return self.class_number(word) if own is None else own


class Tagger:
    """States for tags and for pairs of a tag and a frequent word, counts of a labelled part, and a start for EM."""

    def __init__(self, sentences: list, words: Words, split: int) -> None:
        self.words, tokens = words, [pair for sentence in sentences for pair in sentence if pair[1] is not None]
        self.tags = sorted({tag for _, tag in tokens})
        by_word: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        for word, tag in tokens:
            by_word[word][tag] += 1
        self.usual = {word: tags.most_common(1)[0][0] for word, tags in by_word.items()}
        doubt = {w: n.total() - max(n.values()) for w, n in by_word.items() if n.total() >= WORD_OCCURS}
        chosen = sorted(doubt, key=lambda w: (-doubt[w], w))[:split]
        own = [(w, t) for w in chosen for t in self.tags if by_word[w][t] >= TAG_OCCURS]
        self.state = {pair: i for i, pair in enumerate([(None, tag) for tag in self.tags] + own)}
        self.tag_of = np.array([self.tags.index(tag) for _, tag in self.state])
        self.count = np.zeros((len(self.tags), words.size), np.float32)
        np.add.at(self.count, ([self.tags.index(t) for _, t in tokens], [words.number(w) for w, _ in tokens]), 1)
        labels = [self.label(*pair) for pair in tokens]
        self.frequency = np.bincount(labels, minlength=len(self.state)) / len(labels)

    def label(self, word: str, tag: str | None) -> int:
        """The state of a token, -1 where the tag is not known."""
        return self.state.get((word, tag), self.state.get((None, tag), -1))

    def pack(self, sentences: list, steps: int | None = None) -> tuple[jg.Sequences, np.ndarray]:
        """Words and states, sentences cut to so many steps."""
        whole = max(len(s) for s in sentences) if steps is None else steps
        pieces = [s[i : i + whole] for s in sentences for i in range(0, len(s), whole)]
        x = jg.Sequences.pack([np.array([self.words.number(w) for w, _ in s], np.int32) for s in pieces], steps=steps)
        label = np.full(x.shape, -1, np.int32)
        for row, piece in zip(label, pieces, strict=True):
            row[: len(piece)] = [self.label(*pair) for pair in piece]
        return x, label

    def start(self) -> jg.HMM:
        """The mode of the priors alone; a word with states of its own is nowhere else, and they have no other word."""
        words, names = self.words, len(self.words.own)
        classes = self.count[:, names:] + 0.5 * self.count.sum(1, keepdims=True) / self.count.sum()
        prior = np.concatenate([(classes / classes.sum(0))[:, words.class_of - names], classes / classes.sum(0)], 1)
        prior = WORD * prior[self.tag_of].astype(np.float32)
        can_be = np.ones(prior.shape, bool)
        for (word, tag), i in self.state.items():
            if word is not None:
                number = words.own[word]
                can_be[self.tags.index(tag), number], can_be[i] = False, np.arange(words.size) == number
        probs = np.where(can_be, prior, 0)
        emissions = jg.Categorical.from_values(probs / probs.sum(1, keepdims=True), prior=1 + prior)
        pull = np.maximum(self.frequency, 1e-6).astype(np.float32)
        moves = np.tile(pull / pull.sum(), (len(pull), 1))
        chain = jg.MarkovChain.from_values(moves[0], moves, initial_prior=1 + pull, transition_prior=1 + MOVE * pull)
        return jg.HMM(chain, emissions)

    def batches(self, sentences: list) -> list[tuple[list, jg.Sequences]]:
        """Sentences by length, beside their words, so that little is padding."""
        edges = [0, 16, 32, 64, 128, 256, 512]  # no sentence is longer
        by = [[s for s in sentences if low < len(s) <= high] for low, high in zip(edges, edges[1:], strict=False)]
        return [(part, self.pack(part, high)[0]) for part, high in zip(by, edges[1:], strict=True) if part]

    def score(self, hmm: jg.HMM, sentences: list, decode: Any) -> dict[str, float]:
        """The share of held-out tokens whose tag is right, and the seconds of decoding."""
        batches = self.batches(sentences)
        paths, seconds, compile_seconds = timed(lambda: [decode(hmm, x) for _, x in batches])
        tokens, right, known = [], [], []
        for (part, _), path in zip(batches, paths, strict=True):
            for sentence, row in zip(part, np.asarray(path), strict=True):
                for (word, tag), state in zip(sentence, row, strict=False):
                    if tag is not None:
                        tokens.append(word)
                        right.append(tag == self.tags[self.tag_of[state]])
                        known.append(word in self.words.known)
        right, known = np.array(right), np.array(known)
        return {
            "tokens": len(tokens), "accuracy": right.mean(), "known": right[known].mean(),
            "unknown": right[~known].mean(), "share unknown": 1 - known.mean(), "decoding s": seconds,
            "decoding compile s": compile_seconds,
        }  # fmt: skip


viterbi = jax.jit(lambda hmm, x: hmm.viterbi(x).path)
posterior = jax.jit(lambda hmm, x: hmm.predict(x))


def supervised(train: list, test: list, words: Words, split: int) -> dict[str, Any]:
    """One step of EM on tokens whose states are all known."""
    tagger = Tagger(train, words, split)
    x, label = tagger.pack(train, STEPS)
    start = tagger.start()
    fit = lambda: jg.fit(KEY, start, dict(x=x, label=label), steps=1).model  # noqa: E731
    hmm, seconds, compile_seconds = timed(fit)
    step_by_step = tagger.score(hmm, test, posterior)["accuracy"]
    return {
        "states": len(tagger.state), "symbols": words.size, "training s": seconds,
        "training compile s": compile_seconds, **tagger.score(hmm, test, viterbi),
        "accuracy, step by step": step_by_step,
    }  # fmt: skip


def semi_supervised(
    train: list, test: list, words: Words, steps: tuple[int, ...], weights: tuple[float, ...]
) -> dict[str, Any]:
    """Labels for the first of every ten sentences, EM on all of them from there."""
    tagger = Tagger(train[::10], words, 0)
    some = train[::10]
    rest = [[(w, None) for w, _ in s] for i, s in enumerate(train) if i % 10]
    x, label = tagger.pack(some, STEPS)
    hmm = jg.fit(KEY, tagger.start(), dict(x=x, label=label), steps=1).model
    rows = {"labelled sentences alone": tagger.score(hmm, test, viterbi)["accuracy"]}
    x, label = tagger.pack(some + rest, STEPS)
    labelled, begun = (label >= 0).any(1), time.perf_counter()
    for share in weights:
        weight, fitted, done = np.where(labelled, 1, share).astype(np.float32), hmm, 0
        for step in steps:
            data = dict(x=x, label=label, weight=weight)
            fitted, done = jg.fit(KEY, fitted, data, steps=step - done, tolerance=0.0).model, step
            right = tagger.score(fitted, test, viterbi)["accuracy"]
            rows[f"after {step} steps of EM, the others weighted {share:g}"] = right
    return {**rows, "s per step": (time.perf_counter() - begun) / (len(weights) * done)}


def unsupervised(train: list, words: Words, k: int, sentences: int, steps: int) -> dict[str, Any]:
    """EM from a random start, scored on the sentences it saw."""
    some = train[:: max(len(train) // sentences, 1)]
    tagger = Tagger(some, words, 0)
    x, label = tagger.pack(some, STEPS)
    rng = np.random.default_rng(0)
    flat = lambda *size: rng.dirichlet(np.ones(size[-1]), size[:-1]).astype(np.float32)  # noqa: E731
    seen = tagger.count.sum(0) + 0.1
    probs = rng.gamma(0.3, 1.0, (k, words.size)) * seen + 1e-6
    emissions = jg.Categorical.from_values((probs / probs.sum(1, keepdims=True)).astype(np.float32), prior=1.01)
    start = jg.HMM.from_values(flat(1, k)[0], flat(k, k), emissions)
    begun = time.perf_counter()
    fitted = jg.fit(KEY, start, x, steps=steps, tolerance=0.0)
    seconds = time.perf_counter() - begun
    path, inside = np.asarray(viterbi(fitted.model, x)), label >= 0
    table = np.zeros((k, len(tagger.tags)))
    np.add.at(table, (path[inside], label[inside]), 1)
    return {"states": k, "sentences": len(some), "tokens": int(inside.sum()), "steps": fitted.steps,
            "many-to-one accuracy": table.max(1).sum() / table.sum(), "s": seconds,
            "log-likelihood per token": fitted.history["log_likelihood"][-1] * len(x) / inside.sum()}  # fmt: skip


def tagging(folder: Path, develop: bool) -> dict[str, Any]:
    train, test = masc(folder, develop)
    words = Words(train)
    usual = Tagger(train, words, 0).usual
    guess = lambda word: usual.get(word, "NNP" if word[:1].isupper() else "NN")  # noqa: E731
    held_out = [pair for sentence in test for pair in sentence if pair[1] is not None]
    return {
        "measured on": "MASC, " + ("every tenth file of the training part" if develop else "every tenth file held out"),
        "training sentences": len(train), "training tokens": sum(map(len, train)), "held-out tokens": len(held_out),
        "most frequent tag": np.mean([guess(word) == tag for word, tag in held_out]),
        "states are tags": supervised(train, test, words, 0),
        f"and {SPLIT} words": supervised(train, test, words, SPLIT),
        **({} if develop else {
            "a tenth labelled": semi_supervised(train, test, words, (1, 4), (1.0, 0.1)),
            "no labels": unsupervised(train, words, 45, 3000, 60),
        }),
    }  # fmt: skip


# chorales


def chorales(folder: Path) -> dict[str, Any]:
    """Test nats per step of 88 notes."""
    with np.load(folder / "polyphonic_music" / "JSB_Chorales.npz") as d:
        bits = {name: np.unpackbits(d[name], axis=1)[:, :88] for name in ("train", "valid", "test")}
        data = {name: np.split(bits[name], np.cumsum(d[f"{name}_lengths"])[:-1]) for name in bits}
    packed = {name: jg.Sequences.pack(part) for name, part in data.items()}
    # as much prior as one step of each note's share of the time
    share = bits["train"].mean(0)
    prior = np.stack([1.01 + share, 2.01 - share], axis=-1).astype(np.float32)
    leaf = functools.partial(jg.Bernoulli.init, prior=prior)
    independent = leaf(KEY, bits["train"])
    rows = {
        "measured on": "JSB chorales, test part, nats per step", "test steps": len(bits["test"]),
        "published": {"independent notes": -11.06, "RNN-RBM": -6.27},
        "independent notes": independent.log_prob(bits["test"]).mean(),
    }  # fmt: skip

    def choose(fits: dict[int, Any], x: dict[str, Any], seconds: dict[int, float]) -> dict[str, Any]:
        nats = {k: {part: float(m.log_prob(x[part]).sum()) / len(bits[part]) for part in ("valid", "test")}
                for k, m in fits.items()}  # fmt: skip
        best = max(nats, key=lambda k: nats[k]["valid"])
        return {"chosen": best, "test": nats[best]["test"], **{
            f"K={k}": {**v, "s with compilation": seconds[k]} for k, v in nats.items()}}  # fmt: skip

    kinds = {
        "mixture": (bits, lambda k: jg.Mixture.init(KEY, bits["train"], k, leaf), (8, 32, 128)),
        "HMM": (packed, lambda k: jg.HMM.init(
            KEY, packed["train"], k, leaf, stickiness=0.5, transition_prior=1 + 1 / k), (8, 32, 64)),
    }  # fmt: skip
    for name, (x, start, sizes) in kinds.items():
        fits, seconds = {}, {}
        for k in sizes:
            begun = time.perf_counter()
            options = dict(steps=100, validation=x["valid"], every=5, patience=2)
            fits[k] = jg.fit(KEY, start(k), x["train"], **options).model
            seconds[k] = time.perf_counter() - begun
        rows[name] = choose(fits, x, seconds)
    return rows


# characters


def characters(folder: Path, steps: int = 20, length: int = 1000) -> dict[str, Any]:
    """Test nats per character."""
    text = (folder / "text" / "tinyshakespeare.txt").read_text()
    letters, x = np.unique(list(text), return_inverse=True)
    x, size, cut = x.astype(np.int32), len(letters), len(x) * 9 // 10
    train, test = x[:cut], x[None, cut:]
    pieces = train[: cut // length * length].reshape(-1, length)
    leaf = functools.partial(jg.Categorical.init, size=size, prior=1.1)
    score = lambda model, x: float(model.log_prob(x).sum()) / test.size  # noqa: E731
    flat = np.full((size, size), 1 / size, np.float32)
    chain = jg.MarkovChain.from_values(None, flat, initial_prior=1.1, transition_prior=1.1)
    nats = {"independent": score(leaf(KEY, train), test[0])}
    nats["Markov chain"] = score(jg.fit(KEY, chain, pieces, steps=1).model, test)
    seconds = {}
    for k in (16, 64):
        begun = time.perf_counter()
        start = jg.HMM.init(KEY, pieces, k, leaf, stickiness=1 / k, transition_prior=1.01)
        hmm = jg.fit(KEY, start, pieces, steps=steps, tolerance=0.0).model
        seconds[f"HMM, K={k}"] = time.perf_counter() - begun
        nats[f"HMM, K={k}"] = score(hmm, test)
    return {
        "measured on": "tinyshakespeare, the last tenth, nats per character", "test characters": test.size,
        "letters": size, "a small GPT, published": 1.47, "steps of EM": steps,
        "nats": {name: -value for name, value in nats.items()},
        "perplexity": {name: np.exp(-value) for name, value in nats.items()}, "training s with compilation": seconds,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--develop", action="store_true")
    parser.add_argument("--only", choices=("tagging", "chorales", "characters"))
    options = parser.parse_args()
    if options.develop:
        print(tagging(options.data_dir, True))
        return
    begun = time.perf_counter()
    tables = {"tagging": lambda folder: tagging(folder, False), "chorales": chorales, "characters": characters}
    if options.only:
        print(tables[options.only](options.data_dir))
        return
    rows = {name: table(options.data_dir) for name, table in tables.items()}
    report("sequences", {**rows, "all s": time.perf_counter() - begun})


if __name__ == "__main__":
    main()
