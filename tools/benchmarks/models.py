"""The model that is measured: a model folder of yours, or one of random weights, made for its shape alone."""

import argparse
from pathlib import Path

import torch
from arguments import whole

from benchmarks.text import learn, read
from nmt import __version__, checkpoint
from nmt.checkpoint import SavedModel
from nmt.config import Config, dump, to_dict
from nmt.corpus import DataOptions
from nmt.model.seq2seq import ModelOptions, Seq2Seq, build_model
from nmt.quickstart import shipped
from nmt.tokenizer import EOS

NEVER = -1e4  # a logit that no other falls below


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which model."""
    parser.add_argument(
        "-m",
        "--model",
        metavar="FOLDER",
        help="a model folder; without one, random weights and 2000 pieces of the quick-start corpus",
    )
    parser.add_argument("--hidden", type=whole(1), default=512, help="cells of the random model; default: 512")
    parser.add_argument("--embedding", type=whole(1), default=512, help="its embeddings; default: 512")
    parser.add_argument("--layers", type=whole(1), default=2, help="its layers on each side; default: 2")
    parser.add_argument("--attention", default="general", choices=["none", "dot", "general", "additive"])
    parser.add_argument("--vocabulary", type=whole(1), default=2000, metavar="PIECES", help="its pieces; default: 2000")


def saved_model(options: argparse.Namespace, folder: Path) -> SavedModel:
    """The model of the folder named, or a random one, whose vocabulary is written into `folder`."""
    if options.model:
        return checkpoint.load(options.model)
    shape = ModelOptions(
        attention=options.attention,
        embedding_size=options.embedding,
        hidden_size=options.hidden,
        encoder_layers=options.layers,
        decoder_layers=options.layers,
        tie_embeddings="all",
    )
    data = DataOptions(str(shipped("quickstart") / "train"))
    tokenizers = learn(read(data), options.vocabulary, folder)
    torch.manual_seed(options.seed)
    model = build_model(shape, tokenizers.source.size, tokenizers.target.size).eval()
    return SavedModel(model, tokenizers, to_dict(Config(data=data, model=shape)), {})


def model_folder(options: argparse.Namespace, folder: Path) -> Path:
    """The folder named, or `folder` with a random model in it."""
    if options.model:
        checkpoint.read_folder(options.model)
        return Path(options.model)
    saved = saved_model(options, folder)
    write(saved, folder)
    return folder


def write(saved: SavedModel, folder: Path) -> None:
    """A model folder."""
    config = Config(model=ModelOptions(**saved.config["model"]))
    checkpoint.write_whole(folder / checkpoint.CONFIG, dump(config))
    saved.tokenizers.save(folder)
    checkpoint.save_weights(saved.model, folder)
    vocabulary = {"source": saved.tokenizers.source.size, "target": saved.tokenizers.target.size}
    checkpoint.save_info(
        {"version": __version__, "pairs": 0, "vocabulary": vocabulary, "languages": ["en", "de"]}, folder
    )


def never_ending(model: Seq2Seq) -> Seq2Seq:
    """The model with an end of sentence so improbable that every translation grows to its limit."""
    model.output.bias.data[EOS] = NEVER
    return model
