"""The character-level language model under attack: alphabet, LSTM, training, and log-probabilities of many similar texts."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..common.progress import progress

ALPHABET = (
    "\n abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'-@$%&()/~"  # the first ends and begins a line, the last stands for all else
)
CODES = {letter: code for code, letter in enumerate(ALPHABET)}


def tokens_of(text: str, device: torch.device | str) -> Tensor:
    """Character codes (T,) of a text in lower case; letters outside the alphabet become `~`."""
    return torch.tensor([CODES.get(letter, CODES["~"]) for letter in text.lower()], device=device, dtype=torch.long)


def text_of(tokens: Tensor) -> str:
    """The text of character codes (T,)."""
    return "".join(ALPHABET[code] for code in tokens.tolist())


class CharLSTM(nn.Module):
    """Embedding, LSTM layers, linear output."""

    def __init__(self, width: int, layers: int):
        super().__init__()
        self.embedding = nn.Embedding(len(ALPHABET), width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)
        self.out = nn.Linear(width, len(ALPHABET))

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Draws all weights anew, uniform within ±1/√width, as PyTorch does for an LSTM."""
        bound = self.lstm.hidden_size**-0.5
        for parameter in self.parameters():
            parameter.uniform_(-bound, bound, generator=generator)

    def forward(self, tokens: Tensor) -> Tensor:
        """Next-character logits (B, T, A) of character codes (B, T)."""
        return self.out(self.lstm(self.embedding(tokens))[0])

    @torch.no_grad()
    def log_probs(self, tokens: Tensor) -> Tensor:
        """log P(token t | tokens before t) in nats, (B, T - 1), of codes (B, T).

        Texts that begin alike are in the same state, so each distinct beginning is computed once: all candidates of a format
        cost little more than one text and the tree of their random parts.
        """
        count, length = tokens.shape
        group = torch.zeros(count, device=tokens.device, dtype=torch.long)  # which beginning each text has
        shape = (self.lstm.num_layers, 1, self.lstm.hidden_size)
        state = (torch.zeros(shape, device=tokens.device), torch.zeros(shape, device=tokens.device))
        found = []
        for t in range(length - 1):
            if bool((tokens[:, t] == tokens[0, t]).all()):  # no beginning splits here
                parent = torch.arange(state[0].shape[1], device=tokens.device)
                step = tokens[:1, t].expand(len(parent))
            else:
                beginnings, group = torch.unique(group * len(ALPHABET) + tokens[:, t], return_inverse=True)
                parent, step = beginnings // len(ALPHABET), beginnings % len(ALPHABET)
            state = (state[0][:, parent].contiguous(), state[1][:, parent].contiguous())
            out, state = self.lstm(self.embedding(step).unsqueeze(1), state)
            found.append(self.out(out[:, 0]).log_softmax(-1)[group, tokens[:, t + 1]])
        return torch.stack(found, dim=1)


def pad(lines: Sequence[str], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Codes (N, T) of lines, each between two line ends filled up with line ends, and how many are to be predicted (N,)."""
    codes = [tokens_of(f"\n{line}\n", device) for line in lines]
    sizes = torch.tensor([len(code) - 1 for code in codes], device=device)
    return nn.utils.rnn.pad_sequence(codes, batch_first=True, padding_value=CODES["\n"]), sizes


def line_loss(model: CharLSTM, tokens: Tensor, sizes: Tensor) -> Tensor:
    """Mean cross-entropy in nats a character of padded lines (B, T), the filling left out."""
    logits, target = model(tokens[:, :-1]), tokens[:, 1:]
    places = torch.arange(target.shape[1], device=tokens.device)
    target = target.masked_fill(places >= sizes[:, None], -100)
    return nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())


def train(model: CharLSTM, lines: Sequence[str], epochs: int, batch_size: int, lr: float, generator: torch.Generator) -> None:
    """Trains in place on lines with Adam, from weights drawn anew; the learning rate falls to 0 along a cosine."""
    model.reset(generator)
    device = model.out.weight.device
    tokens, sizes = pad(lines, device)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    steps = epochs * -(-len(lines) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in progress(range(epochs), "training the language model", epochs):
        order = torch.randperm(len(lines), generator=generator, device=generator.device).to(device)
        for rows in order.split(batch_size):
            width = int(sizes[rows].max()) + 1
            loss = line_loss(model, tokens[rows, :width], sizes[rows])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()


@torch.no_grad()
def perplexity(model: CharLSTM, lines: Sequence[str]) -> float:
    """Perplexity a character on lines: exp of the mean cross-entropy."""
    tokens, sizes = pad(lines, model.out.weight.device)
    return float(line_loss(model, tokens, sizes).exp())
