"""Inner products of updates: in weight space, and over the inputs that the base gives them.

Of two updates of one module, with K = B_iᵀ B_j and inputs x of the base on some text:

    weights:   ⟨ΔW_i, ΔW_j⟩ = tr(K · A_j A_iᵀ)
    function:  Σ_x ⟨ΔW_i x, ΔW_j x⟩ = Σ_x (A_i x)ᵀ K (A_j x)

Both are sums over r × r cores; no dense update is formed. Modules add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorascope.errors import InputError
from lorascope.models.random_updates import factor_spectrum, random_basis, random_factors
from lorascope.randomness import generator
from lorascope.resembling.factors import Factored

_NUMERICAL = 1e-6
_PURPOSE = "resemblance"


class Stack:
    """The updates of one module, one below the other.

    Raises InputError where they are of several shapes: they are not of one base.

    Attributes:
        path: the module's.
        owners: [R], which adapter a column of B and a row of A belongs to.
        B: [out, R], float32.
        A: [R, in], float32.
    """

    def __init__(self, path: str, adapters: Sequence[Factored]) -> None:
        self.path = path
        self.members = [i for i, one in enumerate(adapters) if path in one.modules]
        pairs = [adapters[i].modules[path] for i in self.members]
        shapes = [(B.shape[0], A.shape[1]) for B, A in pairs]
        for i, shape in zip(self.members, shapes, strict=True):
            if shape != shapes[0]:
                raise InputError(
                    f"{path} has shape {shapes[0]} for {adapters[self.members[0]].name} and "
                    f"{shape} for {adapters[i].name}: compare adapters of one base"
                )
        self.B = torch.cat([B for B, _ in pairs], 1)
        self.A = torch.cat([A for _, A in pairs])
        sizes = torch.tensor([A.shape[0] for _, A in pairs])
        self.owners = torch.tensor(self.members).repeat_interleave(sizes)
        self._adapters = adapters
        self._core = self.B.double().T @ self.B.double()

    def summed(self, inner: Float[Tensor, "R R"], n: int) -> Float[Tensor, "n n"]:
        """Σ over the cores of each pair of K ⊙ inner, inner = Σ z zᵀ of z = A x."""
        return by_owner(self._core * inner, self.owners, self.owners, n, n)

    def nulls(self, draws: int, seed: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """For every adapter here: its number, and B [draws, out, r] and A [draws, r, in] at random.

        Random updates of the same singular values, the same ones each time.
        """
        for i in self.members:
            one = self._adapters[i]
            B, A = one.modules[self.path]
            S = factor_spectrum(B, A).expand(draws, -1)
            random = generator(seed, _PURPOSE, one.name, self.path)
            drawn = random_factors(S, (B.shape[0], A.shape[0], A.shape[1]), random)
            yield i, drawn.B.float(), drawn.A.float()


def by_owner(
    values: Float[Tensor, "R Q"],
    rows: Int[Tensor, " R"],
    columns: Int[Tensor, " Q"],
    n: int,
    m: int,
) -> Float[Tensor, "n m"]:
    """Sums of a matrix over the rows and columns that belong together."""
    found = values.new_zeros(n, values.shape[1]).index_add_(0, rows, values)
    return values.new_zeros(n, m).index_add_(1, columns, found)


class InnerProducts:
    """What is summed over modules, for n adapters with some null adapters each.

    Attributes:
        each: [groups, n, n] between adapters; groups are documents, or a single one.
        crossed: [n, draws, n], of null d of adapter i with adapter j.
        own: [n, draws], of a null with itself.
    """

    def __init__(self, n: int, draws: int, groups: int = 1) -> None:
        self.each = torch.zeros(groups, n, n, dtype=torch.float64)
        self.crossed = torch.zeros(n, draws, n, dtype=torch.float64)
        self.own = torch.zeros(n, draws, dtype=torch.float64)

    def cosines(self) -> Float[Tensor, "n n"]:
        """Between adapters."""
        return _cosines(self.each.sum(0))

    def left_out(self) -> list[Float[Tensor, "n n"]]:
        """The same with each group left out."""
        whole = self.each.sum(0)
        return [_cosines(whole - one) for one in self.each]

    def null_cosines(self) -> Float[Tensor, "n draws n"]:
        """Of null d of adapter i with adapter j."""
        norms = self.each.sum(0).diagonal().clamp(min=0).sqrt()
        return self.crossed / (self.own.clamp(min=0).sqrt()[..., None] * norms)

    def add_null(
        self,
        stack: Stack,
        i: int,
        B: Float[Tensor, "draws out r"],
        inner: tuple[Float[Tensor, "R draws*r"], Float[Tensor, "draws r r"]],
    ) -> None:
        """Add a module's null adapters of adapter i.

        Args:
            inner: Σ z z_nullᵀ with the adapters' z, and Σ z_null z_nullᵀ of each draw.
        """
        draws, out, r = B.shape
        wide = B.double().permute(1, 0, 2).reshape(out, draws * r)
        crossed = (stack.B.double().T @ wide) * inner[0]
        which = torch.arange(draws).repeat_interleave(r)
        n = self.each.shape[1]
        self.crossed[i] += by_owner(crossed, stack.owners, which, n, draws).T
        self.own[i] += ((B.double().mT @ B.double()) * inner[1]).sum((1, 2))


def _cosines(products: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    norms = products.diagonal().clamp(min=0).sqrt()
    return products / torch.outer(norms, norms)


def in_weights(stacks: Sequence[Stack], n: int, draws: int, seed: int) -> InnerProducts:
    """Frobenius inner products."""
    found = InnerProducts(n, draws)
    for stack in stacks:
        A = stack.A.double()
        found.each[0] += stack.summed(A @ A.T, n)
        for i, B, drawn in stack.nulls(draws, seed):
            flat = drawn.double().reshape(-1, drawn.shape[2])
            inner = (A @ flat.T, drawn.double() @ drawn.double().mT)
            found.add_null(stack, i, B, inner)
    return found


class Overlaps:
    """How far the spaces that updates write, or read, lie within each other; means over modules.

    ‖Q_iᵀ Q_j‖_F² / min(r_i, r_j) with orthonormal Q: 1 where one holds the other.
    """

    def __init__(self, stacks: Sequence[Stack], n: int, side: int, draws: int, seed: int) -> None:
        """Side 0 is what updates write (columns of ΔW), side 1 what they read (rows)."""
        self.n, self.draws = n, draws
        self._sums = torch.zeros(n, n, dtype=torch.float64)
        self._nulls = torch.zeros(n, draws, n, dtype=torch.float64)
        self._counts = torch.zeros(n, n, dtype=torch.float64)
        for stack in stacks:
            self._add(stack, side, seed)

    def _add(self, stack: Stack, side: int, seed: int) -> None:
        bases = [_basis(stack, i, side) for i in stack.members]
        sizes = torch.tensor([Q.shape[1] for Q in bases])
        owners = torch.tensor(stack.members).repeat_interleave(sizes)
        Q = torch.cat(bases, 1)
        of_each = torch.ones(self.n, dtype=torch.float64)
        of_each[stack.members] = sizes.double()
        least = torch.minimum(of_each[:, None], of_each[None])
        self._sums += by_owner((Q.T @ Q).square(), owners, owners, self.n, self.n) / least
        here = torch.zeros(self.n, dtype=torch.float64)
        here[stack.members] = 1
        self._counts += torch.outer(here, here)
        for i, k in zip(stack.members, sizes.tolist(), strict=True):
            random = generator(seed, _PURPOSE, "subspace", side, i, stack.path)
            drawn = random_basis((self.draws, len(Q), k), random)
            squares = (Q.T @ drawn).square().sum(2)
            found = squares.new_zeros(self.draws, self.n).index_add_(1, owners, squares)
            self._nulls[i] += found / least[i]

    def values(self) -> Float[Tensor, "n n"]:
        """Of the adapters; nan for two that share no module."""
        return self._sums / self._counts

    def null_values(self) -> Float[Tensor, "n draws n"]:
        """Of random subspaces of the dimensions of adapter i's with adapter j's."""
        return self._nulls / self._counts[:, None]


def _basis(stack: Stack, i: int, side: int) -> Float[Tensor, "n k"]:
    """Orthonormal columns that span what an update writes (0) or reads (1), float64."""
    mine = stack.owners == i
    B, A = stack.B[:, mine].double(), stack.A[mine].double()
    q_b, r_b = torch.linalg.qr(B)
    q_a, r_a = torch.linalg.qr(A.T)
    U, S, Vh = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    kept = _NUMERICAL * S[0] < S
    return q_b @ U[:, kept] if side == 0 else q_a @ Vh.T[:, kept]
