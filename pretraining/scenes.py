"""Synthetic images with masks of the structures that segmentation data usually show.

A scene has a textured background and a random choice of four kinds of structures: cells (separate
or a tissue with membranes), the membranes between them, thin lines, and large figures. Contrast,
texture, color, blur, noise and illumination are random, so that only the shape tells what belongs
to a structure. No real image is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

STRUCTURES = ("cells", "membranes", "lines", "figures")
"""Names of the target channels."""

MAX_CELLS = 64
"""Largest number of cells in a scene."""


@dataclass(frozen=True)
class Scenes:
    """A batch of synthetic images and masks."""

    images: Tensor
    """(B, 3, S, S), standardized for each image and channel; half of them are gray."""

    masks: Tensor
    """(B, 4, S, S), 0 or 1, one channel for each of STRUCTURES."""


class SceneGenerator:
    """Draws scenes on a device; all random numbers come from the generator that is given."""

    def __init__(self, device: str, seed: int):
        self.device = device
        self.generator = torch.Generator(device).manual_seed(seed)

    def draw(self, batch: int, size: int) -> Scenes:
        """Draw a batch of scenes of size x size pixels."""
        points = self._warped_grid(batch, size)
        cells, membranes, shades = self._draw_cells(points)
        lines = self._draw_lines(batch, size)
        figures = self._draw_figures(points)
        images = self._paint_background(batch, size)
        for mask, shade in ((figures, None), (cells, shades), (membranes, None), (lines, None)):
            images = self._paint(images, mask, shade)
        # A structure hides what lies below it, but only lines are narrow enough to leave it whole.
        figures = figures * (1 - torch.maximum(cells, membranes))
        masks = torch.stack([cells, membranes, lines, figures], dim=1)
        return Scenes(self._photograph(images), masks)

    def _uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        drawn = torch.rand(shape, generator=self.generator, device=self.device)
        return low + (high - low) * drawn

    def _log_uniform(self, *shape: int, low: float, high: float) -> Tensor:
        return torch.exp(self._uniform(*shape, low=math.log(low), high=math.log(high)))

    def _happens(self, probability: float, *shape: int) -> Tensor:
        return (self._uniform(*shape) < probability).float()

    def _field(self, batch: int, channels: int, size: int, scale_px: Tensor) -> Tensor:
        """Draw Gaussian noise, smoothed over scale_px (B,) pixels, with mean 0 and std 1."""
        shape = (batch, channels, size, size)
        white = torch.randn(shape, generator=self.generator, device=self.device)
        smooth = _smooth(white, scale_px)
        mean, std = smooth.mean((2, 3), keepdim=True), smooth.std((2, 3), keepdim=True)
        return (smooth - mean) / (std + 1e-6)

    def _texture(self, batch: int, size: int) -> Tensor:
        """Draw noise of three channels, partly equal, with a power-law or a band spectrum."""
        fine = self._field(batch, 3, size, self._log_uniform(batch, low=0.4, high=3))
        coarse = self._field(batch, 3, size, self._log_uniform(batch, low=2, high=20))
        share, color = self._uniform(2, batch, 1, 1, 1).unbind()
        mixed = share * fine + (1 - share) * coarse
        return color * mixed + (1 - color) * mixed[:, :1]

    def _warped_grid(self, batch: int, size: int) -> Tensor:
        """Return pixel coordinates (B, 2, S, S), displaced smoothly."""
        axis = torch.arange(size, device=self.device, dtype=torch.float32)
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"))
        scale = self._log_uniform(batch, low=4, high=24)
        strength = self._uniform(batch, 1, 1, 1, high=0.5) * scale.view(-1, 1, 1, 1)
        return grid + strength * self._field(batch, 2, size, scale)

    def _draw_cells(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return cells, membranes (B, S, S), and a shade in [-1, 1] for each cell's pixels."""
        batch, _, size, _ = points.shape
        count = self._log_uniform(batch, 1, low=2, high=MAX_CELLS)
        seeds = self._uniform(batch, MAX_CELLS, 2, low=-0.1, high=1.1) * size
        order = torch.arange(MAX_CELLS, device=self.device)
        seeds = torch.where((order < count)[..., None], seeds, torch.full_like(seeds, 1e5))
        angle = self._uniform(batch, MAX_CELLS, high=math.pi)
        stretch = self._log_uniform(batch, MAX_CELLS, low=0.6, high=1.6)
        y = points[:, None, 0] - seeds[..., 0, None, None]
        x = points[:, None, 1] - seeds[..., 1, None, None]
        cos, sin = angle.cos()[..., None, None], angle.sin()[..., None, None]
        s = stretch[..., None, None]
        distances = torch.sqrt(((cos * y + sin * x) * s) ** 2 + ((cos * x - sin * y) / s) ** 2)
        nearest, index = distances.topk(2, dim=1, largest=False)
        spacing = 1.2 * size / count.sqrt()
        radii = spacing * self._uniform(batch, MAX_CELLS, low=0.2, high=0.6)
        radii = radii * self._happens(0.85, batch, MAX_CELLS)
        own = index[:, 0].flatten(1)
        radius = radii.gather(1, own).view(batch, size, size)
        shade = self._uniform(batch, MAX_CELLS, low=-1).gather(1, own).view(batch, size, size)
        gap = nearest[:, 1] - nearest[:, 0]
        width = self._log_uniform(batch, 1, 1, low=2, high=10)
        kind = self._uniform(batch, 1, 1)
        tissue, separate = (kind < 0.35).float(), (kind > 0.45).float()
        round_cells = (nearest[:, 0] < radius).float() * (gap > 1.5).float()
        cells = tissue * (gap > width).float() + separate * round_cells
        return cells, tissue * (gap <= width).float(), shade

    def _draw_lines(self, batch: int, size: int) -> Tensor:
        """Return lines (B, S, S) along the zero levels of smooth fields, and straight ones."""
        scale = self._log_uniform(batch, low=5, high=30)
        field = self._field(batch, 1, size, scale)[:, 0] - self._uniform(
            batch, 1, 1, low=-1.5, high=1.5
        )
        slope = torch.stack(torch.gradient(field, dim=(1, 2))).norm(dim=0)
        width = self._log_uniform(batch, 1, 1, low=0.7, high=4)
        varied = width * torch.exp(0.3 * self._field(batch, 1, size, 2 * scale)[:, 0])
        curved = (field.abs() / (slope + 1e-4) < varied).float()
        present = self._field(batch, 1, size, 3 * scale)[:, 0] > self._uniform(
            batch, 1, 1, low=-2, high=1
        )
        return curved * present * self._happens(0.45, batch, 1, 1)

    def _draw_figures(self, points: Tensor) -> Tensor:
        """Return large irregular blobs and rounded boxes (B, S, S)."""
        batch, _, size, _ = points.shape
        total = torch.zeros(batch, size, size, device=self.device)
        for _ in range(3):
            center = self._uniform(batch, 2, low=0.1, high=0.9) * size
            radius = size * self._log_uniform(batch, 1, 1, low=0.08, high=0.45)
            angle = self._uniform(batch, 1, 1, high=math.pi)
            stretch = self._log_uniform(batch, 1, 1, low=0.6, high=1.6)
            y, x = (points[:, axis] - center[:, axis, None, None] for axis in (0, 1))
            cos, sin = angle.cos(), angle.sin()
            u, v = (cos * y + sin * x).abs() * stretch, (cos * x - sin * y).abs() / stretch
            power = self._log_uniform(batch, 1, 1, low=1.5, high=8)
            distance = ((u / radius) ** power + (v / radius) ** power) ** (1 / power)
            rough = self._uniform(batch, 1, 1, high=0.35)
            shape = 1 - distance + rough * self._field(batch, 1, size, radius.flatten() / 2)[:, 0]
            total = torch.maximum(total, (shape > 0).float() * self._happens(0.35, batch, 1, 1))
        return total

    def _paint_background(self, batch: int, size: int) -> Tensor:
        color = self._uniform(batch, 3, 1, 1, low=-1)
        return color + self._uniform(batch, 1, 1, 1, high=0.6) * self._texture(batch, size)

    def _paint(self, images: Tensor, mask: Tensor, shade: Tensor | None) -> Tensor:
        """Give a structure a color that differs from what it covers, and a texture of its own."""
        batch, _, size, _ = images.shape
        sign = 2 * self._happens(0.5, batch, 1, 1, 1) - 1
        contrast = sign * self._log_uniform(batch, 1, 1, 1, low=0.25, high=2)
        color = contrast * self._uniform(batch, 3, 1, 1, low=0.2, high=1)
        if shade is not None:
            color = color + self._uniform(batch, 1, 1, 1, high=0.5) * shade[:, None]
        own = self._uniform(batch, 1, 1, 1, high=0.6) * self._texture(batch, size)
        # Some structures are transparent, others hide the texture below them.
        opacity = self._uniform(batch, 1, 1, 1, low=0.3)
        level = images.mean((2, 3), keepdim=True)
        inside = images * (1 - opacity) + opacity * level + color + own
        soft = _smooth(mask[:, None], self._uniform(batch, low=0.3, high=1.5))
        return images + soft * (inside - images)

    def _photograph(self, images: Tensor) -> Tensor:
        """Add illumination, blur and noise, change the gamma, turn half gray, and standardize."""
        batch, _, size, _ = images.shape
        light = self._field(batch, 1, size, self._uniform(batch, low=20, high=60))
        images = images + self._uniform(batch, 1, 1, 1, high=0.5) * light
        images = _smooth(images, self._uniform(batch, low=0.2, high=1.8))
        noise = torch.randn(images.shape, generator=self.generator, device=self.device)
        strength = self._log_uniform(batch, 1, 1, 1, low=0.01, high=0.5)
        images = images + strength * images.std((1, 2, 3), keepdim=True) * noise
        gray = self._happens(0.5, batch, 1, 1, 1)
        images = gray * images.mean(1, keepdim=True) + (1 - gray) * images
        low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
        gamma = self._log_uniform(batch, 1, 1, 1, low=0.6, high=1.6)
        images = ((images - low) / (high - low + 1e-6)) ** gamma
        mean, std = images.mean((2, 3), keepdim=True), images.std((2, 3), keepdim=True)
        return (images - mean) / (std + 1e-4)


def _smooth(images: Tensor, scale_px: Tensor) -> Tensor:
    """Convolve (B, C, S, S) with Gaussians of standard deviation scale_px (B,), periodically."""
    size = images.shape[-1]
    y = torch.fft.fftfreq(size, device=images.device)[:, None]
    x = torch.fft.rfftfreq(size, device=images.device)
    squared = (y**2 + x**2)[None, None]
    weights = torch.exp(-2 * (math.pi * scale_px.view(-1, 1, 1, 1)) ** 2 * squared)
    return torch.fft.irfft2(torch.fft.rfft2(images) * weights, s=(size, size))
