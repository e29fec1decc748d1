"""Trains the heads of a random encoder to emit a few words.

A random head repeats one token or emits none, and its near-ties are resolved differently on each machine. A few hundred
steps of cross-entropy along a fixed alignment give clear decisions with many tokens, words with punctuation, several
tokens on one step and all durations, while the encoder stays random.
"""

import random
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from tools.parity.tokenizer import artificial_sentence

STEPS = 1000
GOOD_LOSS = 0.06
RATE = 5e-3  # for width 32
TOKENS_PER_STEP = 0.4


@dataclass(frozen=True)
class Path:
    """An alignment of one clip: the targets of each decision."""

    tokens: list[int]
    steps: list[int]  # per decision, the encoder step
    places: list[int]  # per decision, how many tokens came before
    targets: list[int]  # per decision, a token or blank
    durations: list[int]  # per decision, an index of the durations


def choose_tokens(tokenizer, length: int, extra: list[int], rng: random.Random) -> list[int]:
    """Tokens of artificial words for `length` encoder steps: a sentence of one word, more words, then `extra`."""
    count = max(4, round(TOKENS_PER_STEP * length) - len(extra))
    text = artificial_sentence(rng).replace(" ", ". ", 1)
    return tokenizer.text_to_ids(text)[: count - 1] + tokenizer.text_to_ids("?")[-1:] + extra


def place_tokens(count: int, length: int, rng: random.Random) -> list[int]:
    """Rising encoder steps for `count` tokens, two of them sharing one now and then."""
    return sorted(rng.choice([step, step, max(step - 1, 0)]) for step in rng.sample(range(1, length), count))


def transducer_path(tokens: list[int], length: int, blank: int, max_duration: int, rng: random.Random) -> Path:
    """Decisions of greedy decoding: RNNT for `max_duration` 0, else TDT whose durations lead to the next token.

    A token's duration may end before the next token; blanks cover the rest. A blank before an adjacent token may have
    a duration of 0, which decoders must treat as 1.
    """
    starts = [*place_tokens(len(tokens), length, rng), length]
    path = Path(tokens, [], [], [], [])
    step, place = 0, 0
    while step < length:
        is_token = starts[place] == step
        path.steps.append(step)
        path.places.append(place)
        path.targets.append(tokens[place] if is_token else blank)
        place += is_token
        gap = starts[place] - step
        duration = min(rng.choice([gap, rng.randint(min(gap, 1), gap)]), max_duration)
        path.durations.append(0 if not is_token and gap == 1 and rng.random() < 0.5 else duration)
        step += max(duration, 1) if not is_token else duration
    return path


def ctc_targets(tokens: list[int], length: int, blank: int, rng: random.Random) -> list[int]:
    """Frame labels: tokens in order, some of them held for two frames."""
    starts = sorted(rng.sample(range(length - 1), len(tokens)))
    labels = [blank] * length
    for place, (token, start) in enumerate(zip(tokens, starts, strict=True)):
        labels[start] = token
        following = starts[place + 1] if place + 1 < len(starts) else length
        if following > start + 2 and rng.random() < 0.5:
            labels[start + 1] = token
    return labels


def teach_transducer(model, views: list, paths: list[Path], is_tdt: bool) -> float:
    """Fit prediction and joint network to `paths` for every view (encoder output [B, D, T]); returns the worst loss."""
    parameters = [*model.decoder.parameters(), *model.joint.parameters()]
    blank = model.decoding.blank_id

    def loss() -> torch.Tensor:
        parts = []
        for encoded in views:
            for row, path in zip(encoded, paths, strict=True):
                logits = path_logits(model, row.T, path)
                part = cross_entropy(logits[:, : blank + 1], torch.tensor(path.targets))
                if is_tdt:
                    part = part + cross_entropy(logits[:, blank + 1 :], torch.tensor(path.durations))
                parts.append(part)
        return torch.stack(parts)

    return fit(parameters, loss)


def path_logits(model, encoded: torch.Tensor, path: Path) -> torch.Tensor:
    """Joint logits [decisions, V] along a path through [T, D]."""
    predicted, *_ = model.decoder.predict(torch.tensor([path.tokens]), None, add_sos=True, batch_size=1)
    states = model.joint.project_prednet(predicted)[0, path.places]
    frames = model.joint.project_encoder(encoded[None])[0, path.steps]
    return model.joint.joint_after_projection(frames[:, None], states[:, None])[:, 0, 0]


def teach_ctc(head, views: list, labels: list[list[int]]) -> float:
    """Fit a CTC head to frame labels for every view; returns the worst loss."""

    def loss() -> torch.Tensor:
        parts = [
            cross_entropy(log_probs[: len(row)], torch.tensor(row))
            for encoded in views
            for log_probs, row in zip(head(encoder_output=encoded), labels, strict=True)
        ]
        return torch.stack(parts)

    return fit(list(head.parameters()), loss)


def fit(parameters: list, loss) -> float:
    """Plain Adam until the worst clip is good, wide networks in smaller steps; returns its loss."""
    width = max(parameter.shape[1] for parameter in parameters if parameter.dim() > 1)
    optimizer = torch.optim.Adam(parameters, lr=RATE * (32 / width) ** 0.5)
    for _ in range(STEPS):
        optimizer.zero_grad()
        parts = loss()
        parts.mean().backward()
        optimizer.step()
        if float(parts.max()) < GOOD_LOSS:
            break
    return float(parts.max())
