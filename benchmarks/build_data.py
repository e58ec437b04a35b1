"""Makes the files of jaxgen/data/files from the public originals; the files in the package came out of this script.

    python benchmarks/build_data.py --data-dir ../shared/data

reads `fashion_mnist/*-ubyte.gz` (the official four files), `hmm_series/datasets_faithful.csv` (R's `faithful`),
`hmm_series/earthquakes.csv`, `regime_switching/areturns.csv` and `text/timemachine.txt` below `--data-dir`, and the
digits from scikit-learn. It writes six files, deterministically (the same inputs, numpy and lzma give the same bytes),
and prints sizes and sha256. Origins and licences: jaxgen/data/files/LICENSES.md.
"""

from __future__ import annotations

import argparse
import hashlib
import lzma
import zipfile
from pathlib import Path

import numpy as np

from jaxgen.data import read_csv, read_idx

PACKAGE_FILES = Path(__file__).resolve().parent.parent / "jaxgen" / "data" / "files"
N_TRAIN, N_TEST = 4000, 1000  # of Fashion-MNIST's 60,000 and 10,000: what keeps the whole package under 5 MB with room


def savez(path: Path, **arrays: np.ndarray) -> None:
    """What `np.savez_compressed` writes, packed by LZMA, which is a seventh smaller; `np.load` reads both."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # of a fixed date, so that the same arrays are the same bytes
            entry.compress_type = zipfile.ZIP_LZMA
            with archive.open(entry, "w") as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def build_digits(out: Path) -> Path:
    from sklearn.datasets import load_digits  # only the builder needs scikit-learn

    source = load_digits()
    images, labels = source.images.astype(np.uint8), source.target.astype(np.uint8)
    if not np.array_equal(images, source.images):
        raise SystemExit("scikit-learn's digits are not whole numbers in 0..255")
    savez(out / "digits.npz", images=images, labels=labels)
    return out / "digits.npz"


def build_fashion(data_dir: Path, out: Path) -> Path:
    folder = data_dir / "fashion_mnist"
    parts = [("train", N_TRAIN), ("t10k", N_TEST)]
    images = np.concatenate([read_idx(folder / f"{part}-images-idx3-ubyte.gz")[:n] for part, n in parts])
    labels = np.concatenate([read_idx(folder / f"{part}-labels-idx1-ubyte.gz")[:n] for part, n in parts])
    savez(out / "fashion_mnist.npz", images=images, labels=labels)
    return out / "fashion_mnist.npz"


def build_table(source: Path, columns: tuple[str, ...], target: Path) -> Path:
    """Keeps the named columns, numbers in their shortest exact form."""
    table = read_csv(source)
    values = table.values[:, [table.columns.index(c) for c in columns]]
    lines = [",".join(columns)] + [",".join(f"{value:.15g}" for value in row) for row in values]
    target.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    return target


def build_text(data_dir: Path, out: Path) -> Path:
    target = out / "time_machine.txt.xz"
    content = (data_dir / "text" / "timemachine.txt").read_bytes()
    target.write_bytes(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the data files that ship inside jaxgen.")
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of the originals")
    parser.add_argument("--out", type=Path, default=PACKAGE_FILES, help="default: the package's own folder")
    args = parser.parse_args()
    series, switching = args.data_dir / "hmm_series", args.data_dir / "regime_switching"
    made = (
        build_digits(args.out),
        build_fashion(args.data_dir, args.out),
        build_table(series / "datasets_faithful.csv", ("eruptions", "waiting"), args.out / "old_faithful.csv"),
        build_table(series / "earthquakes.csv", ("year", "count"), args.out / "earthquakes.csv"),
        build_table(switching / "areturns.csv", ("areturns",), args.out / "weekly_returns.csv"),
        build_text(args.data_dir, args.out),
    )
    for path in made:
        content = path.read_bytes()
        print(f"{path.name:<20} {len(content):>9,} bytes  sha256 {hashlib.sha256(content).hexdigest()}")
    print(f"{'total':<20} {sum(path.stat().st_size for path in made):>9,} bytes")


if __name__ == "__main__":
    main()
