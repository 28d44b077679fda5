"""What `nmt info` tells: of a model folder, or of this machine."""

import platform
from pathlib import Path
from typing import Any

from nmt import __version__

NOISE = ("recurrent_dropout", "zoneout")  # of the recurrence, in training


def describe_model(folder: str | Path) -> dict[str, Any]:
    """Facts about a model folder, by name."""
    from nmt import checkpoint
    from nmt.model.recurrent import WAYS, recurrent_layers
    from nmt.translator import choose_device

    translator = checkpoint.task(folder) == checkpoint.TRANSLATOR
    saved = checkpoint.load(folder) if translator else checkpoint.load_language_model(folder)
    device = choose_device("auto")
    layers = recurrent_layers(saved.model)
    info = saved.info
    scores = [f"{score['score']:.2f} ({score['signature']})" for found in info["scores"].values() for score in found]
    names = [f"{text} {score['name']}" for text, found in info["scores"].items() for score in found]
    return {
        "task": "translation" if translator else "language model",
        "languages": " to ".join(info["languages"]),
        "parameters": sum(parameter.numel() for parameter in saved.model.parameters()),
        **_network(saved.config["model"], translator),
        "recurrence": "; ".join(sorted({WAYS[layer.path(device, False, False)] for layer in layers})) + f" on {device}",
        **_origin(info, saved.config, translator),
        **dict(zip(names, scores, strict=True)),
    }


def _cell(model: dict[str, Any]) -> str:
    """The cell, with what makes the recurrence another than it usually is."""
    from nmt.model.seq2seq import ModelOptions

    usual, said = ModelOptions(), [model["cell"]]
    for name in (*("peepholes", "projection", "extra_projection", "reset", "transition", "residual"), *NOISE):
        if (value := model.get(name, getattr(usual, name))) != getattr(usual, name):
            said.append(name.replace("_", " ") + ("" if value is True else f" {value}"))
    return ", ".join(said)


def _network(model: dict[str, Any], translator: bool) -> dict[str, Any]:
    if not translator:
        return {"cell": _cell(model), "layers": f"{model['decoder_layers']} layers of {model['hidden_size']}"}
    sides = (
        f"2 x {model['hidden_size'] // 2} in both directions" if model["bidirectional"] else f"{model['hidden_size']}"
    )
    return {
        "cell": _cell(model),
        "encoder": f"{model['encoder_layers']} layers of {sides}",
        "decoder": f"{model['decoder_layers']} layers of {model['hidden_size']}",
        "attention": model["attention"],
    }


def _origin(info: dict[str, Any], config: dict[str, Any], translator: bool) -> dict[str, Any]:
    """The vocabulary, and what the weights come from."""
    learnt = f"{info['steps']:,} updates, nmt {info['version']}"
    mean = {"weights": f"the mean of {', '.join(info['averaged'])}"} if "averaged" in info else {}
    if not translator:
        trained = f"{info['sentences']:,} sentences, {learnt}"
        return {"vocabulary": f"{info['vocabulary']['target']:,} pieces", "trained on": trained, **mean}
    return {
        "vocabulary": f"{info['vocabulary']['source']:,} and {info['vocabulary']['target']:,} pieces",
        "trained on": f"{info['pairs']:,} pairs, {learnt}",
        **mean,
        **({"tuned by": info["tuning"]["command"]} if "tuning" in info else {}),
        "decoding": ", ".join(f"{name} {value}" for name, value in config.get("search", {}).items()),
    }


def describe_machine() -> dict[str, Any]:
    """Versions, devices, and the arithmetic that training would choose on them."""
    import lightning
    import sentencepiece
    import torch

    from nmt.training import choose_precision
    from nmt.translator import choose_device

    device = choose_device("auto")
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "nmt": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "sentencepiece": sentencepiece.__version__,
        "CPU": f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}",
        "GPU": ", ".join(gpus) or "none",
        "kernels": _kernels(),
        "training": f"on {device} in {choose_precision('auto', device)}",
    }


def _kernels() -> str:
    """Whether our own serve, and why not."""
    from nmt import native

    try:
        native.load()
    except native.NoKernelsError as error:
        return f"torch's alone: {error}"
    return f"our own and torch's; compiled ones are in {native.folder()}"
