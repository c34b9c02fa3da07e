"""Muon for the hidden matrices and Adam for the rest, with averaged weights, all in float32.

One finding shaped it: on two CPU cores, bfloat16 weights with eager attention under `torch.compile` run at more than
twice the speed of float32 with SDPA; autocast gains nothing. So the model holds bfloat16 weights, which are rounded
anew in every step from the float32 weights that are trained (on a GPU too: what autocast would cast in every forward
is cast once a step).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn


class Optimizer:
    """Muon for the hidden matrices and Adam for the rest, on float32 master weights of a bfloat16 model.

    Muon orthogonalises the momentum of a matrix by five Newton-Schulz steps; matrices of one shape go through
    together. Compared with Adam it needs fewer steps, and steps are what a small machine is short of.
    """

    def __init__(self, model: nn.Module, lr: float, adam_lr: float, weight_decay: float) -> None:
        self.lr, self.adam_lr, self.weight_decay, self.steps = lr, adam_lr, weight_decay, 0
        named = list(model.named_parameters())
        self.parameters = [p for _, p in named]
        self.master = [p.detach().float().clone() for p in self.parameters]
        self.average = [m.clone() for m in self.master]
        self.first = [torch.zeros_like(m) for m in self.master]
        self.second = [torch.zeros_like(m) for m in self.master]
        self.groups: dict[tuple[int, int], list[int]] = {}
        self.plain = []
        for index, (name, p) in enumerate(named):
            if p.ndim == 2 and "embed" not in name and "lm_head" not in name:
                self.groups.setdefault((p.shape[0], p.shape[1]), []).append(index)
            else:
                self.plain.append(index)

    @torch.no_grad()
    def step(self, scale: float, decay_average: float) -> None:
        """Apply one update with every learning rate multiplied by `scale`, and forget the gradients."""
        self.steps += 1
        for shape, members in self.groups.items():
            for i in members:
                self.first[i].mul_(0.95).add_(gradient(self.parameters[i]), alpha=0.05)
            updates = torch.stack(
                [gradient(self.parameters[i]).mul(0.05).add_(self.first[i], alpha=0.95) for i in members]
            )
            updates = orthogonalise(updates) * (self.lr * scale * math.sqrt(max(1.0, shape[0] / shape[1])))
            for i, update in zip(members, updates, strict=True):
                self.master[i].mul_(1 - self.lr * scale * self.weight_decay).sub_(update)
        for i in self.plain:
            grad = gradient(self.parameters[i])
            self.first[i].lerp_(grad, 0.1)
            self.second[i].lerp_(grad.square(), 0.02)
            mean = self.first[i] / (1 - 0.9**self.steps)
            root = (self.second[i] / (1 - 0.98**self.steps)).sqrt_().add_(1e-8)
            self.master[i].sub_(mean.div_(root), alpha=self.adam_lr * scale)
        for p, m, a in zip(self.parameters, self.master, self.average, strict=True):
            p.copy_(m)
            p.grad = None
            a.lerp_(m, 1 - decay_average)

    def state(self) -> dict[str, Any]:
        """Return what a later process needs to go on."""
        return {k: getattr(self, k) for k in ("steps", "master", "average", "first", "second")}

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Take up the state of an earlier process."""
        self.steps = state["steps"]
        for key in ("master", "average", "first", "second"):
            for mine, theirs in zip(getattr(self, key), state[key], strict=True):
                mine.copy_(theirs)
        for p, m in zip(self.parameters, self.master, strict=True):
            p.copy_(m)


def gradient(parameter: nn.Parameter) -> Tensor:
    """Return the gradient in float32."""
    assert parameter.grad is not None, "step() without backward()"
    return parameter.grad.float()


def orthogonalise(update: Tensor) -> Tensor:
    """Replace the singular values of every matrix of a stack [n, rows, columns] by about one."""
    x = update.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if tall else x).float()
