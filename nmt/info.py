"""What `nmt info` tells: of a model folder, or of this machine."""

import platform
from pathlib import Path
from typing import Any

from nmt import __version__


def describe_model(folder: str | Path) -> dict[str, Any]:
    """Facts about a model folder, by name."""
    from nmt import checkpoint
    from nmt.model.recurrent import WAYS
    from nmt.training import recurrent_layers
    from nmt.translator import choose_device

    saved, device = checkpoint.load(folder), choose_device("auto")
    layers = recurrent_layers(saved.model)
    model, search, info = saved.config["model"], saved.config.get("search", {}), saved.info
    sides = (
        f"2 x {model['hidden_size'] // 2} in both directions" if model["bidirectional"] else f"{model['hidden_size']}"
    )
    scores = [f"{score['score']:.2f} ({score['signature']})" for found in info["scores"].values() for score in found]
    names = [f"{text} {score['name']}" for text, found in info["scores"].items() for score in found]
    return {
        "languages": " to ".join(info["languages"]),
        "parameters": sum(parameter.numel() for parameter in saved.model.parameters()),
        "cell": model["cell"],
        "encoder": f"{model['encoder_layers']} layers of {sides}",
        "decoder": f"{model['decoder_layers']} layers of {model['hidden_size']}",
        "attention": model["attention"],
        "recurrence": "; ".join(sorted({WAYS[layer.path(device, False, False)] for layer in layers})) + f" on {device}",
        "vocabulary": f"{info['vocabulary']['source']:,} and {info['vocabulary']['target']:,} pieces",
        "trained on": f"{info['pairs']:,} pairs, {info['steps']:,} updates, nmt {info['version']}",
        "decoding": ", ".join(f"{name} {value}" for name, value in search.items()),
        **dict(zip(names, scores, strict=True)),
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
        "training": f"on {device} in {choose_precision('auto', device)}",
    }
