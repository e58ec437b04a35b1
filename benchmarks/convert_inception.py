"""Turns the checkpoint of pytorch-fid into the file that `jaxgen.metrics.inception` reads. Run it where torch is.

    python benchmarks/convert_inception.py pt_inception-2015-12-05-6726825d.pth [inception-2015-12-05.npz]

The checkpoint is a release of https://github.com/mseitzer/pytorch-fid (Apache-2.0), made from TensorFlow's graph. The
names and layouts of its arrays are kept; what counts batches is left out. Without a second path the file goes to where
`Inception.from_file` looks for it.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np

#: the first digits of the checkpoint's sha256, which its name ends in
CHECKPOINT = "6726825d"
PLACE = Path("~/.cache/jaxgen/inception-2015-12-05.npz")


def main() -> None:
    import torch  # only the converter needs it

    parser = argparse.ArgumentParser(description="Convert the weights of InceptionV3.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=PLACE.expanduser())
    args = parser.parse_args()
    digest = hashlib.sha256(args.checkpoint.read_bytes()).hexdigest()
    if not digest.startswith(CHECKPOINT):
        raise SystemExit(f"{args.checkpoint} has sha256 {digest}, not one that begins with {CHECKPOINT}")
    state = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
    arrays = {name: value.numpy() for name, value in state.items() if not name.endswith("num_batches_tracked")}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(args.out, **arrays)
    print(f"{args.out}: {len(arrays)} arrays, {sum(value.size for value in arrays.values()):,} numbers")


if __name__ == "__main__":
    main()
