"""A translation model as hessian-free sees it: one function of its parameters, whose curvature can be taken."""

import torch
from torch import Tensor, nn

from nmt.batches import Batch
from nmt.hessian_free import Objective, Outputs, softmax_cross_entropy
from nmt.model.recurrent import recurrent_layers
from nmt.model.seq2seq import Seq2Seq


class Spelling(nn.Module):
    """The model up to its logits, as one function of its parameters."""

    def __init__(self, model: Seq2Seq) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        """The logits (W, V) of all words of the batch."""
        readout = self.model(batch.source, batch.source_lengths, batch.target_in)
        logits: Tensor = self.model.output(readout.flatten(0, 1).index_select(0, batch.words))
        return logits


def objective(model: Seq2Seq, batch: Batch, smoothing: float) -> Objective:
    """What hessian-free lowers: the loss of a batch, and all hidden states for structural damping to hold."""
    network = Spelling(model)

    def forward(parameters: dict[str, Tensor]) -> Outputs:
        hidden: list[Tensor] = []

        def of_source(_layer: nn.Module, _inputs: object, outputs: tuple[Tensor, object]) -> None:
            hidden.append(outputs[0].flatten())  # (B, S, O), 0 on padding

        def of_target(_layer: nn.Module, _inputs: object, outputs: tuple[Tensor, object]) -> None:
            hidden.append(outputs[0].flatten(0, 1).index_select(0, batch.words).flatten())  # (B, T, O), words alone

        keep = [layer.register_forward_hook(of_source) for layer in recurrent_layers(model.encoder)]
        keep += [layer.register_forward_hook(of_target) for layer in recurrent_layers(model.decoder)]
        logits = torch.func.functional_call(network, parameters, (batch,))
        for hook in keep:
            hook.remove()
        return Outputs(logits, torch.cat(hidden))

    return Objective(forward, batch.target_out.flatten()[batch.words], softmax_cross_entropy(smoothing))
