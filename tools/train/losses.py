"""The training losses: the two transducers (TDT and RNNT), CTC, and frame-level cross-entropy.

Shapes: B rows, T encoder steps, U labels, V tokens (the blank is id V), D durations.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

IMPOSSIBLE = -1e30  # a log probability that stays finite under addition, so no NaN in the backward pass
DURATIONS = (0, 1, 2, 3, 4)


def tdt_loss(logits: Tensor, labels: Tensor, steps: Tensor, label_lengths: Tensor, sigma: float = 0.0) -> Tensor:
    """Negative log likelihood of each row, [B] (Xu et al. 2023, "token-and-duration transducer").

    logits [B, T, U+1, V+1+D]: at lattice node (t, u) the tokens with blank last, then the durations 0..D-1.
    A label moves u by one and t by its duration; a blank moves t only, by at least one.  The path ends with
    a blank that lands exactly on T.  `sigma` is subtracted from every token's log probability, which makes
    paths with fewer, longer jumps more likely (logit under-normalisation).
    """
    blank, label = _token_scores(logits[..., : -len(DURATIONS)], labels)
    duration = logits[..., -len(DURATIONS) :].log_softmax(-1)
    blank, label = blank - sigma, label - sigma
    label = _close_last_labels(label, label_lengths)
    alphas = _forward(blank, label, duration)
    return -_final_score(alphas, blank, duration, steps, label_lengths)


def rnnt_loss(logits: Tensor, labels: Tensor, steps: Tensor, label_lengths: Tensor) -> Tensor:
    """Negative log likelihood of each row, [B] (Graves, "Sequence transduction", 2012); logits [B, T, U+1, V+1].

    A label moves u by one, a blank moves t by one; the path ends with a blank at the last step.
    """
    blank, label = _token_scores(logits, labels)
    label = _close_last_labels(label, label_lengths)
    sums = _climbs(label.transpose(0, 1))
    alpha = blank.new_full(blank[:, 0].shape, IMPOSSIBLE)
    alpha[:, 0] = 0.0
    alphas = []
    for t in range(blank.shape[1]):
        alpha = sums[t] + (alpha - sums[t]).logcumsumexp(-1)
        alphas.append(alpha)
        alpha = alpha + blank[:, t]
    rows = torch.arange(len(steps), device=steps.device)
    node = (rows, steps - 1, label_lengths)
    return -(torch.stack(alphas, 1)[node] + blank[node])


def _token_scores(tokens: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Log probabilities of blank and of the next label at each node, [B,T,U+1] (the label's last column unused)."""
    # logsumexp and two gathers instead of a full log_softmax: one [B,T,U+1,V+1] tensor less to keep
    total = tokens.logsumexp(-1)
    blank = tokens[..., -1] - total
    index = F.pad(labels, (0, 1))[:, None, :, None].expand(-1, tokens.shape[1], -1, 1)
    return blank, tokens.gather(-1, index).squeeze(-1) - total


def _close_last_labels(label: Tensor, label_lengths: Tensor) -> Tensor:
    """No label arc leaves u >= label_lengths."""
    positions = torch.arange(label.shape[2], device=label.device)
    closed = positions[None, :] >= label_lengths[:, None]
    return label.masked_fill(closed[:, None, :], IMPOSSIBLE)


def _forward(blank: Tensor, label: Tensor, duration: Tensor) -> Tensor:
    """Alphas [B, T, U+1]: log probability of reaching each node, before the arc that leaves it."""
    batch, steps, nodes = blank.shape
    jumps = duration.shape[-1] - 1
    # Arcs that leave column t by d = 1..D-1 steps, for all t at once: [T, D-1, B, U+1]
    stay = (blank[..., None] + duration[..., 1:]).permute(1, 3, 0, 2)
    advance = (label[..., None] + duration[..., 1:]).permute(1, 3, 0, 2)
    sums = _climbs((label + duration[..., 0]).transpose(0, 1))

    start = blank.new_full((batch, nodes), IMPOSSIBLE)
    start[:, 0] = 0.0
    outgoing: list[Tensor] = []  # per column [D-1, B, U+1]
    alphas = []
    for t in range(steps):
        arriving = [outgoing[t - d][d - 1] for d in range(1, min(jumps, t) + 1)]
        incoming = torch.stack(arriving).logsumexp(0) if arriving else start
        alpha = sums[t] + (incoming - sums[t]).logcumsumexp(-1)
        moved = F.pad(alpha + advance[t], (1, 0), value=IMPOSSIBLE)[..., :-1]
        outgoing.append(torch.logaddexp(alpha + stay[t], moved))
        alphas.append(alpha)
    return torch.stack(alphas, dim=1)


def _climbs(climb: Tensor) -> Tensor:
    """Running sums of the arcs that climb inside a column, [T, B, U+1]; they turn the climb into one scan:

    x[u] = logaddexp(in[u], x[u-1] + climb[u-1])  =>  x = sums + logcumsumexp(in - sums)
    """
    return F.pad(climb.clamp(min=-1e4).cumsum(-1), (1, 0))[..., :-1]


def _final_score(alphas: Tensor, blank: Tensor, duration: Tensor, steps: Tensor, label_lengths: Tensor) -> Tensor:
    """The paths' last blanks: from (steps - d, label_lengths) with every duration d that fits."""
    rows = torch.arange(len(steps), device=steps.device)
    scores = []
    for d in range(1, duration.shape[-1]):
        t = (steps - d).clamp(min=0)
        node = (rows, t, label_lengths)
        score = alphas[node] + blank[node] + duration[(*node, torch.full_like(rows, d))]
        scores.append(score.masked_fill(steps < d, IMPOSSIBLE))
    return torch.stack(scores).logsumexp(0)


def ctc_loss(logits: Tensor, labels: Tensor, steps: Tensor, label_lengths: Tensor) -> Tensor:
    """CTC negative log likelihood of each row, [B]; logits [B, T, V+1]; 0 where the labels do not fit."""
    log_probs = logits.log_softmax(-1).transpose(0, 1)
    blank = logits.shape[-1] - 1
    return F.ctc_loss(log_probs, labels, steps, label_lengths, blank, "none", zero_infinity=True)


def frame_loss(logits: Tensor, targets: Tensor, blank_weight: float = 0.5) -> Tensor:
    """Mean cross-entropy of logits [B, T, V+1] against frame targets [B, T]; targets of -100 are padding."""
    weights = logits.new_ones(logits.shape[-1])
    weights[-1] = blank_weight
    return F.cross_entropy(logits.transpose(1, 2), targets, weights, ignore_index=-100)
