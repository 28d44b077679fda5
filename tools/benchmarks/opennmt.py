"""OpenNMT-py: its options, its commands, and what its log says."""

import re
from pathlib import Path

from benchmarks.processes import BenchmarkError
from benchmarks.systems import TORCH, Setting, System, written


class OpenNMT(System):
    """OpenNMT-py."""

    def training(self, python: Path, setting: Setting) -> list[str | Path]:
        """`onmt_train`: a bucket of its usual size, sorted by length; input feeding where there is attention."""
        options = {
            "data": {"corpus": {"path_src": "train.src", "path_tgt": "train.tgt", "transforms": [], "weight": 1}},
            "save_data": "opennmt",
            "src_vocab": "vocabulary.counted",
            "tgt_vocab": "vocabulary.counted",
            "share_vocab": True,
            "save_model": "opennmt",
            "train_steps": setting.updates,
            "save_checkpoint_steps": setting.updates,
            "report_every": setting.every,
            "valid_steps": 10**9,
            "batch_type": "sents",
            "batch_size": setting.sentences,
            "num_workers": 0,
            "model_dtype": "fp32",
            "encoder_type": "brnn",
            "decoder_type": "rnn",
            "rnn_type": "LSTM",
            "layers": setting.layers,
            "hidden_size": setting.hidden,
            "word_vec_size": setting.embedding,
            "global_attention": setting.attention,
            "input_feed": int(setting.attention != "none"),
            "share_embeddings": True,
            "share_decoder_embeddings": setting.embedding == setting.hidden,
            "dropout": [0.3],
            "label_smoothing": 0.1,
            "optim": "adam",
            "learning_rate": 0.001,
            "max_grad_norm": 1,
            "world_size": 1,
            "seed": 1,
        }
        return [python.with_name("onmt_train"), "-config", written(setting.folder / "opennmt.yaml", options)]

    def translating(
        self, python: Path, setting: Setting, name: str, beam: int, batch: int
    ) -> tuple[list[str | Path], Path]:
        """`onmt_translate`."""
        output = setting.folder / "opennmt.out"
        model = setting.folder / f"opennmt_step_{setting.updates}.pt"
        files = ["-model", model, "-src", setting.folder / f"{name}.src", "-output", output]
        how = [
            "-beam_size",
            str(beam),
            "-batch_size",
            str(batch),
            "-max_length",
            str(setting.longest),
            "-max_length_ratio",
            "0",
        ]
        return [python.with_name("onmt_translate"), *files, *how, "-report_time"], output

    def rates(self, log: str) -> list[float]:
        """From `...; 660/691 tok/s; ...`: source and target."""
        return [float(target) for target in re.findall(r"[\d.]+/ *([\d.]+) tok/s", log)]

    def duration(self, log: str, lines: int) -> float:
        """From `Average translation time (ms): 71.5`."""
        found = re.findall(r"Average translation time \(ms\): ([\d.]+)", log)
        if not found:
            raise BenchmarkError(f"{self.name} did not say how long it took")
        return float(found[-1]) * lines / 1000


OPENNMT = OpenNMT(
    "OpenNMT-py",
    "OpenNMT-py==3.5.1",
    (
        *(TORCH, "configargparse", "tensorboard", "pyonmttok", "ctranslate2", "pyyaml", "sacrebleu", "rapidfuzz"),
        *("pyahocorasick", "six", "flask", "waitress", "setuptools"),
    ),
    absent=("fasttext", "spacy"),
)
