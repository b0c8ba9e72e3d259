#!/usr/bin/env python
"""Fetch the public data sets of the benchmarks, each checked by its SHA-256.

    python scripts/fetch_data.py
    python scripts/fetch_data.py california adult --out /tmp/data

Two digests verify a file: `public`, of the bytes that the source sends, and `content`, of what is
written, before compression. They differ for a set that is converted (adult) and for one that the
source compresses (mnist). The sources are pinned to a commit.

Exit status: 0 all files are present, 2 an error (nothing of that file is written).
"""

import argparse
import gzip
import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from xpmlp.names import nearest
from xpmlp.storage.atomic import write_atomic

RAW = "https://raw.githubusercontent.com"
TIMEOUT = 60  # seconds without a byte
ADULT_HEADER = (
    b"age,workclass,fnlwgt,education,education_num,marital_status,occupation,relationship,race,"
    b"sex,capital_gain,capital_loss,hours_per_week,native_country,income\n"
)


def unchanged(data: bytes) -> bytes:
    return data


def with_header(data: bytes) -> bytes:
    """The UCI table with a header, and missing cells empty instead of "?"."""
    return ADULT_HEADER + data.replace(b"?", b"") + b"\n"


@dataclass(frozen=True)
class Source:
    """A file to fetch."""

    url: str
    public: str  # SHA-256 of what the url sends
    content: str  # SHA-256 of what is written, uncompressed
    convert: Callable[[bytes], bytes] = unchanged


SETS: dict[str, dict[str, Source]] = {
    "california": {
        "california.csv.gz": Source(
            f"{RAW}/ageron/handson-ml2/1e2115277b50f6c584cd668fa30e3af309a5b136"
            "/datasets/housing/housing.csv",
            "8a3727f4cf54ac1a327f69b1d5b4db54c5834ea81c6e4efc0d163300022a685e",
            "8a3727f4cf54ac1a327f69b1d5b4db54c5834ea81c6e4efc0d163300022a685e",
        )
    },
    "diamonds": {
        "diamonds.csv.gz": Source(
            f"{RAW}/mwaskom/seaborn-data/71e2436a092d714350de0fc409ca8a8714e7e78f/diamonds.csv",
            "9574730b03aba241d899c4a97511c5061b19358fab89510774fb6c24168345c4",
            "9574730b03aba241d899c4a97511c5061b19358fab89510774fb6c24168345c4",
        )
    },
    "adult": {
        "adult.csv.gz": Source(
            f"{RAW}/jbrownlee/Datasets/d20fcb6402ae34e653d4513b00f39257bb37ed7f/adult-all.csv",
            "21e0ea2f925a00338929a8c86c27354c72ac1c79819bcca81c7d91c3d64218c2",
            "9479f8b76861e48c66836d97937f2c5a469581672e12c795d770b297817ae3a1",
            with_header,
        )
    },
    "mnist-10k": {
        "mnist-10k-images-idx3-ubyte.gz": Source(
            f"{RAW}/fgnt/mnist/ae608a02b796c9ee908c082585a5f006fe05258e/t10k-images-idx3-ubyte.gz",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            gzip.decompress,
        ),
        "mnist-10k-labels-idx1-ubyte.gz": Source(
            f"{RAW}/fgnt/mnist/ae608a02b796c9ee908c082585a5f006fe05258e/t10k-labels-idx1-ubyte.gz",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            gzip.decompress,
        ),
    },
}


def check(data: bytes, digest: str, name: str) -> None:
    """Raise ValueError if the SHA-256 of `data` is not `digest`."""
    actual = hashlib.sha256(data).hexdigest()
    if actual != digest:
        raise ValueError(f"{name} has SHA-256 {actual}, not {digest}: nothing was written")


def is_up_to_date(path: Path, source: Source) -> bool:
    """Whether `path` already has the content, however it was compressed."""
    try:
        digest = hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
    except (OSError, EOFError):
        return False
    return digest == source.content


def fetch(path: Path, source: Source) -> str:
    """Write the source to `path`, compressed; return a message. ValueError for other bytes."""
    if is_up_to_date(path, source):
        return "is there already"
    with urlopen(source.url, timeout=TIMEOUT) as response:
        data: bytes = response.read()
    check(data, source.public, source.url)
    content = source.convert(data)
    check(content, source.content, f"{path.name}, made from {source.url},")
    write_atomic(path, gzip.compress(content, mtime=0))  # mtime: the same bytes every time
    return f"written, {len(content):,} bytes of content"


def select(names: Sequence[str]) -> list[str]:
    """The requested sets, all by default; ValueError with the nearest for an unknown name."""
    for name in names:
        if name not in SETS:
            hint = nearest(name, list(SETS))
            raise ValueError(f"data set {name!r} is unknown{hint} Known: {', '.join(SETS)}")
    return list(names or SETS)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Fetch public data sets, checked by SHA-256.")
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"{', '.join(SETS)} (all)")
    parser.add_argument("--out", type=Path, default=Path("data"), help="folder (./data)")
    options = parser.parse_args(arguments)
    try:
        names = select(options.sets)
        options.out.mkdir(parents=True, exist_ok=True)
        for name in names:
            for file, source in SETS[name].items():
                print(f"{options.out / file}: {fetch(options.out / file, source)}")
    except (OSError, EOFError, ValueError) as error:
        print(f"fetch_data: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fetch_data: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
