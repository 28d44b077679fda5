"""JoeyNMT: its options, its commands, and what its log says."""

import re
from pathlib import Path

from benchmarks.processes import BenchmarkError
from benchmarks.systems import TORCH, Setting, System, written


class JoeyNMT(System):
    """JoeyNMT."""

    def training(self, python: Path, setting: Setting) -> list[str | Path]:
        """`joeynmt train`."""
        return [python, "-m", "joeynmt", "train", self.config(setting), "--skip-test"]

    def translating(
        self, python: Path, setting: Setting, name: str, beam: int, batch: int
    ) -> tuple[list[str | Path], Path]:
        """`joeynmt test`, which translates its development text of two lines first."""
        config = self.config(setting, name, beam, batch)
        output = setting.folder / "joeynmt.out"
        return [python, "-m", "joeynmt", "test", config, "--output-path", output], output.with_suffix(".out.test")

    def config(self, setting: Setting, name: str = "few", beam: int = 1, batch: int = 1) -> Path:
        """Its file of options, for training and testing alike."""
        side = {"level": "word", "voc_file": "vocabulary.txt", "max_length": 1000}
        layers = {"type": "recurrent", "rnn_type": "lstm", "num_layers": setting.layers, "dropout": 0.3}
        layers["embeddings"] = {"embedding_dim": setting.embedding, "scale": False}
        encoder = {**layers, "hidden_size": setting.hidden // 2, "bidirectional": True}
        decoder = {**layers, "hidden_size": setting.hidden, "hidden_dropout": 0.3, "input_feeding": True}
        options = {
            "name": "joeynmt",
            "model_dir": "joeynmt",
            "use_cuda": False,
            "random_seed": 1,
            "data": {
                "train": "train",
                "dev": "tiny",
                "test": name,
                "dataset_type": "plain",
                "src": {"lang": "src", **side},
                "trg": {"lang": "tgt", **side},
            },
            "training": {
                "optimizer": "adam",
                "learning_rate": 0.001,
                "label_smoothing": 0.1,
                "clip_grad_norm": 1.0,
                "scheduling": "warmupinversesquareroot",
                "learning_rate_warmup": 100,
                "batch_size": setting.sentences,
                "batch_type": "sentence",
                "normalization": "tokens",
                "epochs": 10**6,
                "updates": setting.updates,
                "overwrite": True,
                "print_valid_sents": [],
                "logging_freq": setting.every,
                "validation_freq": 10**6 * setting.every,
            },
            "testing": {
                "beam_size": beam,
                "beam_alpha": 1.0,
                "batch_size": batch,
                "batch_type": "sentence",
                "max_output_length": setting.longest,
                "eval_metrics": [],
            },
            "model": {
                "tied_embeddings": True,
                "tied_softmax": setting.embedding == setting.hidden,
                "encoder": encoder,
                "decoder": {**decoder, "init_hidden": "last", "attention": "luong"},
            },
        }
        return written(setting.folder / "joeynmt.yaml", options)

    def rates(self, log: str) -> list[float]:
        """From `..., Tokens per Sec:     1014, ...`."""
        return [float(rate) for rate in re.findall(r"Tokens per Sec: +([\d.]+)", log)]

    def duration(self, log: str, lines: int) -> float:
        """From `Generation took 12.3456[sec].`, the last, which is of the test text."""
        found = re.findall(r"Generation took ([\d.]+)\[sec\]", log)
        if not found:
            raise BenchmarkError(f"{self.name} did not say how long it took")
        return float(found[-1])


JOEYNMT = JoeyNMT(
    "JoeyNMT",
    "joeynmt==2.3.0",
    (
        *(TORCH, "numpy", "tensorboard", "sacrebleu", "sacremoses", "sentencepiece", "subword-nmt", "matplotlib"),
        *("seaborn", "pyyaml", "six", "packaging", "pandas", "datasets", "pillow", "importlib_metadata", "setuptools"),
    ),
    attentions=("general",),
)
