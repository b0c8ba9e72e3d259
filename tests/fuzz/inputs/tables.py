"""Hostile tables, options and files of the command line.

The arguments of a case: files by name (bytes, or a function that makes them), `words`, more
arguments of the command, `environment`, and `during`, an event when the command calls a function.
"""

import gzip
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from fuzz.inputs.arrays import of
from fuzz.inputs.case import Case, Refused, Same, Warned

ROWS = 24
TABLE, MODEL = "t.csv", "model.safetensors"
NUMBERS = (np.arange(2.0 * ROWS).reshape(ROWS, 2) * 7 % 23 - 11) / 4
COLUMNS: dict[str, list[Any]] = {
    "a": NUMBERS[:, 0].tolist(),
    "b": NUMBERS[:, 1].tolist(),
    "kind": [("red", "green", "blue")[i % 3] for i in range(ROWS)],
    "group": [f"g{i % 4}" for i in range(ROWS)],
    "sold": [("no", "yes")[i % 2] for i in range(ROWS)],
    "price": (NUMBERS[:, 0] * 2 + NUMBERS[:, 1]).tolist(),
}
TRAINING = 16  # rows for training, after 0.2 of them for the test and 0.15 for validation


def text(columns: dict[str, list[Any]], separator: str = ",") -> bytes:
    """The columns as a CSV file."""
    lines = [columns, *zip(*columns.values(), strict=True)]
    return "".join(separator.join(map(str, line)) + "\n" for line in lines).encode()


def insert(column: str, cell: Any, *rows: int) -> bytes:
    """The table with that cell in these rows of a column, counted from 0."""
    changed = [cell if i in (rows or (2,)) else old for i, old in enumerate(COLUMNS[column])]
    return text(COLUMNS | {column: changed})


def replace(column: str, cells: Any) -> bytes:
    """The table with another column of that name."""
    return text(COLUMNS | {column: list(cells)})


def parquet(columns: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    of("polars", "DataFrame")(columns, strict=False).write_parquet(buffer)
    return buffer.getvalue()


def case(
    row: str, name: str, expected: Any, call: str = "train", *words: str, **files: Any
) -> Case:
    """A case of a command; a file `t_csv` is the table t.csv."""
    arguments = {key.replace("_", ".", 1): value for key, value in files.items()}
    return Case(
        f"{call}: {name}",
        row,
        lambda: {"words": words, **{k: v() if callable(v) else v for k, v in arguments.items()}},
        lambda: expected,
        calls=(call,),
        surfaces=("command line",),
    )


def refused(row: str, call: str, table: bytes, name: str, says: str, *words: str) -> Case:
    title = f"{name} {says} {' '.join(words)}".strip()
    return case(row, title, Refused(name, says), call, *words, t_csv=table)


GAPS = insert("price", "", 2, 5)
VALUES = [
    refused("values", "train", insert("a", "inf"), "a", "1 infinite value.*row 3"),
    refused("values", "train", insert("a", "-inf", 1, 4), "a", "2 infinite values.*row 2"),
    refused("values", "train", insert("b", "1e400"), "b", "1 infinite value.*row 3"),
    refused("values", "train", insert("price", "inf"), "price", "1 infinite value.*row 3"),
    refused("values", "train", GAPS, "price", "2 missing cells.*row 3"),
    refused("values", "train", insert("price", "", *range(ROWS)), "price", "missing"),
    refused("values", "train", insert("price", "NA"), "price", "1 missing cell.*row 3"),
    refused("values", "train", insert("price", "1+2j"), "price", "holds string",
            "--task", "regression"),
    refused("values", "train", insert("price", "word"), "price", "string", "--task", "regression"),
    refused("values", "predict", insert("a", "word"), "a", "number in training"),
    refused("values", "predict", insert("a", "inf"), "a", "1 infinite value.*row 3"),
    refused("values", "predict", insert("b", "2026-01-01", *range(ROWS)), "b", "number"),
    refused("values", "predict", text({"a": COLUMNS["a"]}), "b", "no column"),
    refused("values", "score", GAPS, "price", "2 missing cells.*row 3"),
    refused("values", "score", insert("price", "word"), "price", "string"),
    refused("values", "score", insert("price", "inf"), "price", "infinite"),
    refused("values", "score", text({"a": [1, 2]}), "price", "no column"),
    refused("values", "train", text({"a": [1, 2], "b": [2, 3]}), "price", "no column"),
    case("values", "no column of that name", Refused("prise", "did you mean 'price'"), "train",
         "--target", "prise"),
    case("values", "missing cells", Warned(""), t_csv=insert("a", "NaN", 1, 2, 9)),
    case("values", "missing targets dropped", Warned(""), "train", "--drop-missing-target",
         t_csv=GAPS),
]  # fmt: skip

ALIKE = Same({})
SHUFFLED = dict(reversed(COLUMNS.items()))
GZ, TSV, PARQUET = ("t.csv.gz",), ("t.tsv",), ("t.parquet",)
LAYOUTS = [
    case("layouts", name, ALIKE, call, *words, **files)
    for name, call, words, files in (
        ("lines that end as on Windows", "train", (),
         {"t_csv": text(COLUMNS).replace(b"\n", b"\r\n")}),
        ("a byte order mark", "train", (), {"t_csv": b"\xef\xbb\xbf" + text(COLUMNS)}),
        ("no newline at the end", "train", (), {"t_csv": text(COLUMNS)[:-1]}),
        ("quoted cells", "train", (), {"t_csv": text(COLUMNS).replace(b"red", b'"red"')}),
        ("quoted names", "train", (), {"t_csv": text(COLUMNS).replace(b"kind,", b'"kind",')}),
        ("a number written with an exponent", "train", (),
         {"t_csv": text(COLUMNS | {"a": [f"{v:.6e}" for v in COLUMNS["a"]]})}),
        ("a compressed table", "train", ("TABLE", "t.csv.gz"),
         {"t_csv.gz": gzip.compress(text(COLUMNS))}),
        ("tabs", "train", ("TABLE", "t.tsv"), {"t_tsv": text(COLUMNS, "\t")}),
        ("Parquet", "train", ("TABLE", "t.parquet"), {"t_parquet": lambda: parquet(COLUMNS)}),
        ("columns in another order", "predict", (), {"t_csv": text(SHUFFLED)}),
        ("Parquet", "predict", ("TABLE", "t.parquet"), {"t_parquet": lambda: parquet(COLUMNS)}),
        ("lines that end as on Windows", "predict", (),
         {"t_csv": text(COLUMNS).replace(b"\n", b"\r\n")}),
    )
]  # fmt: skip

# Tables that are nearly empty, or far wider than long
EMPTY = [""] * ROWS
SPARSE = [
    case("sparse", "a column without a cell", Warned(""), t_csv=replace("a", EMPTY)),
    case("sparse", "a column with one cell", Warned(""), t_csv=replace("a", [1, *EMPTY[1:]])),
    case("sparse", "a column without a cell", Same({"t.csv": replace("a", ["NA"] * ROWS)}),
         "predict", t_csv=replace("a", EMPTY)),
    case("sparse", "every second cell empty", Warned(""), t_csv=replace(
        "a", [v if i % 2 else "" for i, v in enumerate(COLUMNS["a"])])),
    case("sparse", "a hundred columns of zeros", Warned(""),
         t_csv=text(COLUMNS | {f"z{i}": [0] * ROWS for i in range(100)})),
    case("sparse", "categories that never repeat", Warned(""),
         t_csv=replace("kind", [f"k{i}" for i in range(ROWS)])),
    case("sparse", "a column of no type", Warned(""), "train", "TABLE", "t.parquet",
         t_parquet=lambda: parquet(COLUMNS | {"a": [None] * ROWS})),
    case("sparse", "lists in cells", Refused("a", "List"), "train", "TABLE", "t.parquet",
         t_parquet=lambda: parquet(COLUMNS | {"a": [[1, 2]] * ROWS})),
    case("sparse", "bytes in cells", Refused("a", "Binary"), "train", "TABLE", "t.parquet",
         t_parquet=lambda: parquet(COLUMNS | {"a": [b"x"] * ROWS})),
]  # fmt: skip

FAR = [1.7e308 if i % 2 else -1.7e308 for i in range(ROWS)]
OVERFLOW = [
    case("overflow", "1e39 in a column", Warned(""), t_csv=insert("a", "1e39")),
    case("overflow", "1e300 in a column", Warned(""), t_csv=insert("a", "1e300")),
    *(
        refused("overflow", "train", insert("price", f"{row}e300", row), "price", f"{row}e.300")
        for row in (2, 5, 9)
    ),
    case("overflow", "1.7e308 in a column", Warned(""), "predict", t_csv=insert("a", "1.7e308")),
    case("overflow", "an integer of 30 digits", Warned(""), t_csv=insert("a", "1" * 30)),
    case(
        "overflow",
        "subnormal numbers",
        Warned(""),
        t_csv=replace("a", [f"{5e-324 * (i + 1):g}" for i in range(ROWS)]),
    ),
    refused("overflow", "train", replace("a", FAR), "a", "range"),
    refused("overflow", "train", replace("price", FAR), "price", "range"),
    refused(
        "overflow",
        "train",
        replace("price", [1e308 + 1e306 * i for i in range(ROWS)]),
        "price",
        "too large",
    ),
    case("overflow", "1e300 in a column", Warned(""), "predict", t_csv=insert("a", "1e300")),
    refused("overflow", "predict", insert("a", "1e309"), "a", "infinite"),
    refused("overflow", "score", insert("price", "1e309"), "price", "infinite"),
]

HEADER = text({name: [] for name in COLUMNS})
FIRST = {name: cells[:1] for name, cells in COLUMNS.items()}
LITTLE = [
    refused("little", "train", text(FIRST), TABLE, "one row"),
    refused("little", "train", HEADER, TABLE, "no rows"),
    refused("little", "predict", HEADER, TABLE, "no rows"),
    refused("little", "score", text(FIRST), TABLE, "one row"),
    refused("little", "train", replace("price", [3] * ROWS), "price", "constant"),
    refused("little", "train", replace("sold", ["no"] * ROWS), "sold", "constant",
            "--target", "sold"),
    refused("little", "train", text({n: c[:2] for n, c in COLUMNS.items()}), "rows", "train on"),
    refused("little", "train", replace("group", ["g"] * ROWS), "group", "two", "--group", "group"),
    case("little", "a constant column", Warned(""), t_csv=replace("a", [3] * ROWS)),
    case("little", "nothing but a constant column", Warned("constant"),
         t_csv=text({"a": [3] * ROWS, "price": COLUMNS["price"]})),
    case("little", "one row", Warned(""), "predict", t_csv=text(FIRST)),
]  # fmt: skip

FULL = {"words": ("--batch-size", str(TRAINING))}
BATCH = [
    *(
        case("batch", f"--batch-size {size}", Warned("batch.*clipped", FULL), "train",
             "--batch-size", size)
        for size in ("17", "1000", str(2**40), str(2**70))
    ),
    case("batch", "a batch in float64", Warned("clipped"), "train", "--batch-size", "99",
         "--dtype", "float64"),
    case("batch", "no word of a batch", Same(FULL), "train"),
]  # fmt: skip


def option(name: str, value: str, says: str = "", call: str = "train") -> Case:
    """An option out of its range: the error names it."""
    expected = Refused(name, says or f"{value}")
    return case("settings", f"--{name} {value}"[:40], expected, call, f"--{name}={value}")


SETTINGS = [
    *(option("learning-rate", value) for value in ("-1", "nan", "inf", "fast")),
    *(option("batch-size", value) for value in ("0", "-3", "2.5", "all")),
    *(option("epochs", value) for value in ("0", "-1", "1.5", "many")),
    *(option("seed", value) for value in ("-1", "1.5", str(2**64))),
    *(option("hidden", value, says) for value, says in (
        ("0", "0"), ("8,-1", "-1"), ("8,,8", "''"), ("wide", "wide"), ("2.5", "2.5"), ("", "''"))),
    *(option("dropout", value) for value in ("1", "-0.1", "nan", "half")),
    *(option("weight-decay", value) for value in ("-1", "nan", "some")),
    *(option("test-size", value) for value in ("0", "1", "-1", "nan", "half")),
    *(option("activation", value) for value in ("rellu", "leaky_relu:7")),
    option("optimizer", "adamm"),
    option("schedule", "cosin"),
    option("loss", "sqared_error"),
    option("dtype", "float16"),
    option("precision", "half"),
    *(option("n-threads", value) for value in ("0", "-1", "many")),
    option("task", "ranking"),
    *(
        case("settings", f"--{name} {column}", Refused(column, says), "train", f"--{name}={column}")
        for name, column, says in (
            ("drop", "nothing", "no column"), ("drop", "price", "target"),
            ("group", "nothing", "no column"), ("group", "price", "target"),
            ("time", "nothing", "no column"), ("time", "kind", "neither a time"),
        )
    ),
]  # fmt: skip

KNOWN = "Known|unknown|GPU"
DEVICES = [
    *(
        case("devices", f"--device {word!r}", Refused("device", KNOWN, early=call != "doctor"),
             call, f"--device={word}")
        for word, call in (
            ("tpu", "train"), ("gpu:-1", "train"), ("gpu:x", "train"), ("", "train"),
            ("GPU", "train"), ("tpu", "doctor"), ("gpu:x", "doctor"), ("gqu", "demo"),
        )
    ),
    case("devices", "a bad variable", Refused("XPMLP_DEVICE", KNOWN), environment="tpu"),
    case("devices", "tf32 on a CPU", Refused("precision", "GPU"), "train", "--precision=tf32"),
]  # fmt: skip

SGD = ("--optimizer=sgd", "--activation=identity", "--epochs=60")
DIVERGENCE = [
    case("divergence", name, Refused("learning-rate", "diverged in epoch"), "train", *SGD, *words)
    for name, words in (
        ("a rate of 1e10", ("--learning-rate=1e10",)),
        ("a rate of 1e300", ("--learning-rate=1e300", "--dtype=float64")),
        ("a rate of 1e30 of labels", ("--learning-rate=1e30", "--target=sold")),
        ("a rate of 1e10, --json", ("--learning-rate=1e10", "--json")),
        ("a rate of 1e10 and a picture", ("--learning-rate=1e10", "--plot=fit.png")),
    )
]

CUT = Refused("interrupted", "", (KeyboardInterrupt,))
INTERRUPT = [
    case("interrupt", f"Ctrl-C in {at}", CUT, call, during=("interrupt", at))
    for call, at in (
        ("train", "xpmlp.cli.train.read_table"),
        ("train", "xpmlp.tabular.fitting.train"),
        ("train", "xpmlp.training.trainer.Trainer.run_epoch"),
        ("predict", "xpmlp.cli.predict.read_table"),
        ("predict", "xpmlp.cli.predict.write_atomic"),
        ("score", "xpmlp.cli.score.evaluate"),
        ("inspect", "xpmlp.cli.inspect.read"),
    )
]

NO_MEMORY = (MemoryError, ValueError)
MEMORY = [
    *(
        case("memory", f"--hidden {size}", Refused("hidden", "[0-9,]+ bytes"), "train",
             f"--hidden={size}")
        for size in (str(2**50), str(2**70), f"{2**28},{2**28}")
    ),
    *(
        case("memory", f"no memory in {at}", Refused("memory", ""), call, during=("exhaust", at))
        for call, at in (
            ("train", "xpmlp.training.trainer.Trainer.run_epoch"),
            ("predict", "xpmlp.cli.predict.read_table"),
            ("score", "xpmlp.cli.score.evaluate"),
        )
    ),
]  # fmt: skip


def changed(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """A change of the good model file."""
    return change


NO_MODEL, NO_CHECKPOINT = "not a whole model file", "not a whole checkpoint"
CKPT = "--checkpoint=run.ckpt"
NOISE = bytes(range(128, 256)) * 2 + b"\n\xff,\xfe\n"
FILES = [
    *(
        case("files", name, Refused(TABLE, says), "train", t_csv=data)
        for name, data, says in (
            ("an empty table", b"", "empty"),
            ("a blank table", b"\n\n", "not a readable table"),
            ("noise", NOISE, "not a readable table"),
            ("a row too long", text(COLUMNS) + b"1,2,3,4,5,6,7,8\n", "not a readable table"),
            ("zeros", b"\0" * 64, ""),
            ("two columns of one name", text(COLUMNS).replace(b"a,b,", b"b,b,", 1), "'b'"),
        )
    ),
    case("files", "half a Parquet", Refused("t.parquet", "not a readable table"), "train", "TABLE",
         "t.parquet", t_parquet=lambda: parquet(COLUMNS)[:100]),
    case("files", "half a gzip", Refused("t.csv.gz", "not a readable table"), "train", "TABLE",
         "t.csv.gz", **{"t_csv.gz": gzip.compress(text(COLUMNS))[:40]}),
    case("files", "no such table", Refused("nothing.csv", "does not exist"), "train", "TABLE",
         "nothing.csv"),
    case("files", "another ending", Refused("t.xlsx", "end in"), "train", "TABLE", "t.xlsx",
         t_xlsx=b"PK"),
    case("files", "a model in no folder", Refused("no/m.st", "folder no does not exist"), "train",
         "--save=no/m.st"),
    case("files", "a model over its table", Refused(TABLE, "destroy"), "train", f"--save={TABLE}"),
    case("files", "a model over its picture", Refused("p.png", "same file"), "train",
         "--save=p.png", "--plot=p.png"),
    case("files", "a picture of another kind", Refused("plot", "end in"), "train", "--plot=p.txt"),
    *(
        case("files", f"--checkpoint: {name}", Refused(said, says, early="limit" not in more),
             "train", *words, **more)
        for name, said, says, words, more in (
            ("in no folder", "no/run.ckpt", "does not exist", ("--checkpoint=no/run.ckpt",), {}),
            ("a directory", ".", "directory", ("--checkpoint=.",), {}),
            ("no name", ".", "directory", ("--checkpoint=",), {}),
            ("over its table", TABLE, "destroy", (f"--checkpoint={TABLE}",), {}),
            ("the table resumed", TABLE, "destroy", (f"--checkpoint={TABLE}", "--resume"), {}),
            ("over its model", "run.ckpt", "same file",
             ("--checkpoint=run.ckpt", "--save=run.ckpt"), {}),
            ("over its picture", "run.png", "same file",
             ("--checkpoint=run.png", "--plot=run.png"), {}),
            ("there already", "run.ckpt", "add --resume", (CKPT,), {"run_ckpt": b""}),
            ("an empty file", "run.ckpt", NO_CHECKPOINT, (CKPT, "--resume"), {"run_ckpt": b""}),
            ("noise", "run.ckpt", NO_CHECKPOINT, (CKPT, "--resume"), {"run_ckpt": NOISE}),
            ("a model", MODEL, NO_CHECKPOINT, (f"--checkpoint={MODEL}", "--resume"), {}),
            ("a full disk", "run.ckpt", "", (CKPT,), {"limit": 64}),
            ("no word of it", "resume", "--checkpoint", ("--resume",), {}),
        )
    ),
    case("files", "a full disk", Refused("m.st", ""), "train", "--save=m.st", limit=64),
    case("files", "a full disk", Refused("p.csv", ""), "predict", "--out=p.csv", limit=64),
    case("files", "predictions over the model", Refused(MODEL, "destroy"), "predict",
         f"--out={MODEL}"),
    case("files", "predictions of another kind", Refused("out", "csv"), "predict", "--out=p.txt"),
    case("files", "predictions in no folder", Refused("no/p.csv", "folder"), "predict",
         "--out=no/p.csv"),
    *(
        case("files", name, Refused(MODEL, says), call, model=damage)
        for call in ("predict", "score", "inspect")
        for name, damage, says in (
            ("an empty model", lambda: lambda data: b"", NO_MODEL),
            ("half a model", lambda: lambda data: data[: len(data) // 2], NO_MODEL),
            ("a changed byte", lambda: lambda data: data[:-9] + b"\1" + data[-8:], "SHA-256"),
            ("noise", lambda: lambda data: NOISE, NO_MODEL),
            ("no model", lambda: lambda data: None, "does not exist"),
        )
    ),
]  # fmt: skip

CASES = [
    *VALUES, *LAYOUTS, *SPARSE, *OVERFLOW, *LITTLE, *BATCH, *SETTINGS, *DEVICES, *DIVERGENCE,
    *INTERRUPT, *MEMORY, *FILES,
]  # fmt: skip
