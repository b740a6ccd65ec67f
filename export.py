"""Write a trained run in the formats of other programs. Each file is read back and compared with the model.

python export.py runs/small-1 --format=onnx                                # runs/small-1/export/model.onnx
python export.py runs/small-1 --format=keras --format=saved_model --output=small
python export.py runs/small-1 --format=npz --text=text.txt                 # word vectors, and the hidden states of a text

docs/export.md has an example of each format.
"""

from absl import flags

import cli
from ptb.runs.export import FORMATS, export
from ptb.runs.load import load


def define_flags(values: flags.FlagValues) -> None:
    options = {"flag_values": values}
    flags.DEFINE_multi_enum("format", None, FORMATS, "What to write: docs/export.md.", **options)
    help = "Folder to write into, beside the vocabulary and a model card. Default: the folder export of the run."
    flags.DEFINE_string("output", None, help, **options)
    flags.DEFINE_string("text", None, "With --format=npz: a text file whose hidden states are written too.", **options)
    cli.define_encoding(values, None)
    cli.define_lowercase(values, "With --text: read it in lower case.")


def main(values: flags.FlagValues, paths: list[str]) -> None:
    if not paths:
        raise flags.Error("which run? Name its folder, for example: export.py runs/small-1 --format=keras")
    if len(paths) > 1:
        raise flags.Error(f"unexpected argument {paths[1]!r}: name one run")
    if not values.format:
        raise flags.Error(f"--format: is missing; give one or more of {', '.join(FORMATS)}")
    if "npz" not in values.format:
        cli.reject_flags(values, "needs --format=npz", "text")
    if values.text is None:
        cli.reject_flags(values, "needs --text", "encoding", "lowercase")
    lm = load(paths[0], lowercase=values.lowercase)
    for name in dict.fromkeys(values.format):
        exported = export(lm, name, values.output, values.text if name == "npz" else None, values.encoding)
        print(f"{exported.path}: read back; largest difference from the model {exported.difference:.1e}", flush=True)


if __name__ == "__main__":
    cli.run(main, define_flags, takes_runs=True)
