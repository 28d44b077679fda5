"""A recurrent translator that you train on your own parallel text.

Where things are, in the order in which text meets them:

    corpus          parallel text of many formats, read pair by pair; check looks it over before training
    tokenizer       text to subword ids and back
    batches         pairs encoded to disk, grouped by length, dealt in batches
    model.cells     one time step of a recurrent cell: the equations
    model.equations the way back through each cell, derived by hand; model.bptt unrolls it, model.products multiplies
    model.recurrent the recurrence over time, exact over padding, by the fastest way there is
    model.attention where the decoder looks
    model.encoder   source ids to outputs and a final state
    model.decoder   the bridge from that state, and the decoder
    model.seq2seq   the translation model; model.loss its cross-entropy
    model.decoding  the same model laid out for decoding; model.narrowed with the words of a shortlist alone
    training        loss, optimisers, schedules: the Lightning modules; hessian_free is an optimiser of ours
    config, fit     from options to a model folder; callbacks shows progress and stops on signals
    checkpoint      the model folder
    shortlist       which target pieces may translate a source piece
    search          beam search
    translator      text in, text out
    evaluation      BLEU, chrF, TER
    cli, streams    the commands, and what flows through them; info and quickstart are two commands

In a program: `from nmt import Translator; Translator.load("model").translate(["A dog runs ."])`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nmt.translator import Translator as Translator

__version__ = "0.1.0"
__all__ = ["Translator"]


def __getattr__(name: str) -> Any:
    if name == "Translator":
        from nmt.translator import Translator

        return Translator
    raise AttributeError(f"module 'nmt' has no attribute {name!r}")
