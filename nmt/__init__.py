"""A recurrent translator that you train on your own parallel text.

Where things are, in the order in which text meets them:

    corpus          parallel text of many formats, read pair by pair; check looks it over before training
    tokenizer       text to subword ids and back
    batches         pairs encoded to disk, grouped by length, dealt in batches
    monolingual     running text for a language model, dealt in parallel streams
    model.cells     one time step of a recurrent cell: the equations
    model.equations the way back through each cell, derived by hand; model.bptt unrolls it, model.products multiplies,
                    model.native_equations has a step in one call
    native          kernels in C for CPUs with AVX-512 VNNI, compiled when first wanted; native.training has those of
                    training
    model.recurrent the recurrence over time, exact over padding, by the fastest way there is; model.kernels torch's own
    model.attention where the decoder looks
    model.encoder   source ids to outputs and a final state
    model.decoder   the bridge from that state, and the decoder
    model.seq2seq   the translation model; model.loss its cross-entropy; model.language_model a model of one language
    model.laid      the translation model laid out for decoding, of model.laid_cells and model.laid_encoder;
                    model.narrowed with the words of a shortlist alone; model.graphed its steps as CUDA graphs
    training        loss, optimisers, schedules: the Lightning modules; hessian_free is an optimiser of ours,
                    curvature what it sees of a model; guidance leads attention
    language_training  the state that a language model carries from batch to batch
    config, fit     from options to a model folder; runs is what each task needs for it, callbacks shows progress and
                    stops on signals
    checkpoint      the model folder; averaging makes one of several
    shortlist       which target pieces may translate a source piece
    search          beam search; rules, constraints, diversity and sampling are its options, columns finds the best
                    faster, offers the few that a model names by itself, states has the rows of those still searched,
                    decoding puts them together
    steppers        ensembles, a language model beside: models made of models
    alignment, risk words that belong together; the candidate closest to all, and signs that a line is wrong
    translator      text in, text out; members: which models; answers: what is made of what they say; workers: by
                    several processes
    scoring         how probable given text is; rescoring is that for Moses's n-best lists and phrase tables
    evaluation      BLEU, chrF, TER; tuning finds the decoding options that serve it best
    plots           pictures
    cli, streams    the commands, and what flows through them; info, quickstart, translating_verb, scoring_verb and
                    tuning_verb are commands, verbs and search_flags what they share

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
