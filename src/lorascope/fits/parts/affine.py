"""An affine map after each site, applied to the dictionary's reconstruction.

    x̂ ↦ x̂ W + s c        starting at W = 1, c = 0; s the stream's mean norm

It can be folded into the decoder, z D W + (b_dec W + s c), so that what it makes of a dictionary
is a dictionary with the same latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lorascope.fits.parts.part import AtSites, Values, orthonormal, same_lengths, standing
from lorascope.fits.settings import Affine
from lorascope.models.sites import Site, parse_site
from lorascope.outputs.splicing import Placed, Splice

FOLDER = "affine"


class AffineMap(nn.Module):
    """x̂ W + s c, in rows."""

    def __init__(self, width: int, scale: float, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.eye(width, device=device))
        self.shift = nn.Parameter(torch.zeros(width, device=device))

    @property
    def bias(self) -> Float[Tensor, " d"]:
        """s c, in the stream's units."""
        return self.scale * self.shift

    def forward(self, x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
        """In the precision of the weights."""
        return x @ self.weight + self.bias


class AffinePart(AtSites[AffineMap]):
    """Affine maps at every site of a splice, put there by `on`."""

    name = "affine"

    @classmethod
    @contextmanager
    def on(
        cls, splice: Splice, settings: Affine, scales: Mapping[Site, float]
    ) -> Iterator[AffinePart]:
        """Within the `with`, what stands at each site goes through its map.

        Args:
            scales: mean norm of the stream at each site.
        """
        maps = {
            site: AffineMap(one.d_model, scales[site], one.directions.device)
            for site, one in splice.dictionaries.items()
        }
        part = cls(maps, settings.rate)
        with standing(splice) as before:
            for site, inner in before.items():
                splice.standing[site] = partial(part._after, site, inner)
            yield part

    def scrambled(self, random: torch.Generator) -> Values:
        """W − 1 with the same singular values and random singular vectors, c turned at random."""
        values: Values = []
        for each in self.fitted.values():
            weight, width = each.weight.detach(), len(each.shift)
            change = weight.double().cpu() - torch.eye(width, dtype=torch.float64)
            left, right = (orthonormal(width, width, random) for _ in range(2))
            drawn = left * torch.linalg.svdvals(change) @ right.T + torch.eye(width).double()
            values.append((each.weight, drawn.to(weight)))
            values.append((each.shift, same_lengths(each.shift.detach().cpu(), random)))
        return values

    @torch.no_grad()
    def dictionaries(self, placed: Placed) -> Placed:
        """The maps folded into the decoders; directions are then no longer of unit norm."""
        found: Placed = {}
        for site, one in placed.items():
            weight, bias = self.fitted[site].weight.detach(), self.fitted[site].bias.detach()
            found[site] = one.rewritten(one.directions @ weight, one.decoder_bias @ weight + bias)
        return found

    def save(self, folder: Path) -> None:
        """`affine/<site>.safetensors`: weight [d, d] and bias [d] of x̂ weight + bias."""
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        for site, each in self.fitted.items():
            tensors = {"weight": each.weight, "bias": each.bias}
            plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
            save_file(plain, folder / FOLDER / f"{site}.safetensors")

    def _after(
        self, site: Site, inner: Callable[[Tensor], Tensor], x: Float[Tensor, "*rows d"]
    ) -> Float[Tensor, "*rows d"]:
        found = inner(x)
        return self.fitted[site](found) if self._active else found


def read_affine(
    folder: Path,
) -> dict[Site, tuple[Float[Tensor, "d d"], Float[Tensor, " d"]]]:
    """{site: (weight, bias)} of the affine maps saved with a fit."""
    files = (folder / FOLDER).glob("*.safetensors")
    loaded = {parse_site(file.stem): load_file(file) for file in files}
    return {site: (each["weight"], each["bias"]) for site, each in sorted(loaded.items())}
