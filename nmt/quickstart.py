"""The quick start: the corpus and the config that ship with the program, trained, scored and shown."""

import shutil
import sys
from pathlib import Path

from nmt import evaluation
from nmt.config import read
from nmt.evaluation import evaluate
from nmt.fit import fit
from nmt.translator import Translator

SAMPLES = 6


def shipped(name: str) -> Path:
    """A file or folder that ships with the program: inside the installed package, or at its place in a clone."""
    package = Path(__file__).parent
    for root in (package / "shipped", package.parent / "data", package.parent):
        if (root / name).exists():
            return root / name
    raise FileNotFoundError(f"this installation lacks {name}: install nmt again")


def train_quickstart(folder: str, *, overwrite: bool, device: str) -> None:
    """Train the quick-start model into `folder`."""
    corpus = shipped("quickstart")
    texts = [
        f"--data.{split}={corpus / name}"
        for split, name in (("train", "train"), ("validation", "val"), ("test", "test"))
    ]
    config = read([str(shipped("configs/quickstart.yaml"))], [*texts, "--output", folder])
    fit(config, overwrite=overwrite, device=device)


def report(folder: str, device: str = "auto") -> str:
    """BLEU on the test text and on combinations never seen in training, some translations, and what to try next."""
    translator = Translator.load(folder, device=device)
    lines = []
    for name, title in (("test", "test"), ("test-unseen", "combinations of words never seen in training")):
        source, reference = (evaluation.read_lines(f"{shipped('quickstart') / name}.{code}") for code in ("en", "de"))
        hypotheses = [answer.text for answer in translator.translate(source)]
        score = evaluate(hypotheses, [reference], metrics=("bleu",))[0]
        lines.append(f"BLEU {score.score:5.1f}  {title} ({len(source)} sentences; {score.signature})")
        if name == "test":
            step = len(source) // SAMPLES
            samples = list(zip(source, hypotheses, strict=True))[::step][:SAMPLES]
    shown = "\n".join(f"  {source}\n    {hypothesis}" for source, hypothesis in samples)
    return "\n".join(lines) + f"\n\nFrom the test text:\n{shown}\n\n{_next(folder)}"


def _next(folder: str) -> str:
    nmt = "nmt" if shutil.which("nmt") else str(Path(sys.executable).with_name("nmt"))
    return f"""The model is the folder {folder}. Try next:
  echo 'My sister is reading a new book.' | {nmt} translate -m {folder}
  {nmt} translate -m {folder} --n-best 3     (then type; Ctrl-D ends)
  {nmt} info -m {folder}
  {nmt} train --data.train YOURS/train --data.validation YOURS/val -o models/mine
      (YOURS/train.en and YOURS/train.de, one sentence a line)"""
